"""How long rows wait."""

from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support import given
from ulogd_tw.core.waits import Waits


class WaitsTests(SynchronousTestCase):
    """Rows that come and go."""

    def test_parts(self):
        """A batch counts once, when its last row has gone; the oldest that waits is known."""
        waits = Waits()
        waits.come(10, 1.0)
        waits.come(5, 2.0)
        waits.go(4, 3.0)
        self.assertEqual((0, 2.0), (waits.latency.sum, waits.oldest(3.0)))
        waits.go(8, 4.0)
        self.assertEqual((3.0, 2.0), (waits.latency.sum, waits.oldest(4.0)))
        waits.go(3, 7.0)
        self.assertEqual((8.0, 0.0), (waits.latency.sum, waits.oldest(9.0)))

    @given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50))))
    def test_bound(self, steps):
        """What has gone waits no more, however rows are cut; there are never more entries than batches."""
        waits, there = Waits(), 0
        for number, (come, go) in enumerate(steps):
            waits.come(come, float(number))
            there += come
            waits.go(min(go, there), number + 0.5)
            there -= min(go, there)
            self.assertEqual(there, sum(rows for rows, _ in waits._came))
        waits.go(there, 1e6)
        self.assertEqual(0.0, waits.oldest(1e6))
