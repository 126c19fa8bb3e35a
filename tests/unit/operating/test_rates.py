"""Records and octets a second of each exporter."""

from types import SimpleNamespace

from twisted.internet import task
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.collecting.doubles import Collecting
from tests.unit.ipfix.wire import COUNTER, a_set, hexed, message
from ulogd_tw.operating import rates
from ulogd_tw.operating.rates import Rates

TEMPLATES = message(a_set(2, COUNTER))
RECORD = hexed("00000001")


class RatesTests(SynchronousTestCase):
    """A COLLECTOR that hears two exporters; a look every ten seconds."""

    def setUp(self):
        self.clock = task.Clock()
        self.patch(rates.task, "cooperate", lambda steps: SimpleNamespace(whenDone=lambda: list(steps) and None))
        self.found = Collecting(self)
        node = SimpleNamespace(plugin=self.found.plugin)
        self.rates = Rates(SimpleNamespace(graph=SimpleNamespace(inputs=[node])), self.clock)
        self.send("192.0.2.1", TEMPLATES)
        self.numbers = {}

    def send(self, host, *octets):
        self.found.datagrams(*((one, host, 5000) for one in octets))
        self.found.now += 1  # rows do not wait longer
        self.found.plugin.wake(self.found.now)

    def records(self, host, n, domain=1):
        """A message with so many records; its octets."""
        number = self.numbers.get((host, domain), 0)
        self.numbers[host, domain] = number + n
        octets = message(a_set(256, *[RECORD] * n), number=number, domain=domain)
        self.send(host, octets)
        return len(octets)

    def told(self):
        """By exporter and domain: records a second, octets a second."""
        return {
            (one["exporter"], one["domain"]): (one.get("records_per_second"), one.get("octets_per_second"))
            for one in self.found.plugin.each_exporter()
        }

    def test_rates(self):
        """Nothing at the first look; then what came since the look before, also of new exporters; 0 in silence."""
        self.rates.startService()
        self.assertEqual({("192.0.2.1", 1): (None, None)}, self.told())
        octets = self.records("192.0.2.1", 20) + self.records("192.0.2.1", 5)
        self.send("192.0.2.2", TEMPLATES)
        other = len(TEMPLATES) + self.records("192.0.2.2", 40)
        self.clock.advance(10)
        expected = {("192.0.2.1", 1): (2.5, octets / 10), ("192.0.2.2", 1): (4.0, other / 10)}
        self.assertEqual(expected, self.told())
        self.clock.advance(10)
        self.assertEqual({(0.0, 0.0)}, set(self.told().values()))
        self.rates.stopService()
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_octets(self):
        """Those of all messages of a session, whatever way they are decoded."""
        octets = len(TEMPLATES)
        for n in (1, 30, 7):
            octets += self.records("192.0.2.1", n)
        octets += len(TEMPLATES[:20])
        self.send("192.0.2.1", TEMPLATES[:20])
        (one,) = self.found.plugin.each_exporter()
        self.assertEqual((octets, 38), (one["octets"], one["records"]))
