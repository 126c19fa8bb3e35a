"""SQL that fetches the rows of address translation for one outside address from files of the same columns.

It fetches some rows more than needed: what they say is judged by `nat_rows`. Values in the text are numbers and
addresses, and names of columns are quoted.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterator
from typing import NamedTuple

from ulogd_tw.flows.nat_rows import (
    CT_BEGINS,
    CT_ENDS,
    FIREWALL_BEGINS,
    FIREWALL_ENDS,
    MAPPED,
    NAT_BEGINS,
    NAT_ENDS,
    ROLES,
    Question,
)

MOST_ROWS = 50_000
"""Maximum number of rows that one statement fetches."""
_EVENTS = (
    ("nat_event", NAT_BEGINS, NAT_ENDS),
    ("firewall_event", FIREWALL_BEGINS, FIREWALL_ENDS),
    ("ct_event", CT_BEGINS, CT_ENDS),
)
_PLACES = {
    "source": "exporter domain realm protocol post_source_port first destination destination_port",
    "destination": "exporter domain realm protocol destination_port first source source_port",
}
"""The roles that make a place of `nat_rows.NatRow`, for each side."""
_INSIDE = {"source": "source", "destination": "post_destination"}
"""The role of the inside host, for each side."""


class Columns(NamedTuple):
    """The columns of some files, and what of them is asked."""

    names: frozenset[str]

    def of(self, role: str) -> list[str]:
        """The columns of a role, quoted."""
        return [_quoted(name) for name in ROLES[role] if name in self.names]

    def value(self, role: str) -> str:
        """The value of a role."""
        found = self.of(role)
        return "NULL" if not found else found[0] if len(found) == 1 else f"coalesce({', '.join(found)})"

    @property
    def translated(self) -> bool:
        """Whether they can show a translation."""
        return bool(self.of("post_source") or self.of("post_destination"))

    @property
    def events(self) -> bool:
        """Whether there may be events among the rows."""
        return any(self.of(role) for role, _, _ in _EVENTS)


def flows(columns: Columns, paths: Collection[str], question: Question) -> Iterator[str]:
    """Statements for flows that overlap the time, in files with these columns."""
    time = _first(columns, "end", "arrival", "start")
    start = _first(columns, "start", "end", "arrival")
    when = (
        f"({start} <= {question.latest} AND {time} >= {question.earliest} "
        f"OR {time} <= {question.latest} AND {start} >= {question.earliest})"
    )
    kind = f" AND {_kind(columns)} = 'f'" if columns.events else ""
    for _, where in _sides(columns, question):
        yield f"SELECT {_selected(columns)} FROM {_files(paths)} WHERE {where} AND {when}{kind} LIMIT {MOST_ROWS}"


def events(columns: Columns, paths: Collection[str], question: Question) -> Iterator[str]:
    """The same for events: those of the time, those of the last two moments before it at each place, and the first of
    each kind after it; all of a host with ends that say less than its beginnings.

    Two moments, since the last may have the end of one session and the beginning of the next.
    """
    if not columns.events:
        return
    time, kind = _event_time(columns), _kind(columns)
    for side, where in _sides(columns, question):
        place = ", ".join(_place(columns, side))
        window = f"OVER (PARTITION BY {place}"
        less = " OR ".join(_less(columns, side, kind)) or "false"
        yield (
            f"SELECT {_selected(columns)} FROM {_files(paths)} WHERE {where} AND {kind} IN ('b', 'e') "
            f"QUALIFY {time} BETWEEN {question.earliest} AND {question.latest} "
            f"OR {time} < {question.earliest} AND dense_rank() {window}, {time} < {question.earliest} "
            f"ORDER BY {time} DESC) <= 2 "
            f"OR {time} > {question.latest} AND rank() {window}, {time} > {question.latest}, {kind} "
            f"ORDER BY {time}) = 1 OR {less} LIMIT {MOST_ROWS}"
        )


def _less(columns: Columns, side: str, kind: str) -> Iterator[str]:
    """Whether a host has ends without a value that all of its beginnings have, for each such column."""
    inside = columns.value(_INSIDE[side])
    host = ", ".join([*(columns.value(role) for role in ("exporter", "domain", "realm")), inside])
    for role in _PLACES[side].split()[3:]:
        if columns.of(role):
            value = columns.value(role)
            yield (
                f"bool_or({kind} = 'e' AND {value} IS NULL) OVER (PARTITION BY {host}) "
                f"AND bool_and({kind} = 'e' OR {value} IS NOT NULL) OVER (PARTITION BY {host}) "
                f"AND bool_or({kind} = 'b') OVER (PARTITION BY {host})"
            )


def strays(columns: Columns, path: str, hour: int) -> str:
    """A statement that tells whether the time of an event in a file is not of its hour."""
    time = _event_time(columns)
    return (
        f"SELECT coalesce(bool_or({time} // 3600000 <> {hour}), false) FROM {_files([path])} "
        f"WHERE {_kind(columns)} IN ('b', 'e')"
    )


def unresolved(columns: Columns, path: str, hour: int) -> Iterator[str]:
    """Statements for the outside address and port of each place with a session that goes beyond the hour of a file.

    Such are an end without its beginning, a beginning without an end, and a start that is told later. Where several
    events are of the same time, and not just those of a host that came and went, it is taken for one. The port is 0
    where it is not a single one.
    """
    time, kind = _event_time(columns), _kind(columns)
    bound = _bound(columns)
    for side, role, name in _outsides(columns):
        inside = _INSIDE[side]
        port = f"CASE WHEN {columns.value('first')} IS NOT NULL OR {bound} THEN 0 ELSE {columns.value(role)} END"
        place = ", ".join([name, *_place(columns, side)])
        where = f" AND {_translated(columns, name)}" if side == "destination" else ""
        host = f"{{'a': {columns.value(inside)}, 'p': {columns.value(f'{inside}_port')}}}"
        yield (
            f"SELECT DISTINCT address, coalesce(port, 0) FROM (SELECT {name} AS address, {port} AS port, {kind} AS k, "
            f"{host} AS h, {columns.value('start')} AS s, {time} AS t, lag({kind}) OVER w AS before_k, "
            f"lag({host}) OVER w AS before_h, lead({kind}) OVER w AS next_k, lead({host}) OVER w AS next_h, "
            f"lead({time}) OVER w AS next_t FROM {_files([path])} "
            f"WHERE {name} IS NOT NULL AND {kind} IN ('b', 'e'){where} "
            f"WINDOW w AS (PARTITION BY {place} ORDER BY {time}, {kind}, {host})) "
            "WHERE k = 'e' AND (before_k IS DISTINCT FROM 'b' OR before_h IS DISTINCT FROM h) "
            "OR k = 'b' AND (next_k IS NULL OR next_t = t AND (next_h IS DISTINCT FROM h OR before_k = 'b')) "
            f"OR s // 3600000 < {hour}"
        )


def _place(columns: Columns, side: str) -> Iterator[str]:
    """The values that make a place of `nat_rows.NatRow`."""
    yield from (columns.value(role) for role in _PLACES[side].split())
    yield _bound(columns)


def _bound(columns: Columns) -> str:
    """Whether a whole address is bound."""
    return f"coalesce({columns.value('nat_event')} IN (14, 15), false)" if columns.of("nat_event") else "false"


def listed(paths: Collection[str]) -> str:
    """Paths as a list of DuckDB."""
    return "[" + ", ".join("'" + path.replace("'", "''") + "'" for path in paths) + "]"


def _files(paths: Collection[str]) -> str:
    return f"read_parquet({listed(paths)}, hive_partitioning=false)"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _selected(columns: Columns) -> str:
    return ", ".join(f"{columns.value(role)} AS {role}" for role in ROLES)


def _sides(columns: Columns, question: Question) -> Iterator[tuple[str, str]]:
    """(side, condition) for each column that may have the address. One equality each prunes by statistics."""
    address = f"'{uuid.UUID(int=question.address)}'::UUID"
    is_ipv6 = question.address >> 32 != MAPPED >> 32
    for side, port, name in _outsides(columns):
        if not (is_ipv6 and name.endswith('IPv4Address"')):  # those of IPv6 may have ::ffff:192.0.2.1
            where = [f"{name} = {address}", *_port(columns, port, question.port)]
            where += [_translated(columns, name)] if side == "destination" else []
            yield side, " AND ".join(where)


def _outsides(columns: Columns) -> Iterator[tuple[str, str, str]]:
    """(side, role of its port, column) for each column that can have an outside address."""
    for name in columns.of("post_source"):
        yield "source", "post_source_port", name
    if columns.of("post_destination"):
        for name in columns.of("destination"):
            yield "destination", "destination_port", name


def _port(columns: Columns, role: str, port: int | None) -> Iterator[str]:
    """The condition for a port: this one, any block, or none. The end of a block may not say which block."""
    if port is None:
        return
    own = columns.value(role)
    any_of = [f"{own} = {port}"] if columns.of(role) else []
    if columns.of("first"):
        any_of.append(f"{columns.value('first')} IS NOT NULL")
    if columns.events:
        any_of.append(f"coalesce({own}, 0) = 0")
    if columns.of("nat_event"):
        any_of.append(f"{columns.value('nat_event')} IN (14, 15)")
    yield f"({' OR '.join(any_of) or 'false'})"


def _translated(columns: Columns, destination: str) -> str:
    after, port = columns.value("post_destination"), columns.value("post_destination_port")
    ports = f" OR {port} <> {columns.value('destination_port')}" if port != "NULL" else ""
    return f"({after} <> {destination}{ports})"


def _kind(columns: Columns) -> str:
    """'b' for the beginning of something, 'e' for an end, 'f' for a flow, '' for other events."""
    cases = ""
    for role, begins, ends in _EVENTS:
        if columns.of(role):
            event, other = columns.value(role), "f" if role == "ct_event" else ""
            cases += (
                f" WHEN {event} IN {_list(begins)} THEN 'b' WHEN {event} IN {_list(ends)} THEN 'e' "
                f"WHEN {event} > 0 THEN '{other}'"
            )
    return f"CASE{cases} ELSE 'f' END" if cases else "'f'"


def _list(values: Collection[int]) -> str:
    return f"({', '.join(map(str, values))})"


def _first(columns: Columns, *roles: str) -> str:
    found = [name for role in roles for name in columns.of(role)]
    return f"coalesce({', '.join([*found, 'NULL'])})"


def _event_time(columns: Columns) -> str:
    found = columns.of("observed")
    found += [f"{name} // 1000" for name in columns.of("observed_us")]
    found += [f"{name} // 1000000" for name in columns.of("observed_ns")]
    found += [name for role in ("end", "arrival", "start") for name in columns.of(role)]
    return f"coalesce({', '.join([*found, 'NULL'])})"
