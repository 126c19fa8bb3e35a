"""Writes the counters of every instance to a JSON file, replaced as a whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ulogd_tw.core import durable
from ulogd_tw.core.stack import Graph


def snapshot(graph: Graph) -> dict[str, Any]:
    """``{"instances": {id: counters}}`` of this moment."""
    return {"instances": {node.ident: node.plugin.counters.as_dict() for node in graph.nodes}}


def write_file(path: str, figures: dict[str, Any]) -> None:
    """Write `figures` so that a reader sees the old or the new file, never a part. Raises OSError."""
    octets = json.dumps(figures, indent=1).encode() + b"\n"
    durable.write(Path(path), lambda file: file.write(octets), mode=0o666, lasting=False)
