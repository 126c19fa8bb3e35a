"""Connections before authentication."""

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ulogd_tw.operating.logins import Logins


class LoginsTests(SynchronousTestCase):
    """Four connections at most, two of an address, for 30 seconds."""

    def setUp(self):
        self.clock, self.ended, self.talking = Clock(), [], set()
        self.logins = Logins(self.clock, 4, 2, 30.0, lambda name: name not in self.talking, self.ended.append)

    def add(self, *names):
        """Connections; the first letter is the address."""
        for name in names:
            self.logins.add(name, name[0])

    def test_time(self):
        """Who has not authenticated after the time is closed; who has stays."""
        self.add("a1", "b1")
        self.logins.settled("a1")
        self.clock.advance(29)
        self.assertEqual([], self.ended)
        self.clock.advance(2)
        self.assertEqual((["b1"], 0, []), (self.ended, len(self.logins), self.clock.getDelayedCalls()))

    def test_address(self):
        """One address has its bound, and costs no other one its connection."""
        self.add("a1", "b1", "b2", "b3", "b4")
        self.assertEqual(["b1", "b2"], self.ended)

    def test_all(self):
        """The oldest of all goes where all together are too many: whoever comes is let in."""
        self.add("a1", "b1", "c1", "d1", "e1", "f1")
        self.assertEqual((["a1", "b1"], 4), (self.ended, len(self.logins)))

    def test_silent_first(self):
        """One that has begun to speak goes after those that are silent."""
        self.talking = {"a1", "b1"}
        self.add("a1", "b1", "c1", "d1", "e1", "f1")
        self.assertEqual(["c1", "d1"], self.ended)
        self.talking |= {"e1", "f1"}
        self.add("g1")
        self.assertEqual(["c1", "d1", "a1"], self.ended)

    def test_gone(self):
        """One that has gone leaves no timer."""
        self.add("a1")
        self.logins.settled("a1")
        self.logins.settled("a1")
        self.assertEqual([], self.clock.getDelayedCalls())
