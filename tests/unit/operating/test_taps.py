"""Taps that follow a running instance: what they show, what they skip, and that the stack is not harmed."""

import json

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.operating.test_inspection import Running
from ulogd_tw.match import parse
from ulogd_tw.operating import taps


class TapCase(SynchronousTestCase):
    """A service with stacks, and a tap on it."""

    def setUp(self):
        self.running = Running("in1:PORTS,odd1:ODD,out1:SINK", "in1:PORTS,out2:SINK")
        self.clock = Clock()
        self.written = []
        self.ends = 0
        self.worked = 0.0

    def tap(self, ident="in1", expression=None, rows=None):
        choice = taps.Choice(parse(expression)) if expression else None
        self.live = taps.LiveTap(
            lambda: self.running.graph, ident, choice, rows, self.written.append, self.ended, self.clock, self.work
        )
        self.live.begin()
        self.addCleanup(self.live.stop)
        return self.live

    def ended(self):
        self.ends += 1

    def work(self):
        """The time of the work: each look costs what the test says."""
        self.spent = getattr(self, "spent", 0.0) + self.worked
        return self.spent

    def give(self, *ports):
        self.running.graph.inputs[0].plugin.give(*ports)

    def lines(self):
        """What was written since the last call."""
        found = [json.loads(line) for line in b"".join(self.written).splitlines()]
        self.written.clear()
        return found

    def ports(self):
        return [line["sourceTransportPort"] for line in self.lines()]


class LiveTapTests(TapCase):
    """Rows and notes."""

    def test_rows(self):
        """Rows that leave an input or a filter, or reach an output; as many as were asked for."""
        for ident, expected in (("in1", [1, 2, 3]), ("odd1", [1, 3]), ("out1", [1, 3]), ("out2", [1, 2, 3])):
            tap = self.tap(ident)
            self.give(1, 2, 3)
            self.assertEqual(expected, self.ports(), ident)
            tap.stop()
        self.tap("in1", rows=4)
        self.give(1, 2, 3)
        self.give(4, 5, 6)
        self.assertEqual(([1, 2, 3, 4], 1, []), (self.ports(), self.ends, self.clock.getDelayedCalls()))

    def test_expression(self):
        """Rows of which the expression is true; keys are found by their elements, as MATCH finds them."""
        self.tap(expression="src port 2 or sourceTransportPort = 9")
        self.give(1, 2, 9)
        self.assertEqual([2, 9], self.ports())

    def test_missing_key(self):
        """A key that nothing wants is said once; the comparison is false."""
        self.tap(expression="octets > 5")
        self.give(1, 2)
        self.give(1, 2)
        self.clock.pump([1, 1])
        (note,) = self.lines()
        self.assertEqual("missing", note["tap"])
        self.assertIn("octet", note["text"])

    def test_nothing_left(self):
        """After its end the graph is as it was."""
        before = [list(node.children) for node in self.running.graph.nodes]
        tap = self.tap("out2")
        tap.stop()
        self.assertEqual(before, [list(node.children) for node in self.running.graph.nodes])
        self.assertEqual([], self.clock.getDelayedCalls())
        self.give(1)
        self.assertEqual([], self.lines())

    def test_fault(self):
        """A fault of the tap ends the tap; the rows go on."""
        self.patch(taps, "row_lines", lambda _: 1 / 0)
        self.tap()
        self.give(1, 3)
        self.assertEqual(["ended"], [line["tap"] for line in self.lines()])
        self.assertEqual([1, 3], self.running.graph.instances["out1"].got)
        self.assertEqual(1, self.ends)


class AllowanceTests(TapCase):
    """What a tap may cost."""

    def test_many_rows(self):
        """Of many rows some are shown, the others counted, and the count is told once a second."""
        self.tap()
        for _ in range(10):
            self.give(*range(1000))
            self.clock.advance(0.1)
        self.clock.advance(1)
        found = self.lines()
        skipped = sum(line["rows"] for line in found if line.get("tap") == "skipped")
        shown = sum("tap" not in line for line in found)
        self.assertEqual(10_000, shown + skipped)
        self.assertLessEqual(shown, taps.ROWS_A_SECOND * (1 + taps.BURST_S))
        self.assertGreater(shown, taps.ROWS_A_SECOND * 0.9)
        self.assertEqual(1, sum("tap" in line for line in found))
        self.assertEqual(10_000, self.running.graph.instances["out2"].counters.rows_written)

    def test_much_work(self):
        """An expression that takes long is looked at seldom: a part of the time, no more."""
        self.worked = 0.1
        self.tap(expression="src port 70000 or src port 1")
        for _ in range(100):
            self.give(1)
            self.clock.advance(0.1)
        shown = sum("tap" not in line for line in self.lines())
        self.assertLessEqual(shown * self.worked, 10 * taps.SHARE + self.worked * 2)
        self.assertGreaterEqual(shown, 2)

    def test_large_batch(self):
        """A large batch is looked at as far as the time allows; what comes behind is counted."""
        self.patch(taps, "SLICE_ROWS", 10)
        self.worked = taps.SHARE * taps.BURST_S / 2
        self.tap(expression="src port >= 0")
        self.give(*range(100))
        self.clock.advance(2)
        found = self.lines()
        self.assertEqual(list(range(20)), [line["sourceTransportPort"] for line in found if "tap" not in line])
        self.assertEqual([80], [line["rows"] for line in found if "tap" in line])

    def test_slow_reader(self):
        """While the reader is slow nothing is written, and rows are counted; afterwards it is told."""
        tap = self.tap()
        tap.paused = True
        self.give(*range(50))
        self.clock.pump([0.25] * 8)
        self.assertEqual([], self.written)
        tap.paused = False
        self.clock.pump([0.25] * 4)
        self.assertEqual([{"tap": "skipped", "rows": 50}], self.lines())
        self.give(7)
        self.assertEqual([7], self.ports())


class ReloadTests(TapCase):
    """Another graph takes the place of the first."""

    def test_follows(self):
        """An instance that is there again is followed, and the reader is told."""
        self.tap("odd1")
        former = self.running.graph
        self.running.graph = Running("in1:PORTS,odd1:ODD,out1:SINK").graph
        self.clock.advance(taps.FOLLOW_S)
        former.inputs[0].plugin.give(1)
        self.give(5)
        note, row = self.lines()
        self.assertEqual(("reloaded", 5), (note["tap"], row["sourceTransportPort"]))

    def test_children_replaced(self):
        """A graph that keeps its nodes but not their children is followed too."""
        self.tap("in1")
        self.running.graph, _ = self.running.graph.without({self.running.graph.outputs[1]})
        self.clock.advance(taps.FOLLOW_S)
        self.give(5)
        self.assertEqual([5], [line["sourceTransportPort"] for line in self.lines() if "tap" not in line])

    def test_gone(self):
        """An instance that is not there any more ends the tap."""
        self.tap("odd1")
        self.running.graph = Running("in1:PORTS,out1:SINK").graph
        self.clock.advance(taps.FOLLOW_S)
        self.assertEqual([{"tap": "ended", "text": "there is no odd1 any more"}], self.lines())
        self.assertEqual((1, []), (self.ends, self.clock.getDelayedCalls()))
