"""Long answers are made in slices, so that the reactor is never held: here 1,000 exporters and 100 instances."""

import gc
import time
from types import SimpleNamespace

from twisted.internet import defer
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.unit.operating.api.client import asked, view_of
from ulogd_tw.ipfix.session import Domain, Session
from ulogd_tw.operating import prometheus
from ulogd_tw.operating.api import answers, tree
from ulogd_tw.operating.api.door import Door
from ulogd_tw.plugins.inputs.collector import COLLECTOR
from ulogd_tw.plugins.outputs.ipfix import IPFIX

LONGEST = 0.05
"""So long the reactor may be held, in seconds."""


class SlicesTests(SynchronousTestCase):
    """The processor time of each slice."""

    def setUp(self):
        sessions = [Session(f"10.0.{n >> 8}.{n & 255}", 2055, reliable=False) for n in range(1000)]
        for session in sessions:
            session.domains = {number: Domain(number, number) for number in range(2)}
        collector = COLLECTOR("col1")
        collector.sessions = lambda: iter(sessions)
        outputs = [SimpleNamespace(ident=f"exp{n}", plugin=IPFIX(f"exp{n}"), children=[]) for n in range(100)]
        inputs = [SimpleNamespace(ident="col1", plugin=collector, children=outputs)]
        self.view = view_of(SimpleNamespace(nodes=inputs + outputs, inputs=inputs, stacks=[]))
        gc.disable()
        self.addCleanup(gc.enable)

    def assertShort(self, chunks):
        """Each step is short; the number of steps."""
        steps = longest = 0
        while True:
            before = time.thread_time()
            if next(chunks, None) is None:
                break
            longest, steps = max(longest, time.thread_time() - before), steps + 1
        self.assertLess(longest, LONGEST)
        return steps

    def test_metrics(self):
        self.assertGreater(self.assertShort(prometheus.text(self.view)), 100)

    def test_exporters(self):
        self.assertGreater(self.assertShort(answers.listed("exporters", self.view.exporters())), 3)

    def test_graph(self):
        self.assertShort(answers.listed("nodes", self.view.nodes(), edges=self.view.edges()))


class LongTests(TestCase):
    """Long answers through a door."""

    timeout = 120

    @defer.inlineCallbacks
    def test_whole(self):
        """An answer of many chunks comes whole."""
        view = view_of(SimpleNamespace(nodes=[], inputs=[], stacks=[]))
        view.exporters = lambda: ({"n": number, "x": "y" * 50} for number in range(20_000))
        status, headers, found = yield asked(Door(tree.root(view)), "GET", "/api/v1/exporters")
        self.assertGreater(int(headers["content-length"]), 10 * answers.CHUNK)
        self.assertEqual((200, list(range(20_000))), (status, [item["n"] for item in found["exporters"]]))
