"""Lines for a terminal: tables, numbers at a glance, times."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from typing import Any, TextIO

_PREFIXES = "", "k", "M", "G", "T", "P", "E"
_ENDLESS = 10_000
"""Columns where no terminal says how wide it is: nothing is cut then."""


def write_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], out: TextIO) -> None:
    """Lines of columns, numbers to the right."""
    cells = [columns, *([shown(value) for value in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    right = [all(_numeric(row[place]) for row in rows) for place in range(len(columns))]
    for row in cells:
        padded = (text.rjust(w) if r else text.ljust(w) for text, w, r in zip(row, widths, right, strict=True))
        out.write("  ".join(padded).rstrip() + "\n")


def _numeric(value: Any) -> bool:
    """Whether a value is a number, a short one such as 1.5M, or missing."""
    return not isinstance(value, str) or bool(re.fullmatch(r"-?\d+(\.\d+)?(e[+-]\d+)?[kMGTPE]", value))


def shown(value: Any) -> str:
    """A value in a table."""
    if value is None:
        return "-"
    return f"{value:.6g}" if isinstance(value, float) else printable(str(value))


def printable(text: str) -> str:
    """A text that cannot steer a terminal: control characters are written as their numbers."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def short(value: float) -> Any:
    """A number as 1.5M, to compare many at a glance."""
    size, place = float(value), 0
    while abs(size) >= 1000 and place < len(_PREFIXES) - 1:
        size, place = size / 1000, place + 1
    return f"{size:.4g}{_PREFIXES[place]}" if place else value


def duration(seconds: float) -> str:
    """A time in its two largest units: ``2 d 5 h``, ``3 min 20 s``, ``0.4 s``."""
    if seconds < 60:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    parts: list[str] = []
    left = int(seconds)
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        if left >= size or parts:
            parts.append(f"{left // size} {unit}")
        left %= size
    return " ".join(parts[:2])


def screen() -> tuple[int, int]:
    """Columns and lines of the terminal; many where there is none."""
    size = shutil.get_terminal_size((_ENDLESS, _ENDLESS))
    return size.columns, size.lines


def cut(text: str) -> str:
    """Each line of a text as wide as the terminal at most."""
    width, _ = screen()
    return "".join(line[:width].rstrip() + "\n" for line in text.splitlines())
