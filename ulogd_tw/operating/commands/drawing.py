"""``ulogd-tw graph``: instances and the ways of rows between them, as a tree of text or in the language DOT."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from typing import Any, TextIO

from ulogd_tw.operating.commands import service
from ulogd_tw.operating.commands.text import printable, short

_FORKS = {True: ("├─ ", "└─ ", "│  "), False: ("|- ", "`- ", "|  ")}
"""Branch, last branch, and the line beside a branch; for terminals with and without Unicode."""
_SHAPES = {"input": "invhouse", "filter": "box", "aggregator": "box3d", "output": "house"}


def graph(given: argparse.Namespace, out: TextIO) -> int:
    """Draw the graph of the service, or of a configuration file; status 1 where no stack of a file can run."""
    found = of_file(given.file) if given.file else service.of(given).get("graph")
    if given.json:
        print(json.dumps(found, indent=1), file=out)
    elif given.dot:
        out.write("".join(f"{line}\n" for line in dot(found, bool(given.file))))
    else:
        lines = tree(found, _unicode(out), bool(given.file))
        out.write("".join(f"{line}\n" for line in lines))
    return int(not found["nodes"])


def of_file(path: str) -> dict[str, Any]:
    """The graph of a configuration in the form of the service's; its mistakes go to standard error."""
    from ulogd_tw import config, tap
    from ulogd_tw.operating.topology import described

    built = tap.Built(config.load(path), prepare=False)
    for mistake in built.mistakes:
        if not mistake.remark:
            print(f"{mistake.where}: {mistake.kind}: {mistake.text}", file=sys.stderr)
    return described(built.graph)


def _unicode(out: TextIO) -> bool:
    """Whether lines can be drawn with Unicode."""
    try:
        "├".encode(getattr(out, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def tree(graph_: dict[str, Any], unicode: bool = True, planned: bool = False) -> Iterator[str]:
    """The forest as lines: each input, and below it all that its rows reach.

    An instance that several others feed is drawn below each of them; only the first time with what lies below it. With
    `planned` there are no counters: nothing runs.
    """
    nodes = {node["node"]: node for node in graph_["nodes"]}
    below: dict[str, list[tuple[str, Any]]] = {}
    for edge in graph_["edges"]:
        below.setdefault(edge["from"], []).append((edge["to"], edge.get("rows")))
    reached = {edge["to"] for edge in graph_["edges"]}
    drawn: set[str] = set()

    def branch(name: str, before: str) -> Iterator[str]:
        drawn.add(name)
        fork, last, line = _FORKS[unicode]
        children = below.get(name, [])
        for place, (child, rows) in enumerate(children):
            end = place == len(children) - 1
            again = child in drawn and bool(below.get(child))
            text = _line(nodes[child], None if planned else rows, planned)
            yield f"{before}{last if end else fork}{text}{' (as above)' if again else ''}"
            if not again:
                yield from branch(child, before + ("   " if end else line))

    for name, node in nodes.items():
        if name not in reached:
            yield _line(node, None, planned)
            yield from branch(name, "")


def _line(node: dict[str, Any], rows: Any, planned: bool) -> str:
    """An instance with its figures; `rows` came over the edge to it."""
    name = printable(f"{node['node']}:{node['plugin']}")
    if planned:
        return name
    figures = [f"{short(rows)} {'row' if rows == 1 else 'rows'}"] if rows is not None else []
    if node["kind"] == "input":
        received = node["counters"].get("rows_received", 0)
        figures.append(f"{short(received)} {'row' if received == 1 else 'rows'}")
    for word in ("dropped", "lost"):
        if total := sum(node["counters"].get(word, {}).values()):
            figures.append(f"{short(total)} {word}")
    if node.get("waiting"):
        figures.append(f"{short(node['waiting'])} waiting")
    if node.get("open") is False:
        figures.append("not open")
    return f"{name}  {', '.join(figures)}" if figures else name


def dot(graph_: dict[str, Any], planned: bool = False) -> Iterator[str]:
    """The graph in the language DOT: ``ulogd-tw graph --dot | dot -Tsvg > graph.svg``."""
    yield "digraph ulogd_tw {"
    yield "  rankdir=LR;"
    for node in graph_["nodes"]:
        name, *figures = _line(node, None, planned).split("  ")
        label = "\\n".join(_quoted(text) for text in (name, *figures))
        yield f'  "{_quoted(node["node"])}" [label="{label}", shape={_SHAPES.get(node["kind"], "box")}];'
    for edge in graph_["edges"]:
        rows = "" if planned or edge.get("rows") is None else f' [label="{short(edge["rows"])}"]'
        yield f'  "{_quoted(edge["from"])}" -> "{_quoted(edge["to"])}"{rows};'
    yield "}"


def _quoted(text: str) -> str:
    return printable(text).replace("\\", "\\\\").replace('"', '\\"')
