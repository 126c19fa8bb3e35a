"""What the inputs of flow records share: the log about exporters, and what an administrator sees of them."""

import json

from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.ipfix.test_sflow import TCP, datagram, flow_sample, raw
from tests.unit.ipfix.wire import COUNTER, a_set, counts, message
from ulogd_tw.collecting.input import Collecting
from ulogd_tw.core.options import Options
from ulogd_tw.ipfix.session import Session
from ulogd_tw.operating.inspection import Inspection
from ulogd_tw.packets.tunnels import TUNNEL


class _Input(Collecting):
    """Takes messages by hand."""

    name = "INPUT"
    options = Collecting.decoding_options

    def __init__(self, **values):
        super().__init__("in1", Options(self.all_options(), values))
        self.taken = {}
        self.rows = []
        self.emit = self.rows.append

    def sessions(self):
        return iter(self.taken.values())

    def take(self, peer, *messages, now=1000.0, reliable=False):
        session = self.taken.setdefault(peer, Session(peer, 5000, reliable=reliable))
        for octets in messages:
            self.own.feed(session, octets, now)
        self.emit_all(self.own, False, now)

    @property
    def own(self):
        if not hasattr(self, "_own"):
            self._own = self.decoder()
        return self._own


class CollectingTests(SynchronousTestCase):
    """Lines of the log, and `exporters`."""

    def setUp(self):
        self.lines = []
        globalLogPublisher.addObserver(self._line)
        self.addCleanup(globalLogPublisher.removeObserver, self._line)

    def _line(self, event):
        if "instance" in event:
            self.lines.append(event["log_format"].format(**event))

    def test_once_a_minute(self):
        """A kind of line about an exporter comes once a minute; other exporters and kinds are not held up by it."""
        given = _Input(clock_skew=0.0)
        bad = message(a_set(2, COUNTER))[:-1]
        for now in (1000.0, 1030.0, 1059.0):
            given.take("192.0.2.1", bad, now=now)
        given.take("192.0.2.2", bad, now=1059.0)
        self.assertEqual(["in1: 192.0.2.1", "in1: 192.0.2.2"], [line.split(",")[0] for line in self.lines])
        given.take("192.0.2.1", bad, now=1060.0)
        self.assertEqual(3, len(self.lines))
        self.assertIn("malformed", self.lines[0])

    def test_most_lines(self):
        """A hundred lines a minute; the others are counted, and the next minute brings more."""
        given = _Input(clock_skew=0.0)
        for host in range(150):
            given.take(f"192.0.2.{host}", message(a_set(2, COUNTER)))
        self.assertEqual((100, 50), (len(self.lines), given.counters.figures["log_lines_left_out"]))
        given.take("198.51.100.1", message(a_set(2, COUNTER)), now=1061.0)
        self.assertEqual(101, len(self.lines))

    def test_state(self):
        """A template that is missing and comes, and a loss, are one line each."""
        given = _Input(clock_skew=0.0)
        given.take("192.0.2.1", counts(1), counts(2), now=1000.0)
        given.take("192.0.2.1", message(a_set(2, COUNTER), number=2), now=1001.0)
        given.take("192.0.2.1", counts(3, number=2), counts(4, number=9), counts(5, number=20), now=1002.0)
        self.assertEqual(
            [
                "in1: 192.0.2.1, domain 1: is a new exporter",
                "in1: 192.0.2.1, domain 1: template 256 is missing; its records wait for it",
                "in1: 192.0.2.1, domain 1: template 256 arrived; 2 sets waiting for it are decoded",
                "in1: 192.0.2.1, domain 1: sequence numbers show a loss of 6 records",
            ],
            self.lines,
        )
        given.take("192.0.2.7", counts(1), reliable=True)
        self.assertIn("dropped until it arrives", self.lines[-1])

    def test_exporters(self):
        """One JSON object for each domain of each exporter."""
        given = _Input()
        given.take("192.0.2.1", message(a_set(2, COUNTER)), counts(1, 2), counts(3, number=5), counts(4, domain=2))

        class Graph:
            inputs = (type("Node", (), {"ident": "in1", "plugin": given}),)
            nodes = inputs

        found = [json.loads(line) for line in Inspection(type("Ulogd", (), {"graph": Graph})()).exporters().split("\n")]
        self.assertEqual([1, 2], [one["domain"] for one in found])
        one, two = found
        self.assertEqual(
            ("in1", "192.0.2.1", 5000, 10, 4, 3, 1, 3, False),
            tuple(one[k] for k in ("input", "exporter", "port", "version", "messages", "records", "templates", "lost",
                                   "clock_wrong")),
        )  # fmt: skip
        self.assertEqual((0, 1), (two["records"], two["parked"]))

    def test_tunnels(self):
        """What is around packets in tunnels can be asked for by name; there is nothing of it without tunnels=inner."""
        self.assertLessEqual(set(TUNNEL), {key.name for key in Collecting.provides})
        for way, expected in (("inner", 137), ("outer", None), ("auto", None)):
            input_ = _Input(tunnels=way)
            input_.wanted = frozenset({"tunnel.protocol", "ingressInterface"})
            pseudowire = TCP[:12] + bytes.fromhex("8847 000101ff 00000000") + TCP
            input_.take("192.0.2.1", datagram(flow_sample(raw(pseudowire))))
            (row,) = input_.rows[0].rows()
            self.assertEqual(expected, row.get("tunnel.protocol"), way)

    def test_limits(self):
        """Each option reaches the decoder."""
        given = _Input(max_domains=1, max_templates=2, max_fields=3, max_nesting=4, max_told=5, park=6.0, max_parked=7,
                       template_lifetime=8.0, clock_skew=9.0, max_domains_in_all=10, max_templates_in_all=11,
                       max_fields_in_all=12)  # fmt: skip
        limits = given.limits()
        self.assertEqual(
            (1, 2, 3, 4, 5, 6.0, 7, 8.0, 9.0, 10, 11, 12),
            (limits.domains, limits.templates, limits.fields, limits.nesting, limits.told, limits.parked_time,
             limits.parked_octets, limits.template_lifetime, limits.clock_skew, limits.domains_in_all,
             limits.templates_in_all, limits.fields_in_all),
        )  # fmt: skip
