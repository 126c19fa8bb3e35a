"""Options of plugins as data: a name, a reader of its text, a default, a meaning. Checks and documents use them."""

from __future__ import annotations

import keyword
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ulogd_tw.core.keys import nearest


def number(text: str) -> int:
    """An integer as ulogd2 takes it: decimal, ``0x`` hexadecimal or ``0`` octal; a sign is allowed."""
    text = text.strip()
    match = re.fullmatch(r"([+-]?)(0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*)", text)
    if match is None:
        raise ValueError(f"{text!r} is not an integer (decimal, 0x hexadecimal or 0 octal)")
    digits = match[2]
    base = 16 if digits[:2] in ("0x", "0X") else 8 if digits[0] == "0" else 10
    return int(digits, base) * (-1 if match[1] == "-" else 1)


def strtoul(text: str) -> int:
    """The number that C's ``strtoul(text, 0)`` reads at the beginning of a text; 0 for garbage, as in ulogd2."""
    match = re.match(r"\s*([+-]?)(0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*)", text)
    return number(match[0]) if match else 0


def positive(text: str) -> int:
    """An integer of at least 1."""
    value = number(text)
    if value < 1:
        raise ValueError(f"{text!r} must be 1 or more")
    return value


def text(text: str) -> str:
    """The text as it is."""
    return text


def seconds(text: str) -> float:
    """A span of time: seconds, or a number with ms, s, m, h or d behind it."""
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?|\.[0-9]+)\s*(ms|s|m|h|d)?\s*", text)
    if match is None:
        raise ValueError(f"{text!r} is not a time: seconds, or a number with ms, s, m, h or d, such as 5m")
    return float(match[1]) * {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}[match[2] or "s"]


def whole_seconds(text: str) -> int:
    """A span of time of at least one second, in whole seconds: a number, or one with s, m, h or d behind it."""
    value = seconds(text)
    if value < 1 or value != int(value):
        raise ValueError(f"{text!r} is not a number of whole seconds, such as 60 or 5m")
    return int(value)


def octets(text: str) -> int:
    """A size: octets, or a number with k, M or G (powers of 1024) behind it."""
    match = re.fullmatch(r"\s*(0[xX][0-9a-fA-F]+|[0-9]+)\s*([kKmMgG]?)[bB]?\s*", text)
    if match is None:
        raise ValueError(f"{text!r} is not a size: octets, or a number with k, M or G, such as 4M")
    return (
        int(match[1], 0 if match[1][:2] in ("0x", "0X") else 10) << {"": 0, "k": 10, "m": 20, "g": 30}[match[2].lower()]
    )


def boolean(text: str) -> bool:
    """1, yes, on, true or 0, no, off, false."""
    word = text.strip().lower()
    if word in ("1", "yes", "on", "true"):
        return True
    if word in ("0", "no", "off", "false", ""):
        return False
    raise ValueError(f"{text!r} is neither 1 (yes, on, true) nor 0 (no, off, false)")


def words(text: str) -> tuple[str, ...]:
    """Words separated by blanks or commas."""
    return tuple(w for w in re.split(r"[\s,]+", text) if w)


def one_of(*choices: str) -> Callable[[str], str]:
    """A reader that takes one of these words."""

    def choice(text: str) -> str:
        word = text.strip()
        if word not in choices:
            near = nearest(word.lower(), choices)
            raise ValueError(f"{text!r} is none of {', '.join(choices)}" + (f"; did you mean {near}?" if near else ""))
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
