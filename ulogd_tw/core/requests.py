"""The upward passes: wanted keys and patience.

Each instance learns its wanted keys from below, and requests the keys it needs from above. Each input learns how long
its rows may wait.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from ulogd_tw.core.errors import Mistake
from ulogd_tw.core.graph import Graph, Node, Stack, input_of, upwards
from ulogd_tw.core.keys import Key, nearest, registry
from ulogd_tw.core.patience import AT_ONCE, Wish
from ulogd_tw.core.plugin import ALL, All, Output, Plugin, Wanted
from ulogd_tw.core.resolve import Provided, Recipe


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


def resolve(graph: Graph, providers: Callable[[str], list[str]]) -> list[Mistake]:
    """The upward pass: connect every request to the node that gives the key, and give each node its wanted keys."""
    given = {node: Provided(node.plugin.keys(), node.plugin.open_keys) for node in graph.nodes}
    wanted = {node: _Wish() for node in graph.nodes}
    mistakes: list[Mistake] = []
    outputs: list[Node] = []
    depth = {node: place for stack in graph.stacks for place, node in enumerate(stack.path)}
    filters = sorted(graph.filters, key=depth.__getitem__, reverse=True)
    for node in graph.outputs + filters + graph.inputs:
        plugin = node.plugin
        plugin.wanted = wanted[node].of(plugin, given[node])
        plugin.seldom_wanted = wanted[node].seldom
        for parent in node.parents:
            if isinstance(plugin, Output):
                asked = plugin.requests_of(_names(upwards(parent), given))
            else:
                asked = plugin.requests(plugin.wanted)
            mistakes += _request(node, parent, asked, given, wanted, providers)
            if asked is ALL and isinstance(plugin, Output):
                outputs.append(node)
    for node in outputs:
        node.left_out = _left_out(node, given)
    for node in graph.outputs:
        if isinstance(node.plugin, Output) and node.plugin.copies:
            for feeder in node.feeders():
                feeder.plugin.copied = True
    return mistakes


def _left_out(output: Node, given: dict[Node, Provided]) -> frozenset[str]:
    """The keys given on request by name that nothing in the stacks of this output requested."""
    above = {node for parent in output.parents for node in upwards(parent)}
    hidden = frozenset().union(*(node.plugin.hidden for node in above if not given[node].open))
    shown = (name for node in above for name in given[node].keys if name not in node.plugin.hidden)
    return hidden.difference(shown, *(node.drawn for node in above))


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
    above = list(upwards(parent))
    stack = next(s for s in node.stacks if parent in s.path)
    mistakes = []
    if asked is ALL:
        mistakes = _request_all(node, stack, above, given, wanted)
        asked = node.plugin.named_beside_all() if isinstance(node.plugin, Output) else {}
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
                node.drawn |= columns
                wanted[provider].add(columns, request in node.plugin.seldom)
                break
        else:
            if required:
                mistakes.append(_unmet(node, stack, request, instance, above, given, providers))
    return mistakes


def _request_all(
    node: Node, stack: Stack, above: list[Node], given: dict[Node, Provided], wanted: dict[Node, _Wish]
) -> list[Mistake]:
    """Request every key of the nodes `above`."""
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


def hand_up_patience(graph: Graph) -> None:
    """Give every input the smallest wish of its tree."""
    wishes: dict[Node, Wish] = {}
    for node in reversed(graph.nodes):
        wishes[node] = _wish_of(node, wishes)
    for node in graph.inputs:
        input_of(node).wish = wishes[node]


def _wish_of(node: Node, wishes: dict[Node, Wish]) -> Wish:
    """The wish of a node, by those of the nodes below it."""
    plugin, seconds = node.plugin, node.plugin.patience()
    own = Wish(None if seconds is None else max(seconds, AT_ONCE), frozenset(plugin.interval_ends()))
    if not plugin.passes and seconds is not None:
        return replace(own, kept=plugin.keeps_rows)
    for child in node.children:
        own = own.and_(wishes[child])
    return own
