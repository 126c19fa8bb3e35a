"""docs/architecture.md and CONTRIBUTING.md: the picture is that of the layer table, and what they name is there."""

import ast
import re
import sys

from twisted.trial.unittest import SynchronousTestCase

from tests.support import TOP

CONTRIBUTING = TOP / "CONTRIBUTING.md"
DOCUMENT = TOP / "docs" / "architecture.md"
_WALKS = 3


def functions(path):
    """The qualified names of all functions of a module."""

    def walk(node, before):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef):
                yield from walk(child, f"{before}{child.name}.")
            elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                yield before + child.name

    return set(walk(ast.parse(path.read_text("utf-8")), ""))


class ArchitectureTests(SynchronousTestCase):
    """The picture, and the walks; tests.live.test_walks holds their order against the running program."""

    def test_picture(self):
        """docs/architecture.svg is what docs/draw_layers.py draws of the layers as they are."""
        sys.path.insert(0, str(TOP / "docs"))
        try:
            import draw_layers
        finally:
            sys.path.remove(str(TOP / "docs"))
        drawn = "\n".join(draw_layers.svg()) + "\n"
        stale = drawn != (TOP / "docs" / "architecture.svg").read_text("utf-8")
        self.assertFalse(stale, f"docs/architecture.svg is stale; in the top folder: {draw_layers.COMMAND}")

    def test_every_part(self):
        """Each part of the program has its box."""
        picture = (TOP / "docs" / "architecture.svg").read_text("utf-8")
        for path in (TOP / "ulogd_tw").iterdir():
            if path.is_dir() and (path / "__init__.py").exists() or path.suffix == ".py" and path.stem[0] != "_":
                self.assertIn(path.stem, picture)

    def test_functions(self):
        """Every function of a walk is where the walk says."""
        text = DOCUMENT.read_text("utf-8")
        steps = re.findall(r"^\d+\. `([\w/]+\.py):([\w.]+)`", text, re.M)
        self.assertGreater(len(steps), 40)
        self.assertEqual(_WALKS, len(re.findall(r"^1\. ", text, re.M)))
        wrong = [f"{m}:{f}" for m, f in steps if f not in functions(TOP / "ulogd_tw" / m)]
        self.assertEqual([], wrong)

    def test_places(self):
        """Every file and folder that CONTRIBUTING.md sends a reader to is there."""
        places = re.findall(r"`((?:ulogd_tw|tests|docs)/[\w/.]*\w)(?:/\.\.\.)?`", CONTRIBUTING.read_text("utf-8"))
        self.assertGreater(len(places), 25)
        self.assertEqual([], [place for place in places if not (TOP / place).exists()])
