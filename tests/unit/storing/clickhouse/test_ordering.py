"""Rows in the order of a table's key, against Python's sort of tuples."""

import numpy as np
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support import given
from ulogd_tw.storing.clickhouse.ordering import order, terms
from ulogd_tw.storing.clickhouse.types import parsed
from ulogd_tw.storing.clickhouse.values import Prepared

KEY = terms("toStartOfFiveMinutes(time), exporter, number")
ROW = st.tuples(st.integers(0, 2_000_000), st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 3)), st.integers(-9, 9))


def columns(rows):
    """The columns of rows of time, exporter and number."""
    return {
        "time": Prepared("time", parsed("DateTime64(3)"), np.array([row[0] for row in rows], np.int64)),
        "exporter": Prepared("exporter", parsed("IPv6"), np.array([row[1] for row in rows], ">u8").reshape(-1, 2)),
        "number": Prepared("number", parsed("Int8"), np.array([row[2] for row in rows], np.int8)),
    }


class TermsTests(SynchronousTestCase):
    """Sorting keys, as system.tables has them."""

    def test_terms(self):
        """Columns and intervals; nothing for other functions."""
        self.assertEqual(KEY, [("time", 300), ("exporter", 0), ("number", 0)])
        self.assertEqual(terms("`a b`"), None)
        self.assertEqual(terms("toDate(t), `src`"), [("t", 86400), ("src", 0)])
        self.assertIsNone(terms("cityHash64(a, b), c"))
        self.assertEqual(terms(""), [])


class OrderTests(SynchronousTestCase):
    """The order."""

    @given(st.lists(ROW, min_size=1, max_size=50))
    def test_sorted(self, rows):
        """Rows are as Python sorts them, whether the key fits 64 bits or not."""
        found = order(KEY, columns(rows))
        ordered = rows if found is None else [rows[place] for place in found.tolist()]
        keys = [(row[0] // 300_000, row[1], row[2]) for row in ordered]
        self.assertEqual(keys, sorted(keys))
        self.assertEqual(sorted(ordered), sorted(rows))

    def test_in_order(self):
        """Rows in order stay where they are."""
        self.assertIsNone(order(KEY, columns([(0, (0, 1), 1), (300_000, (0, 0), 0)])))

    def test_strings(self):
        """A key with a string is the server's work."""
        rows = columns([(5, (0, 0), 1), (1, (0, 0), 0)])
        nullable = Prepared("number", parsed("Nullable(Int8)"), rows["number"].values)
        self.assertIsNone(order(KEY, rows | {"number": nullable}))
