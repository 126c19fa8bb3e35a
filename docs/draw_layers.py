"""Draws docs/architecture.svg from the layer table that tests/unit/test_layers.py checks.

python docs/draw_layers.py > docs/architecture.svg
"""

import sys
from pathlib import Path
from xml.sax.saxutils import escape

TOP = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TOP))

from tests.unit.test_layers import CODECS, ENGINES, LAYERS, TREE  # noqa: E402

COMMAND = "python docs/draw_layers.py > docs/architecture.svg"
_WIDTH, _MARGIN, _GAP, _LABEL = 1180, 16, 12, 110
_LINE, _PAD, _BETWEEN = 17, 10, 26
_COLOURS = {"top": "#e8e8e8", "plugins": "#fdebc8", "engines": "#d9ead3", "codecs": "#d0e0f3", "core": "#f4d9d9"}
_PURPOSES = {
    "aggregation": "groups by interval", "clocks": "steady time", "collecting": "Collecting Process",
    "config": "ulogd.conf", "core": "batches, keys, stacks", "exporting": "Exporting Process", "flow": "queues, spool",
    "flows": "questions about stores",
    "ipfix": "IPFIX, NetFlow, sFlow", "kernels": "loops in C", "match": "expressions", "metering": "Metering Process",
    "naming": "names from files", "netfilter": "the kernel's messages", "packets": "headers of packets",
    "peers": "transports joined to both Processes, in one table", "plugins": "one plugin a module",
    "kafka": "messages and clients", "storing": "databases", "transports": "sockets, TLS, SCTP",
    "ulogd2": "its names", "writing": "files and text",
}  # fmt: skip


def parts(tree=TREE):
    """Every module and package directly below ulogd_tw."""
    found = [p for p in tree.iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()]
    return sorted(p.stem for p in found if not p.stem.startswith("__"))


def rows():
    """(kind, what it is, parts) of each row, from the top; a part imports parts of lower rows, or to its left."""
    listed = set(LAYERS)
    rest = {name for name in listed if name not in CODECS | ENGINES | {"transports", "plugins"}}
    upper = {name for name in ENGINES if LAYERS[name] & ENGINES}
    asking = {name for name in rest if LAYERS[name] & ENGINES}
    return [
        ("top", "started by users", [name for name in parts() if name not in listed]),
        ("plugins", "plugins", ["plugins"]),
        ("engines", "upper engines", sorted(upper | asking)),
        ("engines", "engines", sorted(ENGINES - upper)),
        ("codecs", "codecs; sockets", [*_ordered(CODECS), "transports"]),
        ("core", "ground", ["core", *sorted(rest - asking - {"core"})]),
    ]


def _ordered(names):
    return sorted(names, key=lambda name: (len(LAYERS[name]), name))


def _imports(name):
    """What a part may import beside core, as lines."""
    if name == "plugins":
        return ["all engines, codecs and transports, flow, clocks"]
    allowed = sorted(LAYERS[name] - {"core"})
    return [", ".join(allowed)] if name == "peers" else allowed


def _box(x, y, width, height, kind, name):
    lines = [_PURPOSES.get(name, ""), *(f"→ {line}" for line in _imports(name))]
    yield (
        f'<rect x="{x:.0f}" y="{y:.0f}" width="{width:.0f}" height="{height:.0f}" rx="6" '
        f'fill="{_COLOURS[kind]}" stroke="#555"/>'
    )
    middle = x + width / 2
    yield f'<text x="{middle:.0f}" y="{y + _PAD + 12:.0f}" class="name">{escape(name)}</text>'
    for number, line in enumerate(lines):
        bottom = y + _PAD + 12 + _LINE * (number + 1)
        yield f'<text x="{middle:.0f}" y="{bottom:.0f}" class="small">{escape(line)}</text>'


def _row(y, kind, title, names):
    """The boxes of a row and its height."""
    height = 2 * _PAD + 8 + _LINE * max(len(_imports(name)) + 1 for name in names) + 2
    width = (_WIDTH - 2 * _MARGIN - _LABEL - _GAP * (len(names) - 1)) / len(names)
    found = [f'<text x="{_MARGIN}" y="{y + _PAD + 12:.0f}" class="row">{escape(title)}</text>']
    for place, name in enumerate(names):
        found += _box(_MARGIN + _LABEL + place * (width + _GAP), y, width, height, kind, name)
    return found, height


def _top(y, names):
    """The parts on top, in one box."""
    found = [f'<text x="{_MARGIN}" y="{y + _PAD + 12:.0f}" class="row">started by users</text>']
    width = _WIDTH - 2 * _MARGIN - _LABEL
    found.append(
        f'<rect x="{_MARGIN + _LABEL}" y="{y:.0f}" width="{width}" height="36" rx="6" fill="{_COLOURS["top"]}" '
        'stroke="#555"/>'
    )
    text = escape(" · ".join(names))
    found.append(f'<text x="{_MARGIN + _LABEL + width / 2:.0f}" y="{y + 23:.0f}" class="name">{text}</text>')
    return found, 36


def svg():
    """The picture."""
    y, found = _MARGIN + 20, []
    for kind, title, names in rows():
        drawn, height = _top(y, names) if kind == "top" else _row(y, kind, title, names)
        found += drawn
        y += height + _BETWEEN
    note = "Imports point down. Every part may import core; “→” names the further parts that it may import."
    yield f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {y:.0f}" font-family="sans-serif">'
    yield "<title>The parts of ulogd_tw, and what each may import</title>"
    yield f"<!-- made by: {COMMAND.replace('--', '- -')} -->"
    yield "<style>.name{font-size:15px;text-anchor:middle;font-weight:bold}"
    yield ".small{font-size:12px;text-anchor:middle;fill:#333}.row{font-size:12px;fill:#555}</style>"
    yield '<rect width="100%" height="100%" fill="white"/>'
    yield f'<text x="{_MARGIN}" y="{_MARGIN + 6}" font-size="13" fill="#333">{escape(note)}</text>'
    yield from found
    yield "</svg>"


if __name__ == "__main__":
    print("\n".join(svg()))
