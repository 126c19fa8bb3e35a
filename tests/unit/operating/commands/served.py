"""A service behind a control socket, and commands that ask it as a user does."""

import contextlib
import io
import shutil
import tempfile
from types import SimpleNamespace

from twisted.internet import defer, threads
from twisted.trial.unittest import TestCase

from tests.unit.operating.test_inspection import Running
from ulogd_tw.operating.api import tree as pages
from ulogd_tw.operating.api import view
from ulogd_tw.operating.api.control_socket import ControlSocket
from ulogd_tw.operating.commands import tree


class ServedCase(TestCase):
    """Commands in threads; the door and the stacks are in the reactor."""

    timeout = 120
    STACKS = ("in1:PORTS,odd1:ODD,out1:SINK", "in1:PORTS,out2:SINK")

    def setUp(self):
        self.running = Running(*self.STACKS)
        self.running.settings = SimpleNamespace(state_dir="")
        self.running.mistakes = ()
        self.folder = tempfile.mkdtemp(prefix="utw-")
        self.addCleanup(shutil.rmtree, self.folder)
        self.path = f"{self.folder}/s"
        self.view = view.View(self.running, "ulogd.conf")
        self.door = ControlSocket(pages.root(self.view), self.path)
        self.door.startService()
        self.addCleanup(self.door.stopService)

    def give(self, *ports):
        self.running.graph.inputs[0].plugin.give(*ports)

    @defer.inlineCallbacks
    def run_command(self, *words, out=None):
        """Status, output and complaints of a command."""
        out = out or io.StringIO()
        with contextlib.redirect_stderr(io.StringIO()) as said:
            status = yield threads.deferToThread(tree.run, tree.parse([*words, "-s", self.path]), out)
        return status, out.getvalue(), said.getvalue()
