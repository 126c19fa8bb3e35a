"""Draws the stacks of configurations: docs/pictures/stacks-*.svg, from etc/demo.conf and from blocks of the tutorials.

python docs/draw_stacks.py
"""

import re
import sys
from pathlib import Path
from xml.sax.saxutils import escape

TOP = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TOP))

from ulogd_tw import config, tap  # noqa: E402

COMMAND = "python docs/draw_stacks.py"
PICTURES = TOP / "docs" / "pictures"
_WIDTH, _HEIGHT, _ACROSS, _DOWN, _MARGIN = 190, 56, 70, 26, 16
_COLOURS = {"input": "#d0e0f3", "filter": "#fdebc8", "output": "#d9ead3"}
_SHOWN = ("listen", "rate", "key", "interval", "db", "file", "match")
"""Options whose first value stands in a box, in this order."""


def block(document, begins):
    """The first configuration of a document that has this line."""
    text = (TOP / "docs" / document).read_text("utf-8")
    return next(b for b in re.findall(r"^```\n(.*?)^```", text, re.S | re.M) if begins in b)


WAY = """[global]
stack=col1:COLLECTOR,web1:MATCH,agg1:AGGREGATE,db1:SQLITE3
[web1]
match="dst port 443"
[agg1]
key="sourceAddress"
interval=60
[db1]
db="flows.sqlite3"
table="flows"
keys="sourceAddress octets"
"""
"""The stack of the picture of a batch's way: its output wants two keys."""
WANTED = {
    "col1": ("destinationTransportPort", "sourceAddress", "octets, packets, times"),
    "web1": ("sourceAddress", "octets, packets, times"),
    "agg1": ("sourceAddress", "octets"),
}
"""The keys that an instance is asked for, in words."""
SOURCES = {
    "stacks-demo.svg": lambda: (TOP / "etc" / "demo.conf").read_text("utf-8"),
    "stacks-dns.svg": lambda: block("tutorial.md", "stack=demo1:DEMO,dns1:MATCH"),
    "stacks-collector.svg": lambda: block("tutorial-collector.md", "stack=col1:COLLECTOR,agg1:AGGREGATE"),
}


def column(node):
    """How many instances stand before this one."""
    return 1 + max(map(column, node.parents), default=-1)


def places(graph):
    """Node -> its column and row: each stack has a row, and an instance stands in that of its first stack."""
    found = {}
    for row, stack in enumerate(graph.stacks):
        for node in stack.path:
            found.setdefault(node, (column(node), row))
    return found


def said(node):
    """The option that tells most of an instance, cut to the width of its box."""
    options = node.plugin.config
    for name in _SHOWN:
        if name in options.given:
            value = getattr(options, name)
            text = f"{name}={' '.join(value) if isinstance(value, tuple) else value}"
            return text if len(text) <= 27 else text[:26] + "…"
    return ""


def box(node, x, y):
    """The rectangle of an instance with its id, its plugin and one option."""
    kind = "input" if not node.parents else "filter" if node.children else "output"
    middle = x + _WIDTH / 2
    yield f'<rect x="{x}" y="{y}" width="{_WIDTH}" height="{_HEIGHT}" rx="6" fill="{_COLOURS[kind]}" stroke="#555"/>'
    yield f'<text x="{middle}" y="{y + 24}" class="name">{escape(f"{node.ident}:{node.plugin.name}")}</text>'
    yield f'<text x="{middle}" y="{y + 43}" class="small">{escape(said(node) or kind)}</text>'


def svg(text):
    """The picture of a configuration's stacks."""
    graph = tap.Built(config.parse(text, "x"), prepare=False).graph
    at = {
        node: (_MARGIN + across * (_WIDTH + _ACROSS), _MARGIN + down * (_HEIGHT + _DOWN))
        for node, (across, down) in places(graph).items()
    }
    width = max(x for x, _ in at.values()) + _WIDTH + _MARGIN
    height = max(y for _, y in at.values()) + _HEIGHT + _MARGIN
    size = f'viewBox="0 0 {width} {height}" width="{width}"'
    yield f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif">'
    yield f"<title>{escape('; '.join(stack.spec.text for stack in graph.stacks))}</title>"
    yield "<style>.name{font-size:15px;text-anchor:middle;font-weight:bold}"
    yield ".small{font-size:12px;text-anchor:middle;fill:#333}</style>"
    yield '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
    yield '<path d="M0 0 8 4 0 8z" fill="#555"/></marker></defs><rect width="100%" height="100%" fill="white"/>'
    for node, (x, y) in at.items():
        yield from box(node, x, y)
        for child in node.children:
            to_x, to_y = at[child]
            line = f"M{x + _WIDTH} {y + _HEIGHT / 2:.0f} L{to_x - 2} {to_y + _HEIGHT / 2:.0f}"
            yield f'<path d="{line}" fill="none" stroke="#555" stroke-width="1.5" marker-end="url(#tip)"/>'
    yield "</svg>"


def arrow(x, y, length, colour, dashed=""):
    """A horizontal line with a tip; a negative length points to the left."""
    end = x + length - (2 if length > 0 else -2)
    yield f'<path d="M{x} {y} L{end} {y}" stroke="{colour}" stroke-width="1.5"{dashed} marker-end="url(#tip)"/>'


def way():
    """The picture of a batch's way through `WAY`: batches to the right, requests for keys to the left."""
    (stack,) = tap.Built(config.parse(WAY, "x"), prepare=False).graph.stacks
    across, width = _WIDTH + 150, 4 * _WIDTH + 3 * 150 + 2 * _MARGIN
    yield f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} 160" width="{width}" font-family="sans-serif">'
    yield "<title>The way of a batch</title>"
    yield "<style>.name{font-size:15px;text-anchor:middle;font-weight:bold}"
    yield ".small{font-size:12px;text-anchor:middle;fill:#333}</style>"
    yield '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
    yield '<path d="M0 0 8 4 0 8z" fill="#555"/></marker></defs><rect width="100%" height="100%" fill="white"/>'
    for place, node in enumerate(stack.path):
        x, last = _MARGIN + place * across, place == len(stack.path) - 2
        yield from box(node, x, 30)
        if place == len(stack.path) - 1:
            break
        begin, middle = x + _WIDTH, x + _WIDTH + 75
        yield from arrow(begin, 48, 150, "#555")
        yield f'<text x="{middle}" y="42" class="small">{"sums" if last else "batches"}</text>'
        if last:
            yield f'<rect x="{middle - 32}" y="32" width="64" height="32" fill="#f4d9d9" stroke="#555"/>'
            yield f'<text x="{middle}" y="53" class="small">queue</text>'
        yield from arrow(begin + 150, 76, -150, "#2a6", ' stroke-dasharray="4 3"')
        for line, key in enumerate(["wants", *WANTED[node.ident]]):
            yield f'<text x="{middle}" y="{96 + line * 16}" class="small">{escape(key)}</text>'
    yield "</svg>"


def pictures():
    """Name of the file -> its text."""
    drawn = {name: svg(source()) for name, source in SOURCES.items()} | {"batch.svg": way()}
    return {name: "\n".join(lines) + "\n" for name, lines in drawn.items()}


if __name__ == "__main__":
    for name, drawn in pictures().items():
        (PICTURES / name).write_text(drawn, "utf-8")
