"""Which collector gets which flows: all of them, the first that is there, or one by the flow's hash."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from ulogd_tw.core.batch import Batch
from ulogd_tw.core.resolve import Found
from ulogd_tw.plugins.outputs.collectors import Collector

Group = tuple[int, ...]
"""The numbers of collectors that get the same records."""
Find = Callable[[Batch, str], Found | None]
MODES = ("all", "failover", "balance")
HASHED = ("orig.ip.saddr", "orig.ip.daddr", "orig.l4.sport", "orig.l4.dport", "orig.ip.protocol")
"""Keys of a row that choose its collector; both directions of a flow give the same."""

_ODD = np.uint64(0x9E3779B97F4A7C15)
_STEPS = ((np.uint64(30), np.uint64(0xBF58476D1CE4E5B9)), (np.uint64(27), np.uint64(0x94D049BB133111EB)))
_LAST = np.uint64(31)


class Routing:
    """Chooses collectors by `mode`.

    ``failover``: the first that is there gets everything; what waits for one that is away goes to it too.
    ``balance``: rendezvous hashing, so that flows stay where they are when another collector leaves or comes back.
    """

    def __init__(self, mode: str, collectors: Sequence[Collector]) -> None:
        self.mode = mode
        self.collectors = list(collectors)
        self._seeds = [_seed(str(collector.url)) for collector in collectors]

    def split(self, find: Find, batch: Batch) -> Iterator[tuple[Group, Batch]]:
        """The rows for each group of collectors."""
        if self.mode == "all":
            yield tuple(range(len(self.collectors))), batch
            return
        there = self._there()
        if self.mode == "failover" or len(there) == 1:
            yield (there[0],), batch
            return
        chosen = self._choose(_hash(find, batch), there)
        for place, number in enumerate(there):
            rows = chosen == place
            count = int(np.count_nonzero(rows))
            if count:
                yield (number,), batch if count == batch.n else batch.take(rows)

    def _there(self) -> list[int]:
        """The collectors that can be sent to; all of them where none can, so that what comes waits."""
        every = list(range(len(self.collectors)))
        return [number for number in every if self.collectors[number].available] or every

    def _choose(self, hashes: np.ndarray, there: list[int]) -> np.ndarray:
        """For each row the place in `there` of the collector with the highest score."""
        best, chosen = None, np.zeros(len(hashes), np.int64)
        for place, number in enumerate(there):
            score = _mixed(hashes ^ self._seeds[number])
            if best is None:
                best = score
                continue
            higher = score > best
            best = np.where(higher, score, best)
            chosen[higher] = place
        return chosen

    def move(self) -> None:
        """What waits for a collector that is away goes to one that is there."""
        if self.mode == "all":
            return
        there = [number for number in self._there() if self.collectors[number].available]
        for collector in self.collectors:
            collector.lenders = []
        for number, collector in enumerate(self.collectors):
            if not there or collector.available:
                continue
            to = self.collectors[there[0] if self.mode == "failover" else there[number % len(there)]]
            if collector.spool is not None:
                to.lenders.append(collector)
            if collector.waiting_records:
                to.take_over(collector)

    @property
    def full(self) -> bool:
        """Whether nothing more can be taken without dropping something."""
        if self.mode == "failover":
            return self.collectors[self._there()[0]].full
        return all(collector.full for collector in self.collectors)


def _seed(url: str) -> np.uint64:
    return np.uint64(int.from_bytes(hashlib.blake2b(url.encode(), digest_size=8).digest(), "big"))


def _mixed(numbers: np.ndarray) -> np.ndarray:
    """Each number mixed up (the finalizer of splitmix64)."""
    numbers = numbers + _ODD
    for shift, factor in _STEPS:
        numbers = (numbers ^ (numbers >> shift)) * factor
    return numbers ^ (numbers >> _LAST)


def _hash(find: Find, batch: Batch) -> np.ndarray:
    """A number for each row, the same for a flow and its reverse."""
    ends = []
    for address, port in (("orig.ip.saddr", "orig.l4.sport"), ("orig.ip.daddr", "orig.l4.dport")):
        end = np.zeros(batch.n, np.uint64)
        for name in (address, port):
            found = find(batch, name)
            if found is not None and isinstance(found.values, np.ndarray):
                values = found.values.astype(np.uint64)
                if values.ndim == 2:
                    values = _mixed(values[:, 0]) + values[:, 1]
                if found.missing is not None:
                    values = np.where(found.missing, np.uint64(0), values)
                end = _mixed(end ^ values)
        ends.append(end)
    protocol = find(batch, "orig.ip.protocol")
    both = ends[0] + ends[1]
    return both if protocol is None else both ^ protocol.values.astype(np.uint64)
