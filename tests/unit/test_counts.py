"""Declarations of counters, beside the code that counts."""

import ast
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import ulogd_tw
from ulogd_tw import registry
from ulogd_tw.core.counters import NUMBERS, ByReason, Declared, Figure, Group, flat
from ulogd_tw.core.plugin import Filter, Output
from ulogd_tw.operating.reference import sample

ROOT = Path(ulogd_tw.__file__).parent
COUNTED = {"dropped", "lost", "errors", "_errors", "figures", "refused"}
"""Names of the mappings that count, as the code calls them."""
CLASSES = {"Count", "Gauge", "Text", "Dropped", "Lost", "Missing", "Fault", "Reason", "Group", "ByReason"}
ERRORS = {"MessageError", "TlsError"}
"""Exceptions whose second argument is a reason."""


def plugins():
    """Every built-in plugin's class."""
    for position, table in registry.BUILT_IN.items():
        for name in sorted(table):
            yield registry.lookup(name, position)


def names(declared: tuple[Declared, ...]) -> Iterator[str]:
    """The bare names of all declarations, those inside of groups too."""
    for part in declared:
        yield part.name
        if isinstance(part, Group | ByReason):
            yield from names(part.parts)


def modules() -> Iterator[tuple[Path, ast.Module]]:
    """The program's source."""
    for path in sorted(ROOT.rglob("*.py")):
        yield path, ast.parse(path.read_text("utf-8"))


def called(node: ast.AST) -> str:
    """The name that a call, an attribute or a name ends with."""
    node = node.func if isinstance(node, ast.Call) else node
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def texts(node: ast.AST) -> Iterator[str]:
    """The literals that an expression can be: itself, or both branches of ``a if b else c``."""
    if isinstance(node, ast.IfExp):
        yield from texts(node.body)
        yield from texts(node.orelse)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value


class DeclarationTests(SynchronousTestCase):
    """What is counted is declared, and what is declared is counted."""

    def setUp(self):
        self.declared = {name for class_ in plugins() for name in names(class_.counts)}
        for part in (NUMBERS, Filter.common_counts, Output.common_counts):
            self.declared |= set(names(part))

    def counted(self) -> Iterator[tuple[str, str]]:
        """(place, name) of every literal that names a counter."""
        for path, tree in modules():
            for node in ast.walk(tree):
                found = ()
                if isinstance(node, ast.Subscript) and called(node.value) in COUNTED:
                    found = texts(node.slice)
                elif isinstance(node, ast.Call) and called(node) in ERRORS and len(node.args) > 1:
                    found = texts(node.args[1])
                for name in found:
                    yield f"{path.relative_to(ROOT)}:{node.lineno}", name

    def test_counted_is_declared(self):
        """Every literal that the code counts under is declared by a plugin."""
        counted = list(self.counted())
        self.assertGreater(len(counted), 100)
        self.assertEqual([], [f"{where}: {name}" for where, name in counted if name not in self.declared])

    def test_declared_is_counted(self):
        """Every declared name stands somewhere else than in its declaration."""
        used = set()
        for _, tree in modules():
            classes = CLASSES if _declares(tree) else ()
            calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call) and called(node) in classes)
            own = {id(call.args[0]) for call in calls if call.args}
            for node in ast.walk(tree):
                if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in own:
                    used.add(node.value)
                elif isinstance(node, ast.Attribute):
                    used.add(node.attr)
        self.assertEqual([], sorted(self.declared - used))

    def test_whole(self):
        """A declaration has a name once in a plugin, a unit unless it is a text, and a sentence."""
        for class_ in plugins():
            found = list(flat(class_.all_counts()))
            places = [name for name, _, _ in found if name != "dropped.error"]
            self.assertEqual(sorted(set(places)), sorted(places), class_)
            for name, _, figure in found:
                self.assertIsInstance(figure, Figure)
                self.assertIn(figure.kind, ("counter", "gauge", "text"), name)
                self.assertEqual(figure.kind != "text", bool(figure.unit), name)
                self.assertRegex(figure.meaning, r"^[A-Z].*[.?]$", name)

    def test_stats(self):
        """A new instance has its figures, and no other, in the order of their declaration."""
        for class_ in plugins():
            declared = [f.name for f in class_.counts if f.name in dict.fromkeys(_shown(class_))]
            self.assertEqual(declared, _shown(class_), class_)


def _declares(tree: ast.Module) -> bool:
    """Whether a module has declarations; storing has a Fault of its own."""
    return any(isinstance(node, ast.ImportFrom) and node.module == "ulogd_tw.core.counters" for node in tree.body)


def _shown(class_) -> list[str]:
    from ulogd_tw.core.options import Options

    options = class_.all_options()
    instance = class_("x", Options(options, {o.name: sample(o) for o in options if o.mandatory}))
    return list(instance.counters.figures)
