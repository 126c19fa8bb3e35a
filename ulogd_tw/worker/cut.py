"""The part of the stacks that a worker runs: from its COLLECTOR to the first instance that is not divided."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ulogd_tw.aggregation import AddingProcess, of_worker
from ulogd_tw.aggregation.parts import Part
from ulogd_tw.core.batch import Batch
from ulogd_tw.core.graph import Graph, Node, Stack
from ulogd_tw.core.plugin import FLOW, Aggregator, Output
from ulogd_tw.plugins.filters.aggregate import AGGREGATE

Hand = Callable[[str, Batch], bool]
"""Hands a batch to an instance of the service; False: there is no room."""


class Adding(AGGREGATE):
    """An AGGREGATE of which the service has the other half: groups go there as parts."""

    def __init__(self, instance: str, config: Any = None) -> None:
        super().__init__(instance, config)
        self.settings = of_worker(self.settings)
        self.adding = self.aggregation = AddingProcess(
            instance, self.settings, self.find, self.counters, self._emit, self._columns_out
        )

    def open(self) -> None:
        if self.source is not None:
            self.source.seconds_apart = True

    def keep_state(self, directory: Path, every: float) -> None:
        """The service keeps it."""

    def wake(self, now: float) -> float | None:
        return None

    def clock_set(self, now: float, step: float) -> None:
        """Intervals end in the service."""

    def flush(self) -> None:
        """The last parts are taken like the others."""

    def hand_on(self) -> None:
        """Likewise."""

    @property
    def ready(self) -> bool:
        """Whether parts should be taken now."""
        return self.adding.ready

    def take_parts(self) -> Iterator[Part]:
        """All groups, and none stays."""
        return self.adding.take_parts()


class Handing(Output):
    """Stands for an instance of the service, which gets the rows."""

    name = "HANDING"
    itype = FLOW

    def __init__(self, instance: str, hand: Hand) -> None:
        super().__init__(instance)
        self._hand = hand

    def write(self, batch: Batch) -> None:
        if not self._hand(self.instance, batch):
            self.counters.dropped["queue_full"] += batch.n


@dataclass(frozen=True)
class Share:
    """The graph of a worker, and the instances that add up."""

    graph: Graph
    adding: dict[str, Adding]


def cut(graph: Graph, ident: str, hand: Hand) -> Share:
    """What a worker of the input `ident` runs; the graph given is taken apart."""
    top = next(node for node in graph.inputs if node.ident == ident)
    top.parents = []
    found = Graph(inputs=[top])
    ends: dict[Node, Node] = {}
    _follow(top, found, ends, hand)
    live = set(found.nodes)
    for stack in graph.stacks:
        if stack.path[0] is top:
            path = [ends.get(node, node) for node in stack.path]
            found.stacks.append(Stack(stack.spec, [node for node in path if node in live]))
    adding = {node.ident: node.plugin for node in found.filters if isinstance(node.plugin, Adding)}
    return Share(found, adding)


def _follow(node: Node, found: Graph, ends: dict[Node, Node], hand: Hand) -> None:
    """Go down as far as instances are divided; the first others are where rows are handed on."""
    for place, child in enumerate(node.children):
        if isinstance(child.plugin, Adding) and child.plugin.divided:
            child.children = []
            found.filters.append(child)
        elif isinstance(child.plugin, (Aggregator, Output)):
            if child not in ends:
                ends[child] = Node(Handing(child.ident, hand), child.ident, None)
                found.outputs.append(ends[child])
            ends[child].parents.append(node)
            node.children[place] = ends[child]
        else:
            found.filters.append(child)
            _follow(child, found, ends, hand)
