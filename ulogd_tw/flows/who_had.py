"""Who had an outside address and port at a time: from rows of address translation to sessions.

A flow is a session. Events are joined into sessions: at one place (an outside address, port and protocol, towards one
peer if the rows have peers) only one inside host is at a time, so that the next beginning ends a session of which no
end came.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from ulogd_tw.flows.nat_rows import BEGIN, FLOW, LIVE, NatRow, Question
from ulogd_tw.flows.nat_sessions import Session, sessions, start_of

ENDED = "ended"
OPEN = "open"
NO_END = "end not recorded"
NO_START = "start not recorded"
GOES_ON = "continues"


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
            events[row.place[:_WIDE]].add(row)
    found = [_of_flow(row) for row in flows]
    for some in events.values():
        joined = (_of_session(session, question) for session in sessions(_near(some, question)))
        found += [answer for answer in joined if answer is not None]
    return _once(answer for answer in found if _overlaps(answer, question))


_WIDE = 4
"""So many members of a place are in every event: exporter, domain, realm, side."""


def _near(events: set[NatRow], question: Question) -> Iterator[NatRow]:
    """The events until the time asked for, and the first of each kind after it at each place.

    Others are of later sessions, unless some ends say less than beginnings: then their sessions are found from all.
    """
    first: dict[tuple[object, ...], int] = {}
    begins = {row.place for row in events if row.kind == BEGIN}
    less = any(row.place not in begins for row in events) and begins
    for row in sorted(events, key=lambda row: row.time):
        if less or row.time <= question.latest or row.time <= first.setdefault((row.place, row.kind), row.time):
            yield row


def _of_flow(row: NatRow) -> Answer:
    """A flow; one whose clock went back counts between its two times."""
    if row.kind == LIVE:
        return _answer(row, row.start, None, OPEN)
    begin, end = sorted((start_of(row), row.time))
    return _answer(row, begin, end, GOES_ON if row.goes_on else ENDED)


def _of_session(session: Session, question: Question) -> Answer | None:
    """What a session answers; None for a block of other ports, which was read since its end may not name it."""
    begin, end, until = session
    first = begin or end
    if first is not None and first.first is not None and not first.covers(question.port):
        return None
    if begin is None:
        assert end is not None
        if end.start is not None:
            return _answer(end, end.start, end.time, ENDED)
        near = end.time <= question.latest + question.longest
        return _answer(end, None, end.time, NO_START) if near else None
    if end is not None:
        return _answer(begin, start_of(begin), end.time, ENDED)
    return _answer(begin, start_of(begin), until, OPEN if until is None else NO_END)


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
