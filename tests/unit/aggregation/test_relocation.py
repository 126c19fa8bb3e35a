"""overflow=fold of AGGREGATE: the largest groups stay, and no figure is lost."""

from collections import Counter, defaultdict

import numpy as np
from hypothesis import strategies as st

from tests.support import examples, given
from tests.unit.plugins.filters.test_aggregate import AggregateCase, batch_of
from ulogd_tw.aggregation import interval, relocation

a_row = st.fixed_dictionaries(
    {"octetDeltaCount": st.integers(0, 1000)},
    optional={"sourceTransportPort": st.integers(0, 60), "protocolIdentifier": st.integers(0, 2),
              "packetDeltaCount": st.integers(0, 9), "reverseOctetDeltaCount": st.integers(1, 9),
              "applicationName": st.sampled_from([b"%d" % n for n in range(20)]),
              "flowStartMilliseconds": st.integers(1, 99), "flowEndMilliseconds": st.integers(1, 200_000)},
)  # fmt: skip
sums = {"octets": "octetDeltaCount", "packets": "packetDeltaCount", "reply_octets": "reverseOctetDeltaCount"}


class FoldTests(AggregateCase):
    """What stays, what becomes of the rest."""

    def test_the_largest_stay(self):
        """Half of the groups, whatever the order in which they came; the rest is one row."""
        self.make(key="sourceTransportPort", overflow="fold", max_keys=8)
        sizes = [3, 80, 1, 70, 2, 60, 4, 50]
        self.give(batch_of([{"sourceTransportPort": n, "octetDeltaCount": size} for n, size in enumerate(sizes)]))
        self.give(batch_of([{"sourceTransportPort": 9, "octetDeltaCount": 5}]))
        self.agg.flush()
        found = {row.get("sourceTransportPort"): (row["octets"], row["flows"]) for row in self.rows()}
        self.assertEqual({1: (80, 1), 3: (70, 1), 5: (60, 1), 7: (50, 1), 9: (5, 1), None: (10, 4)}, found)
        more = self.agg.counters.figures
        self.assertEqual((4, 4), (more["groups_folded"], more["rows_other"]))
        self.assertEqual(self.graph.unaccounted(), {})

    def test_of_all_families(self):
        """IPv4, IPv6 and rows without an address are measured by one bound."""
        self.make(key="sourceAddress", overflow="fold", max_keys=6)
        self.give(batch_of([{"sourceIPv4Address": n, "octetDeltaCount": n} for n in (1, 2, 90)]))
        self.give(batch_of([{"sourceIPv6Address": n, "octetDeltaCount": n} for n in (3, 91)]))
        self.give(batch_of([{"octetDeltaCount": 92}]))
        self.give(batch_of([{"sourceIPv4Address": 7, "octetDeltaCount": 7}]))
        self.agg.flush()
        found = Counter((row.get("sourceAddress"), row["octets"]) for row in self.rows())
        self.assertEqual(Counter([(90, 90), (91, 91), (None, 92), (7, 7), (None, 6)]), found)

    def test_groups_of_one_size(self):
        """Half of them stay too."""
        self.make(key="sourceTransportPort", overflow="fold", max_keys=100)
        self.give(batch_of([{"sourceTransportPort": n, "octetDeltaCount": 40} for n in range(101)]))
        self.agg.flush()
        self.assertEqual(52, len(self.rows()))

    def test_a_sample(self):
        """Of a table that is larger than the sample about half is folded, and none of the largest tenth."""
        self.patch(relocation, "SAMPLE", 100)
        self.make(key="sourceIPv4Address", overflow="fold", max_keys=10_000)
        random = np.random.default_rng(1)
        octets = random.permutation(10_000).astype(np.uint64)
        first = batch_of([{"sourceIPv4Address": 1, "octetDeltaCount": 1}]).take(np.zeros(10_001, np.int64))
        ports = np.arange(10_001, dtype=np.uint32)
        keys = {key.name: key for key in first.schema.values()}
        columns = {keys["sourceIPv4Address"]: ports, keys["octetDeltaCount"]: np.append(octets, np.uint64(7))}
        self.give(first.with_columns(columns))
        self.agg.flush()
        kept = {row["octets"] for row in self.rows() if "sourceIPv4Address" in row}
        self.assertTrue(3500 < len(kept) < 6500, len(kept))
        self.assertTrue(kept.issuperset(range(9000, 10_000)))

    def test_strings_of_folded_groups_are_forgotten(self):
        """However many different ones come, none is refused, and what is kept of them is bounded."""
        self.patch(interval, "_MORE_STRINGS", 8)
        self.make(key="applicationName", overflow="fold", max_keys=8)
        for n in range(200):
            self.give(batch_of([{"applicationName": b"%d" % (4 * n + i), "octetDeltaCount": n} for i in range(4)]))
        self.assertEqual({}, self.agg.counters.dropped)
        self.agg.flush()
        self.assertEqual(800, sum(row["flows"] for row in self.rows()))

    def test_a_sketch_is_whole_or_missing(self):
        """Groups that had none, since there were too many, do not begin one when they are moved to the front."""
        self.make(key="sourceTransportPort", overflow="fold", max_keys=8, max_sketches=2,
                  functions="d=distinct(octetDeltaCount)")  # fmt: skip
        rows = [{"sourceTransportPort": n, "octetDeltaCount": 10 * n + i} for n in range(8) for i in range(3)]
        self.give(batch_of(rows))
        self.give(batch_of([{"sourceTransportPort": n, "octetDeltaCount": 1000} for n in (9, 6, 7)]))
        self.agg.flush()
        found = {row.get("sourceTransportPort"): row.get("d") for row in self.rows()}
        self.assertEqual({4, 5, 6, 7, 9, None}, set(found))
        for port in (4, 5, 6, 7):
            self.assertIn(found[port], (None, 3 + (port > 5)))
        self.assertIsNone(found[None])

    def test_order(self):
        """What a group had before a fold is older than what came during it."""
        self.patch(interval, "AT_ONCE", 2)
        self.make(key="sourceTransportPort", overflow="fold", max_keys=8,
                  functions="a=first(packetDeltaCount) b=last(packetDeltaCount) m=mean(packetDeltaCount)")  # fmt: skip
        self.give(batch_of([{"sourceTransportPort": n, "octetDeltaCount": n, "packetDeltaCount": n} for n in range(8)]))
        self.give(batch_of([{"sourceTransportPort": 9, "octetDeltaCount": 9}]))
        self.assertIsNotNone(self.agg.aggregation.intervals.relocation)
        self.give(batch_of([{"sourceTransportPort": n, "octetDeltaCount": 9, "packetDeltaCount": 11} for n in (7, 1)]))
        self.agg.flush()
        found = {row.get("sourceTransportPort"): (row.get("a"), row.get("b"), row.get("m")) for row in self.rows()}
        self.assertEqual((7, 11, 9.0), found[7])
        self.assertEqual((11, 11, 11.0), found[1])

    def test_a_large_table_is_folded_while_rows_come(self):
        """A slice with each batch and each turn; `keys` never goes beyond max_keys."""
        self.patch(interval, "AT_ONCE", 10)
        self.make(key="sourceTransportPort", overflow="fold", max_keys=100, interval=10)
        for start in range(0, 1000, 5):
            ports = range(start, start + 5)
            self.give(batch_of([{"sourceTransportPort": port, "octetDeltaCount": port % 100} for port in ports]))
            self.assertLessEqual(sum(t.keys for t in self.agg.aggregation.intervals), 100)
            peeked = list(self.agg.peek(frozenset(("flows",))))
            self.assertEqual(start + 5, sum(int(batch.columns["flows"].sum()) for batch in peeked))
        for _ in range(200):
            self.agg.wake(10.0)
        self.assertEqual(1000, sum(row["flows"] for row in self.rows()))
        self.assertFalse(self.agg.holds)
        self.assertIsNone(self.agg.aggregation.intervals.relocation)

    def test_asked_while_it_is_folded(self):
        """An answer that is copied in slices has each row once, although groups move from table to table meanwhile."""
        self.patch(interval, "AT_ONCE", 4)
        self.patch(interval, "PEEKED_AT_ONCE", 3)
        self.make(key="sourceTransportPort", overflow="fold", max_keys=40)
        self.give(batch_of([{"sourceTransportPort": port, "octetDeltaCount": port} for port in range(41)]))
        self.assertIsNotNone(self.agg.aggregation.intervals.relocation)
        flows = 0
        for batch in self.agg.peek(frozenset(("flows",))):
            flows += int(batch.columns["flows"].sum())
            self.agg.wake(0.0)
        while self.agg.wake(0.0) == 0.0:
            pass
        self.assertIsNone(self.agg.aggregation.intervals.relocation)
        self.assertEqual(41, flows)

    def test_stopped_while_it_is_asked(self):
        """An answer that nobody takes to its end holds nothing up."""
        self.patch(interval, "AT_ONCE", 4)
        self.make(key="sourceTransportPort", overflow="fold", max_keys=40)
        self.give(batch_of([{"sourceTransportPort": port, "octetDeltaCount": port} for port in range(41)]))
        asked = self.agg.peek(frozenset(("flows",)))
        next(asked)
        self.agg.flush()
        self.assertEqual(41, sum(row["flows"] for row in self.rows()))
        asked.close()
        self.assertFalse(self.agg.holds)

    @examples(60)
    @given(
        st.lists(st.lists(a_row, min_size=1, max_size=25), max_size=8), st.integers(1, 30), st.integers(1, 12),
        st.sampled_from(["arrival", "flow"]),
    )  # fmt: skip
    def test_no_figure_is_lost(self, batches, max_keys, at_once, time):
        """Sums of any rows in any tables are those of the rows, by interval; so are counts, extremes and times.

        And one group that is always the largest is there, whole, where there is room for some.
        """
        self.patch(interval, "AT_ONCE", at_once)
        self.make(key="sourceTransportPort,protocolIdentifier,applicationName", overflow="fold", max_keys=max_keys,
                  time=time, interval=60, functions="n=count(octetDeltaCount) most=max(octetDeltaCount)")  # fmt: skip
        expected = defaultdict(Counter)
        largest = 0
        for rows in batches:
            large = {"sourceTransportPort": 99, "octetDeltaCount": 10**6, "flowEndMilliseconds": 1}
            largest += 10**6
            rows = [large, *rows]
            for row in rows:
                start = row.get("flowEndMilliseconds", 0) // 60_000 * 60 if time == "flow" else 0
                into = expected[start]
                into.update({name: row.get(key, 0) for name, key in sums.items()} | {"flows": 1, "n": 1})
            self.give(batch_of(rows))
        self.agg.flush()
        found = defaultdict(Counter)
        for row in self.rows():
            found[row["interval_start"]].update({n: row.get(n, 0) for n in (*sums, "flows", "n")})
        self.assertEqual({s: +c for s, c in expected.items()}, {s: +c for s, c in found.items()})
        self.assertEqual({}, self.agg.counters.dropped)
        self.assertEqual({}, self.graph.unaccounted())
        if batches:
            rows = self.rows()
            self.assertEqual(10**6, max(row["most"] for row in rows))

            if max_keys >= 8 and time == "arrival":
                self.assertIn(largest, [row["octets"] for row in rows if row.get("sourceTransportPort") == 99])
