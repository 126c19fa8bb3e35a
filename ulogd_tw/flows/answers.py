"""Forms of an answer for other programs: CSV, JSON with a row in a line, Arrow, or the events themselves as JSON.

Times have their zone, numbers are exact. CSV leaves a missing value empty, JSON leaves its key out.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ulogd_tw.flows import arrow_stream, times, values
from ulogd_tw.flows.asking import Event

_string = json.JSONEncoder(ensure_ascii=False).encode
Form = Callable[[Iterable[Event]], Iterator[bytes]]


def as_csv(events: Iterable[Event]) -> Iterator[bytes]:
    """A line of names, then a line a row."""
    columns: list[list[str]] = []
    for event in events:
        if "head" in event:
            columns = event["head"]["columns"]
            yield _csv([[column[0] for column in columns]])
        elif "rows" in event:
            yield _csv(_timed(event["rows"], columns))


def as_json(events: Iterable[Event]) -> Iterator[bytes]:
    """An object a row, each in a line."""
    columns: list[list[str]] = []
    for event in events:
        if "head" in event:
            columns = event["head"]["columns"]
        elif "rows" in event:
            yield _objects(event["rows"], columns)


def as_arrow(events: Iterable[Event]) -> Iterator[bytes]:
    """A stream in Arrow's IPC format."""
    columns: list[tuple[str, str]] = []
    for event in events:
        if "head" in event:
            columns = [(name, _arrow_type(kind, type_)) for name, kind, type_ in event["head"]["columns"]]
            yield arrow_stream.schema(columns)
        elif "rows" in event:
            yield arrow_stream.rows(columns, event["rows"])
    yield arrow_stream.END


def as_events(events: Iterable[Event]) -> Iterator[bytes]:
    """The events as they are, each a line of JSON."""
    for event in events:
        yield json.dumps(event, separators=(",", ":")).encode() + b"\n"


FORMS: dict[str, Form] = {"csv": as_csv, "json": as_json, "arrow": as_arrow, "events": as_events}
KINDS = {
    "csv": "text/csv; charset=utf-8", "json": "application/jsonl", "arrow": "application/vnd.apache.arrow.stream",
    "events": "application/jsonl",
}  # fmt: skip
"""The media type of each form."""


def _timed(rows: Iterable[list[Any]], columns: Iterable[list[str]]) -> Iterator[list[Any]]:
    """Rows with times as texts."""
    places = [at for at, (_, kind, _) in enumerate(columns) if kind == values.TIME]
    for row in rows:
        for at in places:
            row[at] = None if row[at] is None else times.rfc3339(row[at])
        yield row


def _csv(rows: Iterable[list[Any]]) -> bytes:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue().encode()


def _objects(rows: list[list[Any]], columns: list[list[str]]) -> bytes:
    """The rows as objects, column by column: most of the time of a long answer is spent here."""
    members = [_members(column, cells) for column, cells in zip(columns, zip(*rows, strict=True), strict=True)]
    return "".join(["{" + ",".join(filter(None, row)) + "}\n" for row in zip(*members, strict=True)]).encode()


def _members(column: list[str], cells: Iterable[Any]) -> list[str | None]:
    """The members of objects that a column makes; None for a missing value."""
    name, kind, type_ = column
    head = f"{_string(name)}:"
    if kind == values.TIME:
        return [None if value is None else f'{head}"{times.rfc3339(value)}"' for value in cells]
    if type_ in (arrow_stream.UNSIGNED, arrow_stream.SIGNED):
        return [None if value is None else f"{head}{value}" for value in cells]
    if type_ in ("text", "address", "mac", "octets"):
        return [None if value is None else f"{head}{_other(value)}" for value in cells]
    return [None if value is None else f"{head}{json.dumps(value)}" for value in cells]


def _other(value: Any) -> str:
    return _string(value) if isinstance(value, str) else json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _arrow_type(kind: str, type_: str) -> str:
    if kind == values.TIME:
        return arrow_stream.TIME
    numeric = (arrow_stream.UNSIGNED, arrow_stream.SIGNED, arrow_stream.FLOAT, arrow_stream.BOOLEAN)
    return type_ if type_ in numeric else arrow_stream.TEXT
