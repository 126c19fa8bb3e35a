"""Plugins by name and position: built in, of other packages, and those that there are not."""

import subprocess
import sys
import textwrap
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.certificates import with_certificates
from ulogd_tw import config, registry, tap, ulogd2
from ulogd_tw.core import types
from ulogd_tw.core.keys import Key
from ulogd_tw.core.options import Option, boolean, positive, seconds, text, words
from ulogd_tw.core.plugin import ALL, FLOW, PACKET, Filter, Output
from ulogd_tw.errors import PluginError

TOP = Path(__file__).resolve().parents[2]


class BuiltInTests(SynchronousTestCase):
    """What comes with ulogd_tw."""

    def test_all_load(self):
        """Every built-in plugin loads, bears its name, fits its position, says what it is and explains its options."""
        for position, table in registry.BUILT_IN.items():
            for name in table:
                class_ = registry.lookup(name, position)
                self.assertEqual(name, class_.name)
                self.assertTrue(issubclass(class_, registry._KINDS[position]), name)
                self.assertTrue(registry._summary(class_), name)
                self.assertTrue(all(option.meaning for option in class_.all_options()), name)
                shown = registry.describe(name)
                self.assertIn(f"{name}: {position}", shown)
                for figure in registry.lookup(name, position).counts:
                    self.assertRegex(shown, rf"(?m)^  (\w+\.)?{figure.name}[ .]")

    def test_nothing_is_loaded_before_its_use(self):
        """Importing the registry loads no plugin."""
        code = "import sys, ulogd_tw.registry; print([m for m in sys.modules if m.startswith('ulogd_tw.plugins.')])"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=_path())
        self.assertEqual("[]\n", done.stdout, done.stderr)

    def test_list(self):
        """The list has a line for each plugin and position."""
        lines = registry.list_plugins().splitlines()
        for position, table in registry.BUILT_IN.items():
            for name in table:
                self.assertEqual(1, sum(line.split()[:2] == [name, position] for line in lines), name)


def _path():
    """The environment for a Python that finds ulogd_tw as this one does."""
    return {"PYTHONPATH": str(Path(registry.__file__).parents[1]), "PATH": "/usr/bin:/bin"}


class MissingTests(SynchronousTestCase):
    """Why there is none."""

    def why(self, name, position="filter"):
        error = self.assertRaises(PluginError, registry.lookup, name, position)
        self.assertEqual(name, error.name)
        return str(error)

    def test_position(self):
        """A plugin in the wrong place."""
        between = "only filters may be between the first and the last plugin of a stack"
        self.assertEqual(f"NFCT is an input, but {between}", self.why("NFCT"))
        begins = "a stack begins with an input, such as NFCT or COLLECTOR"
        self.assertEqual(f"IPFIX is an output, but {begins}", self.why("IPFIX", "input"))

    def test_ulogd2(self):
        """Every plugin of ulogd2 is here."""
        here = {name for table in registry.BUILT_IN.values() for name in table}
        self.assertEqual(set(), set(ulogd2.PLUGINS) - here)

    def test_unknown(self):
        """A name that nobody knows, with the one that was meant; also for a description."""
        self.assertEqual("there is no plugin AGREGATE; did you mean AGGREGATE?", self.why("AGREGATE"))
        self.assertEqual("there is no plugin json; did you mean JSON?", self.why("json", "output"))
        self.assertEqual("there is no plugin NFLG; did you mean NFLOG?", self.why("NFLG", "input"))
        self.assertEqual("there is no plugin Q; ulogd-tw --list-plugins lists all plugins", self.why("Q"))
        self.assertRaises(PluginError, registry.describe, "Q")


class LoadingTests(SynchronousTestCase):
    """Plugins that cannot be loaded, and those of other packages."""

    def setUp(self):
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        sys.path.insert(0, str(self.folder))
        self.addCleanup(sys.path.remove, str(self.folder))

    def module(self, name, source):
        (self.folder / f"{name}.py").write_text(textwrap.dedent(source))
        self.addCleanup(sys.modules.pop, name, None)

    def built_in(self, name, place):
        self.patch(registry, "FILTERS", {})
        self.patch(registry, "BUILT_IN", {"input": {}, "filter": {name: place}, "output": {}})

    def why(self, name="X"):
        return str(self.assertRaises(PluginError, registry.lookup, name, "filter"))

    def test_library(self):
        """A missing library is named, with what brings it; so it is in the list."""
        for library in ("polars_", "psycopg_"):
            remedy = f"{sys.executable} -m pip install {library}"
            self.module(f"needs_{library}", f"import {library}.sub")
            self.built_in("X", f"needs_{library}:X")
            self.assertEqual(f"X needs {library}: {remedy}", self.why())
            self.assertIn(f"cannot be used: X needs {library}", registry.list_plugins())

    def test_shared_library(self):
        """A library that the dynamic linker does not find is the reason given."""
        self.module("dl", "raise OSError('cannot load library libzmq.so.9')")
        self.built_in("X", "dl:X")
        self.assertEqual("X cannot be loaded: cannot load library libzmq.so.9", self.why())

    def packaged(self, **points):
        info = self.folder / "foreign-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: foreign\nVersion: 1.0\n")
        lines = "".join(f"{name} = {place}\n" for name, place in points.items())
        (info / "entry_points.txt").write_text(f"[ulogd_tw.plugins]\n{lines}")

    def test_entry_points(self):
        """A plugin of another package is found, described and listed; a broken one says why and harms no other."""
        self.module(
            "foreign",
            '''
            from ulogd_tw.core.plugin import FLOW, Filter

            class Mine(Filter):
                """Does something foreign."""

                name = "MINE"
                itype = otype = FLOW

            nothing = 1
            ''',
        )
        self.packaged(MINE="foreign:Mine", BROKEN="absent_module:X", ODD="foreign:nothing")
        self.assertEqual("MINE", registry.lookup("MINE", "filter").name)
        self.assertIn("MINE: filter, flow -> flow", registry.describe("MINE"))
        error = self.assertRaises(PluginError, registry.lookup, "MINE", "output")
        self.assertEqual("MINE is a filter, but a stack ends with an output, such as JSON or SQLITE3", str(error))
        self.assertIn("BROKEN cannot be loaded from absent_module:X", self.why("BROKEN"))
        self.assertIn("BROKEN cannot be loaded", str(self.assertRaises(PluginError, registry.describe, "BROKEN")))
        self.assertIn("is not a plugin", self.why("ODD"))
        listed = registry.list_plugins()
        self.assertIn("Does something foreign.", listed)
        self.assertIn("BROKEN", listed)
        self.assertIn("did you mean MINE?", self.why("MINNE"))


class Shown(Filter):
    """Shows what a description has.

    The rest of the text.
    """

    name = "SHOWN"
    itype = otype = PACKET | FLOW
    options = (
        Option("mark", positive, 1, "a mark"),
        Option("path", text, None, "a path", True),
        Option("wait", seconds, 1.5, "a time"),
        Option("on", boolean, True, "a switch"),
        Option("names", words, ("a", "b"), "some names"),
        Option("nothing", text, "", "an empty text"),
    )
    provides = (Key("x.str", types.STRING), Key("octetDeltaCount", types.UNSIGNED64, ((0, 1),), "octets"))
    uses = ("orig.ip.saddr",)
    may_use = ("nobody.knows", "reply.raw.pktlen")


class Everything(Output):
    """Prints all."""

    name = "EVERYTHING"
    itype = FLOW

    def requests(self, wanted):
        return ALL


class DescribeTests(SynchronousTestCase):
    """What --info prints."""

    def test_filter(self):
        """Types, options with kind, default and meaning, keys with types and elements."""
        shown = registry._describe("SHOWN", "filter", Shown)
        for line in (
            "SHOWN: filter, packet|flow -> packet|flow", "The rest of the text.", "  mark (positive, 1)\n      a mark",
            "  path (text, must be given)", "  wait (seconds, 1.5)", "  on (boolean, 1)", '  names (words, "a b")',
            '  nothing (text, "")', "  x.str: string", "  octetDeltaCount: unsigned64, Information Element 1, octets",
            "  and those of the plugins above it", "  orig.ip.saddr: address, Information Element 8 or 27",
            "  nobody.knows, where there is one",
            "  reply.raw.pktlen: unsigned64, Information Element 29305/85, octets, where there is one",
        ):  # fmt: skip
            self.assertIn(line, shown)

    def test_output(self):
        """An output gives no keys; one that prints all asks for every key."""
        shown = registry._describe("EVERYTHING", "output", Everything)
        self.assertIn("EVERYTHING: output, flow ->", shown)
        self.assertIn("every key of its stack", shown)
        self.assertIn("queue_rows (positive, 1000000)", shown)
        self.assertIn("queue_octets (octets, 256M)", shown)
        self.assertNotIn("Keys it gives", shown)


class ProvidersTests(SynchronousTestCase):
    """Who gives a key, for mistakes."""

    def test_providers(self):
        """The names of plugins whose declaration has the key, under its name or its element."""
        self.assertEqual(["IP2STR"], registry.providers("orig.ip.saddr.str"))
        self.assertIn("NFCT", registry.providers("ct.mark"))
        self.assertEqual([], registry.providers("no.such.key"))


class ExampleTests(SynchronousTestCase):
    """The configurations that come with ulogd_tw."""

    def test_examples(self):
        """Each builds its stacks without any mistake, not even a tolerated one."""
        files = sorted(TOP.glob("etc/**/*.conf"))
        self.assertTrue(files)
        for file in files:
            text = with_certificates(self, file.read_text("utf-8"))
            built = tap.Built(config.parse(text, str(file)), prepare=False)
            self.assertEqual([], list(map(str, built.mistakes)))
            self.assertEqual(len(built.config.stacks()), len(built.graph.stacks), file)
