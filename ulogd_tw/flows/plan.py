"""Which store answers which part of a question: always the coarsest one that can do it exactly.

Parts are ranges of the time at which flows ended, so every flow is in one part. A roll-up answers whole intervals of
flows that ended in the range; edges, and flows that ran beyond the range, come from a finer store.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from ulogd_tw.core.keys import known
from ulogd_tw.core.quantities import QUANTITIES
from ulogd_tw.core.readable import COMPARED
from ulogd_tw.flows.errors import QuestionError
from ulogd_tw.flows.expressions import base_of
from ulogd_tw.flows.questions import Question, sides
from ulogd_tw.flows.stores import FLOWS, INTERVAL_START, Store, in_order
from ulogd_tw.flows.times import DAY_MS
from ulogd_tw.match import Term

HOUR_MS = 3_600_000
_NAMES = {quantity.name: quantity.names for quantity in QUANTITIES}


@dataclass(frozen=True)
class Reach:
    """The time of which a store has all rows, in milliseconds; None: open on this side."""

    since: int | None = None
    until: int | None = None


@dataclass(frozen=True)
class Part:
    """A part of a question: flows that ended in [begin, end), from one store. None: open on this side."""

    store: Store
    begin: int | None
    end: int | None


@dataclass(frozen=True)
class Plan:
    """The parts of an answer, and the ranges for which no store is fine enough, as (roll-up, begin, end)."""

    parts: tuple[Part, ...] = ()
    gaps: tuple[Part, ...] = ()
    names: tuple[str, ...] = field(default=())


def plan(question: Question, term: Term, stores: Iterable[Store], reach: Callable[[Store], Reach | None]) -> Plan:
    """The parts of a question over the stores of a group. Raises `QuestionError` if none of them can answer it.

    `reach` tells of which time a store has all rows; it is asked only of stores that can answer the question. None: the
    store is empty.
    """
    ordered = in_order(stores)
    raw = [store for store in ordered if store.rollup is None]
    _check_filter(term, raw or ordered)
    able = [store for store in ordered if _able(question, term, store, raw)]
    if not able:
        _refuse(question, ordered)
    last = question.end if question.ended or question.spread else None
    if question.listing or able == raw:
        return _of_parts([Part(able[-1], question.begin, last)], [])
    timed = [store for store in able if _timed(question, store)]
    if not timed:
        return _of_parts([Part(able[0], None, None)], [])
    return _divided(question, timed, last, reach)


def _divided(question: Question, able: list[Store], last: int | None, reach: Callable[[Store], Reach | None]) -> Plan:
    reaches = _reaches(able, reach)
    division = _Division(question, reaches)
    division.divide([store for store in able if store in reaches], question.begin, last)
    return _of_parts(division.parts, division.gaps)


def _of_parts(parts: list[Part], gaps: list[Part]) -> Plan:
    return Plan(tuple(parts), tuple(gaps), tuple(dict.fromkeys(part.store.name for part in parts)))


def _reaches(able: list[Store], reach: Callable[[Store], Reach | None]) -> dict[Store, Reach]:
    """The reach of each store that is not empty, as far as one may rely on it.

    The oldest hour of a store may have begun before the store: it counts only if no other store is as old. The finest
    store is taken to have what is not in it yet, since nothing else has it.
    """
    found = {store: there for store in able if (there := reach(store)) is not None} or {able[-1]: Reach()}
    oldest = min(found, key=lambda store: (found[store].since or 0, -able.index(store)))
    finest = list(found)[-1]
    for store, there in found.items():
        since = None if store is oldest else (there.since or 0) + HOUR_MS
        found[store] = Reach(since, None if store is finest else there.until)
    return found


class _Division:
    """Divides a range among stores, the coarsest first."""

    def __init__(self, question: Question, reaches: dict[Store, Reach]) -> None:
        self._question = question
        self._reaches = reaches
        self.parts: list[Part] = []
        self.gaps: list[Part] = []
        self._coarse: Store | None = None

    def divide(self, stores: list[Store], begin: int | None, end: int | None) -> None:
        """Take from the first store what it can answer exactly, and the rest from the others."""
        if begin is not None and end is not None and begin >= end:
            return
        if not stores:
            if self._coarse is not None:
                self.gaps.append(Part(self._coarse, begin, end))
            return
        store, others = stores[0], stores[1:]
        inner = self._raw(store, begin, end) if store.rollup is None else self._rolled(store, begin, end)
        if store.rollup is not None:
            self._coarse = store
        if inner is None:
            self.divide(others, begin, end)
            return
        since, until = inner
        if since != begin:
            self.divide(others, begin, since)
        self.parts.append(Part(store, since, until))
        if until != end:
            self.divide(others, until, end)

    def _raw(self, store: Store, begin: int | None, end: int | None) -> tuple[int | None, int | None] | None:
        since = _latest(begin, self._reaches[store].since)
        return None if since is not None and end is not None and since >= end else (since, end)

    def _rolled(self, store: Store, begin: int | None, end: int | None) -> tuple[int | None, int | None] | None:
        """Whole intervals within the range, of flows that all ended, and so began, before its end."""
        assert store.rollup is not None
        interval, there = store.rollup.interval, self._reaches[store]
        since = _latest(begin, there.since)
        until = _earliest(end, self._question.end, there.until)
        if (since, until) == (None, None):
            return None, None
        if not interval:
            return None
        since = None if since is None else -(-since // interval) * interval
        until = None if until is None else until // interval * interval
        return None if since is not None and until is not None and since >= until else (since, until)


def _latest(*times: int | None) -> int | None:
    return max((time for time in times if time is not None), default=None)


def _earliest(*times: int | None) -> int | None:
    return min((time for time in times if time is not None), default=None)


# which stores can answer


def _able(question: Question, term: Term, store: Store, raw: Sequence[Store]) -> bool:
    """Whether a store can answer a question exactly, for some range."""
    if question.listing:
        return store.rollup is None or not raw
    if not all(_grouped(store, one) for name in question.by for one in sides(name)):
        return False
    if store.rollup is None:
        return True
    return (
        _summed(question, store)
        and (_timed(question, store) or _whole(question, raw))
        and _filtered(term, store, raw)
        and (store.rollup.whole or not (question.by or term.keys()))
    )


def _grouped(store: Store, name: str) -> bool:
    """Whether rows of a store can be grouped by a key; those of a roll-up only by keys of its groups."""
    base = base_of(store, name)
    return base is not None and (store.rollup is None or _key_of(store, base) is not None)


def _key_of(store: Store, name: str) -> str | None:
    """The key of a roll-up's groups that is a key of the store, by its name or datum."""
    assert store.rollup is not None
    return next((column for column in store.find(name) if column in store.rollup.by), None)


def _summed(question: Question, store: Store) -> bool:
    for name in question.sums:
        names = (FLOWS,) if name == FLOWS else (*_NAMES[name], name)
        if not any(store.find(one) for one in names):
            return False
    return True


def _timed(question: Question, store: Store) -> bool:
    """Whether a range and its steps can be cut out of the rows of a store, by ends of flows or shares of them."""
    found = store.rollup
    if found is None:
        return True
    if INTERVAL_START not in store.keys or not found.interval:
        return False
    if question.every and not _suits(question, found.interval):
        return False
    return found.time == ("spread" if question.spread else "flow")


def _whole(question: Question, raw: Sequence[Store]) -> bool:
    """Whether all rows of a store alone are the answer."""
    return not raw and question.begin is None and question.end is None and not question.every


def _suits(question: Question, interval: int) -> bool:
    """Whether the steps of a series begin where intervals do."""
    assert question.every is not None
    if question.every % interval:
        return False
    return question.every % DAY_MS != 0 or all(ahead * 1000 % interval == 0 for _, ahead in question.offsets)


def _filtered(term: Term, store: Store, raw: Sequence[Store]) -> bool:
    """Whether a filter means the same: it names keys of groups, or keys that no raw store has either."""
    return all(_same(name, store, raw) for name in term.keys())


def _same(name: str, store: Store, raw: Sequence[Store]) -> bool:
    if _key_of(store, name) is not None:
        key = known(name)
        return key is None or key.type.form not in COMPARED
    return bool(raw) and not any(one.find(name) for one in raw)


# refusals


def _check_filter(term: Term, stores: Sequence[Store]) -> None:
    for name, needed in term.keys().items():
        if needed and not any(store.find(name) for store in stores):
            have = ", ".join(dict.fromkeys(key for store in stores for key in store.keys))
            raise QuestionError(f"{stores[0].name} has no key {name}, which the filter needs; it has {have}")


def _refuse(question: Question, stores: Sequence[Store]) -> None:
    for name in question.by:
        for one in sides(name):
            if not any(_grouped(store, one) for store in stores):
                have = ", ".join(dict.fromkeys(key for store in stores for key in _groupable(store)))
                raise QuestionError(f"no store has the key {one} for groups; there are {have}")
    names = ", ".join(store.name for store in stores)
    raise QuestionError(f"{names}: no roll-up can answer this exactly, and there is no store of the flows themselves")


def _groupable(store: Store) -> Iterable[str]:
    return store.keys if store.rollup is None else store.rollup.by
