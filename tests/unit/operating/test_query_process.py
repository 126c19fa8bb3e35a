"""The processes of queries: what they can no longer do, how they end, how many there are, what is copied to them."""

import json
import os
import signal
import sys
from types import SimpleNamespace

import numpy as np
from twisted.internet import defer, reactor, task
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase, TestCase

from ulogd_tw.core import types
from ulogd_tw.core.batch import Batch, Schema
from ulogd_tw.core.keys import Key
from ulogd_tw.errors import QueryError
from ulogd_tw.operating import query, query_child, query_process

_KEYS = (Key("octets", types.UNSIGNED64), Key("sourceAddress", types.IPV4))
MEMORY = 192 << 20
CONFINED = """
import ctypes, os, resource, socket, sys
sys.path[:] = sys.argv[3:]
from ulogd_tw.operating import confinement
from ulogd_tw.operating.query_child import pickle
connection = socket.socket(fileno=0)
confinement.bound_memory(64 << 20)
confinement.confine(int(sys.argv[1]))
def tried(what):
    try:
        return repr(what())
    except BaseException as error:
        return type(error).__name__
found = [
    tried(lambda: open('/etc/passwd')), tried(lambda: open('/proc/self/environ')), tried(socket.socket),
    tried(lambda: os.unlink(sys.argv[2])), tried(lambda: os.open(sys.argv[2], os.O_RDONLY)),
    tried(lambda: bytearray(128 << 20)), tried(lambda: os.setuid(0)) if os.getuid() else 'PermissionError',
    tried(lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (9, 9))), sorted(os.environ),
]
import json
connection.sendall(json.dumps(found).encode())
"""


class Groups:
    """A table like that of an AGGREGATE, with `n` groups in slices."""

    columns = [key.name for key in _KEYS]  # noqa: RUF012
    open = 0

    def __init__(self, n, at_once=1000):
        self.n, self.at_once = n, at_once

    def keys(self):
        return _KEYS

    def peek(self, names):
        self.open += 1
        try:
            for first in range(0, self.n, self.at_once):
                rows = np.arange(first, min(first + self.at_once, self.n), dtype=np.uint64)
                columns = {"octets": rows, "sourceAddress": rows.astype(np.uint32)}
                schema = Schema([key for key in _KEYS if key.name in names])
                yield Batch(schema, {name: columns[name] for name in schema}, n=len(rows), now=0.0)
        finally:
            self.open -= 1


class ProcessCase(TestCase):
    """A database with real processes."""

    timeout = 120

    def database(self, n=1000, memory=MEMORY, seconds=120.0):
        self.groups = Groups(n)
        settings = SimpleNamespace(query_memory=memory, query_timeout=seconds)
        found = query.Database(
            SimpleNamespace(graph=SimpleNamespace(instances={"agg": self.groups}), settings=settings)
        )
        self.addCleanup(found.stop)
        return found

    def fails(self, asked, *texts):
        """The query fails with these texts."""

        def said(error):
            for text in texts:
                self.assertIn(text, str(error))

        return self.assertFailure(asked, QueryError).addCallback(said)


class ChildTests(ProcessCase):
    """Queries in processes."""

    @defer.inlineCallbacks
    def test_warm(self):
        """One process answers many queries, and is ended when nobody asks any more."""
        database = self.database()
        found = yield database.query("select sum(octets), max(sourceAddress) from agg")
        self.assertEqual([(499500, "0.0.3.99")], found.rows)
        (child,) = database._children._children
        for _ in range(3):
            yield database.query("select sourceAddress from agg limit 1")
        self.assertEqual([child], database._children._children)
        self.assertEqual(0, self.groups.open)
        child._timer.reset(0)
        yield child.ended
        self.assertEqual([], database._children._children)
        self.assertRaises(ProcessLookupError, os.kill, child._process.pid, 0)

    @defer.inlineCallbacks
    def test_time(self):
        """A query that takes too long is ended with its process, and the next has an answer."""
        database = self.database(seconds=0.3)
        yield self.fails(database.query("select count(*) from agg a, agg b, agg c, agg d"), "query_timeout=0.3 seconds")
        database._children._seconds = 20.0
        found = yield database.query("select count(*) from agg")
        self.assertEqual([(1000,)], found.rows)

    @defer.inlineCallbacks
    def test_memory(self):
        """Memory has a bound, whatever takes it, and the next query has an answer."""
        database = self.database()
        for text in ("select repeat('x', 1000000000) from agg", "select list(a.octets) from agg a, agg b, agg c",
                     "select list_transform(range(100000000), lambda x: x::varchar) from agg",
                     "select count(*) from (select a.octets, b.octets, c.octets from agg a, agg b, agg c group by all)",
                     "select string_agg(repeat('x', 1000000), '') from agg"):  # fmt: skip
            yield self.fails(database.query(text), "query_memory=192M")
        found = yield database.query("select count(*) from agg")
        self.assertEqual([(1000,)], found.rows)

    @defer.inlineCallbacks
    def test_copy(self):
        """A table that is larger than the memory is not copied whole."""
        database = self.database(n=20_000_000)
        yield self.fails(database.query("select sum(octets) from agg"), "more than half of query_memory=192M")
        self.assertEqual(0, self.groups.open)

    @defer.inlineCallbacks
    def test_dies(self):
        """A process that dies costs its query only."""
        database = self.database()
        asked = database.query("select count(*) from agg a, agg b, agg c, agg d")
        (child,) = database._children._children
        os.kill(child._process.pid, signal.SIGABRT)
        yield self.fails(asked, "SIGABRT", "the service goes on")
        found = yield database.query("select count(*) from agg")
        self.assertEqual([(1000,)], found.rows)

    @defer.inlineCallbacks
    def test_given_up(self):
        """Whoever asked has gone: the query is ended."""
        database = self.database()
        asked = database.answer("select count(*) from agg a, agg b, agg c, agg d")
        (child,) = database._children._children
        asked.cancel()
        yield self.fails(asked, "given up")
        yield child.ended
        self.assertEqual(-signal.SIGKILL, child._process.returncode)
        self.assertEqual(0, self.groups.open)

    @defer.inlineCallbacks
    def test_many(self):
        """Two run, eight wait, the others are refused; whoever gives up while waiting makes room."""
        database = self.database()
        text = "select count(*) from agg a, range(1000)"
        asked = [database.answer(text) for _ in range(12)]
        self.assertEqual(2, len(database._children._children))
        asked[9].cancel()
        found = yield defer.DeferredList(asked, consumeErrors=True)
        self.assertEqual([True] * 9 + [False] * 3, [good for good, _ in found])
        self.assertIn("8 other queries wait already", found[11][1].getErrorMessage())
        self.assertEqual(2, len(database._children._children))

    @defer.inlineCallbacks
    def test_answers(self):
        """Answers are JSON whatever the types, bounded in rows and octets."""
        database = self.database()
        text = ("select 'nan'::double, 1.5, map {'a': 1}, [1], {'a': 1}, 'x'::blob, 2::hugeint, true, null, "
                "timestamptz '2026-01-01 00:00:00+00' at time zone 'UTC', interval 1 minute "
                "from agg limit 1")  # fmt: skip
        found = yield database.query(text)
        expected = (None, 1.5, {"a": 1}, [1], {"a": 1}, "78", 2, True, None, "2026-01-01 00:00:00", 60.0)
        self.assertEqual(expected, found.rows[0])
        found = json.loads((yield database.answer("select octets from agg order by 1", most_rows=2)))
        self.assertEqual({"columns": ["octets"], "rows": [[0], [1]], "more": True}, found)
        answer = yield database.answer("select repeat('x', 100) from agg", most_octets=10_000)
        self.assertTrue(8000 < len(answer) < 10_400 and json.loads(answer)["more"])
        text = "select repeat('x', 100000) from agg limit 1"
        yield self.fails(database.answer(text, most_octets=10_000), "10000 octets")

    @defer.inlineCallbacks
    def test_reactor(self):
        """The reactor turns while much is copied and a heavy query runs."""
        database = self.database(n=2_000_000)
        self.groups.at_once = 32768
        turns = []
        turning = task.LoopingCall(lambda: turns.append(reactor.seconds()))
        done = turning.start(0.001)
        yield self.fails(database.query("select repeat(sourceAddress, 1000) from agg order by octets"), "query_memory")
        turning.stop()
        yield done
        self.assertGreater(len(turns), 50)

    @defer.inlineCallbacks
    def test_no_process(self):
        """A process that cannot be started is a reason, not a fault."""
        database = self.database()
        self.patch(sys, "executable", "/nowhere/python")
        yield self.fails(database.query("select count(*) from agg"), "/nowhere/python", "No such file")

    @defer.inlineCallbacks
    def test_confined(self):
        """A process has no files, no sockets, no more memory, no way back, and no environment."""
        file = self.mktemp()
        with open(file, "w") as made:
            made.write("x")
        self.patch(query_process, "_BEGIN", CONFINED.replace("sys.argv[2]", repr(os.path.abspath(file))))
        os.environ["UTW_SECRET"] = "x"
        self.addCleanup(os.environ.pop, "UTW_SECRET")
        process, connection = query_process.start(MEMORY)
        connection.setblocking(True)
        with connection:
            found = json.loads(connection.makefile().read())
        process.wait()
        self.assertNotIn("None", found[:8])
        self.assertEqual([], [what for what in found[:8] if what.startswith(("<", "bytearray"))], found)
        self.assertTrue(os.path.exists(file))
        self.assertNotIn("UTW_SECRET", found[8])
        yield


class SliceTests(SynchronousTestCase):
    """What goes to a process, and when."""

    def child(self):
        """A child on a transport in memory; its process is a fake."""
        clock = task.Clock()
        process = SimpleNamespace(kill=lambda: killed.append(1), poll=lambda: -9, returncode=-9)
        killed = self.killed = []
        child = query_process.Child(process, clock, lambda _: None)
        transport = StringTransport()
        transport.abortConnection = lambda: None
        child.makeConnection(transport)
        return child, transport, clock

    def test_one_slice_in_a_turn(self):
        """The next slice is made when the last is written."""
        child, transport, _ = self.child()
        made = []
        slices = (made.append(n) or b"slice%d" % n for n in range(3))
        asked = child.ask(query_child.Request("select 1", {}), slices, 5.0)
        self.assertEqual((transport.producer, transport.streaming), (child, False))
        for n in range(3):
            child.resumeProducing()
            self.assertEqual(list(range(n + 1)), made)
        child.resumeProducing()
        self.assertIsNone(transport.producer)
        for part in (b'{"columns": [], "rows"', b': [], "more": false}\n'):
            self.assertNoResult(asked)
            child.dataReceived(part)
        self.assertEqual(b'{"columns": [], "rows": [], "more": false}\n', self.successResultOf(asked))
        self.assertEqual([], self.killed)

    def test_early_answer(self):
        """A process that answers before it has all rows is ended: the rest would be read as the next query."""
        child, transport, _ = self.child()
        asked = child.ask(query_child.Request("select 1", {}), iter(()), 5.0)
        child._slices = (n for n in ())
        child.dataReceived(b'{"error": "no", "ends": false}\n')
        self.assertEqual("no", str(self.failureResultOf(asked, QueryError).value))
        self.assertEqual(([1], False), (self.killed, child.alive))

    def test_fault_of_a_table(self):
        """An error while rows are copied ends the query."""
        child, transport, _ = self.child()

        def slices():
            yield b"x"
            raise RuntimeError("a fault")

        asked = child.ask(query_child.Request("select 1", {}), slices(), 5.0)
        child.resumeProducing()
        child.resumeProducing()
        self.failureResultOf(asked, RuntimeError)
        self.assertEqual([1], self.killed)

    def test_large_answer(self):
        """A process that says more than it may is ended."""
        child, transport, _ = self.child()
        asked = child.ask(query_child.Request("select 1", {}, most_octets=1000), (n for n in ()), 5.0)
        for _ in range(query_process._MARGIN // 10_000 + 2):
            if not self.killed:
                child.dataReceived(b"x" * 10_000)
        self.assertIn("too large", str(self.failureResultOf(asked, QueryError).value))
        self.assertEqual([1], self.killed)
