"""Parts of intervals from several processes, merged, are the groups of one process that had all rows."""

import pickle
from collections import defaultdict

from hypothesis import strategies as st

from tests.support import examples, given
from tests.unit.aggregation.test_splits import FUNCTIONS, KEYS, a_row, of_ipv6
from tests.unit.plugins.filters.test_aggregate import AggregateCase, batch_of
from ulogd_tw.aggregation import adding
from ulogd_tw.worker.cut import Adding

OPTIONS = {"key": ",".join(KEYS), "functions": FUNCTIONS, "interval": 60, "lateness": 1000}


def batches_of(rows):
    """Batches of one family each."""
    for ipv6 in (False, True):
        if part := [row for row in rows if ("sourceIPv6Address" in row) == ipv6]:
            yield batch_of(part, now=1200.0)


class PartsCase(AggregateCase):
    """An AGGREGATE whose rows were added up elsewhere."""

    def one(self, rows, **options):
        """The rows that an AGGREGATE emits which gets all rows itself."""
        self.make(**OPTIONS | options)
        for batch in batches_of(rows):
            self.give(batch)
        self.agg.flush()
        return self.by_key()

    def workers(self, shares, **options):
        """The rows that it emits where workers have added up shares, given as lists of lists of rows."""
        parts = []
        for share in shares:
            worker = self.worker(**options)
            for rows in share:
                for batch in batches_of(rows):
                    worker.process(batch)
                parts += map(pickle.dumps, worker.take_parts())
            self.assertFalse(worker.holds)
        self.make(**OPTIONS | options)
        for part in parts:
            self.agg.merge(pickle.loads(part))
        self.agg.flush()
        return self.by_key()

    def worker(self, **options):
        self.make(**OPTIONS | options)
        worker = Adding("agg", self.agg.config)
        worker.sources = self.agg.sources
        return worker

    def by_key(self):
        found = {}
        for row in self.rows():
            key = (row.pop("interval_start"), *(row.pop(name, None) for name in KEYS))
            self.assertNotIn(key, found)
            found[key] = row
        return found


class MergedTests(PartsCase):
    """Nobody can tell the difference."""

    @examples(50)
    @given(st.lists(a_row | a_row.map(of_ipv6), max_size=60), st.data(), st.integers(1, 4),
           st.sampled_from(["flow", "spread", "arrival"]))  # fmt: skip
    def test_any_shares(self, rows, data, workers, time):
        """Sums, times, functions and sketches of any shares, taken at any moments."""
        expected = self.one(rows, time=time)
        shares = [[] for _ in range(workers)]
        for row in rows:
            share = shares[data.draw(st.integers(0, workers - 1))]
            if not share or data.draw(st.booleans()):
                share.append([])
            share[-1].append(row)
        self.assertEqual(expected, self.workers(shares, time=time))

    @examples(50)
    @given(st.lists(a_row, min_size=1, max_size=60), st.sampled_from(["other", "fold", "refuse", "evict", "emit"]),
           st.integers(1, 5), st.data())  # fmt: skip
    def test_max_keys(self, rows, overflow, most, data):
        """There are never more groups than max_keys, and every row is in a sum or counted."""
        self.patch(adding, "MOST_GROUPS", 4)
        cut = data.draw(st.integers(0, len(rows)))
        self.make(**OPTIONS)
        worker = self.worker()
        parts = []
        for share in (rows[:cut], rows[cut:]):
            for batch in batches_of(share):
                worker.process(batch)
            parts += worker.take_parts()
        self.make(**OPTIONS | {"max_keys": most, "overflow": overflow, "time": "flow"})
        for part in parts:
            self.agg.merge(part)
            self.assertLessEqual(self.agg.aggregation.intervals.keys, most)
        self.agg.flush()
        sums = defaultdict(int)
        for row in self.rows():
            sums["flows"] += row.get("flows", 0)
            sums["octets"] += row["octets"]
        refused = self.agg.counters.dropped["max_keys"]
        self.assertEqual(len(rows), sums["flows"] + refused)
        if overflow != "refuse":
            self.assertEqual(sum(row["octetDeltaCount"] for row in rows), sums["octets"])
        self.assertEqual(-refused, self.agg.counters.rows_merged)

    def test_late(self):
        """A part of an interval that is over makes further rows of it, counted as late."""
        row = {"octetDeltaCount": 1, "flowEndMilliseconds": 1100_000, "protocolIdentifier": 6}
        worker = self.worker(time="flow", lateness=1)
        worker.process(batch_of([row, row], now=1200.0))
        (part,) = worker.take_parts()
        self.make(**OPTIONS | {"time": "flow", "lateness": 1})
        self.agg.wake(1300.0)
        self.agg.aggregation.closed = 1260
        self.agg.merge(part)
        self.assertEqual(2, self.agg.counters.figures["rows_late"])


class ArrivedTests(PartsCase):
    """An interval waits for the workers."""

    def test_until_all_is_here(self):
        """It is over when all rows that came before its end are here, not by the clock alone."""
        worker = self.worker(time="arrival")
        worker.process(batch_of([{"octetDeltaCount": 5, "protocolIdentifier": 6}], now=1219.9))
        self.make(**OPTIONS | {"time": "arrival"})
        self.agg.arrived = lambda: 1219.0
        self.agg.wake(1219.0)
        self.agg.wake(1260.5)
        self.assertEqual([], self.rows())
        for part in worker.take_parts():
            self.agg.merge(part)
        self.agg.arrived = lambda: 1260.1
        self.agg.wake(1260.6)
        self.assertEqual([1200], [row["interval_start"] for row in self.rows()])
