"""Markdown: tables, and docstrings as prose."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator


def table(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    """The lines of a table, and an empty one."""
    for cells in (heads, ("---",) * len(heads), *rows):
        yield row(cells)
    yield ""


def row(cells: tuple[str, ...]) -> str:
    """One line of a table."""
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def prose(text: str) -> Iterator[str]:
    """A docstring as Markdown: paragraphs joined, a sentence a line, code in single backticks."""
    for paragraph in text.replace("``", "`").split("\n\n"):
        yield from re.split(r"(?<=[.:]) (?=[A-Z])", " ".join(paragraph.split()))
        yield ""
