"""Events: rings by kind, who reports them, and exporters that fall silent."""

import ast
from pathlib import Path
from types import SimpleNamespace

from twisted.internet import defer
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase

import ulogd_tw
from ulogd_tw.collecting.input import _EVENTS
from ulogd_tw.operating import events
from ulogd_tw.operating.events import KINDS, Events
from ulogd_tw.operating.silence import Silence


class RingTests(SynchronousTestCase):
    """What is kept."""

    def test_order(self):
        """Numbers go on over all kinds, in the order of the events."""
        ring = Events(lambda: 1.0)
        for kind in ("reload", "exporter_new", "reload"):
            ring.add(kind, "x")
        self.assertEqual([(1, "reload"), (2, "exporter_new"), (3, "reload")],
                         [(event["n"], event["kind"]) for event in ring.since()])  # fmt: skip
        self.assertEqual([3], [event["n"] for event in ring.since(2)])

    def test_bound(self):
        """A flood of one kind pushes out no other; all are counted."""
        ring = Events()
        ring.add("restart", "x")
        for _ in range(3 * events.MOST_OF_A_KIND):
            ring.add("exporter_new", "x")
        found = list(ring.since())
        self.assertEqual(events.MOST_OF_A_KIND + 1, len(found))
        self.assertEqual("restart", found[0]["kind"])
        self.assertEqual((600, 1, 0), tuple(ring.counts[k] for k in ("exporter_new", "restart", "clock_set")))

    def test_kinds(self):
        """Each kind that the source reports is declared, and each declared one is reported."""
        used = set(_EVENTS.values())
        top = Path(ulogd_tw.__file__).parent
        for path in set(top.rglob("*.py")) - set((top / "ipfix").rglob("*.py")):  # whose decoders have other events
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
                    owner = ast.unparse(node.func)
                    first = node.args[0]
                    if (
                        owner.endswith(("events.add", ".tell", "self._add"))
                        and isinstance(first, ast.Constant)
                        and isinstance(first.value, str)
                    ):
                        used.add(first.value)
        self.assertLessEqual(set(KINDS), used)
        self.assertEqual(set(), used - set(KINDS))

    def test_documented(self):
        """The document lists every kind with its meaning."""
        page = (Path(__file__).parents[3] / "docs" / "api.md").read_text("utf-8")
        for kind, meaning in KINDS.items():
            self.assertIn(f"| `{kind}` | {meaning} |", page)


class SilenceTests(TestCase):
    """Exporters that send nothing any more."""

    @defer.inlineCallbacks
    def test_silent(self):
        """One event when the time is over, and one when it sends again; an address is one exporter."""
        sessions = [SimpleNamespace(peer="192.0.2.1", last_received=100.0),
                    SimpleNamespace(peer="192.0.2.1", last_received=50.0),
                    SimpleNamespace(peer="192.0.2.2", last_received=399.0)]  # fmt: skip
        plugin = SimpleNamespace(instance="col1", sessions=lambda: iter(sessions))
        ulogd = SimpleNamespace(graph=SimpleNamespace(inputs=[SimpleNamespace(plugin=plugin)]), events=Events())
        now = [399.0]
        silence = Silence(ulogd, 300.0, lambda: now[0], Clock())

        def kinds():
            return [(event["kind"], event["exporter"]) for event in ulogd.events.since()]

        yield silence.look()
        self.assertEqual([], kinds())
        now[0] = 400.0
        yield silence.look()
        yield silence.look()
        self.assertEqual([("exporter_silent", "192.0.2.1")], kinds())
        sessions[1].last_received = 401.0
        now[0] = 402.0
        yield silence.look()
        self.assertEqual([("exporter_silent", "192.0.2.1"), ("exporter_back", "192.0.2.1")], kinds())

    def test_loop(self):
        """It looks at intervals, unless exporter_silent=0."""
        clock = Clock()
        ulogd = SimpleNamespace(graph=SimpleNamespace(inputs=[]), events=Events())
        for seconds, calls in ((300.0, 1), (0.0, 0)):
            silence = Silence(ulogd, seconds, clock=clock)
            silence.startService()
            self.assertEqual(calls, len(clock.getDelayedCalls()))
            silence.stopService()
            self.assertEqual([], clock.getDelayedCalls())
