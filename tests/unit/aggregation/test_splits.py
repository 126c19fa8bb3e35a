"""AGGREGATE gives the same, however its input is cut into batches and ordered, and whatever the size of its tables."""

import os
from collections import defaultdict

import numpy as np
from hypothesis import strategies as st

from tests.support import examples, given, sized
from tests.unit.plugins.filters.test_aggregate import AggregateCase, batch_of
from ulogd_tw.aggregation import emission
from ulogd_tw.core import key_table, types
from ulogd_tw.core.batch import Batch, Schema
from ulogd_tw.core.keys import known

FUNCTIONS = ("n=count(packetDeltaCount) least=min(octetDeltaCount) most=max(octetDeltaCount) all=sum(octetDeltaCount) "
             "flags=or(tcpControlBits) d=distinct(sourceTransportPort) q=quantile(octetDeltaCount,0.5)")  # fmt: skip
KEYS = ("sourceAddress", "protocolIdentifier", "applicationName")
a_row = st.fixed_dictionaries(
    {"octetDeltaCount": st.integers(0, 2**40), "flowEndMilliseconds": st.integers(1080_000, 1199_999)},
    optional={"flowStartMilliseconds": st.integers(900_000, 1200_000), "sourceIPv4Address": st.integers(0, 3),
              "protocolIdentifier": st.integers(0, 2), "applicationName": st.sampled_from([b"", b"a", b"bc"]),
              "packetDeltaCount": st.integers(0, 9), "tcpControlBits": st.integers(0, 255),
              "sourceTransportPort": st.integers(0, 99)},
)  # fmt: skip


def of_ipv6(row):
    """The row with an address of IPv6, where it has one."""
    row = dict(row)
    if "sourceIPv4Address" in row:
        row["sourceIPv6Address"] = row.pop("sourceIPv4Address") + (1 << 64)
    return row


class SplitTests(AggregateCase):
    """Of rows within the lateness."""

    def groups(self, batches, **options):
        """{(interval, key): its values} of these batches, a dict a row; a batch has one family."""
        self.make(**{"key": ",".join(KEYS), "functions": FUNCTIONS, "time": "flow", "interval": 60,
                     "lateness": 1000} | options)  # fmt: skip
        for rows in batches:
            for ipv6 in (False, True):
                if part := [row for row in rows if ("sourceIPv6Address" in row) == ipv6]:
                    self.give(batch_of(part, now=1200.0))
        self.agg.flush()
        self.assertEqual({}, self.graph.unaccounted())
        found = {}
        for row in self.rows():
            key = (row.pop("interval_start"), *(row.pop(name, None) for name in KEYS))
            self.assertNotIn(key, found)
            found[key] = row
        return found

    @examples(50)
    @given(st.lists(a_row | a_row.map(of_ipv6), max_size=60), st.data(), st.sampled_from([1, 2, 16]),
           st.sampled_from([1, 7]), st.integers(1, 50), st.sampled_from(["flow", "spread"]))  # fmt: skip
    def test_any_split_and_order(self, rows, data, first_entries, moved, emitted, time):
        """One row a batch in the order of their times, and any other order in any other batches."""
        expected = self.groups([[row] for row in sorted(rows, key=lambda row: row["flowEndMilliseconds"])], time=time)
        self.patch(key_table, "FIRST_ENTRIES", first_entries)
        self.patch(key_table, "_MOVED_AT_ONCE", moved)
        self.patch(key_table, "_LARGE", data.draw(st.sampled_from([1, 8, 64])))
        self.patch(emission, "EMITTED_AT_ONCE", emitted)
        rows = data.draw(st.permutations(rows))
        cuts = sorted(data.draw(st.lists(st.integers(0, len(rows)), max_size=60)))
        batches = [rows[a:b] for a, b in zip([0, *cuts], [*cuts, len(rows)], strict=True)]
        self.assertEqual(expected, self.groups(batches, time=time))
        alone = defaultdict(lambda: [0, 0])
        for row in rows:
            address = row.get("sourceIPv4Address", row.get("sourceIPv6Address"))
            interval = row["flowEndMilliseconds"] // 60_000 * 60 if time == "flow" else None
            key = (interval, address, row.get("protocolIdentifier"))
            alone[(*key, row.get("applicationName"))][0] += 1
            alone[(*key, row.get("applicationName"))][1] += row["octetDeltaCount"]
        found = defaultdict(lambda: [0, 0])
        for (interval, *key), values in expected.items():
            sums = found[interval if time == "flow" else None, *key]
            sums[:] = sums[0] + values.get("flows", 0), sums[1] + values["octets"]
        self.assertEqual(alone, found)


class LatenessTests(AggregateCase):
    """Intervals that close while rows come."""

    @examples(50)
    @given(st.lists(st.tuples(st.integers(0, 90), st.integers(0, 60), st.integers(0, 9), st.integers(0, 2**40),
                              st.booleans(), st.sampled_from([types.UNSIGNED8, types.UNSIGNED16, types.UNSIGNED64])),
                    max_size=80),
           st.sampled_from([7, 30, 60]), st.sampled_from([1, 20, 60]), st.integers(1, 9), st.data())  # fmt: skip
    def test_any_order(self, rows, interval, lateness, emitted, data):
        """Rows that come `lateness` after their flow's end at the latest, from exporters with fields of any width.

        Each group goes out once, with the sums of a dict, and no row is late; tables have the memory of former ones.
        """
        self.patch(key_table, "FIRST_ENTRIES", data.draw(st.sampled_from([1, 4])))
        self.patch(key_table, "_MOVED_AT_ONCE", 1)
        self.patch(emission, "EMITTED_AT_ONCE", emitted)
        self.make(key="sourceAddress,sourceTransportPort", time="flow", interval=interval, lateness=lateness)
        arrivals, expected = defaultdict(list), {}
        for end, delay, port, octets, ipv6, type_ in rows:
            arrivals[end + min(delay, lateness), ipv6, type_].append((end, port, octets))
            sums = expected.setdefault((end // interval * interval, 1 << 64 if ipv6 else 1, port), [0, 0, 0])
            sums[:] = sums[0] + 1, sums[1] + octets, max(sums[2], end * 1000)
        for now, ipv6, type_ in sorted(arrivals, key=lambda arrival: arrival[0]):
            part = data.draw(st.permutations(arrivals[now, ipv6, type_]))
            cut = data.draw(st.integers(0, len(part)))
            for some in filter(None, (part[:cut], part[cut:])):
                address = {"sourceIPv6Address": 1 << 64} if ipv6 else {"sourceIPv4Address": 1}
                self.give(batch_of([{**address, "sourceTransportPort": port, "octetDeltaCount": octets,
                                     "flowEndMilliseconds": end * 1000} for end, port, octets in some],
                                   now=float(now), sourceTransportPort=type_))  # fmt: skip
            for _ in range(data.draw(st.integers(0, 5))):
                self.agg.wake(float(now))
        self.agg.flush()
        found = {}
        for row in self.rows():
            key = (row["interval_start"], row["sourceAddress"], row["sourceTransportPort"])
            self.assertNotIn(key, found)
            found[key] = [row["flows"], row["octets"], row.get("last_ms", 0)]
        self.assertEqual(expected, found)
        self.assertEqual(0, self.agg.counters.figures["rows_late"])
        starts = [key[0] for key in found]
        self.assertEqual(sorted(starts), starts)
        self.assertEqual({}, self.graph.unaccounted())


def resident():
    """Octets of memory that this process has in use."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class SizeTests(AggregateCase):
    """Many keys."""

    def test_many_keys(self):
        """A million (with make soak ten): each is there once with its sums, in the memory that the documents state."""
        keys, at_once = sized(1_000_000, 10_000_000), 1 << 18
        self.make(key="sourceIPv4Address,destinationIPv4Address,protocolIdentifier,sourceTransportPort,"
                  "destinationTransportPort", max_keys=keys)  # fmt: skip
        names = ("sourceIPv4Address", "destinationIPv4Address", "protocolIdentifier", "sourceTransportPort",
                 "destinationTransportPort", "octetDeltaCount")  # fmt: skip
        schema = Schema([known(name) for name in names])
        before = resident()
        for times in (1, 2):
            for first in range(0, keys, at_once):
                n = np.arange(first, min(first + at_once, keys), dtype=np.uint32)
                columns = (n, n ^ np.uint32(0xDEADBEEF), n % 3, n % 60000, n % 443, n % 1000 * times)
                types_ = [known(name).type.dtype for name in names]
                held = {name: np.ascontiguousarray(c, t) for name, c, t in zip(names, columns, types_, strict=True)}
                self.source.emit(Batch(schema, held, n=len(n), now=0.0))
        self.assertEqual(keys, self.agg.counters.figures["keys"]())
        self.assertLess(self.agg.counters.figures["memory_octets"](), 130 * keys)
        self.assertLess(resident() - before, 130 * keys + (100 << 20))  # and the batches
        seen = np.zeros(keys, bool)
        self.agg.flush()
        for batch in self.keep.batches:
            n = batch.columns["sourceIPv4Address"]
            self.assertTrue((batch.columns["octets"] == 3 * (n % 1000).astype(np.uint64)).all())
            self.assertTrue((batch.columns["destinationTransportPort"] == n % 443).all())
            self.assertFalse(seen[n].any())
            seen[n] = True
        self.assertTrue(seen.all())
        self.assertIs(types.IPV4, batch.schema["sourceIPv4Address"].type)
