"""ulogd.conf: text -> sections with lines -> typed options. Every mistake is collected, with its place.

The grammar is ulogd2's (2.0.8): a word or ``"..."``, with blanks, tabs and ``=`` between words and ``#`` at the
beginning of a line; text after a value is ignored. A section reaches to the next word that begins with ``[``. Of
sections with the same name only the first counts (seen with 2.0.8). Lines may be of any length and end in CR LF, and
the last may lack its end.

Mistakes tolerated silently by ulogd2 have `tolerated` set: a warning, an error with ``strict=1``.
"""

from __future__ import annotations

import os
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from ulogd_tw.core.config_lines import ALERT, COLLECTOR, STORE, Entry, Lines, Section
from ulogd_tw.core.errors import ConfigError, Mistake
from ulogd_tw.core.keys import nearest
from ulogd_tw.core.options import (
    LARGEST,
    Option,
    Options,
    boolean,
    strtoul,
    words,
)
from ulogd_tw.core.stack import StackSpec
from ulogd_tw.global_options import GLOBAL_OPTIONS, Repeated
from ulogd_tw.ulogd2 import INTEGERS, SHARED_OBJECTS

INHERITED = ("queue_rows", "queue_octets")
"""Options with a default that can be set in [global]."""

_SPECIAL = ("global", "manhole", "http")


STACK = "; write one, such as stack=col1:COLLECTOR,json1:JSON"
UNNEEDED = "; delete the line, since all plugins are built in"


@dataclass(frozen=True)
class StackLine(StackSpec):
    """One ``stack=`` line of [global]; `parts` are its (instance id, plugin name) pairs."""

    line: int = 0


class Config:
    """A configuration file: its sections, its stacks, and the mistakes visible without knowledge of plugins."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.text = ""
        self.sections: dict[str, Section] = {}
        self.mistakes: list[Mistake] = []
        self._stacks: list[StackLine] = []

    def stacks(self) -> list[StackLine]:
        """The stacks in order; an unreadable stack line is a mistake instead."""
        return self._stacks

    def instances(self) -> dict[str, StackLine]:
        """Every instance id, and the first stack with it."""
        found: dict[str, StackLine] = {}
        for stack in self._stacks:
            for ident, _ in stack.parts:
                found.setdefault(ident, stack)
        return found

    def plugins_of(self, ident: str) -> set[str]:
        """The names of all plugins with this id: as in ulogd2 they may be different ones, in different stacks."""
        return {name for stack in self._stacks for other, name in stack.parts if other == ident}

    def place(self, line: int) -> str:
        """``file:line``."""
        return f"{self.file}:{line}"

    def read(
        self,
        section_name: str,
        declared: tuple[Option, ...],
        kind: str = "section",
        others: Container[str] = frozenset(),
    ) -> tuple[Options, list[Mistake]]:
        """The typed values of a section, and all its mistakes (faults of its lines once more).

        `kind` names the owner of the options: ``plugin NFCT``, ``[global]``. A wrong value leaves the default. `others`
        are options of other plugins with the same id.
        """
        section = self.sections.get(section_name)
        values: dict[str, Any]
        if section is None:
            values, mistakes = {}, self._no_section(section_name, declared)
        else:
            values, mistakes = _Reading(self, section, declared, kind, others).values()
        texts = _texts(section, declared)
        for name in INHERITED:
            default = self._inherited(name)
            if section_name != "global" and default is not None and any(o.name == name for o in declared):
                values.setdefault(name, default)
                texts.setdefault(name, (str(default),))
        options = Options(declared, values)
        options.texts = texts
        if section is not None:
            options.places = {entry.key: self.place(entry.line) for entry in section.entries}
            options.places[""] = self.place(section.line)
        return options, mistakes

    def texts(self, section_name: str) -> list[tuple[str, str | None]]:
        """The lines of a section as they are written."""
        section = self.sections.get(section_name)
        return [(entry.key, entry.value) for entry in section.entries] if section else []

    def _inherited(self, name: str) -> Any:
        section = self.sections.get("global")
        for entry in section.entries if section else ():
            if entry.key == name and entry.value is not None:
                try:
                    return next(o for o in GLOBAL_OPTIONS if o.name == name).read(entry.value)
                except ValueError:
                    return None
        return None

    def _no_section(self, name: str, declared: tuple[Option, ...]) -> list[Mistake]:
        """The values of an instance without a section: defaults, and a mistake where an option is mandatory or a name
        is near."""
        stack = self.instances().get(name)
        where = stack.where if stack else self.file
        missing = ", ".join(o.name for o in declared if o.mandatory)
        if not declared or not missing and stack is None:
            return []
        near = _did_you_mean(name, set(self.sections) - set(self.instances()) - set(_SPECIAL), "[{}]")
        if missing:
            return [Mistake(where, f"there is no section [{name}]; it must contain {missing}{near}")]
        if not near:
            return []
        return [Mistake(where, f"there is no section [{name}]: all options have their defaults{near}", True)]


def _texts(section: Section | None, declared: tuple[Option, ...]) -> dict[str, tuple[str, ...]]:
    """The values of a section's options as they are written: several of an option that may be repeated."""
    names = {option.name for option in declared}
    found: dict[str, tuple[str, ...]] = {}
    for entry in section.entries if section else ():
        if entry.key in names:
            found[entry.key] = (*found.get(entry.key, ()), entry.value or "")
    return found


class _Reading:
    """The values of one section, for the options declared for it."""

    def __init__(
        self, config: Config, section: Section, declared: tuple[Option, ...], kind: str, others: Container[str]
    ) -> None:
        self.others = others
        self.config = config
        self.section = section
        self.declared = {option.name: option for option in declared}
        self.kind = kind
        self.integers = INTEGERS.get(kind.removeprefix("plugin "), "").split()
        self.mistakes = list(section.mistakes)

    def values(self) -> tuple[dict[str, Any], list[Mistake]]:
        found: dict[str, Any] = {}
        given: dict[str, int] = {}
        for entry in self.section.entries:
            option = self.declared.get(entry.key)
            if option is None:
                if entry.key not in self.others:
                    self._unknown(entry)
            elif isinstance(option, Repeated):
                if entry.value is None:
                    self._wrong(entry, f"has no value; write {entry.key}=VALUE, or delete the line")
                else:
                    found[entry.key] = (*found.get(entry.key, ()), entry.value)
            elif entry.key in given:
                self._wrong(entry, f"is given twice (first in line {given[entry.key]}); delete one of the two lines")
            else:
                given[entry.key] = entry.line
                self._value(option, entry, found)
        for option in self.declared.values():
            if option.mandatory and option.name not in given:
                where, name = self.config.place(self.section.line), self.section.name
                self.mistakes.append(Mistake(where, f"[{name}] {option.name} must be given: {option.meaning}"))
        return found, self.mistakes

    def _value(self, option: Option, entry: Entry, found: dict[str, Any]) -> None:
        integer = entry.key in self.integers
        if entry.value is None and not integer:
            self._wrong(entry, f"has no value; write {entry.key}=VALUE, or delete the line")
            return
        try:
            if entry.value is None:
                raise ValueError("nothing")
            found[entry.key] = option.read(entry.value)
        except ValueError as error:
            if integer:
                self._integer(option, entry, found, str(error))
            else:
                self._wrong(entry, str(error))

    def _integer(self, option: Option, entry: Entry, found: dict[str, Any], why: str) -> None:
        """ulogd2's value of a text that is not an integer, where the option allows this value."""
        value = strtoul(entry.value or "")
        said = "has no value" if entry.value is None else f"{entry.value!r} is not taken"
        usable = value <= LARGEST or option.read is boolean
        for candidate in () if not usable else (value, 1) if value else (0,):
            try:
                found[entry.key] = option.read(str(candidate))
            except ValueError:
                continue
            meant = f"write {entry.key}={candidate}, or the number that is meant"
            self._wrong(entry, f"{said}; it is {candidate}, as in ulogd2; {meant}", True)
            return
        self._wrong(entry, f"{said if entry.value is None else why}; the default {option.default} stays", True)

    def _unknown(self, entry: Entry) -> None:
        near = _did_you_mean(entry.key, self.declared) or _listed(self.kind)
        what = "" if self.kind == "section" else f" of {self.kind}"
        text = f"[{self.section.name}] {entry.key} is not an option{what}: ignored{near}"
        self.mistakes.append(Mistake(self.config.place(entry.line), text, True))

    def _wrong(self, entry: Entry, what: str, tolerated: bool = False) -> None:
        where = self.config.place(entry.line)
        text = f"[{self.section.name}] {entry.key}: {what}"
        self.mistakes.append(Mistake(where, text, tolerated, option=entry.key))


def parse(text: str, file: str) -> Config:
    """The configuration in this text; `file` is its name in mistakes. Never raises."""
    config = Config(file)
    config.text = text
    lines = Lines(file, config.sections)
    lines.read(text)
    config.mistakes += lines.mistakes
    _bare_sections(config)
    _read_stacks(config)
    config.mistakes += _loaded_objects(config)
    config.mistakes += _unused_sections(config)
    return config


def default_path() -> str:
    """The file that is read where none is named: ours, else that of ulogd2."""
    ours = "/etc/ulogd-tw.conf"
    return ours if os.path.exists(ours) else "/etc/ulogd.conf"


def load(path: str) -> Config:
    """The configuration in a file. Raises ConfigError for an unreadable file."""
    try:
        with open(path, "rb") as file:
            octets = file.read()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError([Mistake(str(path), f"cannot be read: {reason}; choose another file with -c")]) from None
    if b"\0" in octets:
        binary = Config(str(path))
        binary.mistakes.append(
            Mistake(str(path), "is not a configuration: it contains NUL characters, so it is not text")
        )
        return binary
    return parse(octets.decode("utf-8-sig", "surrogateescape"), str(path))


def _pairs(line: str) -> list[tuple[str, str]]:
    """(instance id, plugin name) of ``id:PLUGIN,id:PLUGIN``; empty places are left out, as in ulogd2. ValueError."""
    found = []
    for part in line.split(","):
        ident, colon, name = (word.strip() for word in part.partition(":"))
        if not (ident or colon):
            continue
        if not (ident and name):
            raise ValueError(
                f"{part.strip()!r} is not id:PLUGIN; write an id, a colon and the name of a plugin, such as ct1:NFCT"
            )
        found.append((ident, name))
    return found


def _bare_sections(config: Config) -> None:
    """A line with only the word ``x`` begins section x in ulogd2; the same here unless there is a ``[x]``."""
    section = config.sections.get("global")
    ids = set()
    for entry in section.entries if section else ():
        if entry.key == "stack" and entry.value:
            ids |= {part.partition(":")[0].strip() for part in entry.value.split(",")}
    for section in config.sections.copy().values():
        for place, entry in reversed(list(enumerate(section.entries))):
            if entry.value is None and entry.key in ids and entry.key not in config.sections:
                bare = config.sections[entry.key] = Section(entry.key, entry.line, section.entries[place + 1 :])
                del section.entries[place:]
                bare.mistakes = [Mistake(config.place(entry.line), f"write [{entry.key}] to begin a section", True)]
                config.mistakes += bare.mistakes


def _read_stacks(config: Config) -> None:
    """The stacks of [global], and the mistakes in their lines."""
    section = config.sections.get("global")
    if section is None:
        near = _did_you_mean("global", config.sections, "[{}]")
        config.mistakes.append(Mistake(config.file, f"there is no section [global]{near or STACK}"))
        return
    lines = [entry for entry in section.entries if entry.key == "stack"]
    if not lines:
        near = _did_you_mean("stack", {e.key for e in section.entries})
        config.mistakes.append(
            Mistake(config.place(section.line), f"[global] has no stack= line: nothing to do{near or STACK}")
        )
    for entry in lines:
        where = config.place(entry.line)
        try:
            pairs = _pairs(entry.value or "")
        except ValueError as error:
            config.mistakes.append(Mistake(where, f"stack {entry.value}: {error}"))
            continue
        if not pairs:
            if entry.value is not None:  # `read` says of the others that they have no value
                config.mistakes.append(Mistake(where, f"stack: there is no id:PLUGIN{STACK}"))
            continue
        if entry.value is not None and len(pairs) < len(entry.value.split(",")):
            config.mistakes.append(
                Mistake(where, f"stack {entry.value}: the empty place between commas is ignored", True)
            )
        config._stacks.append(StackLine(entry.value or "", where, tuple(pairs), entry.line))


def _loaded_objects(config: Config) -> Iterator[Mistake]:
    """``plugin=`` lines: ulogd2's own objects are accepted silently, since their plugins are built in."""
    section = config.sections.get("global")
    for entry in section.entries if section else ():
        name = PurePath(entry.value or "").name
        if entry.key == "plugin" and entry.value is not None and name not in SHARED_OBJECTS:
            near = _did_you_mean(name, SHARED_OBJECTS)
            text = f"[global] plugin: {entry.value} is none of ulogd2's shared objects: ignored{near or UNNEEDED}"
            yield Mistake(config.place(entry.line), text, True)


def _unused_sections(config: Config) -> Iterator[Mistake]:
    """Sections of no stack: one mistake for each with a similar name in use, one for all others together."""
    ids = config.instances()
    named = {word for s in config.sections.values() for e in s.entries if e.key == "collectors" and e.value
             for word in words(e.value)}  # fmt: skip
    for name, section in config.sections.items():
        if name.startswith(COLLECTOR) and name.removeprefix(COLLECTOR) not in named:
            near = _did_you_mean(name.removeprefix(COLLECTOR), named, f"[{COLLECTOR}{{}}]")
            text = f"section [{name}] is used by no collectors="
            near = near or "; name it there, or delete it"
            yield Mistake(config.place(section.line), text + near, remark=True)
    unused = [
        s
        for n, s in config.sections.items()
        if n not in ids and n not in _SPECIAL and not n.startswith((ALERT, COLLECTOR, STORE))
    ]
    others = []
    for section in unused:
        near = _did_you_mean(section.name, [i for i in ids if i not in config.sections], "[{}]")
        if near:
            where = config.place(section.line)
            yield Mistake(where, f"section [{section.name}] is used by no stack{near}", remark=True)
        else:
            others.append(section)
    if others:
        names = ", ".join(f"[{s.name}]" for s in others)
        what = f"section {names} is" if len(others) == 1 else f"sections {names} are"
        yield Mistake(
            config.place(others[0].line),
            f"{what} used by no stack; write a stack= line with it, or delete it",
            remark=True,
        )


def _listed(kind: str) -> str:
    """Where the options of a plugin are listed, as the end of a sentence."""
    plugin = kind.removeprefix("plugin ")
    return f"; ulogd-tw -i {plugin} lists its options" if plugin != kind else ""


def _did_you_mean(name: str, names: Iterable[str], form: str = "{}") -> str:
    """``; did you mean NAME?``, or nothing. Ids are short: an id that differs only in its number is near too."""
    names = list(names)
    stem = name.rstrip("0123456789")
    near = nearest(name, names) or next((n for n in names if stem and n.rstrip("0123456789") == stem), None)
    return f"; did you mean {form.format(near)}?" if near and near != name else ""
