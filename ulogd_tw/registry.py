"""Finds plugin classes by name, loaded on first use, and describes them.

A name can belong to an input and to an output, so it is looked up by its position in the stack. Plugins of other
packages are found through the entry points ``ulogd_tw.plugins`` (the entry point's name is the plugin's name). Entry
points are read only for names that are not built in.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterable, Iterator
from functools import cache
from importlib import metadata
from typing import Any

from ulogd_tw.core.counters import flat
from ulogd_tw.core.keys import Key, known, nearest
from ulogd_tw.core.libraries import install
from ulogd_tw.core.options import Option, octets
from ulogd_tw.core.plugin import ALL, Filter, Input, Output, Plugin, type_text
from ulogd_tw.core.resolve import Provided
from ulogd_tw.errors import PluginError

INPUTS = {
    "COLLECTOR": "ulogd_tw.plugins.inputs.collector:COLLECTOR",
    "DEMO": "ulogd_tw.plugins.inputs.demo:DEMO",
    "IPFIXFILE": "ulogd_tw.plugins.inputs.ipfixfile:IPFIXFILE",
    "KAFKA": "ulogd_tw.plugins.inputs.kafka:KAFKA",
    "NFACCT": "ulogd_tw.plugins.inputs.nfacct:NFACCT",
    "NFCT": "ulogd_tw.plugins.inputs.nfct:NFCT",
    "NFLOG": "ulogd_tw.plugins.inputs.nflog:NFLOG",
    "PACKET": "ulogd_tw.plugins.inputs.packet:PACKET",
    "PCAPIN": "ulogd_tw.plugins.inputs.pcapin:PCAPIN",
    "ULOG": "ulogd_tw.plugins.inputs.ulog:ULOG",
    "UNIXSOCK": "ulogd_tw.plugins.inputs.unixsock:UNIXSOCK",
}
FILTERS = {
    "AGGREGATE": "ulogd_tw.plugins.filters.aggregate:AGGREGATE",
    "BASE": "ulogd_tw.plugins.filters.base:BASE",
    "FLOWCACHE": "ulogd_tw.plugins.filters.flowcache:FLOWCACHE",
    "GROUP": "ulogd_tw.plugins.filters.group:GROUP",
    "HWHDR": "ulogd_tw.plugins.filters.hwhdr:HWHDR",
    "IFINDEX": "ulogd_tw.plugins.filters.ifindex:IFINDEX",
    "IP2BIN": "ulogd_tw.plugins.filters.ip2bin:IP2BIN",
    "IP2HBIN": "ulogd_tw.plugins.filters.ip2hbin:IP2HBIN",
    "IP2STR": "ulogd_tw.plugins.filters.ip2str:IP2STR",
    "MARK": "ulogd_tw.plugins.filters.mark:MARK",
    "MATCH": "ulogd_tw.plugins.filters.match:MATCH",
    "PRINTFLOW": "ulogd_tw.plugins.filters.printflow:PRINTFLOW",
    "PRINTPKT": "ulogd_tw.plugins.filters.printpkt:PRINTPKT",
    "PWSNIFF": "ulogd_tw.plugins.filters.pwsniff:PWSNIFF",
}
OUTPUTS = {
    "CLICKHOUSE": "ulogd_tw.plugins.outputs.clickhouse:CLICKHOUSE",
    "DBI": "ulogd_tw.plugins.outputs.dbi:DBI",
    "GPRINT": "ulogd_tw.plugins.outputs.gprint:GPRINT",
    "GRAPHITE": "ulogd_tw.plugins.outputs.graphite:GRAPHITE",
    "IPFIX": "ulogd_tw.plugins.outputs.ipfix:IPFIX",
    "IPFIXFILE": "ulogd_tw.plugins.outputs.ipfixfile:IPFIXFILE",
    "JSON": "ulogd_tw.plugins.outputs.json:JSON",
    "KAFKA": "ulogd_tw.plugins.outputs.kafka:KAFKA",
    "LOGEMU": "ulogd_tw.plugins.outputs.logemu:LOGEMU",
    "NACCT": "ulogd_tw.plugins.outputs.nacct:NACCT",
    "MYSQL": "ulogd_tw.plugins.outputs.mysql:MYSQL",
    "OPRINT": "ulogd_tw.plugins.outputs.oprint:OPRINT",
    "PARQUET": "ulogd_tw.plugins.outputs.parquet:PARQUET",
    "PCAP": "ulogd_tw.plugins.outputs.pcap:PCAP",
    "PGSQL": "ulogd_tw.plugins.outputs.pgsql:PGSQL",
    "SQLITE3": "ulogd_tw.plugins.outputs.sqlite3:SQLITE3",
    "SYSLOG": "ulogd_tw.plugins.outputs.syslog:SYSLOG",
    "XML": "ulogd_tw.plugins.outputs.xml:XML",
}
BUILT_IN = {"input": INPUTS, "filter": FILTERS, "output": OUTPUTS}

_KINDS: dict[str, type[Plugin]] = {"input": Input, "filter": Filter, "output": Output}
_GROUP = "ulogd_tw.plugins"


def lookup(name: str, position: str) -> type[Plugin]:
    """The class of a plugin at this position: ``"input"``, ``"filter"`` or ``"output"``. Raises `PluginError`."""
    place = BUILT_IN[position].get(name)
    if place is not None:
        return _load(name, place)
    for point in _entry_points(name):
        class_ = _load_point(point)
        if issubclass(class_, _KINDS[position]):
            return class_
    raise PluginError(_why_not(name, position), name)


def built_in(names: Iterable[str]) -> bool:
    """Whether all these plugins come with this package."""
    return all(any(name in table for table in BUILT_IN.values()) for name in names)


def options_of(names: Iterable[str]) -> set[str]:
    """The names of all options of these plugins; those that are not there have none."""
    found: set[str] = set()
    for name in names:
        for position in BUILT_IN:
            try:
                found |= {option.name for option in lookup(name, position).all_options()}
            except PluginError:
                continue
    return found


@cache
def _load(name: str, place: str) -> type[Plugin]:
    module, _, attribute = place.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing == "ulogd_tw":
            raise PluginError(f"{name} is missing from this installation (no {error.name})", name) from error
        raise PluginError(f"{name} needs {missing}: {install(missing)}", name) from error
    except (ImportError, OSError, AttributeError) as error:  # OSError: a shared library that cffi does not find
        raise PluginError(f"{name} cannot be loaded: {error}", name) from error


def _load_point(point: metadata.EntryPoint) -> type[Plugin]:
    """The class of an entry point; any error of a foreign package becomes a PluginError."""
    try:
        class_ = point.load()
    except Exception as error:
        text = f"{point.name} cannot be loaded from {point.value}: {type(error).__name__}: {error}"
        raise PluginError(text, point.name) from error
    if not (inspect.isclass(class_) and issubclass(class_, Plugin)):
        raise PluginError(f"{point.name}: {point.value} is not a plugin (no subclass of Plugin)", point.name)
    return class_


def _entry_points(name: str | None = None) -> Iterable[metadata.EntryPoint]:
    """Entry points of other packages, all or those of one name."""
    return metadata.entry_points(group=_GROUP) if name is None else metadata.entry_points(group=_GROUP, name=name)


def _positions(name: str) -> list[str]:
    """The positions of plugins with this name; plugins of other packages count only if they load."""
    found = [position for position, table in BUILT_IN.items() if name in table]
    for point in _entry_points(name):
        try:
            class_ = _load_point(point)
        except PluginError:
            continue
        found += [p for p, kind in _KINDS.items() if issubclass(class_, kind) and p not in found]
    return found


def _names() -> set[str]:
    """Every name of a plugin."""
    return {name for table in BUILT_IN.values() for name in table} | {point.name for point in _entry_points()}


_PLACES = {
    "input": "but a stack begins with an input, such as NFCT or COLLECTOR",
    "filter": "but only filters may be between the first and the last plugin of a stack",
    "output": "but a stack ends with an output, such as JSON or SQLITE3",
}


def _an(word: str) -> str:
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"


LISTED = "; ulogd-tw --list-plugins lists all plugins"


def _why_not(name: str, position: str | None) -> str:
    """The reason why there is no plugin of this name at this position (None: at any position)."""
    elsewhere = _positions(name)
    if position and elsewhere:
        return f"{name} is {' or '.join(map(_an, elsewhere))}, {_PLACES[position]}"
    near = nearest(name, _names())
    return f"there is no plugin {name}" + (f"; did you mean {near}?" if near else LISTED)


def _all() -> Iterator[tuple[str, str, type[Plugin] | PluginError]]:
    """(position, name, class or the reason why it cannot be loaded) of every plugin."""
    for position, table in BUILT_IN.items():
        for name in sorted(table):
            try:
                yield position, name, lookup(name, position)
            except PluginError as error:
                yield position, name, error
    for point in sorted(_entry_points(), key=lambda p: p.name):
        try:
            class_ = _load_point(point)
        except PluginError as error:
            yield "?", point.name, error
            continue
        for position, kind in _KINDS.items():
            if issubclass(class_, kind):
                yield position, point.name, class_


def providers(key: str) -> list[str]:
    """Names of plugins that always give this key, for messages about a missing key."""
    found = []
    for _, name, class_ in _all():
        if not isinstance(class_, PluginError) and Provided(class_.provides).recipes(key):
            found.append(name)
    return list(dict.fromkeys(found))


def plugins() -> list[dict[str, str]]:
    """Each plugin: name, position, record types, and its purpose or the reason why it cannot be used."""
    found = []
    for position, name, class_ in _all():
        one = {"plugin": name, "position": position}
        if isinstance(class_, PluginError):
            found.append(one | {"types": "", "summary": "", "cannot_be_used": str(class_)})
        else:
            found.append(one | {"types": _types(class_), "summary": _summary(class_)})
    return found


def keys_given(name: str | None = None) -> Iterator[tuple[str, Key]]:
    """(plugin, key) of every key of a plugin's own, for all plugins or one. Raises `PluginError` for an unknown one."""
    if name is not None and not _positions(name):
        raise PluginError(_why_not(name, None), name)
    for position, plugin, class_ in _all():
        if position != "output" and name in (None, plugin) and not isinstance(class_, PluginError):
            yield from ((plugin, key) for key in _keys(class_)[0] if key.type is not None)


def list_plugins() -> str:
    """One line a plugin: name, position, record types, and its purpose or the reason why it cannot be used."""
    rows = []
    for position, name, class_ in _all():
        if isinstance(class_, PluginError):
            rows.append((name, position, "", f"cannot be used: {class_}"))
        else:
            rows.append((name, position, _types(class_), _summary(class_)))
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    return "\n".join("  ".join([*(c.ljust(w) for c, w in zip(r, widths, strict=False)), r[3]]).rstrip() for r in rows)


def _types(class_: type[Plugin]) -> str:
    if issubclass(class_, Input):
        return f"-> {type_text(class_.otype)}"
    if issubclass(class_, Output):
        return f"{type_text(class_.itype)} ->"
    return f"{type_text(class_.itype)} -> {type_text(class_.otype)}"


def _summary(class_: type[Plugin]) -> str:
    return (inspect.getdoc(class_) or "").partition("\n")[0].replace("``", "")


def describe(name: str) -> str:
    """Types, options with defaults and meaning, keys given and asked for, counters. Raises `PluginError`."""
    positions = _positions(name)
    for point in _entry_points(name) if not positions else ():
        _load_point(point)  # says why it cannot be loaded
    if not positions:
        raise PluginError(_why_not(name, None), name)
    return "\n\n".join(_describe(name, position, lookup(name, position)) for position in positions)


def declared(name: str) -> list[dict[str, Any]]:
    """The same as `describe` for other programs: one member for each position. Raises `PluginError`."""
    describe(name)
    found = []
    for position in _positions(name):
        class_ = lookup(name, position)
        given, asked = _keys(class_)
        found.append({
            "plugin": name, "position": position, "types": _types(class_),
            "text": (inspect.getdoc(class_) or "").replace("``", ""),
            "options": [_as_dict(option) for option in class_.all_options()],
            "section_options": [_as_dict(option) for option in class_.section_options],
            "keys_given": [key.name for key in given] if position != "output" else [],
            "keys_asked_for": [line.strip() for line in asked] if position != "input" else [],
            "counters": [{"counter": name, "kind": figure.kind, "unit": figure.unit, "meaning": figure.meaning}
                         for name, _, figure in flat(class_.counts)],
        })  # fmt: skip
    return found


def _as_dict(option: Option) -> dict[str, Any]:
    kind = option.read.__name__.lstrip("_")
    default = None if option.mandatory else option.default
    return {"option": option.name, "form": kind, "must_be_given": option.mandatory, "default": default,
            "meaning": option.meaning}  # fmt: skip


def _describe(name: str, position: str, class_: type[Plugin]) -> str:
    text = (inspect.getdoc(class_) or "").replace("``", "")
    lines = [f"{name}: {position}, {_types(class_)}", "", text, "", "Options:"]
    options = class_.all_options()
    lines += [_option(option) for option in options] or ["  none"]
    if class_.section_options:
        lines += ["", "Options of a section [collector:WORD], for a word of collectors:"]
        lines += [_option(option) for option in class_.section_options]
    given, asked = _keys(class_)
    if position != "output":
        lines += ["", "Keys it gives:"]
        lines += [_key(key) for key in given]
        if class_.open_keys:
            lines.append("  any Information Element by its name (e<pen>id<id> for one without a name)")
        elif not given:
            lines.append("  none of its own")
        if position == "filter" and class_.passes:
            lines.append("  and those of the plugins above it")
    if position != "input":
        lines += ["", "Keys it asks for:", *(asked or ["  none"])]
    lines += ["", "Counters beside those of every instance:"]
    lines += [f"  {name} ({figure.unit or figure.kind}): {figure.meaning}" for name, _, figure in flat(class_.counts)]
    if not class_.counts:
        lines.append("  none of its own")
    return "\n".join(lines)


def _option(option: Option) -> str:
    default = option.default
    if option.mandatory:
        shown = "must be given"
    elif option.read is octets:
        shown = _size(default)
    elif isinstance(default, bool):
        shown = str(int(default))
    elif isinstance(default, (tuple, list)):
        shown = '"' + " ".join(map(str, default)) + '"'
    elif isinstance(default, float) and default == int(default):
        shown = str(int(default))
    else:
        shown = "none" if default is None else str(default) if isinstance(default, (int, float)) else f'"{default}"'
    kind = option.read.__name__.lstrip("_")
    return f"  {option.name} ({kind}, {shown})\n      {option.meaning}"


def _size(octets: int) -> str:
    """A size as a user writes it: 64M."""
    for unit, shift in (("G", 30), ("M", 20), ("k", 10)):
        if octets and octets % (1 << shift) == 0:
            return f"{octets >> shift}{unit}"
    return str(octets)


def _keys(class_: type[Plugin]) -> tuple[list[Key], list[str]]:
    """The keys given by an instance with default options, and a line for each key asked for."""
    given: list[Key] = list(class_.provides)
    asked = dict.fromkeys(class_.uses, True) | dict.fromkeys(class_.may_use, False)
    try:
        instance = class_(class_.name)
        given = list(instance.keys())
        requests = instance.requests(ALL)
        if requests is ALL:
            return given, ["  every key of its stack"]
        asked = dict(requests)
    except Exception:  # noqa: BLE001 - without its mandatory options an instance may be unable to say
        pass
    lines = []
    for request, required in asked.items():
        key = known(request.partition("@")[0]) or Key(request, None)  # type: ignore[arg-type]
        lines.append(_key(key.named(request)) + ("" if required else ", where there is one"))
    return given, lines


def _key(key: Key) -> str:
    elements = " or ".join(str(e[1]) if e[0] == 0 else f"{e[0]}/{e[1]}" for e in key.elements)
    parts = [key.type.name if key.type else "", f"Information Element {elements}" if elements else "", key.unit]
    return f"  {key.name}: {', '.join(p for p in parts if p)}".rstrip(": ")
