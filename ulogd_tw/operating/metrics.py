"""The counters of every instance, as a JSON file that is rewritten whole."""

from __future__ import annotations

import json
import os
from typing import Any

from ulogd_tw.core.stack import Graph


def snapshot(graph: Graph) -> dict[str, Any]:
    """``{"instances": {id: counters}}`` of this moment."""
    return {"instances": {node.ident: node.plugin.counters.as_dict() for node in graph.nodes}}


def write_file(path: str, figures: dict[str, Any]) -> None:
    """Write `figures` so that a reader sees the old file or the new one, never a part. Raises OSError."""
    part = f"{path}.part"
    with open(part, "w", encoding="utf-8") as file:
        json.dump(figures, file, indent=1)
        file.write("\n")
    os.replace(part, path)
