"""What has ended is freed at once: nothing waits for a collection of garbage, which would stop the service."""

import gc
from collections import Counter

from twisted.trial.unittest import SynchronousTestCase

from tests.unit.collecting.doubles import Collecting
from tests.unit.ipfix.test_netflow import FLOW9, ROW9, v9
from tests.unit.ipfix.wire import COUNTER, a_set, hexed, message
from ulogd_tw.ipfix.session import Domain, KnownTemplate, Session

TEMPLATES, RECORD = message(a_set(2, COUNTER)), message(a_set(256, hexed("00000001")))


class GarbageTests(SynchronousTestCase):
    """Without the collector of garbage."""

    def setUp(self):
        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)
        self.found = Collecting(self, idle_timeout=100, clock_skew=0)
        self.before = self.there()

    def there(self):
        """How many objects of the classes that are made for each exporter there are."""
        return Counter(type(one).__name__ for one in gc.get_objects() if type(one) in (Session, Domain, KnownTemplate))

    def later(self, seconds):
        self.found.now += seconds
        self.found.plugin.wake(self.found.now)

    def test_datagrams(self):
        """An exporter that is silent for too long, also one of which records wait for a template."""
        late = message(a_set(300, hexed("00000001")))
        nine = v9(a_set(0, FLOW9)), v9(a_set(256, ROW9), number=1)
        for number, octets in enumerate(((TEMPLATES, RECORD), (late,), (TEMPLATES, late), nine)):
            self.found.datagrams(*((one, f"192.0.2.{number}", 5000) for one in octets))
        self.later(1)
        self.assertEqual({"Session": 4, "Domain": 4, "KnownTemplate": 3}, self.there() - self.before)
        self.later(200)
        self.found.datagrams((TEMPLATES, "192.0.2.9", 5000))  # others make room
        self.later(1)
        self.assertEqual({"Session": 1, "Domain": 1, "KnownTemplate": 1}, self.there() - self.before)

    def test_connections(self):
        """A connection that has ended."""
        connection = self.found.connect()
        connection.send(TEMPLATES + RECORD)
        self.later(1)
        self.assertEqual({"Session": 1, "Domain": 1, "KnownTemplate": 1}, self.there() - self.before)
        connection.end()
        self.later(1)
        self.assertEqual({}, self.there() - self.before)
