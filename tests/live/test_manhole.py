"""The manhole, driven by OpenSSH's client."""

import json
import socket
import subprocess
from pathlib import Path

import numpy as np
from twisted.internet import defer, error, reactor, task, threads
from twisted.internet.testing import StringTransport
from twisted.logger import FilteringLogObserver, LogLevel, formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from tests.support import free_port, require_program
from ulogd_tw.core import types
from ulogd_tw.core.batch import Batch, Schema
from ulogd_tw.core.keys import Key
from ulogd_tw.core.options import Options
from ulogd_tw.core.plugin import ALL, FLOW, Filter, Input, Output
from ulogd_tw.core.stack import Builder, StackSpec
from ulogd_tw.logs import _Least
from ulogd_tw.operating import inspection, manhole

PORT = Key("sourceTransportPort", types.UNSIGNED16, ((0, 7),))


class Ports(Input):
    """Gives one column."""

    name = "PORTS"
    otype = FLOW
    provides = (PORT,)

    def give(self, *ports):
        column = {PORT.name: np.array(ports, np.uint16)}
        self.counters.rows_received += len(ports)
        self.emit(Batch(Schema([PORT]), column, n=len(ports), now=0.0))


class Same(Filter):
    """Gives what it gets."""

    name = "SAME"
    itype = otype = FLOW

    def process(self, batch):
        return batch


class Sink(Output):
    """Takes everything."""

    name = "SINK"
    itype = FLOW

    def requests(self, wanted):
        return ALL

    def write(self, batch):
        return None


class Running:
    """What the manhole looks into: a graph, as the service holds one."""

    def __init__(self):
        classes = {class_.name: class_ for class_ in (Ports, Same, Sink)}
        builder = Builder(lambda name, _: classes[name], lambda _, class_: (Options(class_.all_options()), []))
        pairs = (("in1", "PORTS"), ("same1", "SAME"), ("out1", "SINK"))
        self.graph = builder.build([StackSpec("in1:PORTS,same1:SAME,out1:SINK", "x.conf:2", pairs)])
        assert not builder.mistakes, builder.mistakes


class ManholeTests(TestCase):
    """A real ssh client against the server in this process; ssh runs in a thread, so the reactor serves it."""

    timeout = 120

    def setUp(self):
        self.ssh, self.keygen = require_program("ssh", "ssh-keygen")
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.key = self.made("allowed")
        authorized = self.folder / "authorized_keys"
        authorized.write_bytes((self.folder / "allowed.pub").read_bytes())
        authorized.chmod(0o600)
        values = {
            "listen": ("127.0.0.1", free_port()),
            "authorized_keys": str(authorized),
            "host_key": str(self.folder / "host_key"),
        }
        self.port = values["listen"][1]
        self.running = Running()
        self.service = manhole.manhole_service(Options(manhole.OPTIONS, values), inspection.namespace(self.running))
        self.service.startService()
        self.addCleanup(self.service.stopService)

    def made(self, name, *more):
        """Path of a new key pair without a passphrase."""
        path = self.folder / name
        command = [self.keygen, "-q", "-t", "ed25519", "-N", "", "-f", str(path), *more]
        subprocess.run(command, check=True, timeout=20, stdin=subprocess.DEVNULL)
        return path

    def run_ssh(self, *arguments, key=None, input_=b"", options=()):
        """A Deferred with what ssh printed and its status."""
        command = [
            self.ssh, "-F", "none", "-p", str(self.port), "-i", str(key or self.key), "-o", "IdentitiesOnly=yes",
            "-o", "IdentityAgent=none", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
            "-o", "LogLevel=ERROR", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10", *options, "admin@127.0.0.1",
            *arguments,
        ]  # fmt: skip
        return threads.deferToThread(subprocess.run, command, input=input_, capture_output=True, timeout=30)

    @defer.inlineCallbacks
    def test_exec(self):
        """An expression given to ssh prints its value and ends with status 0."""
        self.running.graph.inputs[0].plugin.give(1, 2, 3)
        done = yield self.run_ssh("counters()")
        self.assertEqual((0, b""), (done.returncode, done.stderr))
        self.assertEqual(3, json.loads(done.stdout)["out1"]["rows_written"])
        done = yield self.run_ssh("print(1+1); x = 5")
        self.assertEqual((0, b"2\n"), (done.returncode, done.stdout))
        done = yield self.run_ssh("x")
        self.assertEqual((0, b"5\n"), (done.returncode, done.stdout))
        done = yield self.run_ssh('explain("in1")')
        self.assertIn(b"x.conf:2: stack in1:PORTS", done.stdout)

    @defer.inlineCallbacks
    def test_exec_error(self):
        """An expression that raises prints the exception to standard error in one line, with status 1."""
        done = yield self.run_ssh("1/0")
        self.assertEqual((1, b"ZeroDivisionError: division by zero\n"), (done.returncode, done.stderr))
        self.assertEqual(b"", done.stdout)
        done = yield self.run_ssh('tap("same")')
        self.assertEqual((1, b"LookupError: there is no 'same'; did you mean same1?\n"), (done.returncode, done.stderr))

    @defer.inlineCallbacks
    def test_no_false_alarm(self):
        """A session that ends as sessions do leaves nothing in the log at the default level."""
        said = []
        least = FilteringLogObserver(said.append, [_Least(LogLevel.info)])
        globalLogPublisher.addObserver(least)
        self.addCleanup(globalLogPublisher.removeObserver, least)
        done = yield self.run_ssh("1 + 1")
        self.assertEqual(b"2\n", done.stdout)
        while self.service.port.factory.connections:
            yield task.deferLater(reactor, 0.02)
        self.assertEqual([], [formatEvent(event) for event in said])

    @defer.inlineCallbacks
    def test_exec_large(self):
        """A result larger than ssh's windows arrives whole."""
        done = yield self.run_ssh("'x' * 5_000_000")
        self.assertEqual((0, 5_000_001), (done.returncode, len(done.stdout)))

    @defer.inlineCallbacks
    def test_tap(self):
        """Rows that pass while a tap waits are printed; the stack gets them all the same, and the tap is gone after."""
        node = self.running.graph.inputs[0]
        before = list(node.children)
        traffic = task.LoopingCall(node.plugin.give, 80, 443)
        traffic.start(0.02)
        self.addCleanup(lambda: traffic.running and traffic.stop())
        done = yield self.run_ssh('tap("in1", 3)')
        lines = done.stdout.splitlines()
        self.assertEqual([80, 443, 80], [json.loads(line)["sourceTransportPort"] for line in lines])
        self.assertEqual(before, node.children)
        self.assertEqual({}, self.running.graph.unaccounted())

    @defer.inlineCallbacks
    def test_tap_abandoned(self):
        """A client that goes away while its tap waits takes the tap with it."""
        node = self.running.graph.inputs[0]
        command = self.run_ssh('tap("in1", 3, 60)', options=("-o", "ServerAliveInterval=1"))
        while len(node.children) == 1:
            yield task.deferLater(reactor, 0.02)
        for protocol in list(self.service.port.factory.connections):
            protocol.transport.abortConnection()
        yield command
        self.assertEqual(1, len(node.children))

    @defer.inlineCallbacks
    def test_interactive(self):
        """On a terminal there is a prompt, which shows results of Deferreds when they come."""
        done = yield self.run_ssh("-tt", input_=b"6 * 7\rcounters('in1')['plugin']\rstacks\rexit()\r")
        text = done.stdout.decode("utf-8", "replace")
        self.assertIn("42", text)
        self.assertIn("PORTS", text)
        self.assertIn("in1:PORTS,same1:SAME,out1:SINK", text)
        self.assertNotIn("Traceback", text)

    @defer.inlineCallbacks
    def test_interactive_eof(self):
        """A prompt ends when standard input does; without a terminal it is refused with a hint."""
        done = yield self.run_ssh("-tt", input_=b"6 * 7\r")
        self.assertIn(b"42", done.stdout)
        done = yield self.run_ssh("-T")
        self.assertEqual(1, done.returncode)
        self.assertIn(b"ssh -t", done.stderr)

    @defer.inlineCallbacks
    def test_wrong_key(self):
        """A key that is not in the file lets nobody in."""
        done = yield self.run_ssh("counters()", key=self.made("stranger"))
        self.assertEqual((255, b""), (done.returncode, done.stdout))
        self.assertIn(b"Permission denied (publickey)", done.stderr)

    @defer.inlineCallbacks
    def test_password(self):
        """Passwords are not even offered."""
        options = ("-o", "PubkeyAuthentication=no", "-o", "PreferredAuthentications=password,keyboard-interactive")
        done = yield self.run_ssh("counters()", options=options)
        self.assertEqual((255, b""), (done.returncode, done.stdout))
        self.assertIn(b"Permission denied (publickey)", done.stderr)

    @defer.inlineCallbacks
    def test_silent_connections(self):
        """Connections that say nothing lock nobody out, however many they are."""
        for _ in range(40):
            self.addCleanup(socket.create_connection(("127.0.0.1", self.port)).close)
        done = yield self.run_ssh("1 + 1")
        self.assertEqual((0, b"2\n"), (done.returncode, done.stdout))
        self.assertLess(len(self.service.port.factory.logins), manhole.MOST_CONNECTIONS)

    def test_silent_connections_at_once(self):
        """Those that had to go in this turn of the reactor keep nobody out either."""
        factory = self.service.port.factory
        for _ in range(3 * manhole.MOST_CONNECTIONS):
            made = factory.buildProtocol(None)
            self.assertIsNotNone(made)
            made.makeConnection(StringTransport())
            self.addCleanup(made.connectionLost, Failure(error.ConnectionDone()))

    @defer.inlineCallbacks
    def test_keys_change(self):
        """The file is read at each login: a key taken out lets nobody in any more, without a restart."""
        (self.folder / "authorized_keys").write_text("# nobody\n")
        done = yield self.run_ssh("counters()")
        self.assertEqual(255, done.returncode)

    @defer.inlineCallbacks
    def test_host_key_stays(self):
        """The host key that the first start made is the one that later starts use."""
        known = self.folder / "known_hosts"
        options = ("-o", "StrictHostKeyChecking=accept-new", "-o", f"UserKnownHostsFile={known}")
        done = yield self.run_ssh("1", options=options)
        self.assertEqual(0, done.returncode)
        self.assertEqual(0o600, (self.folder / "host_key").stat().st_mode & 0o777)
        yield self.service.stopService()
        self.service.startService()
        done = yield self.run_ssh("1", options=("-o", "StrictHostKeyChecking=yes", "-o", f"UserKnownHostsFile={known}"))
        self.assertEqual((0, b"1\n"), (done.returncode, done.stdout))
