"""Sums that stop at the limits of 64 bits."""

import numpy as np
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support import given
from tests.unit.plugins.filters.test_aggregate import AggregateCase, batch_of
from ulogd_tw.aggregation import saturation
from ulogd_tw.core import types

MOST = 2**64 - 1
large = st.one_of(st.integers(0, 5), st.integers(2**62, 2**64 - 1), st.integers(MOST - 3, MOST))


class AdderTests(SynchronousTestCase):
    """Against Python's integers."""

    @given(st.lists(st.lists(st.tuples(st.integers(0, 2), large), max_size=30), max_size=5))
    def test_unsigned(self, batches):
        """A sum is the right one, or the limit from the time on when it reached it."""
        self.check(np.uint64, batches, 0, MOST)

    @given(st.lists(st.lists(st.tuples(st.integers(0, 2), st.integers(-(2**63), 2**63 - 1)), max_size=30), max_size=5))
    def test_signed(self, batches):
        """In both directions; a batch is added as a whole."""
        self.check(np.int64, batches, -(2**63), 2**63 - 1)

    def check(self, dtype, batches, least, most):
        sums, expected, stops, stopped = np.zeros(3, dtype), [0, 0, 0], 0, []
        adder = saturation.Adder()
        adder.report = stopped.append
        for rows in batches:
            places = np.array([place for place, _ in rows], np.int64)
            adder.add(sums, places, np.array([value for _, value in rows], dtype))
            for place in range(3):
                whole = expected[place] + sum(value for at, value in rows if at == place)
                expected[place] = max(min(whole, most), least)
                stops += expected[place] != whole
        self.assertEqual(expected, sums.tolist())
        self.assertEqual(stops, sum(stopped))

    @given(st.lists(large, max_size=30))
    def test_total(self, values):
        whole = sum(values)
        self.assertEqual((min(whole, MOST), whole > MOST), saturation.total(np.array(values, np.uint64)))


class SumsTests(AggregateCase):
    """In AGGREGATE."""

    def test_all_ways(self):
        """Octets, replies and functions; within a batch, over batches, of a window, of the rest and beyond top."""
        half = 2**63
        for options in ({}, {"interval": 10, "window": 20}, {"overflow": "fold", "max_keys": 2}, {"top": 1}):
            self.make(key="protocolIdentifier", functions="s=sum(octetDeltaCount)", **options)
            for now, group in ((100.0, 1), (100.0, 1), (110.0, 1), (110.0, 2), (110.0, 3), (110.0, 4)):
                row = {"protocolIdentifier": group, "octetDeltaCount": half, "reverseOctetDeltaCount": half}
                self.give(batch_of([row, row] if group == 1 else [row], now=now))
            self.agg.flush()
            for row in self.rows():
                flows = row["flows"]
                expected = min(flows * half, MOST)
                self.assertEqual((expected, expected), (row["octets"], row["reply_octets"]), options)
                if "s" in row:
                    self.assertEqual(expected, row["s"])
            self.assertGreater(self.agg.counters.figures["sums_saturated"], 0)

    def test_ordinary(self):
        """What has room in 64 bits is exact, and nothing is counted."""
        self.make(key="protocolIdentifier", functions="s=sum(mibObjectValueInteger)")
        for value in (2**63, 2**63 - 2):
            self.give(batch_of([{"protocolIdentifier": 6, "octetDeltaCount": value, "mibObjectValueInteger": -5}]))
        self.agg.flush()
        (row,) = self.rows()
        self.assertEqual((MOST - 1, -10), (row["octets"], row["s"]))
        self.assertEqual(0, self.agg.counters.figures["sums_saturated"])

    def test_held_narrow(self):
        """Columns of 8 bits do not count as full ones."""
        self.make(key="protocolIdentifier")
        rows = [{"protocolIdentifier": 6, "octetDeltaCount": 255}] * 300
        self.give(batch_of(rows, octetDeltaCount=types.UNSIGNED8))
        self.agg.flush()
        self.assertEqual(255 * 300, self.rows()[0]["octets"])
