"""The ledger: where rows are, in a file in memory, so that the rows of a killed process are accounted for.

Each instance has some words. A row is entered where it comes from before it goes to where it goes, so that at any
moment the difference is the number of rows on their way: with the process they are gone, and the next one counts them
as ``lost{unsaved}``. Rows of an AGGREGATE weigh as many rows as they sum up.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from ulogd_tw.core.batch import Batch
from ulogd_tw.core.counters import Counters
from ulogd_tw.core.graph import Graph
from ulogd_tw.core.mapped import MappedWords, read, split
from ulogd_tw.core.plugin import Aggregator, Input, Output, Plugin

VERSION = 1
_MOST_OCTETS = 16 << 20
"""Octets of a ledger at most: 2 kB an instance, and there are not so many."""
EMITTED, GONE, RECEIVED, WEIGHT_OUT, WEIGHT_IN, CUT, HELD, MERGED = range(8)
"""The words of an instance.

EMITTED     rows passed on
GONE        rows filtered or dropped, and of a filter rows merged
RECEIVED    rows made by an input; of a FLOWCACHE, packets of the flows passed on
WEIGHT_OUT  weight of the rows passed on
WEIGHT_IN   weight of the rows that an output has written or given up
CUT         weight of the rows that found no room in the queue of an output
HELD        weight of rows that were there at first, or came from elsewhere: of an earlier run, from a spool
MERGED      rows that it added up
"""
_WORDS = 8
_CLOSED, _FIRST = 0, 8
"""The first word is 1 after an orderly stop; the instances follow."""


def weight(batch: Batch) -> int:
    """The rows that a batch stands for: an AGGREGATE's row stands for its flows.

    Rows kept in a file stand for none: a kill does not lose them.
    """
    if batch.kept:
        return 0
    flows = batch.columns.get("flows")
    return int(flows.sum()) if isinstance(flows, np.ndarray) and flows.dtype.kind in "ui" else batch.n


class Entry:
    """The words of one instance; its counters from now on."""

    __slots__ = ("_words", "_at", "_counters", "_before")

    def __init__(self, words: memoryview, at: int, counters: Counters) -> None:
        self._words = words
        self._at = at
        self._counters = counters
        self._before = _counted(counters)

    def emit(self, batch: Batch) -> None:
        """A batch goes to the instances below now."""
        self._words[self._at + WEIGHT_OUT] += weight(batch)
        self._words[self._at + EMITTED] += batch.n

    def settle(self) -> None:
        """Rows were filtered, dropped or merged."""
        gone, merged, _ = _counted(self._counters)
        self._words[self._at + MERGED] = merged - self._before[1]
        self._words[self._at + GONE] = gone - self._before[0]

    def receive(self) -> None:
        """An input has made rows, and passes them on next."""
        self.settle()
        self._words[self._at + RECEIVED] = self._counters.rows_received - self._before[2]

    def told(self, emitted: int) -> None:
        """Workers have counted, and passed on so many rows, each of which stands for itself."""
        self._words[self._at + WEIGHT_OUT] += emitted
        self._words[self._at + EMITTED] += emitted
        self.receive()

    def finish(self, weight: int) -> None:
        """An output has written, given up or kept on the disk rows of this weight."""
        self._words[self._at + WEIGHT_IN] += weight

    def leave(self, rows: int) -> None:
        """So many of the rows added up leave with the rows that are passed on next."""
        self._words[self._at + RECEIVED] += rows

    def cut(self, weight: int) -> None:
        """Rows of this weight found no room."""
        self._words[self._at + CUT] += weight

    def hold(self, weight: int) -> None:
        """Rows of this weight are in the instance that no instance above has passed on in this ledger."""
        self._words[self._at + HELD] += weight

    @property
    def finished(self) -> int:
        """The weight of the rows that were written or given up."""
        return self._words[self._at + WEIGHT_IN]

    @property
    def words(self) -> list[int]:
        """A copy of the words."""
        return list(self._words[self._at : self._at + _WORDS])


def _counted(counters: Counters) -> tuple[int, int, int]:
    """Rows that are gone, merged, received."""
    gone = counters.rows_filtered + counters.rows_merged + counters.dropped.total()
    return gone, counters.rows_merged, counters.rows_received


class Ledger:
    """The ledger of the running graph at `path`; it replaces that of an earlier run, or `before` a reload.

    `waiting` is the weight of the rows before each output. Raises OSError.
    """

    def __init__(
        self,
        path: Path,
        graph: Graph,
        before: Ledger | None = None,
        waiting: Mapping[Plugin, int] = MappingProxyType({}),
    ) -> None:
        self._nodes = nodes = graph.nodes
        places = {node: place for place, node in enumerate(nodes)}
        described = [
            [node.ident, node.plugin.name, _kind(node.plugin), [places[parent] for parent in node.parents]]
            for node in nodes
        ]
        head = json.dumps({"ulogd_tw": "ledger", "version": VERSION, "boot": boot(), "nodes": described}).encode()
        octets = len(head).to_bytes(8, "little") + head
        self._file = MappedWords(path, octets, _FIRST + _WORDS * len(nodes))
        self._synced = b""
        inside = ({} if before is None else before.inside()) | dict(waiting)
        finished = {} if before is None else before.finished()
        if before is not None:
            before.close()
        for node, place in places.items():
            entry = Entry(self._file.words, _FIRST + _WORDS * place, node.plugin.counters)
            entry.hold(inside[node.plugin] if node.plugin in inside else node.plugin.held_rows())
            if done := finished.get(node.plugin, 0):  # the batch that it wrote last has its place by this number
                entry.hold(done)
                entry.finish(done)
            node.plugin.ledger = entry

    def inside(self) -> dict[Plugin, int]:
        """The weight of the rows in each instance at this moment."""
        found = Former()
        for node in self._nodes:
            words, parents = node.plugin.ledger.words, [parent.ident for parent in node.parents]
            found.nodes[node.ident] = _kind(node.plugin), words, parents
        return {node.plugin: found.unsaved(node.ident) for node in self._nodes}

    def finished(self) -> dict[Plugin, int]:
        """The weight of the rows that each output has written or given up."""
        return {node.plugin: node.plugin.ledger.finished for node in self._nodes if isinstance(node.plugin, Output)}

    @property
    def changed(self) -> bool:
        """Whether there is something for `sync`; asking notes that it is done."""
        now = bytes(self._file.words)
        before, self._synced = self._synced, now
        return before != now

    def sync(self) -> None:
        """Return once it is on the disk; for a thread."""
        self._file.sync()

    def close(self, in_order: bool = True) -> None:
        """The end of all instances; `in_order`: none has rows left, but for the groups that aggregates have kept."""
        for node in self._nodes:
            node.plugin.ledger = None
        if in_order:
            self._file.words[_CLOSED] = 1
        self._file.close()


def _kind(plugin: Plugin) -> str:
    if isinstance(plugin, Aggregator) and not plugin.weighs:
        return "cache" if plugin.tells_leaving else "sums"
    for kind in (Input, Aggregator, Output):
        if isinstance(plugin, kind):
            return kind.__name__.lower()
    return "filter"


def boot() -> str:
    """The name of the machine's present life; empty if unknown."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return file.read().strip()
    except OSError:
        return ""


# an earlier run


class Written(NamedTuple):
    """A write under way at the end: the weight finished before it, and its own."""

    before: int
    weight: int


@dataclass
class Former:
    """The ledger of an earlier run: for each instance its kind, words, and parents.

    After an end `in_order` only aggregates have rows: those of the groups that they kept.
    """

    nodes: dict[str, tuple[str, list[int], list[str]]] = field(default_factory=dict)
    in_order: bool = False

    def unsaved(self, ident: str, held: int = 0, committed: Iterable[Written] = ()) -> int:
        """The rows that an instance lost: it had received them, and neither passed them on nor saved them.

        `held` are those that an aggregate goes on with; `committed` are writes of an output found done.
        """
        kind, words, parents = self.nodes.get(ident, ("", [], []))
        if not kind or self.in_order and kind != "aggregator":
            return 0
        if kind == "output":
            came = words[HELD] + sum(self.nodes[parent][1][WEIGHT_OUT] for parent in parents)
            done = max([words[WEIGHT_IN], *(write.before + write.weight for write in committed)])
            return max(came - done - words[CUT], 0)
        if kind == "input":
            return max(words[RECEIVED] - words[EMITTED] - words[GONE], 0)
        came = sum(self.nodes[parent][1][EMITTED] for parent in parents)
        if kind == "filter":
            return max(came - words[EMITTED] - words[GONE], 0)
        if kind in ("cache", "sums"):
            inside = words[HELD] + words[MERGED] - words[RECEIVED] if kind == "cache" else 0
            return max(came - words[GONE], 0) + max(inside, 0)
        return max(came - words[GONE], 0) + max(words[HELD] + words[MERGED] - words[WEIGHT_OUT] - held, 0)


def former(path: Path) -> Former | None:
    """What the ledger of an earlier run says; None: there is none.

    Raises OSError, and ValueError for a damaged one, or one of a newer release.
    """
    try:
        octets = read(path, _MOST_OCTETS)
    except FileNotFoundError:
        return None
    head = _head(octets)
    words = split(octets, 8 + int.from_bytes(octets[:8], "little"))
    nodes = head["nodes"]
    if len(words) < _FIRST + _WORDS * len(nodes):
        raise ValueError("it is cut")
    found = Former(in_order=bool(words[_CLOSED]))
    for place, (ident, _, kind, parents) in enumerate(nodes):
        at = _FIRST + _WORDS * place
        found.nodes[ident] = kind, list(words[at : at + _WORDS]), [nodes[parent][0] for parent in parents]
    return found


def _head(octets: bytes) -> dict[str, Any]:
    length = int.from_bytes(octets[:8], "little")
    try:
        head = json.loads(octets[8 : 8 + length])
        kind, version = head["ulogd_tw"], head["version"]
        fits = all(0 <= parent < len(head["nodes"]) for *_, parents in head["nodes"] for parent in parents)
    except (ValueError, TypeError, KeyError, RecursionError):
        raise ValueError("it is damaged") from None
    if kind != "ledger" or version != VERSION or not fits:
        raise ValueError(f"it is no ledger of version {VERSION}")
    return head
