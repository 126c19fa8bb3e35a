"""Builds stacks: from lines of a configuration to a tree of instances, in two passes.

Down: record types must fit, and each instance declares its keys. Up: each instance learns which of its keys are wanted
below, and asks the instances above for the keys needed; each input learns how long its rows may wait (`patience`).
Stacks with the same beginning share its instances; an output id is one instance in all stacks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from ulogd_tw.core.errors import Mistake, UlogdError, in_words
from ulogd_tw.core.graph import Graph, Node, Stack, StackSpec, describe, input_of, tell_maker
from ulogd_tw.core.options import Options
from ulogd_tw.core.plugin import FLOW, PACKET, RAW, SUM, Input, Output, Plugin, type_text
from ulogd_tw.core.requests import hand_up_patience, resolve

__all__ = ["Builder", "Graph", "Node", "Stack", "StackSpec", "describe"]

Lookup = Callable[[str, str], type[Plugin]]
"""(plugin name, "input" | "filter" | "output") -> class; raises `UlogdError`."""
ReadOptions = Callable[[str, type[Plugin]], tuple[Options, list[Mistake]]]
"""(instance id, class) -> the values of its options, and what is wrong with them."""

Make = Callable[[type[Plugin], str, Options], Plugin]
"""(class, instance id, options) -> a new instance."""


class Builder:
    """Builds the graph of several stacks; `mistakes` collects every fault of all of them."""

    def __init__(
        self,
        lookup: Lookup,
        read_options: ReadOptions,
        providers: Callable[[str], list[str]] = lambda key: [],
        make: Make = lambda class_, ident, options: class_(ident, options),
    ) -> None:
        self.lookup = lookup
        self.read_options = read_options
        self.providers = providers
        self.make = make
        self.mistakes: list[Mistake] = []
        self._instances: dict[tuple[str, str], Plugin] = {}

    def build(self, specs: Iterable[StackSpec], prepare: bool = False) -> Graph:
        """The graph of all stacks without a mistake. `prepare` lets outputs look at the outside first."""
        good = [s for s in specs if self._sound(s, prepare)]
        graph = Graph()
        tree: dict[tuple, Node] = {}
        for spec in good:
            graph.stacks.append(self._grow(spec, graph, tree))
        for text in resolve(graph, self.providers):
            self.mistakes.append(text)  # found for each stack alone before; a tree adds none
        hand_up_patience(graph)
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
                    found += resolve(graph, self.providers)
                    hand_up_patience(graph)
                except Exception as error:
                    found.append(Mistake(spec.where, f"stack {spec.text}: {_reason(error)}"))
        seen = {str(m) for m in self.mistakes}
        self.mistakes += [m for m in found if str(m) not in seen]
        return not any(not m.tolerated for m in found)

    def _find_classes(self, spec: StackSpec, found: list[Mistake]) -> list[type[Plugin]] | None:
        classes = []
        last = len(spec.parts) - 1
        if last < 1:
            found.append(
                Mistake(
                    spec.where,
                    f"stack {spec.text}: a stack must have an input and an output; write stack=ID:INPUT,ID:OUTPUT",
                )
            )
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
        """The instance, and the mistakes in its options, each at its own line; at "" without a line."""
        plugin = self.make(class_, ident, options) if unread else self._instance(ident, class_, options)
        known_wrong = {mistake.option for mistake in unread}
        wrong = [
            Mistake(options.place(option), f"[{ident}] {option}: {text}", option=option)
            for option, text in plugin.mistakes()
            if option not in known_wrong
        ]
        return plugin, wrong

    @staticmethod
    def _remarks(ident: str, plugin: Plugin, spec: StackSpec) -> list[Mistake]:
        """Possible mistakes: warnings."""
        place = plugin.config.place
        return [
            Mistake(place(option) or spec.where, f"[{ident}] {option}: {text}", tolerated=True, option=option)
            for option, text in plugin.remarks()
        ]

    def _instance(self, ident: str, class_: type[Plugin], options: Options) -> Plugin:
        """A new instance; for an output always the same one, since it keeps the results of `prepare`."""
        if not issubclass(class_, Output):
            return self.make(class_, ident, options)
        place = (ident, class_.name)
        if place not in self._instances:
            self._instances[place] = self.make(class_, ident, options)
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
                    plugin.source = input_of(path[0])
                nodes.append(node)
            if path:
                _join(path[-1], node)
            if isinstance(node.plugin, Output) and path[0].plugin not in node.plugin.inputs:
                node.plugin.inputs = (*node.plugin.inputs, input_of(path[0]))
            path.append(node)
        tell_maker(path)
        stack = Stack(spec, path)
        for node in path:
            node.stacks.append(stack)
        return stack


def _reason(error: Exception) -> str:
    """The text of an instance's fault; an internal error of the plugin is named as one."""
    if isinstance(error, UlogdError | OSError):
        return in_words(error)
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
"""The filters that make rows of another type."""


_SOURCES = (
    (RAW | PACKET, "packets come from inputs such as NFLOG, PACKET and PCAPIN"),
    (FLOW, "flows come from inputs such as NFCT and COLLECTOR"),
    (SUM, "counters come from the input NFACCT"),
)
"""Where rows of a type come from, if no filter makes them."""


def _between(given: int, taken: int) -> str:
    """The plugin to put between two whose types do not fit, as the end of a sentence."""
    names = [name for from_, to, name in _BETWEEN if given & from_ and taken & to]
    if names:
        return f"; put {names[0]} between them"
    return f"; {next(text for type_, text in _SOURCES if taken & type_)} (ulogd-tw --list-plugins)"


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


def _flowing(classes: Sequence[type[Plugin]]) -> int:
    """The types of the rows that the input gives to the plugin below it."""
    assert issubclass(classes[0], Input)
    return classes[0].flowing(classes[1])
