"""Options of plugins as data: a name, a reader of its text, a default, a meaning. Checks and documents use them."""

from __future__ import annotations

import keyword
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ulogd_tw.core.near_words import nearest

LARGEST = 2**63 - 1
"""The largest integer of an option: arrays, sockets and databases take no larger one."""
LONGEST_S = 36500 * 86400
"""The longest span of time of an option, a hundred years: no timer takes a much longer one."""
MOST_ENTRIES = 2**30
"""The largest bound of a table in memory; tables take 16 to 128 octets an entry."""
QUOTED = 60
"""Characters of a value in a message."""


def number(text: str) -> int:
    """An integer as ulogd2 takes it: decimal, ``0x`` hexadecimal or ``0`` octal; a sign is allowed."""
    text = text.strip()
    match = re.fullmatch(r"([+-]?)(0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*)", text)
    if match is None:
        raise ValueError(f"{_quoted(text)} is not an integer (decimal, 0x hexadecimal or 0 octal)")
    digits = match[2]
    base = 16 if digits[:2] in ("0x", "0X") else 8 if digits[0] == "0" else 10
    value = _bounded(digits, base, text)
    return -value if match[1] == "-" else value


def _quoted(text: str) -> str:
    """The text in quotes, for a message; the end of a long one is left out."""
    return repr(text if len(text) <= QUOTED else text[:QUOTED] + "...")


def _bounded(digits: str, base: int, text: str, bits: int = 0) -> int:
    """The number of these digits, shifted by `bits`; ValueError where it does not fit into 64 bits."""
    significant = digits.lower().removeprefix("0x" if base == 16 else "").lstrip("0") or "0"
    value = int(significant, base) << bits if len(significant) <= 64 else LARGEST + 1
    return at_most(value, LARGEST, text)


def strtoul(text: str) -> int:
    """The number that C's ``strtoul(text, 0)`` reads at the beginning of a text; 0 for garbage, as in ulogd2.

    One that is too large becomes the first that no option takes.
    """
    match = re.match(r"\s*([+-]?)(0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*)", text)
    try:
        return number(match[0]) if match else 0
    except ValueError:
        return LARGEST + 1


def positive(text: str) -> int:
    """An integer of at least 1."""
    value = number(text)
    if value < 1:
        raise ValueError(f"{_quoted(text)} must be 1 or more")
    return value


def unsigned32(text: str) -> int:
    """An integer from 1 to the largest of 32 bits."""
    return at_most(positive(text), 2**32 - 1, text)


def entries(text: str) -> int:
    """A bound of a table in memory: an integer from 1 to `MOST_ENTRIES`."""
    return at_most(positive(text), MOST_ENTRIES, text)


def at_most(value: int, most: int, text: str) -> int:
    """The value, if it is not above `most`."""
    if value > most:
        raise ValueError(f"{_quoted(text)} is too large; write at most {most}")
    return value


def text(text: str) -> str:
    """The text as it is."""
    return text


def seconds(text: str) -> float:
    """A span of time: seconds, or a number with ms, s, m, h or d behind it."""
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?|\.[0-9]+)\s*(ms|s|m|h|d)?\s*", text)
    if match is None:
        raise ValueError(f"{_quoted(text)} is not a time: seconds, or a number with ms, s, m, h or d, such as 5m")
    value = float(match[1]) * {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}[match[2] or "s"]
    if value > LONGEST_S:
        raise ValueError(f"{_quoted(text)} is too long; write at most 36500d")
    return value


def whole_seconds(text: str) -> int:
    """A span of time of at least one second, in whole seconds: a number, or one with s, m, h or d behind it."""
    value = seconds(text)
    if value < 1 or value != int(value):
        raise ValueError(f"{_quoted(text)} is not a number of whole seconds, such as 60 or 5m")
    return int(value)


def octets(text: str) -> int:
    """A size: octets, or a number with k, M or G (powers of 1024) behind it."""
    match = re.fullmatch(r"\s*(0[xX][0-9a-fA-F]+|[0-9]+)\s*([kKmMgG]?)[bB]?\s*", text)
    if match is None:
        raise ValueError(f"{_quoted(text)} is not a size: octets, or a number with k, M or G, such as 4M")
    base = 16 if match[1][:2] in ("0x", "0X") else 10
    return _bounded(match[1], base, text, {"": 0, "k": 10, "m": 20, "g": 30}[match[2].lower()])


def share(text: str) -> float:
    """A part of a whole: a number of percent from 0 to 100, such as 5%."""
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*%?\s*", text)
    if match is None or float(match[1]) > 100:
        raise ValueError(f"{_quoted(text)} is not a part of a whole: a number of percent, such as 5%")
    return float(match[1]) / 100


def boolean(text: str) -> bool:
    """1, yes, on, true or 0, no, off, false."""
    word = text.strip().lower()
    if word in ("1", "yes", "on", "true"):
        return True
    if word in ("0", "no", "off", "false", ""):
        return False
    raise ValueError(f"{_quoted(text)} is neither 1 (yes, on, true) nor 0 (no, off, false)")


def words(text: str) -> tuple[str, ...]:
    """Words separated by blanks or commas."""
    return tuple(w for w in re.split(r"[\s,]+", text) if w)


def one_of(*choices: str) -> Callable[[str], str]:
    """A reader that takes one of these words."""

    def choice(text: str) -> str:
        word = text.strip()
        if word not in choices:
            near = nearest(word.lower(), choices)
            raise ValueError(
                f"{_quoted(text)} is none of {', '.join(choices)}" + (f"; did you mean {near}?" if near else "")
            )
        return word

    choice.__name__ = "|".join(choices)
    return choice


@dataclass(frozen=True, slots=True)
class Option:
    """One option of a plugin. `read` turns its text into a value and raises ValueError with the reason.

    With `mandatory` the option must be given, and `default` is None.
    """

    name: str
    read: Callable[[str], Any]
    default: Any
    meaning: str
    mandatory: bool = False


class Options:
    """The values of one instance, as attributes (`pass_` for ``pass``); `given`: the names in the configuration.

    `sections`: the values of further sections named by it, see `Plugin.section_options`.
    """

    def __init__(self, declared: tuple[Option, ...], values: dict[str, Any] | None = None) -> None:
        values = values or {}
        unknown = set(values) - {o.name for o in declared}
        if unknown:
            raise TypeError(f"no option {', '.join(sorted(unknown))}")
        self.given = frozenset(values)
        self.sections: dict[str, Options] = {}
        self.places: dict[str, str] = {}
        """``file:line`` of each option that was written, and of the section itself under ``""``."""
        self.texts: dict[str, tuple[str, ...]] = {}
        """The values as they were written, of each option that was."""
        for option in declared:
            attribute = option.name + "_" if keyword.iskeyword(option.name) else option.name
            setattr(self, attribute, values.get(option.name, option.default))

    def place(self, name: str) -> str:
        """``file:line`` of an option, else of its section; empty if nothing was written.

        ``[collector:NAME] OPTION`` is an option of a section of `sections`.
        """
        header = name[: name.find("] ") + 2] if name.startswith("[") else ""
        return self.places.get(name) or self.places.get(header) or self.places.get("", "")

    def differing(self, other: Options) -> list[str]:
        """The names of options that were written otherwise there, in order; ``[collector:NAME] OPTION`` of a section.

        Texts are compared: values may be expressions, files or networks.
        """
        names = {name for name in self.texts.keys() | other.texts if self.texts.get(name) != other.texts.get(name)}
        nothing = Options(())
        for word in self.sections.keys() | other.sections:
            within = self.sections.get(word, nothing).differing(other.sections.get(word, nothing))
            names |= {f"[collector:{word}] {name}" for name in within}
        return sorted(names)

    def __repr__(self) -> str:
        """One option a line; a password is not shown."""
        aside = ("given", "sections", "places", "texts")
        shown = {name: value for name, value in vars(self).items() if name not in aside}
        return "\n".join(
            f"{name.rstrip('_')}={'***' if name == 'pass_' and v else repr(v)}" for name, v in shown.items()
        )
