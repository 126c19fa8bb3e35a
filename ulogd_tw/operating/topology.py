"""The graph of stacks as plain data: nodes with their counters, edges with their rows, stack lines."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

from ulogd_tw.core.graph import Graph, Node
from ulogd_tw.core.plugin import Aggregator, Input, Output, Plugin


def described(graph: Graph, opened: Container[Node] | None = None) -> dict[str, Any]:
    """``{"nodes": [...], "edges": [...], "stacks": [...]}``, ready for JSON.

    A node is named by `node`, which is its id, or ``id#2`` for a further instance of a filter; `stacks` are the numbers
    of its stacks, from 0. An edge has the rows that went over it. `open` is None where `opened` is not given.
    """
    numbers = {id(stack): number for number, stack in enumerate(graph.stacks)}
    nodes = [_node(node, numbers, opened) for node in graph.nodes]
    edges = [
        {"from": parent.ident, "to": node.ident, "rows": parent.plugin.counters.rows_emitted}
        for node in graph.nodes
        for parent in node.parents
    ]
    stacks = [{"n": n, "text": stack.spec.text, "where": stack.spec.where} for n, stack in enumerate(graph.stacks)]
    return {"nodes": nodes, "edges": edges, "stacks": stacks}


def _node(node: Node, numbers: dict[int, int], opened: Container[Node] | None) -> dict[str, Any]:
    plugin = node.plugin
    return {
        "node": node.ident,
        "id": plugin.instance,
        "plugin": plugin.name,
        "kind": kind(plugin),
        "stacks": [numbers[id(stack)] for stack in node.stacks if id(stack) in numbers],
        "counters": plugin.counters.as_dict(),
        "waiting": plugin.counters.rows_waiting,
        "open": None if opened is None else node in opened,
    }


def kind(plugin: Plugin) -> str:
    """The place of a plugin in a stack: input, filter, aggregator or output."""
    kinds = ((Input, "input"), (Output, "output"), (Aggregator, "aggregator"))
    return next((name for class_, name in kinds if isinstance(plugin, class_)), "filter")
