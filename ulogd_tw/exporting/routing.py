"""Chooses the collectors of flows: all of them, the first reachable one, or one by the flow's hash."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np

from ulogd_tw.core.batch import Batch
from ulogd_tw.core.hashes import mixed, of_flows
from ulogd_tw.core.resolve import Find
from ulogd_tw.exporting import rules
from ulogd_tw.exporting.collector import Collector
from ulogd_tw.exporting.rules import Rule

Group = tuple[int, ...]
"""The numbers of collectors that get the same records."""
MODES = ("all", "failover", "balance")
HASHED = ("orig.ip.saddr", "orig.ip.daddr", "orig.l4.sport", "orig.l4.dport", "orig.ip.protocol")
"""Keys of a row that choose its collector; both directions of a flow give the same."""


class Routing:
    """Chooses collectors by `mode`.

    ``failover``: the first reachable collector gets everything, including messages waiting for an unreachable one.
    ``balance``: rendezvous hashing, so that flows stay in place when another collector leaves or comes back. `rules_`:
    a row's collectors are chosen among those allowed for it.
    """

    def __init__(self, mode: str, collectors: Sequence[Collector], rules_: Sequence[Rule] = ()) -> None:
        self.mode = mode
        self._rules = list(rules_)
        self._chosen_by_name = False
        self._bound = any(rule.networks or rule.marks for rule in rules_)
        self.collectors = list(collectors)
        self._seeds = [_seed(str(collector.url)) for collector in collectors]

    def split(self, find: Find, batch: Batch) -> Iterator[tuple[Group, Batch]]:
        """The rows for each group of collectors; rows that none may get are left out."""
        told = rules.told(find(batch, rules.EXPORT_TO), self._rules) if self._rules else None
        self._chosen_by_name |= told is not None
        if told is None and not self._bound:
            yield from self._split(find, batch, range(len(self.collectors)))
            return
        taking = np.ones((len(self.collectors), batch.n), bool)
        for place, rule in enumerate(self._rules):
            taken = rule.takes(find, batch)
            if taken is not None:
                taking[place] &= taken
            if told is not None:
                taking[place] &= told[place]
        for may, rows in _by_column(taking):
            if may:
                yield from self._split(find, batch if len(rows) == batch.n else batch.take(rows), may)

    def _split(self, find: Find, batch: Batch, may: Sequence[int]) -> Iterator[tuple[Group, Batch]]:
        """As `split`, of rows that these collectors may get."""
        if self.mode == "all":
            yield tuple(may), batch
            return
        there = self._there(may)
        if self.mode == "failover" or len(there) == 1:
            yield (there[0],), batch
            return
        chosen = self._choose(of_flows(find, batch, HASHED), there)
        for place, number in enumerate(there):
            rows = chosen == place
            count = int(np.count_nonzero(rows))
            if count:
                yield (number,), batch if count == batch.n else batch.take(rows)

    def _there(self, may: Sequence[int] | None = None) -> list[int]:
        """The reachable collectors; all of them if none is reachable, so that rows wait."""
        every = list(range(len(self.collectors)) if may is None else may)
        return [number for number in every if self.collectors[number].available] or every

    def _choose(self, hashes: np.ndarray, there: list[int]) -> np.ndarray:
        """For each row the place in `there` of the collector with the highest score."""
        best, chosen = None, np.zeros(len(hashes), np.int64)
        for place, number in enumerate(there):
            score = mixed(hashes ^ self._seeds[number])
            if best is None:
                best = score
                continue
            higher = score > best
            best = np.where(higher, score, best)
            chosen[higher] = place
        return chosen

    def move(self) -> None:
        """Messages waiting for an unreachable collector go to a reachable one that may have them."""
        if self.mode == "all" or self._chosen_by_name:
            return
        there = [number for number in self._there() if self.collectors[number].available]
        for collector in self.collectors:
            collector.lenders = []
        for number, collector in enumerate(self.collectors):
            others = [other for other in there if self._alike(number, other)]
            if not others or collector.available:
                continue
            to = self.collectors[others[0] if self.mode == "failover" else others[number % len(others)]]
            if collector.spool is not None:
                to.lenders.append(collector)
            if collector.waiting_records:
                to.take_over(collector)

    def _alike(self, one: int, other: int) -> bool:
        """Whether two collectors may get the same flows."""
        if not self._bound:
            return True
        first, second = self._rules[one], self._rules[other]
        return (first.networks, first.marks) == (second.networks, second.marks)

    @property
    def full(self) -> bool:
        """Whether nothing more can be taken without dropping something."""
        if self.mode == "failover":
            return self.collectors[self._there()[0]].full
        return all(collector.full for collector in self.collectors)


def _by_column(taking: np.ndarray) -> Iterator[tuple[list[int], np.ndarray]]:
    """The rows (columns of the matrix) with equal values: which are true, and the numbers of these rows."""
    kinds, which = np.unique(np.packbits(taking, axis=0), axis=1, return_inverse=True)
    which = which.reshape(-1)
    for kind in range(kinds.shape[1]):
        rows = np.flatnonzero(which == kind)
        yield np.flatnonzero(taking[:, rows[0]]).tolist(), rows


def _seed(url: str) -> np.uint64:
    return np.uint64(int.from_bytes(hashlib.blake2b(url.encode(), digest_size=8).digest(), "big"))
