"""The ledger: rows of a killed process are accounted for, wherever it was killed."""

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import strategies as st
from twisted.internet import defer
from twisted.trial.unittest import SynchronousTestCase

from tests.support import given
from tests.unit.core import doubles
from ulogd_tw.core import types
from ulogd_tw.core.batch import Batch, Schema
from ulogd_tw.core.keys import Key
from ulogd_tw.core.ledger import Ledger, Written, former, weight
from ulogd_tw.core.plugin import FLOW, Aggregator
from ulogd_tw.core.stack import Builder, StackSpec
from ulogd_tw.flow import queues

FLOWS = Key("flows", types.UNSIGNED64)


class Killed(Exception):
    """The process is gone."""


def rows_of(n, flows=None):
    """A batch; with `flows` its rows are those of an AGGREGATE."""
    key = Key("a", types.UNSIGNED32) if flows is None else FLOWS
    values = np.zeros(n, np.uint32) if flows is None else np.array(flows, np.uint64)
    return Batch(Schema([key]), {key.name: values}, {}, n=n, now=0.0)


class SUM(Aggregator):
    """Keeps what it gets, as the groups of an AGGREGATE in a file."""

    name = "SUM"
    itype = otype = FLOW
    weighs = True

    def process(self, batch):
        self.counters.rows_merged += batch.n


class LedgerTests(SynchronousTestCase):
    """A graph, killed at some place, and what the ledger says then."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name) / "ledger"

    def build(self, *stacks):
        specs = [StackSpec(str(number), "t:1", stack) for number, stack in enumerate(stacks)]
        self.patch(doubles, "PLUGINS", doubles.PLUGINS | {"SUM": SUM})
        self.graph = Builder(doubles.lookup, doubles.read_options).build(specs)
        self.plugins = self.graph.instances
        self.ledger = Ledger(self.path, self.graph)
        self.queues = queues(self.graph)
        return self.plugins

    def receive(self, name, n):
        """An input has made rows, and passes them on."""
        plugin = self.plugins[name]
        plugin.counters.rows_received += n
        plugin.ledger.receive()
        plugin.emit(rows_of(n))

    def unsaved(self):
        found = former(self.path)
        return {name: lost for name in self.plugins if (lost := found.unsaved(name))}

    def test_written(self):
        """Rows that an output has written are not lost."""
        self.build((("a", "FLOWS"), ("x", "KEEP")))
        self.receive("a", 3)
        self.assertEqual({}, self.unsaved())

    def test_waiting(self):
        """Rows under way and in the queue are, at this output only."""
        plugins = self.build((("a", "FLOWS"), ("x", "KEEP")), (("a", "FLOWS"), ("y", "KEEP")))
        plugins["x"].wait = True
        self.receive("a", 3)
        self.receive("a", 4)
        self.assertEqual({"x": 7}, self.unsaved())

    def test_refused_by_a_full_queue(self):
        """They are counted in the run that dropped them."""
        plugins = self.build((("a", "FLOWS"), ("x", "KEEP")))
        plugins["x"].wait = True
        self.receive("a", 3)
        self.queues[0].most_rows = 5
        self.receive("a", 4)
        self.assertEqual(2, plugins["x"].counters.dropped["queue_full"])
        self.assertEqual({"x": 5}, self.unsaved())

    def test_in_the_input(self):
        """Rows that were received and not passed on."""
        plugins = self.build((("a", "FLOWS"), ("x", "KEEP")))
        plugins["a"].counters.rows_received += 9
        plugins["a"].counters.rows_filtered += 2
        plugins["a"].ledger.receive()
        self.assertEqual({"a": 7}, self.unsaved())

    def test_on_the_way_down(self):
        """Killed in one of two outputs: the rows are lost there, and in the output after it."""
        plugins = self.build((("a", "FLOWS"), ("x", "KEEP")), (("a", "FLOWS"), ("y", "KEEP")))

        def killed(batch):
            raise Killed

        self.queues[0].put = self.graph.outputs[0].put = killed
        self.assertRaises(Killed, self.receive, "a", 5)
        self.assertEqual({"x": 5, "y": 5}, self.unsaved())
        self.assertEqual(0, plugins["y"].counters.rows_received)

    def test_rows_that_stand_for_others(self):
        """A row with flows weighs its flows."""
        plugins = self.build((("a", "FLOWS"), ("x", "KEEP")))
        plugins["x"].wait = True
        plugins["a"].counters.rows_received += 2
        plugins["a"].ledger.receive()
        plugins["a"].emit(rows_of(2, (5, 7)))
        self.assertEqual({"x": 12}, self.unsaved())
        self.assertEqual((12, 2), (weight(rows_of(2, (5, 7))), weight(rows_of(2))))

    def test_an_end_in_order(self):
        """Then there is nothing to count."""
        plugins = self.build((("a", "FLOWS"), ("x", "KEEP")))
        plugins["x"].wait = True
        self.receive("a", 5)
        self.ledger.close()
        self.assertEqual({}, self.unsaved())

    def test_groups_kept_at_an_end_in_order(self):
        """What the next run does not have of them is lost."""
        self.build((("a", "FLOWS"), ("s", "SUM"), ("x", "KEEP")))
        self.receive("a", 5)
        self.ledger.close()
        self.assertEqual([5, 2, 0], [former(self.path).unsaved("s", held) for held in (0, 3, 5)])

    def test_a_commit_without_an_answer(self):
        """The database has it: it is not lost, and rows after it are."""
        plugins = self.build((("a", "FLOWS"), ("x", "KEEP")))
        plugins["x"].wait = True
        before = plugins["x"].ledger.finished
        self.receive("a", 5)
        self.receive("a", 3)
        self.assertEqual(3, former(self.path).unsaved("x", committed=[Written(before, 5)]))

    def test_a_reload(self):
        """Rows that wait for an output at a reload are not lost twice, nor forgotten."""
        plugins = self.build((("a", "FLOWS"), ("x", "KEEP")))
        plugins["x"].wait = True
        self.receive("a", 5)
        self.ledger = Ledger(self.path, self.graph, self.ledger)
        self.assertEqual({"x": 5}, self.unsaved())
        self.receive("a", 2)
        self.assertEqual({"x": 7}, self.unsaved())

    def test_a_write_before_a_reload(self):
        """The batch written last has a place in the ledger: a reload does not make it stand for later rows."""
        plugins = self.build((("a", "FLOWS"), ("x", "KEEP")))
        last = Written(plugins["x"].ledger.finished, 5)
        self.receive("a", 5)
        self.ledger = Ledger(self.path, self.graph, self.ledger)
        plugins["x"].wait = True
        self.receive("a", 3)
        self.assertEqual(3, former(self.path).unsaved("x", committed=[last]))
        self.ledger = Ledger(self.path, self.graph, self.ledger)
        self.assertEqual(3, former(self.path).unsaved("x", committed=[last]))

    def test_damage(self):
        """A file that is cut or of another kind is refused."""
        self.build((("a", "FLOWS"), ("x", "KEEP")))
        whole = self.path.read_bytes()
        newer = whole.replace(b'"version": 1', b'"version": 2')
        for octets in (b"", whole[:100], whole[:4096], b"\xff" * 4096, newer, whole.replace(b"[0]", b"[9]")):
            self.path.write_bytes(octets)
            self.assertRaises(ValueError, former, self.path)
        self.assertEqual(0o600, self.path.stat().st_mode & 0o777)

    @given(st.lists(st.tuples(st.integers(1, 20), st.booleans()), max_size=20))
    def test_any_order(self, steps):
        """Whatever comes and whenever a write ends: received rows are written or unsaved."""
        plugins = self.build((("a", "FLOWS"), ("x", "KEEP")))
        waiting, received = [], 0

        def write(batch):
            waiting.append(defer.Deferred())
            return waiting[-1]

        plugins["x"].write = write
        for n, ends in steps:
            self.receive("a", n)
            received += n
            if ends and waiting:
                waiting.pop(0).callback(None)
        lost = former(self.path).unsaved("x")
        self.assertEqual(received, plugins["x"].counters.rows_written + lost)
