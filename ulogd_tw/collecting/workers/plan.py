"""What the workers of a COLLECTOR run, said by the service."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ulogd_tw.core.graph import Graph
from ulogd_tw.core.plugin import ALL
from ulogd_tw.core.regular_file import open_regular

UNTOLD = "untold"
"""The file with the rows that a worker had, and had not told, when the service was killed."""


@dataclass(frozen=True)
class Plan:
    """What a worker runs; all of it can be written as JSON.

    text, file      the configuration, and where it is from
    instance        the COLLECTOR
    wants           ident -> wanted keys (None: all), seldom wanted ones, and whether records are copied
    state_dir       the directory of all instances' state, and how often it is written; empty: none
    """

    text: str
    file: str
    instance: str
    wants: dict[str, tuple[list[str] | None, list[str], bool]]
    state_dir: str = ""
    state_interval: float = 1.0


def directory_of(plan: Plan, number: int) -> Path:
    """Where a worker keeps its state: beside the state of its COLLECTOR."""
    return Path(plan.state_dir) / f"{quote(plan.instance, safe='')}.worker{number}"


def take_untold(directory: Path) -> int:
    """The rows that went with the workers of an earlier run; `directory` is that of their COLLECTOR."""
    found = 0
    for path in directory.parent.glob(f"{escape(directory.name)}.worker*/{UNTOLD}"):
        with suppress(OSError, ValueError):
            with open_regular(path) as file:
                found += int(file.read(20))
            path.unlink()
    return found


def wants_of(graph: Graph) -> dict[str, Any]:
    """What is wanted of every instance that passes rows on."""
    return {
        node.ident: (
            None if node.plugin.wanted is ALL else sorted(node.plugin.wanted),
            sorted(node.plugin.seldom_wanted),
            node.plugin.copied,
        )
        for node in (*graph.inputs, *graph.filters)
    }
