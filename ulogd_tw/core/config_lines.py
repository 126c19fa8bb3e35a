"""The lines of a configuration, by ulogd2's grammar: sections of ``key = value``."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from ulogd_tw.core.errors import Mistake

COLLECTOR = "collector:"
"""Beginning of the names of sections about one collector of an exporter."""
STORE = "store:"
"""Beginning of the names of sections about a store and its roll-ups."""
ALERT = "alert:"
"""Beginning of the names of sections about an alert."""


@dataclass
class Entry:
    """One ``key = value``; `value` is None where nothing follows the key."""

    key: str
    value: str | None
    line: int


@dataclass
class Section:
    """One ``[name]`` with its entries, and the faults of its lines (they are in `Config.mistakes` too)."""

    name: str
    line: int
    entries: list[Entry] = field(default_factory=list)
    mistakes: list[Mistake] = field(default_factory=list)


def _word(line: str, at: int, separators: str = " \t=") -> tuple[str | None, int]:
    """The next word or quoted text from `at`, and its end; None for none. Raises ValueError for an open quote."""
    while at < len(line) and line[at] in separators:
        at += 1
    if at == len(line):
        return None, at
    if line[at] == '"':
        end = line.find('"', at + 1)
        if end < 0:
            raise ValueError('the closing " is missing; write it after the value')
        return line[at + 1 : end], end + 1
    end = at
    while end < len(line) and line[end] not in separators:
        end += 1
    return line[at:end], end


def _whole(key: str, value: str | None, rest: str) -> str:
    """How to write a value of several words, or one with its unit, so that all of it counts."""
    first = rest.split()[0]
    if value and value.isdigit() and first[:1] in ("s", "m", "h", "d"):
        return f"; write {key}={value}{'ms' if first in ('ms', 'milliseconds') else first[0]}"
    return f'; write {key}="{value} {rest}"'


class Lines:
    """Reads the lines of a file into sections."""

    def __init__(self, file: str, sections: dict[str, Section]) -> None:
        self.sections = sections
        self.mistakes: list[Mistake] = []
        self._file = file
        self.section: Section | None = None
        self.ignored = False
        self.line = 0

    def read(self, text: str) -> None:
        """Fill `sections` and `mistakes`."""
        for self.line, line in enumerate(text.split("\n"), 1):
            line = line.removesuffix("\r")
            if line.lstrip(" \t=").startswith(("#", "[")):
                if line.lstrip(" \t=")[0] == "[":
                    self._header(line)
            elif line.strip(" \t="):
                self._entry(line)

    def _header(self, line: str) -> None:
        """``[name]``, by ulogd2's rule: the first word between blanks and brackets."""
        first = line.split(maxsplit=1)[0].lstrip("=")
        name: str | None
        if first.startswith("[" + COLLECTOR):  # the name may be an URL with brackets in it
            name, rest, closed = first[1:].removesuffix("]"), line.split(maxsplit=1)[1:], first.endswith("]")
        else:
            try:
                name, end = _word(line.lstrip("="), 0, " \t[]")
            except ValueError as error:
                self._mistake(str(error))
                name, end = None, len(line)
            rest, closed = [line.lstrip("=")[end:].lstrip(" \t]")], "]" in line
        self.section, self.ignored = None, not name
        if not name:
            self._mistake("a section needs a name, such as [col1]: what stands in it is ignored", True)
            return
        if not closed:
            self._mistake(f"the ] behind [{name} is missing; write [{name}]", True)
        if rest and rest[0] and not rest[0].startswith("#"):
            self._mistake(
                f"what stands behind [{name}] is ignored: {rest[0].strip()}; write it into the next line", True
            )
        if name in self.sections:
            before = self.sections[name].line
            self.ignored = True
            ignored = "this one is ignored, as in ulogd2; move its lines there"
            self._mistake(f"section [{name}] is in line {before} already: {ignored}", True)
            return
        self.section = self.sections[name] = Section(name, self.line)

    def _entry(self, line: str) -> None:
        if self.ignored:
            return
        if self.section is None:
            self._mistake(
                f"text before the first section is ignored: {line.strip()}; write [global] above it",
                True,
            )
            return
        if "\0" in line:
            self._mistake("there is a NUL in this line; delete it")
            return
        if re.search("[\udc80-\udcff]", line):
            self._mistake("this line is not UTF-8; its octets are kept as they are", True)
        key: str | None = None
        value = None
        try:
            key, end = _word(line, 0)
            value, end = _word(line, end)
        except ValueError as error:
            self._mistake(f"[{self.section.name}] {key or line.strip()}: {error}")
            return
        if key is None:
            return
        rest = line[end:].strip(" \t\r=")
        if rest and not rest.startswith("#"):
            said = f"[{self.section.name}] {key}: the text after the value is ignored: {rest}"
            self._mistake(said + _whole(key, value, rest), True)
        self.section.entries.append(Entry(key, value, self.line))

    def _mistake(self, text: str, tolerated: bool = False) -> None:
        mistake = Mistake(f"{self._file}:{self.line}", text, tolerated)
        self.mistakes.append(mistake)
        if self.section is not None:
            self.section.mistakes.append(mistake)
