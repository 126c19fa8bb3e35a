"""The directory of all that outlives a restart: its layout, its version, who may enter it."""

import json
import os
import tempfile
from pathlib import Path

from twisted.internet import defer
from twisted.trial.unittest import SynchronousTestCase

from ulogd_tw import state_directory
from ulogd_tw.core.errors import StartError
from ulogd_tw.core.graph import Graph, Node
from ulogd_tw.core.plugin import Plugin
from ulogd_tw.state_directory import StateDirectory, kept


class Keeps(Plugin):
    """Keeps a file."""

    name = "KEEPS"
    common_counts = Plugin.common_counts

    def __init__(self, instance):
        super().__init__(instance)
        self.counters.errors.allow("state")
        self.directory = None

    def keep_state(self, directory, every):
        self.directory, self.every = directory, every
        (directory / "file").write_text("state")

    def kept(self):
        return {"file": str(self.directory)} if self.directory else {}


class LayoutTests(SynchronousTestCase):
    """What is made, and what is set aside."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name) / "a" / "state"
        self.patch(StateDirectory, "log", self)
        self.said = []

    def error(self, text, **fields):
        self.said.append(text.format(**fields))

    info = error

    def begin(self, *idents):
        state = StateDirectory(str(self.path), 2.0)
        state.open()
        self.addCleanup(state.close)
        nodes = [Node(Keeps(ident), ident, None) for ident in idents]
        for node in nodes:
            state.keep(node)
        return state, [node.plugin for node in nodes]

    def test_modes(self):
        """0700 and 0600 whatever the umask."""
        before = os.umask(0)
        try:
            self.begin("agg1")
        finally:
            os.umask(before)
        modes = {str(p.relative_to(self.path)): p.stat().st_mode & 0o777 for p in self.path.rglob("*") if p.is_dir()}
        self.assertEqual({"instances": 0o700, "instances/agg1": 0o700}, modes)
        self.assertEqual(0o600, (self.path / "layout").stat().st_mode & 0o777)
        self.assertEqual(0o700, self.path.stat().st_mode & 0o777)

    def test_a_narrow_umask(self):
        """Under 0777 the directory can be used all the same."""
        before = os.umask(0o777)
        try:
            self.begin("agg1")
        finally:
            os.umask(before)
        self.assertEqual(0o700, (self.path / "instances" / "agg1").stat().st_mode & 0o777)

    def test_names(self):
        """An id cannot name a directory elsewhere, nor that of another instance."""
        _, plugins = self.begin("a", "a#2", "..", "a/../b", "a b", "%2E")
        places = [plugin.directory for plugin in plugins]
        self.assertEqual({self.path / "instances"}, {place.parent for place in places})
        self.assertEqual(6, len({place.resolve() for place in places}))

    def test_one_process_at_a_time(self):
        first, _ = self.begin("agg1")
        self.assertRaises(StartError, self.begin, "agg1")
        first.close()
        self.begin("agg1")

    def test_of_a_newer_release(self):
        """Its layout is set aside with all instances, which count it; again for the next one."""
        for suffix, others in (("instances.aside", 0), ("instances.aside-2", 1)):
            first, _ = self.begin("agg1")
            first.close()
            (self.path / "layout").write_text(json.dumps({"ulogd_tw": "state", "version": 2}))
            state, (old, new) = self.begin("agg1", "agg2")
            state.close()
            self.assertEqual((1, others), (old.counters.errors["state"], new.counters.errors["state"]))
            self.assertEqual("state", (self.path / suffix / "agg1" / "file").read_text())
            self.assertIn("layout 2", self.said[-1])
        self.assertEqual({"ulogd_tw": "state", "version": 1}, json.loads((self.path / "layout").read_text()))

    def test_damage(self):
        """A layout that cannot be read is treated alike."""
        for octets in (b"\xff", b"[]", b"{}", b'{"ulogd_tw":"x","version":1}', b'{"ulogd_tw":"state","version":"?"}'):
            first, _ = self.begin("agg1")
            first.close()
            (self.path / "layout").write_bytes(octets)
            state, (plugin,) = self.begin("agg1")
            state.close()
            self.assertEqual(1, plugin.counters.errors["state"], octets)

    def test_no_room_for_it(self):
        """A file in its place is an error that names it, and keeps its mode."""
        self.path.parent.mkdir()
        self.path.write_text("")
        self.path.chmod(0o644)
        self.assertIn(f"{self.path}: Not a directory", str(self.assertRaises(StartError, self.begin)))
        self.assertEqual(0o644, self.path.stat().st_mode & 0o777)

    def test_cannot_be_written(self):
        """The reason is there while it is so, and is logged once; nothing stays of the attempts."""
        state, _ = self.begin()
        self.patch(state_directory.threads, "deferToThread", defer.maybeDeferred)
        instances = self.path / "instances"
        for expected in ("", "No such file or directory", "No such file or directory", ""):
            instances.mkdir(exist_ok=True)
            if expected:
                instances.rmdir()
            state._try_to_write()
            self.assertEqual(expected, state.fault)
        self.assertEqual(["state_dir", "again"], [self.said[0].split()[0], self.said[-1].split()[-1]])
        self.assertEqual(2, len(self.said))
        self.assertEqual([], list(instances.iterdir()))

    def test_forgotten(self):
        """An instance that is gone leaves nothing; one that kept nothing is no fault."""
        state, (first, second) = self.begin("a#1", "b")
        state.forget("a#1")
        state.forget("none")
        self.assertEqual((False, True), (first.directory.exists(), second.directory.exists()))

    def test_what_is_kept(self):
        """By instance, without those that keep nothing."""
        _, (one,) = self.begin("agg1")
        nodes = [Node(one, "agg1", None), Node(Keeps("x"), "x", None)]
        self.assertEqual({"agg1": {"file": str(one.directory)}}, kept(Graph([], [], nodes, [])))
