"""Log lines at most once a minute for each kind; mappings with bounded room."""

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ulogd_tw.core.bounded import Bounded
from ulogd_tw.core.limited import MOST_KINDS, RateLimit, RateLimitedLog


class RateLimitedLogTests(SynchronousTestCase):
    """One line a minute, and the number of the others."""

    def setUp(self):
        self.lines, self.clock = [], Clock()
        self.log = RateLimitedLog(self.clock.seconds)

    def write(self, form, **fields):
        """In place of a logger's method."""
        self.lines.append(form.format(**fields))

    def test_once_a_minute(self):
        """The first line comes at once, the next after a minute, with the number of those between them."""
        written = [self.log.say(self.write, "disk", "{path} is full", path="/x") for _ in range(3)]
        self.assertEqual([True, False, False], written)
        self.clock.advance(59.9)
        self.log.say(self.write, "disk", "{path} is full", path="/x")
        self.clock.advance(0.1)
        self.log.say(self.write, "disk", "{path} is full", path="/x")
        self.clock.advance(60)
        self.log.say(self.write, "disk", "{path} is full", path="/x")
        self.assertEqual(["/x is full", "/x is full (3 more since the last time)", "/x is full"], self.lines)

    def test_kinds(self):
        """No kind waits for another."""
        self.log.say(self.write, "disk", "a")
        self.log.say(self.write, "peer", "b")
        self.assertEqual(["a", "b"], self.lines)

    def test_amounts(self):
        """A line tells the sum since the last one, its own amount included."""
        for amount in (5, 7, 11):
            self.log.add(self.write, "kernel", amount, "{n} events")
        self.clock.advance(60)
        self.log.add(self.write, "kernel", 2, "{n} events")
        self.assertEqual(["5 events", "20 events"], self.lines)

    def test_clock_back(self):
        """A clock that is set back does not silence a kind until it has caught up."""
        self.clock.advance(7200)
        self.log.say(self.write, "disk", "a")
        self.clock.rightNow = 3600.0
        self.log.say(self.write, "disk", "a")
        self.assertEqual(2, len(self.lines))

    def test_most_lines(self):
        """All kinds together have so many lines a minute; the others are counted."""
        limit = RateLimit(most_lines=3)
        self.assertEqual([1, 1, 1, 0, 0], [limit.take(kind, 10.0) for kind in "abcde"])
        self.assertEqual(2, limit.left_out)
        self.assertEqual([1, 1], [limit.take(kind, 70.0) for kind in "de"])

    def test_memory(self):
        """A peer that varies the kind does not grow the table."""
        limit = RateLimit()
        for number in range(MOST_KINDS + 100):
            self.assertEqual(1, limit.take(str(number), 0.0))
        self.assertEqual(MOST_KINDS, len(limit._kinds))


class BoundedTests(SynchronousTestCase):
    """A dict that forgets the oldest entry."""

    def test_oldest_goes(self):
        """One too many pushes out the one set first; setting one that is there pushes out nothing."""
        kept = Bounded(2)
        kept["a"] = 1
        kept["b"] = 2
        kept["a"] = 3
        self.assertEqual({"a": 3, "b": 2}, kept)
        kept["c"] = 4
        self.assertEqual({"b": 2, "c": 4}, kept)
