"""What differs between two graphs: the instances that go on, and those that are replaced, new or gone.

An instance goes on where another configuration makes the same of it: the same plugin at the same place, with the same
options, giving and taking the same keys. Filters and inputs have their place in a tree, an output has its id.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ulogd_tw.core.graph import Graph, Node
from ulogd_tw.core.plugin import ALL, Aggregator, Input, Output

Way = tuple[tuple[str, str], ...]
"""The (instance id, plugin name) pairs from the input down; of an output, only its own."""


def ways(graph: Graph) -> dict[Way, Node]:
    """Each node by its way."""
    found: dict[Way, Node] = {}
    for stack in graph.stacks:
        for place, node in enumerate(stack.path):
            parts = stack.spec.parts[: place + 1]
            found.setdefault(parts[-1:] if isinstance(node.plugin, Output) else parts, node)
    return found


def wants(node: Node) -> dict[str, Any]:
    """What the build found out for a node: equal for instances that do the same.

    To be asked before the instance runs, since an output of a database finds more columns later.
    """
    plugin = node.plugin
    ways_to_keys = {
        name: tuple((recipe.inputs, getattr(recipe.convert, "__qualname__", recipe.convert)) for recipe in recipes)
        for name, recipes in plugin.sources.recipes.items()
    }
    return {
        "types": (plugin.itype, plugin.otype),
        "wanted": None if plugin.wanted is ALL else plugin.wanted,
        "seldom": plugin.seldom_wanted,
        "sources": ways_to_keys,
        "aliases": dict(node.aliases),
        "left_out": node.left_out,
        "copied": plugin.copied,
    }


@dataclass
class Changes:
    """The way from one graph to another."""

    old: Graph
    new: Graph
    kept: dict[Node, Node] = field(default_factory=dict)
    """New node -> old node, of an instance that goes on."""
    rewired: list[Node] = field(default_factory=list)
    """New nodes whose instances go on, with other keys wanted of them."""
    replaced: dict[Node, Node] = field(default_factory=dict)
    """New node -> old node, of an instance of the same place that does not."""
    reasons: dict[Node, list[str]] = field(default_factory=dict)
    """Why a new node replaces an old one: names of options, or ``keys``."""

    @classmethod
    def between(cls, old: Graph, wanted: dict[Node, dict[str, Any]], new: Graph) -> Changes:
        """Compare; `wanted` has the `wants` of the old nodes before they ran."""
        changes = cls(old, new)
        before = ways(old)
        for way, node in ways(new).items():
            former = before.get(way)
            if former is None:
                continue
            reasons = _reasons(former, wanted.get(former, {}), node)
            if reasons == [_KEYS] and former.plugin.rewires:
                changes.kept[node] = former
                changes.rewired.append(node)
            elif reasons:
                changes.replaced[node], changes.reasons[node] = former, reasons
            else:
                changes.kept[node] = former
        changes._match_renamed()
        return changes

    def _match_renamed(self) -> None:
        """An input of another name with the same options goes on in place of one that is gone."""
        gone = [node for node in self.removed if isinstance(node.plugin, Input)]
        for new in self.added:
            for old in gone if isinstance(new.plugin, Input) else ():
                if type(old.plugin) is type(new.plugin) and not old.plugin.config.differing(new.plugin.config):
                    gone.remove(old)
                    self.replaced[new], self.reasons[new] = old, [_NAME]
                    break

    @property
    def added(self) -> list[Node]:
        """New nodes at a place where none was."""
        return [node for node in self.new.nodes if node not in self.kept and node not in self.replaced]

    @property
    def going(self) -> list[Node]:
        """Old nodes whose instances end."""
        kept = set(self.kept.values())
        return [node for node in self.old.nodes if node not in kept]

    @property
    def removed(self) -> list[Node]:
        """Old nodes at a place where none is any more."""
        replaced = set(self.replaced.values())
        return [node for node in self.going if node not in replaced]

    def lines(self) -> list[str]:
        """The changes, a line each, for an administrator."""
        found = []
        before, after = ([stack.spec.text for stack in graph.stacks] for graph in (self.old, self.new))
        found += [f"stack {text} is gone" for text in before if text not in after]
        found += [f"stack {text} is new" for text in after if text not in before]
        for node, reasons in self.reasons.items():
            first = " its groups are handed on first," if isinstance(node.plugin, Aggregator) else ""
            found.append(f"{_named(node)} is replaced,{first} since {_why(reasons)}")
        found += [f"{_named(node)} goes on with other keys" for node in self.rewired]
        found += [f"{_named(node)} is gone" for node in self.removed]
        found += [f"{_named(node)} is new" for node in self.added]
        return found


def _named(node: Node) -> str:
    return f"{node.ident}:{node.plugin.name}"


def _why(reasons: list[str]) -> str:
    if reasons == [_KEYS]:
        return "other keys are asked of it, or come to it"
    return f"{', '.join(reasons)} changed"


_KEYS = "keys"
_NAME = "its name"


def _reasons(old: Node, wanted: dict[str, Any], new: Node) -> list[str]:
    """Why the old instance cannot go on as the new one; empty where it can."""
    if type(old.plugin) is not type(new.plugin):
        return ["the plugin"]
    if names := old.plugin.config.differing(new.plugin.config):
        return names
    if wanted != wants(new):
        return [_KEYS]
    return []
