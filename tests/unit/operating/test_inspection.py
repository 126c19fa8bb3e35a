"""What the manhole shows of a graph."""

import json

import numpy as np
from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ulogd_tw.core import types
from ulogd_tw.core.batch import Batch, Schema
from ulogd_tw.core.columns import Coded, Octets
from ulogd_tw.core.keys import Key
from ulogd_tw.core.options import Options
from ulogd_tw.core.patience import Wish
from ulogd_tw.core.plugin import FLOW, Filter, Input, Output
from ulogd_tw.core.stack import Builder, StackSpec
from ulogd_tw.operating import inspection

PORT = Key("sourceTransportPort", types.UNSIGNED16, ((0, 7),))
PROTOCOL = Key("protocolIdentifier", types.UNSIGNED8, ((0, 4),))


class Ports(Input):
    """Gives two columns."""

    name = "PORTS"
    otype = FLOW
    provides = (PORT, PROTOCOL)

    def give(self, *ports):
        self.counters.rows_received += len(ports)
        columns = {PORT.name: np.array(ports, np.uint16), PROTOCOL.name: np.full(len(ports), 6, np.uint8)}
        self.emit(Batch(Schema(self.provides), columns, n=len(ports), now=0.0))


class Odd(Filter):
    """Keeps odd ports."""

    name = "ODD"
    itype = otype = FLOW
    uses = (PORT.name,)

    def process(self, batch):
        return batch.take(self.find(batch, PORT.name).values % 2 == 1)


class Sink(Output):
    """Remembers what it got."""

    name = "SINK"
    itype = FLOW
    uses = ("tcp.sport",)

    def requests(self, wanted):
        return {PORT.name: True}

    def write(self, batch):
        self.got = [*getattr(self, "got", []), *batch.columns[PORT.name].tolist()]


class Running:
    """As the service: it has a graph, which may become another."""

    def __init__(self, *lines):
        classes = {class_.name: class_ for class_ in (Ports, Odd, Sink)}
        builder = Builder(lambda name, _: classes[name], lambda _, class_: (Options(class_.all_options()), []))
        specs = [
            StackSpec(line, f"x.conf:{number}", tuple(tuple(part.split(":")) for part in line.split(",")))
            for number, line in enumerate(lines, 1)
        ]
        self.graph = builder.build(specs)
        assert not builder.mistakes, builder.mistakes


class InspectionTests(SynchronousTestCase):
    """The names of the namespace."""

    def setUp(self):
        self.running = Running("in1:PORTS,odd1:ODD,out1:SINK", "in1:PORTS,out2:SINK")
        self.clock = Clock()
        self.names = inspection.namespace(self.running, self.clock)
        self.input = self.running.graph.inputs[0].plugin

    def test_counters(self):
        """counters() has every instance, counters(id) one; both are ready for JSON."""
        self.input.give(1, 2, 3)
        found = json.loads(json.dumps(self.names["counters"]()))
        self.assertEqual(["in1", "odd1", "out1", "out2"], sorted(found))
        self.assertEqual((1, 2), (found["odd1"]["rows_filtered"], found["out1"]["rows_written"]))
        self.assertEqual(found["odd1"], self.names["counters"]("odd1"))
        error = self.assertRaises(LookupError, self.names["counters"], "odd2")
        self.assertIn("did you mean odd1?", str(error))

    def test_explain(self):
        """explain() shows each stack, or those with a text or an instance: what is wanted, and where it comes from."""
        self.assertEqual(2, self.names["explain"]().count("stack in1:"))
        shown = self.names["explain"]("odd1")
        self.assertIn("x.conf:1: stack in1:PORTS,odd1:ODD,out1:SINK", shown)
        self.assertNotIn("out2:SINK (", shown)
        self.assertIn("shared with in1:PORTS,out2:SINK", shown)
        self.assertIn("wanted of it: sourceTransportPort", shown)
        self.assertRaises(LookupError, self.names["explain"], "nothing")

    def test_live(self):
        """stacks and instances are those of the moment at which one looks."""
        self.assertIs(self.input, self.names["instances"]["in1"])
        self.assertEqual(2, len(self.names["stacks"]))
        self.running.graph = Running("in9:PORTS,out9:SINK").graph
        self.assertEqual("in9:PORTS,out9:SINK", self.names["stacks"][0].spec.text)
        self.assertEqual("in9:PORTS\nout9:SINK", repr(self.names["instances"]))
        self.assertEqual("x.conf:1: in9:PORTS,out9:SINK", repr(self.names["stacks"]))

    def test_help(self):
        """help() names everything in the namespace."""
        for name in self.names:
            if name != "help":
                self.assertIn(name, self.names["help"]())

    def children(self):
        return [list(node.children) for node in self.running.graph.nodes]

    def ports(self, text):
        return [json.loads(line)["sourceTransportPort"] for line in text.splitlines() if line.startswith("{")]

    def test_tap(self):
        """A tap gives the next n rows that leave, over several batches, then is gone; nobody else misses a row."""
        before = self.children()
        done = self.names["tap"]("odd1", 3)
        self.input.give(1, 2, 3)
        self.assertNoResult(done)
        self.input.give(4, 5, 7)
        self.assertEqual([1, 3, 5], self.ports(self.successResultOf(done)))
        self.assertEqual(before, self.children())
        self.assertEqual([], self.clock.getDelayedCalls())
        self.input.give(9)
        out1, out2 = (node.plugin for node in self.running.graph.outputs)
        self.assertEqual(([1, 3, 5, 7, 9], [1, 2, 3, 4, 5, 7, 9]), (out1.got, out2.got))
        self.assertEqual({}, self.running.graph.unaccounted())

    def test_tap_output(self):
        """Of an output it gives the rows that reach it."""
        done = self.names["tap"]("out1", 2)
        self.input.give(2, 3, 5)
        self.assertEqual([3, 5], self.ports(self.successResultOf(done)))

    def test_tap_time(self):
        """After its time a tap gives what it has, and says so."""
        before = self.children()
        done = self.names["tap"]("in1", 3)
        self.input.give(1)
        self.clock.advance(10)
        shown = self.successResultOf(done)
        self.assertEqual([1], self.ports(shown))
        self.assertIn("1 row passed", shown)
        self.assertEqual(before, self.children())

    def test_no_row_waits(self):
        """While a tap is there its input does not gather; what had arrived is read, even if it is all that it takes."""
        self.input.wish = Wish(1.0)
        first = self.names["tap"]("odd1", 1)
        self.input.catch_up = lambda: self.input.give(5)
        self.assertEqual(0.0, self.input.may_wait())
        second = self.names["tap"]("out1", 1)
        self.assertEqual([[5], [5]], [self.ports(self.successResultOf(done)) for done in (first, second)])
        self.assertEqual((1.0, []), (self.input.may_wait(), self.clock.getDelayedCalls()))

    def test_tap_cancelled(self):
        """A cancelled tap leaves nothing behind."""
        before = self.children()
        done = self.names["tap"]("in1", 3)
        done.cancel()
        self.failureResultOf(done, CancelledError)
        self.assertEqual((before, []), (self.children(), self.clock.getDelayedCalls()))

    def test_taps_together(self):
        """Two taps of one instance do not disturb each other, also where one ends in the midst of a batch's way."""
        one, two = self.names["tap"]("in1", 1), self.names["tap"]("in1", 2)
        self.input.give(1, 2)
        self.assertEqual([1], self.ports(self.successResultOf(one)))
        self.assertEqual([1, 2], self.ports(self.successResultOf(two)))
        self.assertEqual([1, 2], self.running.graph.outputs[1].plugin.got)

    def test_tap_bounds(self):
        """What a tap keeps is bounded."""
        self.assertRaises(ValueError, self.names["tap"], "in1", inspection.MOST_ROWS + 1)
        self.assertRaises(ValueError, self.names["tap"], "in1", 0)
        self.assertRaises(LookupError, self.names["tap"], "in7")


class RowLinesTests(SynchronousTestCase):
    """Rows as text."""

    def test_values(self):
        """Values are canonical (shared/corpus/ipfix/README.md), but NTP times numbers; missing ones are left out."""
        held = {
            Key("a4", types.IPV4): np.array([0x0A4D0001, 0], np.uint32),
            Key("a6", types.IPV6): np.array([[0xFD77 << 48, 1], [0, 0]], np.uint64),
            Key("mac", types.MAC): np.array([0x0200000000FE, 0], np.uint64),
            Key("ntp", types.MICROSECONDS): np.array([255, 0], np.uint64),
            Key("text", types.STRING): Coded(np.array([0, 1]), (b"a\0\0", b"\xff")),
            Key("raw", types.OCTETS): Octets.of([b"\x00\xff", b""]),
            Key("yes", types.BOOLEAN): np.array([True, False]),
            Key("n", types.UNSIGNED64): np.array([2**64 - 1, 0], np.uint64),
        }
        missing = {"n": np.array([False, True])}
        columns = {key.name: column for key, column in held.items()}
        first, second = map(json.loads, inspection.row_lines(Batch(Schema(list(held)), columns, missing, n=2, now=0.0)))
        self.assertEqual(
            {
                "a4": "10.77.0.1", "a6": "fd77::1", "mac": "02:00:00:00:00:fe", "ntp": 2_085_978_496_000_000,
                "text": "a", "raw": "00ff", "yes": True, "n": 2**64 - 1,
            },
            first,
        )  # fmt: skip
        self.assertEqual(("\\xff", "", False), (second["text"], second["raw"], second["yes"]))
        self.assertNotIn("n", second)
