"""setup.cfg tells the truth: each package that it requires is imported, each that is imported it requires."""

import ast
import configparser
import importlib.util
import re
import sys
from importlib import metadata
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.support import import_nodes

TOP = Path(__file__).resolve().parents[2]
OWN = {"ulogd_tw", "tests", "benchmarks", "draw_layers", "make_dashboards"}
THROUGH = {"bcrypt": "twisted.conch.ssh.keys", "service-identity": "twisted.internet._service_identity"}
"""Required for another package, which imports it where it is there: the module of that one."""
AROUND = ("test", "bench", "dev", "docs")
"""Extras that no installation needs to run."""
TOOLS = {"atheris", "mkdocs", "mypy", "ruff", "setuptools", "twine"}
"""Run as commands or looked for by name, so no import statement names them."""

SENT = {"plotly"}
"""Their files are sent to browsers."""


def normal(name):
    """The name of a distribution in one form."""
    return re.sub(r"[-_.]+", "-", name).lower()


def required():
    """Extra -> distributions; None for what every installation has."""
    read = configparser.ConfigParser()
    read.read(TOP / "setup.cfg")
    lists = {None: read["options"]["install_requires"], **read["options.extras_require"]}
    return {extra: set(map(normal, re.findall(r"^\s*([\w.-]+)", text, re.MULTILINE))) for extra, text in lists.items()}


def imported(*folders):
    """The outermost packages that modules in these folders import, anywhere in them."""
    found = set()
    for path in (p for folder in folders for p in (TOP / folder).rglob("*.py")):
        for node in import_nodes(path):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found.add(node.module.partition(".")[0])
    return found - OWN - set(sys.stdlib_module_names)


def distributions(packages):
    """The distributions that hold these packages; a package that is not installed stands for itself."""
    held = metadata.packages_distributions()
    names = {normal(name) for package in packages for name in held.get(package, [package])}
    return names - {"ulogd-tw"}  # it holds twisted.plugins


class DependenciesTests(SynchronousTestCase):
    """Imports of the tree against setup.cfg."""

    def test_imports_are_declared(self):
        """The program imports only what it requires or an extra brings; tests and benchmarks have extras of theirs."""
        lists = required()
        program = lists[None].union(*(lists[extra] for extra in lists if extra not in {None, *AROUND}))
        self.assertEqual(set(), distributions(imported("ulogd_tw", "twisted")) - program)
        everything = set().union(*lists.values())
        self.assertEqual(set(), distributions(imported("tests", "benchmarks")) - everything)

    def test_declared_are_imported(self):
        """Whatever an installation brings is imported by the program, or by the package that it is required for."""
        lists = required()
        ours = distributions(imported("ulogd_tw", "twisted"))
        for extra in set(lists) - set(AROUND):
            self.assertEqual(set(), lists[extra] - ours - SENT - set(THROUGH), extra)
        everything = distributions(imported("ulogd_tw", "twisted", "tests", "benchmarks"))
        for extra in AROUND:
            self.assertEqual(set(), lists[extra] - everything - SENT - TOOLS, extra)

    def test_required_for_others(self):
        """The packages that Twisted uses where they are there, and we with it: it still does."""
        for distribution, module in THROUGH.items():
            source = Path(importlib.util.find_spec(module).origin).read_text()
            package = distribution.replace("-", "_")
            self.assertTrue(re.search(rf"^\s*(import|from) {package}", source, re.MULTILINE), distribution)
