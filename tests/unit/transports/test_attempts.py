"""Attempts to reach a peer, on a clock that is turned by hand."""

from twisted.internet import defer, task
from twisted.trial.unittest import SynchronousTestCase

from ulogd_tw.transports.attempts import Attempts


class AttemptsTests(SynchronousTestCase):
    """Attempts at least 10 seconds apart."""

    def setUp(self):
        self.clock = task.Clock()
        self.begun = []
        """The time and the Deferred of each attempt."""
        self.reasons = []
        self.attempts = Attempts(self.clock, 10, self.connect, self.reasons.append)
        self.attempts.begin()

    def connect(self):
        self.begun.append((self.clock.seconds(), defer.Deferred()))
        return self.begun[-1][1]

    def fail(self, text):
        self.begun[-1][1].errback(OSError(text))

    def times(self):
        return [time for time, _ in self.begun]

    def test_beginnings_are_apart(self):
        """The next one begins 10 seconds after the one before began: at once, if that took longer to fail."""
        self.assertTrue(self.attempts.under_way)
        self.clock.advance(4)
        self.fail("refused")
        self.assertFalse(self.attempts.under_way)
        self.clock.advance(5.9)
        self.assertEqual([0], self.times())
        self.clock.advance(0.1)
        self.assertEqual([0, 10], self.times())
        self.clock.advance(25)
        self.fail("timed out")
        self.clock.advance(0)
        self.assertEqual([0, 10, 35], self.times())
        self.assertEqual(["refused", "timed out"], self.reasons)

    def test_lost_connection(self):
        """After a success there is none until one is asked for, which keeps its distance too."""
        self.attempts.succeeded()
        self.begun[-1][1].callback(None)
        self.assertFalse(self.attempts.under_way)
        self.clock.advance(3)
        self.attempts.again()
        self.clock.advance(6.9)
        self.assertEqual([0], self.times())
        self.clock.advance(0.1)
        self.assertEqual([0, 10], self.times())

    def test_stop(self):
        """A stop breaks off the attempt that is under way, with no reason for anybody, and takes back the next one."""
        self.attempts.stop()
        self.assertTrue(self.attempts.stopped)
        self.assertEqual([], self.reasons)
        self.assertEqual([], self.clock.getDelayedCalls())
        other = Attempts(self.clock, 10, self.connect, self.reasons.append)
        other.begin()
        self.fail("refused")
        other.stop()
        self.assertEqual([], self.clock.getDelayedCalls())
        self.assertEqual(["refused"], self.reasons)
