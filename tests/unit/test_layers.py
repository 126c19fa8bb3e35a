"""Imports of ulogd_tw point down only, whatever is there of it, and no modules import each other in a circle."""

import ast
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.support import import_nodes

TREE = Path(__file__).resolve().parents[2] / "ulogd_tw"

CODECS = {"ipfix", "netfilter", "packets", "match", "naming"}
ENGINES = {"aggregation", "collecting", "exporting", "kafka", "metering", "peers", "storing", "writing"}

# Part of ulogd_tw -> the parts that it may import besides itself. Parts that are not listed (tap, service, operating,
# registry, cli) are on top: they may import all, and nothing listed here may import them.
LAYERS = {
    "kernels": set(),
    "core": {"kernels"},
    "ulogd2": set(),
    "clocks": set(),
    "global_options": {"core"},
    "config": {"core", "ulogd2", "global_options"},
    "packets": {"core", "kernels"},
    "ipfix": {"core", "kernels", "packets"},
    "netfilter": {"core", "kernels"},
    "match": {"core"},
    "naming": {"core"},
    "transports": {"core", "kernels"},
    "spool": {"core"},
    "flow": {"core", "spool"},
    "aggregation": {"core", "kernels"},
    "collecting": {"core", "clocks", "packets", "ipfix", "transports"},
    "metering": {"core", "packets", "netfilter", "transports"},
    "exporting": {"core", "ipfix", "netfilter", "transports"},
    "peers": {"core", "clocks", "ipfix", "netfilter", "transports", "collecting", "exporting"},
    "storing": {"core"},
    "writing": {"core", "transports"},
    "kafka": {"core", "collecting", "ipfix", "storing", "writing"},
    "flows": {"core", "match", "storing"},
    "plugins": {"core", "kernels", "clocks", "transports", "flow"} | CODECS | ENGINES,
}

# Neither sockets nor clocks nor a reactor: time comes in as an argument, octets too.
SANS_IO = {"core", "kernels"} | CODECS
OUTSIDE_WORLD = {"twisted", "socket", "select", "selectors", "asyncio", "ssl", "time", "pyroute2"}

# Circles that are still there. Whoever cuts one takes it out here: the test fails for one that is
# gone. Imports inside of them are not looked at by the layers.
CIRCLES: list[set[str]] = []


def imported_names(path, package):
    """(line, full name) of everything that the module imports, anywhere in it.

    `package` is the dotted name of the package that the module is in, for relative imports. `from x import y` gives
    x.y, because y may be a module.
    """
    for node in import_nodes(path):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def _part(words, tree):
    """The part of the tree that a dotted name is in; None for a mere name of the package itself (__version__)."""
    part = words[1] if len(words) > 1 else None
    return part if part and ((tree / part).is_dir() or (tree / f"{part}.py").exists()) else None


def _violation(part, name, tree):
    """What is wrong with a module of `part` importing `name`; None when nothing is."""
    words = name.split(".")
    if words[0] == tree.name:
        imported = _part(words, tree)
        if part in LAYERS and imported not in {None, part} | LAYERS[part]:
            return f"{part} may not import {tree.name}.{imported}"
    elif part in SANS_IO and words[0] in OUTSIDE_WORLD:
        return f"{part} may not import {words[0]}"
    return None


def imports(tree):
    """(path inside the tree, line, full name) of every import in the package folder `tree`."""
    for path in sorted(tree.rglob("*.py")):
        inside = path.relative_to(tree)
        package = ".".join([tree.name, *inside.parts[:-1]])
        yield from ((inside, line, name) for line, name in imported_names(path, package))


def violations(tree, excused=()):
    """Every import in the package folder `tree` that does not point down, as `path:line: what`.

    `excused` are sets of modules that may import each other.
    """
    found = []
    for inside, line, name in imports(tree):
        wrong = _violation(inside.parts[0].removesuffix(".py"), name, tree)
        if wrong and not any(set(_inner_names(inside, name)) <= circle for circle in excused):
            found.append(f"{tree.name}/{inside}:{line}: {wrong} ({name})")
    return found


def _module(inside):
    """The name of a module, without that of the tree: `core.text`, and `core` for its `__init__.py`."""
    return ".".join(inside.with_suffix("").parts).removesuffix("__init__").removesuffix(".")


def _inner_names(inside, name):
    """The importing module and the imported one; the latter's last word may be a name in it."""
    imported = name.partition(".")[2]
    return _module(inside), imported.rpartition(".")[0] or imported


def import_graph(tree):
    """Module -> the modules of the tree that it imports: at its top, late in a function, or for types alone."""
    graph = {_module(path.relative_to(tree)): set() for path in tree.rglob("*.py")}
    for inside, _, name in imports(tree):
        module, words = _module(inside), name.split(".")
        if words[0] == tree.name:
            wanted = [".".join(words[1:]), ".".join(words[1:-1])]
            graph[module].update([w for w in wanted if w in graph and w != module][:1])
    return graph


def _reached(graph, start):
    """Every module to which the imports of `start` lead."""
    found, waiting = set(), [start]
    while waiting:
        new = graph[waiting.pop()] - found
        found |= new
        waiting += new
    return found


def circles(graph):
    """The sets of modules that import each other, directly or by way of others."""
    reached = {module: _reached(graph, module) for module in graph}
    looped = sorted(module for module, others in reached.items() if module in others)
    return sorted({frozenset(o for o in looped if o in reached[m] and m in reached[o]) for m in looped}, key=sorted)


class LayersTests(SynchronousTestCase):
    """The tree as it is."""

    def test_imports_point_down(self):
        """No module imports from a layer above its own; codecs and core know no socket, clock or reactor."""
        self.assertEqual([], violations(TREE, CIRCLES))

    def test_no_new_circle(self):
        """No modules import each other in a circle, but for the listed ones; one that is gone is listed no more."""
        expected = sorted(CIRCLES, key=sorted)
        self.assertEqual([sorted(circle) for circle in expected], [sorted(c) for c in circles(import_graph(TREE))])


def planted_tree(folder, modules):
    """A tree in `folder` that has these modules; `__` in a name stands for `/`."""
    tree = Path(folder) / "ulogd_tw"
    for part in (*LAYERS, "service"):
        (tree / part).mkdir(parents=True)
    for name, source in modules.items():
        path = tree / (name.replace("__", "/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    return tree


class CirclesTests(SynchronousTestCase):
    """The search for circles, on planted trees."""

    def found(self, **modules):
        return [sorted(circle) for circle in circles(import_graph(planted_tree(self.mktemp(), modules)))]

    def test_every_kind_of_import_closes_a_circle(self):
        """A late import and one for types alone count, relative or not, also by way of a third module or folder."""
        late = "def f():\n    from ulogd_tw.core.a import x"
        typed = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from . import a"
        for back in (late, typed, "from ..core import a", "import ulogd_tw.core.a as y"):
            self.assertEqual([["core.a", "core.b"]], self.found(core__a="from .b import x", core__b=back), back)
        self.assertEqual(
            [["core.a", "ipfix.b", "ipfix.c"]],
            self.found(
                core__a="from ..ipfix.b import x", ipfix__b="from . import c", ipfix__c="import ulogd_tw.core.a"
            ),
        )

    def test_two_circles_are_two(self):
        """Circles that do not touch are told apart; what only leads into one is in none."""
        self.assertEqual(
            [["core.a", "core.b"], ["core.c", "core.d"]],
            self.found(
                core__a="from . import b, c", core__b="from . import a", core__c="from . import d",
                core__d="from . import c", core__e="from . import a",
            ),
        )  # fmt: skip

    def test_no_circle(self):
        """A name of a package's own face is not a module; importing one way is no circle."""
        self.assertEqual([], self.found(core__a="from ..core.b import a", core__b="from ulogd_tw import __version__"))


class ViolationsTests(SynchronousTestCase):
    """The check itself, on planted trees."""

    def planted(self, **modules):
        """What the check finds in a tree that has these modules; `__` in a name stands for `/`."""
        return violations(planted_tree(self.mktemp(), modules))

    def assertRefused(self, module, source):
        found = self.planted(**{module: source})
        self.assertEqual(1, len(found), (module, source, found))

    def test_upward_imports_are_refused(self):
        """In each spelling of an import, each layer is kept from those above and beside it."""
        self.assertRefused("core__keys", "import ulogd_tw.ipfix.message")
        self.assertRefused("core__keys", "from ulogd_tw.plugins import inputs")
        self.assertRefused("core__keys", "from ulogd_tw import service")
        self.assertRefused("core__keys", "from .. import config")
        self.assertRefused("core__keys", "def late():\n    from ..flow import Queue\n")
        self.assertRefused("config", "from .plugins import inputs")
        self.assertRefused("config", "from . import flow")
        self.assertRefused("ipfix__message", "from ulogd_tw.netfilter import conntrack")
        self.assertRefused("netfilter__conntrack", "from ulogd_tw.transports import netlink")
        self.assertRefused("transports__udp", "from ulogd_tw.ipfix import message")
        self.assertRefused("flow", "from .plugins.outputs import json")
        self.assertRefused("plugins__inputs__nfct", "from ...service import Service")
        self.assertRefused("plugins__nfct", "from ..service import Service")

    def test_outside_world_is_refused(self):
        """core and codecs import no Twisted, no socket and no clock."""
        for module in ("core__stack", "ipfix__message", "netfilter__conntrack", "packets__ethernet"):
            for name in sorted(OUTSIDE_WORLD):
                self.assertRefused(module, f"import {name}")
                self.assertRefused(module, f"from {name} import x")
        self.assertRefused("core__stack", "import twisted.internet.defer")

    def test_downward_imports_are_allowed(self):
        """What the layers allow is not found fault with, nor names of the package itself."""
        self.assertEqual([], self.planted(
            core__keys="import numpy\nfrom . import batch\nfrom .batch import Batch\nfrom .. import __version__",
            ipfix__message="from ..core.batch import Batch\nfrom ulogd_tw.ipfix import template\nimport datetime",
            config="from .core import errors",
            flow="from twisted.internet import defer\nfrom .core import batch",
            transports__udp="import socket, time\nfrom ulogd_tw.core import counters\nfrom . import tcp",
            plugins__nfct="from .. import netfilter, transports, flow\nfrom ..core import plugin",
            service="import time\nfrom . import plugins, config, registry",
        ))  # fmt: skip
