"""Many Messages of one domain at once, each of any number of Data Sets of known templates, walked Set by Set.

In each round the next Set of all Messages is looked at together; the records of a template are then taken out of the
memory that the Messages lie in with one copy. A Message with anything else in it ends the walk before it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ulogd_tw.core.columns import taken
from ulogd_tw.ipfix.layout import BEFORE
from ulogd_tw.ipfix.message import FIRST_DATA_SET, HEADER, SET_HEADER, VERSION
from ulogd_tw.ipfix.message_runs import DOMAIN
from ulogd_tw.ipfix.session import Domain, KnownTemplate

FEWEST = 24
"""Messages; fewer are fed one by one, which is as fast."""
_MOST_SETS = 16
"""Of a Message; one that has more is fed by itself."""


@dataclass
class Walked:
    """The first `n` Messages: the number of records of each, and the bodies found for each template."""

    n: int
    records: np.ndarray
    found: list[tuple[KnownTemplate, np.ndarray, np.ndarray, np.ndarray]]
    """(template, number of the Message, place of the records, how many) for each Data Set, in order of arrival."""

    def bodies(self, memory: np.ndarray, exported: np.ndarray) -> Iterator[tuple[KnownTemplate, int, np.ndarray]]:
        """(template, Export Time, body) of records received together: `memory` has the Messages, octet by octet."""
        for known, messages, starts, counts in self.found:
            times = exported[messages]
            edges = [0, *(np.flatnonzero(times[1:] != times[:-1]) + 1).tolist(), len(times)]
            for first, last in zip(edges, edges[1:], strict=False):
                some = counts[first:last]
                places = np.repeat(starts[first:last] - known.octets * (np.cumsum(some) - some), some)
                places += known.octets * np.arange(len(places))
                body = np.empty(BEFORE + known.octets * len(places), np.uint8)
                body[BEFORE:] = taken(memory, places, known.octets)
                yield known, int(times[first]), body


def walk(memory: np.ndarray, starts: np.ndarray, words: np.ndarray, lengths: np.ndarray, domain: Domain) -> Walked:
    """Walk Messages that begin at `starts` in `memory`, with these `words` of their headers (see `slab.headers`)."""
    n = len(starts)
    bad = words[:, 0] != (VERSION << 16 | lengths)
    at, ends = starts + HEADER.size, starts + lengths
    active = np.flatnonzero(~bad & (at < ends))
    rounds = []
    for _ in range(_MOST_SETS):
        if not len(active):
            break
        place, end = at[active], ends[active]
        short = end - place < SET_HEADER.size
        if short.any():
            bad[active[short]] = True
            active, place, end = active[~short], place[~short], end[~short]
        ident = memory[place].astype(np.int64) << 8 | memory[place + 1]
        length = memory[place + 2].astype(np.int64) << 8 | memory[place + 3]
        wrong = (length < SET_HEADER.size) | (length > end - place) | (ident < FIRST_DATA_SET)
        for number in np.unique(ident[~wrong]).tolist():
            known = domain.templates.get(number)
            those = ident == number
            if known is None or not known.octets or known.layout.tells:
                wrong |= those
                continue
            those &= ~wrong
            count = (length[those] - SET_HEADER.size) // known.octets
            rounds.append((known, active[those], place[those] + SET_HEADER.size, count))
        bad[active[wrong]] = True
        at[active] = place + length
        active = active[~wrong & (place + length < end)]
    bad[active] = True
    good = int(np.argmax(bad)) if bad.any() else n
    return _sorted(rounds, good)


def _sorted(rounds: list[tuple[KnownTemplate, np.ndarray, np.ndarray, np.ndarray]], good: int) -> Walked:
    """The bodies of the first `good` Messages, by template and in order of arrival."""
    records = np.zeros(good, np.int64)
    by_template: dict[int, list[tuple[KnownTemplate, np.ndarray, np.ndarray, np.ndarray]]] = {}
    for known, messages, places, counts in rounds:
        within = messages < good
        if not within.all():
            messages, places, counts = messages[within], places[within], counts[within]
        if len(messages):
            records[messages] += counts  # a Message has one Set in a round
            by_template.setdefault(id(known), []).append((known, messages, places, counts))
    found = []
    for parts in by_template.values():
        known = parts[0][0]
        messages, places, counts = (np.concatenate([part[i] for part in parts]) for i in (1, 2, 3))
        if len(parts) > 1:
            order = np.argsort(places, kind="stable")  # memory is in order of arrival
            messages, places, counts = messages[order], places[order], counts[order]
        found.append((known, messages, places, counts))
    return Walked(good, records, found)


def by_domain(whose: np.ndarray, words: np.ndarray) -> Iterator[np.ndarray]:
    """The places of the Messages of each session (from `whose`) and domain, in the order of their first ones."""
    domains = words[:, DOMAIN]
    if (whose == whose[0]).all() and (domains == domains[0]).all():
        yield np.arange(len(whose))
        return
    _, who = np.unique(whose, return_inverse=True)
    _, first, which = np.unique(who.astype(np.uint64) << np.uint64(32) | domains, return_index=True,
                                return_inverse=True)  # fmt: skip
    order = np.argsort(which, kind="stable")
    groups = np.split(order, np.cumsum(np.bincount(which))[:-1])
    for number in np.argsort(first).tolist():
        yield groups[number]
