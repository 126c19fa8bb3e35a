"""How late the reactor is."""

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ulogd_tw.operating.stalls import LOOK_SECONDS, Stalls


class StallsTests(SynchronousTestCase):
    """A timer that measures itself."""

    def test_late(self):
        """In time nine times, and once held up for 0.3 s."""
        clock = Clock()
        stalls = Stalls(clock)
        stalls.startService()
        clock.pump([LOOK_SECONDS] * 9)
        clock.advance(LOOK_SECONDS + 0.3)
        found = dict(stalls.late.buckets())
        self.assertEqual((9, 9, 10, 10), (found["0.001"], found["0.25"], found["0.5"], found["+Inf"]))
        self.assertAlmostEqual(0.3, stalls.late.sum, 6)
        stalls.stopService()
        self.assertEqual([], clock.getDelayedCalls())
