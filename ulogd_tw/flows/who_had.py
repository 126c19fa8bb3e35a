"""Who had an outside address and port at a time: from rows of address translation to sessions.

A flow is a session. Events are joined into sessions: at one place (an outside address, port and protocol, towards one
peer if the rows have peers) only one inside host is at a time, so that the next beginning ends a session of which no
end came.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from ulogd_tw.flows.nat_rows import BEGIN, END, FLOW, LIVE, NatRow, Question

ENDED = "ended"
OPEN = "open"
NO_END = "end not recorded"
NO_START = "start not recorded"
GOES_ON = "continues"
CLOCK_MS = 1000
"""By so much the start in an update or an end may be later than the event of the beginning."""


class Answer(NamedTuple):
    """One inside host that had the address. `start` and `end` (ms) are None where they are not known.

    `state` is ENDED, OPEN (nothing has ended it yet), NO_END (its end was lost; `end` is the latest time it can be),
    NO_START, or GOES_ON (`end` is the time of a report, and it went on). `first`, `last` are the ports of a block.
    """

    inside: int
    inside_port: int | None
    outside: int
    outside_port: int | None
    first: int | None
    last: int | None
    protocol: int | None
    peer: int | None
    peer_port: int | None
    start: int | None
    end: int | None
    exporter: int | None
    nat: str
    state: str


def answers(rows: Iterable[NatRow], question: Question) -> list[Answer]:
    """The sessions that overlap the time asked for, in the order of their start; each once."""
    flows: list[NatRow] = []
    events = defaultdict(set)
    for row in rows:
        if row.kind in (FLOW, LIVE):
            flows.append(row)
        else:
            events[row.place].add(row)
    found = [_of_flow(row) for row in flows]
    for place in events.values():
        found += _sessions(_near(sorted(place, key=_order), question), question)
    return _once(answer for answer in found if _overlaps(answer, question))


def _near(events: list[NatRow], question: Question) -> Iterator[NatRow]:
    """The events until the time asked for, and the first of each kind after it: others are of later sessions."""
    seen = set()
    for row in events:
        if row.time > question.latest:
            if row.kind in seen:
                continue
            seen.add(row.kind)
        yield row


def _order(row: NatRow) -> tuple[int, str, int, int]:
    return row.time, row.kind, row.inside, row.inside_port or 0


def _of_flow(row: NatRow) -> Answer:
    if row.kind == LIVE:
        return _answer(row, row.start, None, OPEN)
    return _answer(row, _start(row), row.time, GOES_ON if row.goes_on else ENDED)


def _sessions(events: Iterable[NatRow], question: Question) -> Iterator[Answer]:
    """The sessions at one place, from its events in order."""
    begun: NatRow | None = None
    for row in events:
        if begun is not None and not _same(begun, row):  # its end never came
            yield _answer(begun, _start(begun), _start(row), NO_END)
            begun = None
        if row.kind == BEGIN:
            begun = begun or row
            continue
        own = row.start if begun is None else _start(begun)
        if own is not None:
            yield _answer(row, own, row.time, ENDED)
        elif row.time <= question.latest + question.longest:
            yield _answer(row, None, row.time, NO_START)
        begun = None
    if begun is not None:
        yield _answer(begun, _start(begun), None, OPEN)


def _same(begun: NatRow, row: NatRow) -> bool:
    """Whether an event is of the session that began before it, and not of a later one."""
    if (begun.inside, begun.inside_port) != (row.inside, row.inside_port):
        return False
    if row.start is not None:
        return row.start <= _start(begun) + CLOCK_MS
    return row.kind == END


def _start(row: NatRow) -> int:
    return row.time if row.start is None else row.start


def _answer(row: NatRow, start: int | None, end: int | None, state: str) -> Answer:
    return Answer(
        row.inside, row.inside_port, row.outside, row.port or None, row.first, row.last, row.protocol, row.peer,
        row.peer_port, start, end, row.exporter, row.nat, state,
    )  # fmt: skip


def _overlaps(answer: Answer, question: Question) -> bool:
    begins = answer.start is None or answer.start <= question.latest
    return begins and (answer.end is None or answer.end >= question.earliest)


def _once(found: Iterable[Answer]) -> list[Answer]:
    """Sessions of several rows (interim reports, one row for each direction, table and store) become one.

    It ends where the last of its rows does; an end counts more than an open one, and this more than a report.
    """
    joined: dict[tuple[object, ...], Answer] = {}
    for answer in found:
        key = (*answer[:9], answer.start, answer.exporter)
        before = joined.get(key)
        joined[key] = answer if before is None else max(before, answer, key=_certainty)
    return sorted(joined.values(), key=_rank)


def _rank(answer: Answer) -> tuple[int, ...]:
    numbers = (answer.start, answer.end, *answer[:9], answer.exporter)
    return tuple(-1 if number is None else number for number in numbers)


def _certainty(answer: Answer) -> tuple[int, int, bool]:
    rank = {ENDED: 2, OPEN: 1}.get(answer.state, 0)
    return rank, answer.end or 0, answer.nat != "destination"
