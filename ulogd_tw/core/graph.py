"""The tree of instances that stacks make: rows go from node to node, down to the outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from ulogd_tw.core.batch import Batch
from ulogd_tw.core.plugin import ALL, Aggregator, Filter, Input, Output, Plugin


@dataclass(frozen=True)
class StackSpec:
    """One ``stack=`` line: its text, its place (``file:line``), and its (instance id, plugin name) pairs."""

    text: str
    where: str
    parts: tuple[tuple[str, str], ...]


class Node:
    """One instance in the tree. Every batch goes through `receive`."""

    def __init__(self, plugin: Plugin, ident: str, parent: Node | None) -> None:
        self.plugin = plugin
        self.ident = ident
        self.parents = [parent] if parent else []
        self.children: list[Node] = []
        self.stacks: list[Stack] = []
        self.requested: set[str] = set()
        """Names of keys as plugins below asked for them."""
        self.aliases: dict[str, str] = {}
        """Columns kept under another name (``key@instance``), since this instance gives a key of the same name."""
        self.drawn: set[str] = set()
        """Columns that this instance takes by name."""
        self.left_out: frozenset[str] = frozenset()
        """Keys that only instances of other stacks asked for: an output of all keys does not see them."""
        self.received_before = 0
        """Rows that its instance had received from nodes above that are gone since a reload."""
        self._held: list[Batch] | None = None
        """Batches that wait until the instance is open."""
        self.report: Callable[[Plugin, Exception], None] = _raise
        self.put: Callable[[Batch], None] = self._write
        self.take(plugin)

    def __repr__(self) -> str:
        return f"<{self.ident}:{self.plugin.name}>"

    def pass_on(self, batch: Batch) -> None:
        """Hand a batch of this instance to all nodes below."""
        if batch.n:
            self.plugin.counters.rows_emitted += batch.n
            if self.plugin.ledger is not None:
                self.plugin.ledger.emit(batch)
            for child in self.children:
                child.receive(batch)

    def receive(self, batch: Batch) -> None:
        """Take a batch from above."""
        if self._held is not None:
            self._held.append(batch)
            return
        self.plugin.counters.rows_received += batch.n
        if self.aliases:
            held = {batch.schema[old].named(new): batch.columns[old] for new, old in self.aliases.items()}
            batch = batch.with_columns(
                held, {n: batch.missing[o] for n, o in self.aliases.items() if o in batch.missing}
            )
        if isinstance(self.plugin, Output):
            self.put(self._without(batch) if self.left_out else batch)
        else:
            self._process(batch)

    def _without(self, batch: Batch) -> Batch:
        if self.left_out.isdisjoint(batch.schema):
            return batch
        return batch.select([name for name in batch.schema if name not in self.left_out])

    def _process(self, batch: Batch) -> None:
        counters = self.plugin.counters
        before = counters.dropped.total() + counters.rows_filtered
        try:
            assert isinstance(self.plugin, Filter)
            result = self.plugin.process(batch)
        except Exception as error:  # a fault of one plugin ends neither the service nor the other stacks
            counters.dropped["error"] += batch.n
            self._settle()
            self.report(self.plugin, error)
            return
        results = () if result is None else (result,) if isinstance(result, Batch) else result
        if not isinstance(self.plugin, Aggregator):
            counted = counters.dropped.total() + counters.rows_filtered - before
            counters.rows_filtered += batch.n - counted - sum(r.n for r in results)
        self._settle()
        for result in results:
            self.pass_on(result)

    def _settle(self) -> None:
        if self.plugin.ledger is not None:
            self.plugin.ledger.settle()

    def _write(self, batch: Batch) -> None:
        """Write at once; `ulogd_tw.flow` puts a queue in place of this."""
        counters = self.plugin.counters
        before = counters.dropped.total() + counters.rows_filtered
        assert isinstance(self.plugin, Output)
        self.plugin.write(batch)
        counters.rows_written += batch.n - (counters.dropped.total() + counters.rows_filtered - before)

    def rows_sent(self) -> int:
        """Rows that the nodes above have handed to all below them."""
        return sum(parent.plugin.counters.rows_emitted for parent in self.parents)

    def hold(self) -> None:
        """Let batches wait until `release`: the instance is opened meanwhile."""
        self._held = []

    def release(self) -> None:
        """Take the batches that wait."""
        held, self._held = self._held or [], None
        for batch in held:
            self.receive(batch)

    def take(self, plugin: Plugin) -> None:
        """Be the node of a running instance from now on."""
        self.plugin = plugin
        plugin.emit = self.pass_on
        if isinstance(plugin, Output):
            plugin.losses = self.losses

    def losses(self) -> dict[str, int]:
        """Totals of `lost` and `dropped` of this instance and of all above it, by instance and reason."""
        found = {}
        for node in self.above():
            counters = node.plugin.counters
            for kind, counts in (("lost", counters.lost), ("dropped", counters.dropped)):
                found.update({f"{node.ident} {kind}.{reason}": number for reason, number in counts.items()})
        return found

    def above(self) -> set[Node]:
        """This node and all nodes from which rows come to it."""
        return {self}.union(*(parent.above() for parent in self.parents))

    def feeders(self) -> set[Node]:
        """The nodes above that can hold rows back when a queue here is full: inputs, or nearer aggregates."""
        if not self.parents or isinstance(self.plugin, Aggregator):
            return {self}
        return set().union(*(p.feeders() for p in self.parents))


def input_of(node: Node) -> Input:
    """The input of a node at the beginning of a stack."""
    assert isinstance(node.plugin, Input)
    return node.plugin


def _raise(plugin: Plugin, error: Exception) -> None:
    raise error


@dataclass
class Stack:
    """A built stack: its line and its nodes from input to output."""

    spec: StackSpec
    path: list[Node]


@dataclass
class Graph:
    """All stacks of a configuration, as a forest of nodes."""

    stacks: list[Stack] = field(default_factory=list)
    inputs: list[Node] = field(default_factory=list)
    filters: list[Node] = field(default_factory=list)
    outputs: list[Node] = field(default_factory=list)

    @property
    def nodes(self) -> list[Node]:
        """Every node: inputs first, and each instance after the instances above it."""
        return self.inputs + self.filters + self.outputs

    @property
    def instances(self) -> dict[str, Plugin]:
        """Every instance by its id; a filter's second instance is ``id#2``."""
        return {node.ident: node.plugin for node in self.nodes}

    def unaccounted(self) -> dict[str, int]:
        """Instances with unbalanced counters, and the rows missing: empty whenever the reactor is idle."""
        found = {node.ident: node.plugin.counters.unaccounted() for node in self.nodes}
        for node in self.filters + self.outputs:
            counters = node.plugin.counters
            came = node.received_before + node.rows_sent() + counters.rows_unspooled
            found[node.ident] = found[node.ident] or came - counters.rows_received
        return {ident: rows for ident, rows in found.items() if rows}

    def parts(self) -> list[Graph]:
        """The graph cut into parts without a common instance; parts with a listening input come last."""
        parts: list[Graph] = []
        for stack in self.stacks:
            nodes = set(stack.path)
            touching = [part for part in parts if nodes & set(part.nodes)]
            parts = [part for part in parts if part not in touching]
            stacks = [s for part in touching for s in part.stacks] + [stack]
            parts.append(self._only(stacks))
        return sorted(parts, key=lambda part: any(input_of(node).listens for node in part.inputs))

    def _only(self, stacks: list[Stack]) -> Graph:
        live = {node for s in stacks for node in s.path}
        return Graph(stacks, *([n for n in nodes if n in live] for nodes in (self.inputs, self.filters, self.outputs)))

    def without(self, broken: set[Node]) -> tuple[Graph, list[Stack]]:
        """The graph without the stacks through any of these nodes, and the stacks left out."""
        gone = [s for s in self.stacks if broken & set(s.path)]
        stacks = [s for s in self.stacks if s not in gone]
        rest = self._only(stacks)
        live = set(rest.nodes)
        for node in live:
            node.children = [c for c in node.children if c in live]
            node.parents = [p for p in node.parents if p in live]
        return rest, gone


def describe(graph: Graph) -> str:
    """Each stack with the keys wanted of each instance, as printed by ``--check``."""
    lines = []
    for stack in graph.stacks:
        lines.append(f"{stack.spec.where}: stack {stack.spec.text}")
        for node in stack.path[:-1]:
            wanted = node.plugin.wanted
            text = "every key" if wanted is ALL else ", ".join(sorted(node.requested or wanted)) or "no key"
            lines.append(f"    {node.ident}:{node.plugin.name}: {text}")
        lines.append(f"    {stack.path[-1].ident}:{stack.path[-1].plugin.name}")
    return "\n".join(lines)


def upwards(node: Node) -> Iterator[Node]:
    """`node` and the nodes above it whose keys are visible below it (below an input there is one way up)."""
    while True:
        yield node
        if not node.plugin.passes or not node.parents:
            return
        node = node.parents[0]


def tell_maker(path: Sequence[Node]) -> None:
    """Tell the output at the end of a stack which instance makes the rows of this stack."""
    output = path[-1].plugin
    maker = list(upwards(path[-2]))[-1].plugin
    if isinstance(output, Output) and maker not in output.makers:
        output.makers = (*output.makers, maker)
