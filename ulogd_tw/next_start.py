"""What the configuration file of now says about the next start, while the service still runs."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from typing import Any

from ulogd_tw import config as configuration
from ulogd_tw.built import Built, obstacles, why_not
from ulogd_tw.core.errors import ConfigError, Mistake
from ulogd_tw.core.graph import Graph, Node
from ulogd_tw.core.plugin import Aggregator
from ulogd_tw.transports import addresses


def not_continued(path: str, nodes: Iterable[Node]) -> set[Node]:
    """The aggregates whose kept groups no instance of the next start will go on with.

    None of them where the file cannot be read, or has mistakes: it may be mended before that start.
    """
    try:
        built = Built(configuration.load(path), prepare=False)
    except (ConfigError, OSError):
        return set()
    if built.fatal:
        return set()
    coming = {node.ident: node.plugin for node in built.graph.nodes}
    return {
        node
        for node in nodes
        if isinstance(node.plugin, Aggregator) and not node.plugin.continued_by(coming.get(node.ident))
    }


def why_no_restart(path: str, running: Graph, left_out: Iterable[dict[str, str]]) -> list[str]:
    """Why a restart would end with fewer stacks than the file has: its mistakes, and what stands in the way.

    Empty where all stacks can start, but for those that are `left_out` already.
    """
    try:
        built = Built(configuration.load(path), prepare=False)
    except ConfigError as error:
        return [str(error)]
    seen = [*obstacles(built.graph.nodes), *_taken(built.graph, running)]
    if why := why_not(built, seen):
        return why
    broken = {node for node, mistake in seen if not mistake.tolerated}
    gone = {stack["text"] for stack in built.left_out()}
    gone |= {stack.spec.text for stack in built.graph.stacks if broken.intersection(stack.path)}
    door = _door(built)
    if not door and gone <= {stack["text"] for stack in left_out}:
        return []
    found = [*built.mistakes, *(mistake for _, mistake in seen)] if gone else []
    return [*(str(mistake) for mistake in found if not mistake.tolerated), *door]


def _taken(coming: Graph, running: Graph) -> Iterable[tuple[Node, Mistake]]:
    """What other programs have of what the instances need."""
    here = [node.plugin for node in running.nodes]
    for node in coming.nodes:
        for name, text in node.plugin.taken(here):
            where = node.plugin.config.place(name) or node.stacks[0].spec.where
            yield node, Mistake(where, f"[{node.plugin.instance}] {name}: {text}")


def _door(built: Built) -> list[str]:
    """The addresses of [http] that another program has."""
    if built.http is None:
        return []
    http: Any = built.http
    own = addresses.of_process()
    texts = []
    for place in http.listen:
        error = None if place.path else addresses.taken(socket.SOCK_STREAM, place.host, place.port, own)
        if error is not None:
            texts.append(("listen", f"{place}: {error.strerror}; another program has it"))
    return [str(mistake) for mistake in built.said(http, texts, False)]
