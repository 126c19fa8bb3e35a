"""Builds stacks: from lines of a configuration to a tree of instances, in two passes.

Down: record types must fit, and each instance declares its keys. Up: each instance learns which of its keys are wanted
below, and asks the instances above for the keys needed. Stacks with the same beginning share its instances; an output
id is one instance in all stacks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from ulogd_tw.core.batch import Batch
from ulogd_tw.core.errors import Mistake, UlogdError
from ulogd_tw.core.keys import Key, nearest, registry
from ulogd_tw.core.options import Options
from ulogd_tw.core.plugin import (
    ALL,
    FLOW,
    PACKET,
    RAW,
    Aggregator,
    All,
    Filter,
    Input,
    Output,
    Plugin,
    Wanted,
    type_text,
)
from ulogd_tw.core.resolve import Provided, Recipe


@dataclass(frozen=True)
class StackSpec:
    """One ``stack=`` line: its text, its place (``file:line``), and its (instance id, plugin name) pairs."""

    text: str
    where: str
    parts: tuple[tuple[str, str], ...]


Lookup = Callable[[str, str], type[Plugin]]
"""(plugin name, "input" | "filter" | "output") -> class; raises `UlogdError`."""
ReadOptions = Callable[[str, type[Plugin]], tuple[Options, list[Mistake]]]


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
        self.report: Callable[[Plugin, Exception], None] = _raise
        self.put: Callable[[Batch], None] = self._write
        plugin.emit = self.pass_on

    def __repr__(self) -> str:
        return f"<{self.ident}:{self.plugin.name}>"

    def pass_on(self, batch: Batch) -> None:
        """Hand a batch of this instance to all nodes below."""
        if batch.n:
            self.plugin.counters.rows_emitted += batch.n
            for child in self.children:
                child.receive(batch)

    def receive(self, batch: Batch) -> None:
        """Take a batch from above."""
        self.plugin.counters.rows_received += batch.n
        if self.aliases:
            held = {batch.schema[old].named(new): batch.columns[old] for new, old in self.aliases.items()}
            batch = batch.with_columns(
                held, {n: batch.missing[o] for n, o in self.aliases.items() if o in batch.missing}
            )
        if isinstance(self.plugin, Output):
            self.put(batch)
        else:
            self._process(batch)

    def _process(self, batch: Batch) -> None:
        counters = self.plugin.counters
        before = counters.dropped.total() + counters.rows_filtered
        try:
            assert isinstance(self.plugin, Filter)
            result = self.plugin.process(batch)
        except Exception as error:  # a fault of one plugin ends neither the service nor the other stacks
            counters.dropped["error"] += batch.n
            self.report(self.plugin, error)
            return
        results = () if result is None else (result,) if isinstance(result, Batch) else result
        if not isinstance(self.plugin, Aggregator):
            counted = counters.dropped.total() + counters.rows_filtered - before
            counters.rows_filtered += batch.n - counted - sum(r.n for r in results)
        for result in results:
            self.pass_on(result)

    def _write(self, batch: Batch) -> None:
        """Write at once; `ulogd_tw.flow` puts a queue in place of this."""
        counters = self.plugin.counters
        before = counters.dropped.total() + counters.rows_filtered
        assert isinstance(self.plugin, Output)
        self.plugin.write(batch)
        counters.rows_written += batch.n - (counters.dropped.total() + counters.rows_filtered - before)

    def feeders(self) -> set[Node]:
        """The nodes above that can hold rows back when a queue here is full: inputs, or nearer aggregates."""
        if not self.parents or isinstance(self.plugin, Aggregator):
            return {self}
        return set().union(*(p.feeders() for p in self.parents))


def _input(node: Node) -> Input:
    """The input of a node at the beginning of a stack."""
    assert isinstance(node.plugin, Input)
    return node.plugin


def _flowing(classes: Sequence[type[Plugin]]) -> int:
    """The types of the rows that the input gives to the plugin below it."""
    assert issubclass(classes[0], Input)
    return classes[0].flowing(classes[1])


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
            came = sum(parent.plugin.counters.rows_emitted for parent in node.parents) + counters.rows_unspooled
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
        return sorted(parts, key=lambda part: any(_input(node).listens for node in part.inputs))

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


class Builder:
    """Builds the graph of several stacks; `mistakes` collects every fault of all of them."""

    def __init__(
        self,
        lookup: Lookup,
        read_options: ReadOptions,
        providers: Callable[[str], list[str]] = lambda key: [],
    ) -> None:
        self.lookup = lookup
        self.read_options = read_options
        self.providers = providers
        self.mistakes: list[Mistake] = []
        self._instances: dict[tuple[str, str], Plugin] = {}

    def build(self, specs: Iterable[StackSpec], prepare: bool = False) -> Graph:
        """The graph of all stacks without a mistake. `prepare` lets outputs look at the outside first."""
        good = [s for s in specs if self._sound(s, prepare)]
        graph = Graph()
        tree: dict[tuple, Node] = {}
        for spec in good:
            graph.stacks.append(self._grow(spec, graph, tree))
        for text in _resolve(graph, self.providers):
            self.mistakes.append(text)  # found for each stack alone before; a tree adds none
        return graph

    def _sound(self, spec: StackSpec, prepare: bool) -> bool:
        """Whether the stack, taken alone, has no fault; faults go into `mistakes`."""
        found: list[Mistake] = []
        classes = self._find_classes(spec, found)
        if classes is not None:
            plugins = self._make(spec, classes, found, prepare)
            if plugins is not None and not _types(spec, plugins, found):
                graph = Graph()
                _thread(spec, plugins, graph)
                try:
                    found += _resolve(graph, self.providers)
                except Exception as error:
                    found.append(Mistake(spec.where, f"stack {spec.text}: {_reason(error)}"))
        seen = {str(m) for m in self.mistakes}
        self.mistakes += [m for m in found if str(m) not in seen]
        return not any(not m.tolerated for m in found)

    def _find_classes(self, spec: StackSpec, found: list[Mistake]) -> list[type[Plugin]] | None:
        classes = []
        last = len(spec.parts) - 1
        if last < 1:
            found.append(Mistake(spec.where, f"stack {spec.text}: a stack must have an input and an output"))
            return None
        for ident, name in spec.parts:
            others = {other for i, other in spec.parts if i == ident and other != name}
            if others:
                text = f"{ident} is {name} and {' and '.join(sorted(others))} here; give each instance an id of its own"
                found.append(Mistake(spec.where, f"stack {spec.text}: {text}", True))
                break
        for place, (_, name) in enumerate(spec.parts):
            position = "input" if place == 0 else "output" if place == last else "filter"
            try:
                classes.append(self.lookup(name, position))
            except UlogdError as error:
                found.append(Mistake(spec.where, f"stack {spec.text}: {error}"))
                continue
        return classes if len(classes) == len(spec.parts) else None

    def _make(
        self, spec: StackSpec, classes: list[type[Plugin]], found: list[Mistake], prepare: bool
    ) -> list[Plugin] | None:
        plugins: list[Plugin] = []
        for place, ((ident, _), class_) in enumerate(zip(spec.parts, classes, strict=True)):
            options, mistakes = self.read_options(ident, class_)
            found += mistakes
            unread = [m for m in mistakes if not m.tolerated]
            try:
                plugin, wrong = self._check(ident, class_, options, unread)
                if place == 0:
                    plugin.otype = _flowing(classes)
                found += [m if m.where else Mistake(spec.where, m.text, option=m.option) for m in wrong]
                if wrong or unread:
                    continue
                found += self._remarks(ident, plugin, spec)
                if prepare:
                    plugin.prepare()
            except Exception as error:
                if not unread:  # else it may lack what is known to be wrong
                    found.append(Mistake(spec.where, f"stack {spec.text}: {ident}:{class_.name}: {_reason(error)}"))
                continue
            plugins.append(plugin)
        return plugins if len(plugins) == len(classes) else None

    def _check(
        self, ident: str, class_: type[Plugin], options: Options, unread: list[Mistake]
    ) -> tuple[Plugin, list[Mistake]]:
        """The instance, and what it finds wrong with its options, each at its own line; at "" where it has none."""
        plugin = class_(ident, options) if unread else self._instance(ident, class_, options)
        known_wrong = {mistake.option for mistake in unread}
        places = options.places
        wrong = [
            Mistake(places.get(option, places.get("", "")), f"[{ident}] {option}: {text}", option=option)
            for option, text in plugin.mistakes()
            if option not in known_wrong
        ]
        return plugin, wrong

    @staticmethod
    def _remarks(ident: str, plugin: Plugin, spec: StackSpec) -> list[Mistake]:
        """What may not be meant as it is written: warnings."""
        places = plugin.config.places
        return [
            Mistake(places.get(option) or spec.where, f"[{ident}] {option}: {text}", tolerated=True, option=option)
            for option, text in plugin.remarks()
        ]

    def _instance(self, ident: str, class_: type[Plugin], options: Options) -> Plugin:
        """A new instance; for an output always the same one, since it keeps the results of `prepare`."""
        if not issubclass(class_, Output):
            return class_(ident, options)
        place = (ident, class_.name)
        if place not in self._instances:
            self._instances[place] = class_(ident, options)
        return self._instances[place]

    def _grow(self, spec: StackSpec, graph: Graph, tree: dict[tuple, Node]) -> Stack:
        """Add a stack to the tree, sharing existing nodes."""
        path: list[Node] = []
        last = len(spec.parts) - 1
        positions = ["input", *["filter"] * (last - 1), "output"]
        classes = [self.lookup(name, at) for (_, name), at in zip(spec.parts, positions, strict=True)]
        flowing = _flowing(classes)  # an input is an instance of its own for each type of rows
        for place, (ident, _) in enumerate(spec.parts):
            position, class_ = positions[place], classes[place]
            where = ("output", ident, class_.name) if place == last else (flowing, *spec.parts[: place + 1])
            node = tree.get(where)
            if node is None:
                plugin = self._instance(ident, class_, self.read_options(ident, class_)[0])
                if place == 0:
                    plugin.otype = flowing
                nodes = {"input": graph.inputs, "filter": graph.filters, "output": graph.outputs}[position]
                same = sum(1 for n in graph.nodes if n.ident.split("#")[0] == ident)
                node = tree[where] = Node(plugin, f"{ident}#{same + 1}" if same else ident, None)
                plugin.instance = node.ident
                if position == "filter":
                    plugin.source = _input(path[0])
                nodes.append(node)
            if path:
                _join(path[-1], node)
            if isinstance(node.plugin, Output) and path[0].plugin not in node.plugin.inputs:
                node.plugin.inputs = (*node.plugin.inputs, _input(path[0]))
            path.append(node)
        stack = Stack(spec, path)
        for node in path:
            node.stacks.append(stack)
        return stack


def _reason(error: Exception) -> str:
    """What an instance says of its fault; an error of the plugin itself is named as one."""
    if isinstance(error, UlogdError | OSError):
        return str(error)
    return f"an error of the plugin itself: {type(error).__name__}: {error}"


def _join(parent: Node, child: Node) -> None:
    if child not in parent.children:
        parent.children.append(child)
        child.parents.append(parent)


def _thread(spec: StackSpec, plugins: list[Plugin], graph: Graph) -> None:
    """One stack as a graph of its own, for checks."""
    path = [Node(plugin, plugin.instance, None) for plugin in plugins]
    for parent, child in zip(path, path[1:], strict=False):
        _join(parent, child)
    graph.inputs, graph.filters, graph.outputs = path[:1], path[1:-1], path[-1:]
    graph.stacks = [Stack(spec, path)]
    for node in path:
        node.stacks.append(graph.stacks[0])


_BETWEEN = ((RAW, PACKET, "BASE"), (PACKET, FLOW, "FLOWCACHE"), (RAW, FLOW, "BASE and FLOWCACHE"))
"""What makes rows of another type."""


def _between(given: int, taken: int) -> str:
    """What to put between two plugins whose types do not fit, as an end of a sentence."""
    names = [name for from_, to, name in _BETWEEN if given & from_ and taken & to]
    return f"; put {names[0]} between them" if names else ""


def _types(spec: StackSpec, plugins: list[Plugin], found: list[Mistake]) -> bool:
    """Check that record types fit from input to output; True for a fault."""
    flowing = plugins[0].otype
    for above, plugin in zip(plugins, plugins[1:], strict=False):
        if not flowing & plugin.itype:
            text = (
                f"stack {spec.text}: {plugin.instance}:{plugin.name} takes {type_text(plugin.itype)}, "
                f"but {above.instance}:{above.name} gives {type_text(flowing)}{_between(flowing, plugin.itype)}"
            )
            found.append(Mistake(spec.where, text))
            return True
        flowing = flowing & plugin.itype if plugin.itype == plugin.otype else plugin.otype
    return False


class _Wish:
    """The keys wanted of one node, while requests are collected: by name, and perhaps all."""

    def __init__(self) -> None:
        self.names: frozenset[str] = frozenset()
        self.often: frozenset[str] = frozenset()
        """The names that somebody needs in every record."""
        self.everything = False

    def add(self, names: frozenset[str], seldom: bool) -> None:
        """These columns are wanted, perhaps in some records only."""
        self.names |= names
        if not seldom:
            self.often |= names

    @property
    def seldom(self) -> frozenset[str]:
        """The names that nobody needs in every record."""
        return frozenset() if self.everything else self.names - self.often

    def of(self, plugin: Plugin, given: Provided) -> Wanted:
        """The form for the plugin: `ALL` only where it cannot name its keys itself."""
        if not self.everything:
            return self.names
        return ALL if given.open else self.names | (frozenset(given.keys) - plugin.hidden)


def _resolve(graph: Graph, providers: Callable[[str], list[str]]) -> list[Mistake]:
    """The upward pass: connect every request to the node that gives the key, and give each node its wanted keys."""
    given = {node: Provided(node.plugin.keys(), node.plugin.open_keys) for node in graph.nodes}
    wanted = {node: _Wish() for node in graph.nodes}
    mistakes: list[Mistake] = []
    depth = {node: place for stack in graph.stacks for place, node in enumerate(stack.path)}
    filters = sorted(graph.filters, key=depth.__getitem__, reverse=True)
    for node in graph.outputs + filters + graph.inputs:
        plugin = node.plugin
        plugin.wanted = wanted[node].of(plugin, given[node])
        plugin.seldom_wanted = wanted[node].seldom
        for parent in node.parents:
            if isinstance(plugin, Output):
                asked = plugin.requests_of(_names(_upwards(parent), given))
            else:
                asked = plugin.requests(plugin.wanted)
            mistakes += _request(node, parent, asked, given, wanted, providers)
    return mistakes


def _names(above: Iterable[Node], given: dict[Node, Provided]) -> frozenset[str] | None:
    """The names of the keys that these nodes give; None where any key may come."""
    providers = [given[node] for node in above]
    return None if any(p.open for p in providers) else frozenset().union(*(p.keys for p in providers))


def _request(
    node: Node,
    parent: Node,
    asked: dict[str, bool] | All,
    given: dict[Node, Provided],
    wanted: dict[Node, _Wish],
    providers: Callable[[str], list[str]],
) -> list[Mistake]:
    """Connect the requests of `node` to the nodes from `parent` upwards."""
    above = list(_upwards(parent))
    stack = next(s for s in node.stacks if parent in s.path)
    if asked is ALL:
        for provider in above:
            wanted[provider].everything = True
        keys: dict[str, Key] = {}
        for provider in reversed(above):
            keys |= {n: k for n, k in given[provider].keys.items() if n not in provider.plugin.hidden}
        any_key = any(given[provider].open for provider in above)
        return [
            Mistake(stack.spec.where, f"stack {stack.spec.text}: {node.plugin.instance}:{node.plugin.name}: {text}")
            for text in node.plugin.available(None if any_key else tuple(keys.values()))
        ]
    mistakes = []
    for request, required in asked.items():
        name, _, instance = request.partition("@")
        for provider in above:
            if instance and provider.ident.split("#")[0] != instance:
                continue
            if recipes := given[provider].recipes(name):
                if not given[provider].open and recipes[0].convert is None:
                    recipes = tuple(
                        r for r in recipes if r.convert is None
                    )  # it has the key itself: no need to decode more
                recipes = _past_shadows(provider, above, recipes, given)
                node.plugin.sources.add(request, recipes)
                if request not in node.plugin.seldom:
                    provider.requested.add(name)
                columns = frozenset(i.partition("@")[0] for r in recipes for i in r.inputs)
                wanted[provider].add(columns, request in node.plugin.seldom)
                break
        else:
            if required:
                mistakes.append(_unmet(node, stack, request, instance, above, given, providers))
    return mistakes


def _upwards(node: Node) -> Iterator[Node]:
    """`node` and the nodes above it whose keys are visible below it (below an input there is one way up)."""
    while True:
        yield node
        if not node.plugin.passes or not node.parents:
            return
        node = node.parents[0]


def _past_shadows(
    provider: Node, above: list[Node], recipes: tuple[Recipe, ...], given: dict[Node, Provided]
) -> tuple[Recipe, ...]:
    """Recipes for columns of `provider` that a nearer node would hide with a key of the same name."""
    nearer = above[: above.index(provider)]
    found = []
    for recipe in recipes:
        inputs = []
        for column in recipe.inputs:
            cover = [n for n in nearer if column in given[n].keys]
            if cover:
                alias = f"{column}@{provider.ident}"
                cover[-1].aliases[alias] = column
                column = alias
            inputs.append(column)
        found.append(Recipe(tuple(inputs), recipe.convert))
    return tuple(found)


def _unmet(
    node: Node,
    stack: Stack,
    request: str,
    instance: str,
    above: list[Node],
    given: dict[Node, Provided],
    providers: Callable[[str], list[str]],
) -> Mistake:
    """The mistake of an unmet request: what, where, and what would meet it."""
    name = request.partition("@")[0]
    text = f"stack {stack.spec.text}: {node.plugin.instance}:{node.plugin.name} needs {request}"
    if instance and instance not in {n.ident.split("#")[0] for n in above}:
        return Mistake(stack.spec.where, f"{text}, but there is no {instance} above it")
    text += ", which no plugin above it provides"
    if others := providers(name):
        text += f"; {' and '.join(others)} {'does' if len(others) == 1 else 'do'}"
    else:
        near = nearest(name, {n for g in (given[a] for a in above) for n in g.keys} | registry.names())
        if near and near != name:
            text += f"; did you mean {near}?"
    return Mistake(stack.spec.where, text)


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


__all__ = ["Builder", "Filter", "Graph", "Input", "Node", "Stack", "StackSpec", "describe"]
