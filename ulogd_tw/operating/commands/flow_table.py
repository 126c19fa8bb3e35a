"""Answers about stored flows as a table for people: short names, octets in human units, local times with their zone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TextIO

from ulogd_tw.core.protocols import PROTOCOLS
from ulogd_tw.flows import times
from ulogd_tw.operating.commands.text import short, write_table

ROWS_AT_ONCE = 1000
"""Rows whose columns have the same widths."""
_NAMES = {
    "sourceAddress": "source", "destinationAddress": "destination", "protocolIdentifier": "proto",
    "sourceTransportPort": "sport", "destinationTransportPort": "dport", "tcpControlBits": "flags",
    "postNATSourceAddress": "nat source", "postNAPTSourceTransportPort": "nat sport", "ingressInterface": "in",
    "egressInterface": "out", "bgpSourceAsNumber": "src as", "bgpDestinationAsNumber": "dst as",
}  # fmt: skip
_FLAGS = "CEUAPRSF"
_PROTOCOLS = {number: name.upper() for name, number in reversed(PROTOCOLS.items())}


def write(events: Iterable[dict[str, Any]], question: dict[str, Any], out: TextIO) -> None:
    """Write the rows of an answer, and below them their range with its zone, and the stores that were read."""
    head: dict[str, Any] = {}
    for rows, event in _gathered(events):
        if rows:
            names = [column[0] for column in head["columns"]]
            write_table(*_shown(head["columns"], names, rows, names[:2] == ["start", "end"]), out)
        head = event.get("head", head)
    if head:
        out.write(_summary(head, question) + "\n")


def _gathered(events: Iterable[dict[str, Any]]) -> Iterator[tuple[list[list[Any]], dict[str, Any]]]:
    """The rows before each other event, some thousand at a time."""
    rows: list[list[Any]] = []
    for event in events:
        if "rows" in event and len(rows) < ROWS_AT_ONCE:
            rows += event["rows"]
            continue
        yield rows, event
        rows = list(event.get("rows", ()))
    yield rows, {}


def _shown(
    columns: list[list[str]], names: list[str], rows: list[list[Any]], listing: bool
) -> tuple[list[str], list[list[Any]]]:
    """The names and cells of a table; of a flow its duration stands for its end."""
    cells = [[_cell(column, value) for column, value in zip(columns, row, strict=True)] for row in rows]
    if columns and columns[-1][0] == "rest":
        names, columns = names[:-1], columns[:-1]
        cells = [_others(columns, row) for row in cells]
    heads = [_NAMES.get(name, name) for name in names]
    if listing:
        heads[1] = "duration"
        for row, plain in zip(cells, rows, strict=True):
            row[1] = None if None in plain[:2] else f"{(plain[1] - plain[0]) / 1000:.3f} s"
    return heads, cells


def _others(columns: list[list[str]], cells: list[Any]) -> list[Any]:
    """The cells of a row without its last one, which is true for the group of all others."""
    *own, rest = cells
    if rest:
        at = next(place for place, column in enumerate(columns) if column[1] == "plain")
        own[at] = "others"
    return own


def _cell(column: list[str], value: Any) -> Any:
    name, kind, _ = column
    if value is None:
        return None
    if kind == "time":
        return times.shown(value, name != "time" or value % 1000 != 0)
    if kind == "count":
        return short(value)
    if name == "protocolIdentifier":
        return _PROTOCOLS.get(value, str(value))
    if name == "tcpControlBits":
        return "".join(letter if value >> 7 - place & 1 else "." for place, letter in enumerate(_FLAGS))
    return value


def _summary(head: dict[str, Any], question: dict[str, Any]) -> str:
    """The range, its zone, and which store had which part of it."""
    begin, end = head["begin"], head["end"]
    range_ = "all times" if (begin, end) == (None, None) else _range(begin, end)
    at = begin if begin is not None else end if end is not None else 0
    flows = "ended" if question.get("ended") else "overlap"
    text = f"flows that {flows}: {range_}" if range_ != "all times" else range_
    return f"{text}, {times.zone_name(at or _now())}; read from {_parts(head['parts'])}"


def _parts(parts: list[dict[str, Any]]) -> str:
    if len({part["store"] for part in parts}) == 1:
        return parts[0]["store"]
    found = [f"{part['store']} ({_range(part['begin'], part['end'])})" for part in parts]
    return ", ".join(found)


def _range(begin: int | None, end: int | None) -> str:
    if begin is None:
        return "all times" if end is None else f"before {times.shown(end, False)}"
    since = f"from {times.shown(begin, False)}"
    return since if end is None else f"{since} to {times.shown(end, False)}"


def _now() -> int:
    import time

    return int(time.time() * 1000)
