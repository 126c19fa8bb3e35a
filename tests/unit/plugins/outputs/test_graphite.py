"""GRAPHITE: Carbon's lines, and a connection that ends between the two lines of a counter."""

from twisted.internet import defer, protocol, reactor
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from tests.unit.writing.text_rows import ByName, batch_of
from ulogd_tw.core.options import Options
from ulogd_tw.plugins.outputs.graphite import GRAPHITE, pairs

ROWS = [{"sum.name": "http in", "sum.pkts": 7, "sum.bytes": 900, "oob.time.sec": 1_700_000_000},
        {"sum.name": "ssh", "sum.pkts": 1 << 40, "sum.bytes": 0, "oob.time.sec": 1_700_000_001}]  # fmt: skip
LINES = (b"fw1.http_in.pkts 7 1700000000\nfw1.http_in.bytes 900 1700000000\n"
         b"fw1.ssh.pkts 1099511627776 1700000001\nfw1.ssh.bytes 0 1700000001\n")  # fmt: skip


class Graphite(ByName, GRAPHITE):
    """In such a stack."""


def output(clock=None, **options):
    """An output with these options."""
    return Graphite("out", Options(GRAPHITE.all_options(), options), clock or Clock())


class GraphiteTests(TestCase):
    """Lines, and a server on loopback."""

    timeout = 120

    def test_lines(self):
        """PREFIX.NAME.pkts N TIME and the same of bytes; without a prefix no dot before the name."""
        self.assertEqual([(LINES, 2)], list(output(host="x", prefix="fw1").texts(batch_of(ROWS))))
        row = {name: value for name, value in ROWS[1].items() if name != "oob.time.sec"}
        ((found, rows),) = output(host="x").texts(batch_of([row], now=12.5))
        self.assertEqual((b"ssh.pkts 1099511627776 12\nssh.bytes 0 12\n", 1), (found, rows))

    def test_cut(self):
        """At any place: where the counter that is there begins, and how many are before it."""
        second = LINES.index(b"fw1.ssh.pkts")
        for place in range(len(LINES)):
            self.assertEqual((second, 1) if place >= second else (0, 0), pairs(LINES, place))
        self.assertEqual((len(LINES), 2), pairs(LINES, len(LINES)))

    def test_mistakes(self):
        for options, expected in (({}, ["host"]), ({"host": "x", "port": "0"}, ["port"]),
                                  ({"host": "x", "port": "nosuch"}, ["port"]), ({"host": "x"}, [])):  # fmt: skip
            self.assertEqual(expected, [option for option, _ in output(**options).mistakes()])

    @defer.inlineCallbacks
    def test_server(self):
        """What comes through TCP, once; also what came before the server was there."""
        came, enough = [], defer.Deferred()

        class Carbon(protocol.Protocol):
            def dataReceived(self, data):
                came.append(data)
                if b"".join(came).count(b"\n") == 8 and not enough.called:
                    enough.callback(None)

        port = reactor.listenTCP(0, protocol.Factory.forProtocol(Carbon), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        out = output(reactor, host="127.0.0.1", port=str(port.getHost().port), prefix="fw1")
        out.open()
        self.addCleanup(out.stop)
        for _ in range(2):
            yield out.write(batch_of(ROWS))
        yield enough
        self.assertEqual(LINES * 2, b"".join(came))
