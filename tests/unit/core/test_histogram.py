"""Numbers in buckets."""

from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support import given
from ulogd_tw.core.histogram import Histogram


class HistogramTests(SynchronousTestCase):
    """Prometheus's meaning of buckets: each has all values up to its bound."""

    @given(st.lists(st.floats(-1, 20)))
    def test_buckets(self, values):
        made = Histogram((0.5, 1.0, 10.0))
        for value in values:
            made.observe(value)
        whole = [max(value, 0.0) for value in values]
        expected = [(name, sum(v <= bound for v in whole)) for name, bound in (("0.5", 0.5), ("1.0", 1), ("10.0", 10))]
        self.assertEqual([*expected, ("+Inf", len(whole))], made.buckets())
        self.assertAlmostEqual(sum(whole), made.sum)
