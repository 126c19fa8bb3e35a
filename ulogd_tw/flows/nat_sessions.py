"""Sessions from events of address translation: which end belongs to which beginning.

At one place (an outside address, port and protocol, towards one peer if the rows have peers) only one inside host is at
a time. A port may be used again within the millisecond of its release, and an end may say less than its beginning did:
neither may hide who had the address.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import attrgetter
from typing import Any, NamedTuple

from ulogd_tw.flows.nat_rows import BEGIN, END, NatRow

CLOCK_MS = 1000
"""By so much the start in an update or an end may be later than the event of the beginning."""
Place = tuple[Any, ...]


class Session(NamedTuple):
    """One inside host at one place. `begin` and `end` are its events; None where they did not come.

    `until` is the start of the next host, where this is all that is known of the end.
    """

    begin: NatRow | None
    end: NatRow | None
    until: int | None = None


def start_of(row: NatRow) -> int:
    """When the session of a row began, as far as the row tells."""
    return row.time if row.start is None else row.start


def sessions(events: Iterable[NatRow]) -> Iterator[Session]:
    """The sessions of the events of one outside address at one exporter."""
    begun: dict[Place, NatRow] = {}
    for _, together in groupby(sorted(events, key=_order), attrgetter("time")):
        for row in _in_turn(list(together), begun):
            yield from _taken(row, begun)
    yield from (Session(row, None) for row in begun.values())


def _order(row: NatRow) -> tuple[int, str, int, int]:
    return row.time, row.kind, row.inside, row.inside_port or 0


def _taken(row: NatRow, begun: dict[Place, NatRow]) -> Iterator[Session]:
    """The sessions that an event ends; `begun` has those under way by their place."""
    before = begun.get(row.place)
    if before is not None and not _same(before, row):  # its end never came
        yield Session(begun.pop(row.place), None, start_of(row))
        before = None
    if row.kind == BEGIN:
        begun.setdefault(row.place, row)
        return
    place = row.place if before is not None else _meant(row, begun)
    yield Session(None if place is None else begun.pop(place), row)


def _meant(row: NatRow, begun: dict[Place, NatRow]) -> Place | None:
    """The place of the oldest session of this host that an end can be of although it says less."""
    meant = [place for place, before in begun.items() if _says_less(row, before) and _same(before, row)]
    return min(meant, key=lambda place: start_of(begun[place]), default=None)


def _says_less(row: NatRow, before: NatRow) -> bool:
    """Whether an end lacks some of what the beginning has, and agrees in the rest."""
    pairs = (
        (row.protocol, before.protocol), (row.port, before.port), (row.first, before.first), (row.peer, before.peer),
        (row.peer_port, before.peer_port),
    )  # fmt: skip
    return all(own in (None, other) for own, other in pairs) and (row.nat, row.place[:4]) == (
        before.nat, before.place[:4],
    )  # fmt: skip


def _same(begun: NatRow, row: NatRow) -> bool:
    """Whether an event is of the session that began before it, and not of a later one."""
    if not _same_host(begun, row):
        return False
    if row.start is not None:
        return row.start <= start_of(begun) + CLOCK_MS
    return row.kind == END


def _host(row: NatRow) -> tuple[int, int | None]:
    return row.inside, row.inside_port


def _same_host(begun: NatRow, row: NatRow) -> bool:
    """Whether two events are of one inside host and port; an end may lack the port, or have one alone."""
    if _host(begun) == _host(row):
        return True
    return begun.inside == row.inside and row.kind == END and None in (begun.inside_port, row.inside_port)


def _in_turn(rows: list[NatRow], begun: dict[Place, NatRow]) -> list[NatRow]:
    """Events of one millisecond in their likely order.

    First what concerns sessions under way, then ends alone, then hosts that came and went, last those that came.
    """
    if len(rows) == 1:
        return rows
    begins, ends = ({(row.place, _host(row)) for row in rows if row.kind == kind} for kind in (BEGIN, END))

    def turn(row: NatRow) -> tuple[int, int, int, str]:
        host = _host(row)
        before = begun.get(row.place)
        if before is not None and _same_host(before, row):
            update = row.kind == BEGIN and _same(before, row)
            step = 0 if update else 1 if row.kind == END else 5
        elif row.kind == END and before is None and _meant(row, begun) is not None:
            step = 1
        elif (row.place, host) in begins and (row.place, host) in ends:
            step = 3
        else:
            step = 4 if row.kind == BEGIN else 2
        return step, host[0], host[1] or 0, row.kind

    ordered = sorted(rows, key=turn)
    late = [row for row in ordered if row.kind == END and not _has_begun(row, rows, begun)]
    return [row for row in ordered if row not in late] + late


def _has_begun(row: NatRow, rows: list[NatRow], begun: dict[Place, NatRow]) -> bool:
    """False for an end that says less than a beginning of its own millisecond, which alone it can be of."""
    if row.place in begun or _meant(row, begun) is not None:
        return True
    return not any(other.kind == BEGIN and other.place != row.place and _says_less(row, other) and _same(other, row)
                   for other in rows)  # fmt: skip
