"""What the configuration file of now says about the next start, while the service still runs."""

from __future__ import annotations

from collections.abc import Iterable

from ulogd_tw import config as configuration
from ulogd_tw.built import Built
from ulogd_tw.core.errors import ConfigError
from ulogd_tw.core.graph import Node
from ulogd_tw.core.plugin import Aggregator


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
