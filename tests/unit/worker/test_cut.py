"""The part of the stacks that a worker runs."""

from twisted.trial.unittest import SynchronousTestCase

from tests.unit.plugins.filters.test_aggregate import batch_of
from ulogd_tw import config
from ulogd_tw.built import Built
from ulogd_tw.plugins.inputs.collector import COLLECTOR
from ulogd_tw.plugins.inputs.divided_collector import DividedCollector
from ulogd_tw.worker.cut import Adding, Handing, cut
from ulogd_tw.worker.program import _lookup

TEXT = """
[global]
stack=col1:COLLECTOR,m1:MATCH,a1:AGGREGATE,j1:JSON
stack=col1:COLLECTOR,m1:MATCH,j2:JSON
stack=col1:COLLECTOR,j2:JSON
stack=col1:COLLECTOR,old:AGGREGATE,j3:JSON
stack=col2:COLLECTOR,a2:AGGREGATE,j1:JSON
[col1]
listen=udp:127.0.0.1:4739
workers=2
[col2]
listen=udp:127.0.0.1:4740
[m1]
match="protocolIdentifier == 6"
[a1]
interval=60
[a2]
interval=60
[old]
age=60
"""


class CutTests(SynchronousTestCase):
    """From the COLLECTOR down to what is not divided."""

    def setUp(self):
        self.handed = []
        built = Built(config.parse(TEXT, "t"), prepare=False, lookup=_lookup, workers=False)
        self.assertEqual([], [str(mistake) for mistake in built.mistakes if not mistake.tolerated])
        self.share = cut(built.graph, "col1", self.hand)

    def hand(self, ident, batch):
        self.handed.append((ident, batch.n))
        return ident != "j2"

    def test_parts(self):
        """A divided AGGREGATE ends a way; so do outputs, and an AGGREGATE whose groups go out at a row's own time."""
        graph = self.share.graph
        self.assertEqual(["col1"], [node.ident for node in graph.inputs])
        self.assertIs(COLLECTOR, type(graph.inputs[0].plugin))
        self.assertEqual({"m1", "a1"}, {node.ident for node in graph.filters})
        self.assertEqual({"j2", "old"}, {node.ident for node in graph.outputs})
        self.assertTrue(all(type(node.plugin) is Handing for node in graph.outputs))
        self.assertEqual({"a1"}, set(self.share.adding))
        self.assertIs(Adding, type(self.share.adding["a1"]))
        self.assertEqual(1, len(graph.parts()))
        self.assertEqual(set(graph.nodes), set(graph.parts()[0].nodes))

    def test_rows(self):
        """A row goes each way once; what finds no room is counted; nothing else is missing."""
        collector = self.share.graph.inputs[0]
        batch = batch_of([{"protocolIdentifier": 6, "octetDeltaCount": 5}, {"protocolIdentifier": 17}])
        collector.plugin.counters.rows_received += batch.n
        collector.pass_on(batch)
        self.assertEqual([("j2", 1), ("j2", 2), ("old", 2)], sorted(self.handed))
        self.assertEqual(1, self.share.adding["a1"].held_rows())
        output = next(node for node in self.share.graph.outputs if node.ident == "j2")
        self.assertEqual({"queue_full": 3}, dict(output.plugin.counters.dropped))
        self.assertEqual({}, self.share.graph.unaccounted())

    def test_class(self):
        """The option chooses; in a worker it does not."""
        built = Built(config.parse(TEXT, "t"), prepare=False)
        kinds = {node.ident: type(node.plugin) for node in built.graph.inputs}
        self.assertEqual({"col1": DividedCollector, "col2": COLLECTOR}, kinds)
