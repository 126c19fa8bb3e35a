"""Tests of AGGREGATE: sums, NULL keys, families, intervals, overflow."""

from collections import Counter

import numpy as np
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support import given
from tests.unit.core.doubles import KEEP
from ulogd_tw.core import types
from ulogd_tw.core.batch import Batch, Schema, plain_values
from ulogd_tw.core.columns import Coded, Octets
from ulogd_tw.core.keys import Key, known, ulogd_keys
from ulogd_tw.core.options import Options
from ulogd_tw.core.plugin import FLOW, Input
from ulogd_tw.core.stack import Builder, StackSpec
from ulogd_tw.plugins.filters.aggregate import AGGREGATE


class PEER(Input):
    """Gives any element."""

    name = "PEER"
    otype = FLOW
    open_keys = True
    provides = (Key("record_kind", types.STRING),)


class CONNTRACK(Input):
    """Gives conntrack's keys."""

    name = "CONNTRACK"
    otype = FLOW
    provides = ulogd_keys("orig.ip.saddr", "orig.ip.daddr", "orig.ip.protocol", "orig.l4.sport", "orig.l4.dport",
                          "orig.raw.pktlen", "orig.raw.pktcount", "reply.raw.pktlen", "reply.raw.pktcount", "ct.event",
                          "flow.start.sec", "flow.start.usec", "flow.end.sec", "flow.end.usec")  # fmt: skip


def batch_of(rows, now=0.0, **held_as):
    """A batch out of dicts of numbers: a key that a row lacks is missing there. `held_as`: other types by key."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    keys, columns, missing = [], {}, {}
    for name in names:
        key = known(name)
        type_ = held_as.get(name.replace(".", "_"), key.type)
        keys.append(key.typed(type_))
        values = [row.get(name) for row in rows]
        mask = np.array([v is None for v in values])
        if type_ is types.IPV6:
            columns[name] = np.array([[(v or 0) >> 64, (v or 0) & 2**64 - 1] for v in values], np.uint64)
        elif type_.variable:
            columns[name] = Octets.of([v or b"" for v in values])
        else:
            columns[name] = np.array([v or 0 for v in values], type_.dtype)
        if mask.any():
            missing[name] = mask
    return Batch(Schema(keys), columns, missing, n=len(rows), now=now)


one_row = st.tuples(st.integers(0, 30), st.none() | st.integers(0, 2), st.integers(0, 2**40))


class AggregateCase(SynchronousTestCase):
    """AGGREGATE between an input and an output that keeps what it gets."""

    def make(self, source=PEER, **options):
        classes = {c.name: c for c in (PEER, CONNTRACK, AGGREGATE, KEEP)}

        def read(instance, class_):
            return Options(class_.all_options(), options if class_ is AGGREGATE else {}), []

        spec = StackSpec("s", "t:1", (("in", source.name), ("agg", "AGGREGATE"), ("keep", "KEEP")))
        builder = Builder(lambda name, position: classes[name], read)
        self.graph = builder.build([spec])
        self.assertEqual(builder.mistakes, [])
        self.source, self.agg, self.keep = (self.graph.instances[i] for i in ("in", "agg", "keep"))
        return self.agg

    def give(self, batch):
        self.source.counters.rows_received += batch.n
        self.source.emit(batch)

    def rows(self):
        """What came out, as plain rows."""
        found = []
        for batch in self.keep.batches:
            names = list(batch.schema)
            values = [plain_values(batch.columns[n], batch.schema[n]) for n in names]
            for i, row in enumerate(zip(*values, strict=True)):
                row = dict(zip(names, row, strict=True))
                found.append({n: v for n, v in row.items() if n not in batch.missing or not batch.missing[n][i]})
        return found


class AggregateTests(AggregateCase):
    """Sums, groups, intervals."""

    def test_rows_of_one_key_add_up(self):
        """Octets, packets, flows; the first start and the last end; named as the design says."""
        self.make(key="protocolIdentifier", interval=60)
        flow = {"protocolIdentifier": 6, "octetDeltaCount": 100, "packetDeltaCount": 2}
        flow |= {"flowStartMilliseconds": 5000, "flowEndMilliseconds": 6000}
        other = flow | {"octetDeltaCount": 2**63, "flowStartMilliseconds": 4000, "flowEndMilliseconds": 5500}
        self.give(batch_of([flow, other, flow | {"protocolIdentifier": 17}], now=125.0))
        self.agg.flush()
        expected = {"protocolIdentifier": 6, "flows": 2, "packets": 4, "octets": 2**63 + 100}
        expected |= {"first_ms": 4000, "last_ms": 6000, "interval_start": 120}
        self.assertIn(expected, self.rows())
        self.assertEqual(len(self.rows()), 2)
        self.assertEqual(self.graph.unaccounted(), {})

    def test_both_families_under_one_name(self):
        """sourceAddress is the IPv4 or the IPv6 element, and each stays what it is."""
        self.make(key="sourceAddress")
        self.give(batch_of([{"sourceIPv4Address": 0x0A000001, "octetDeltaCount": 1}] * 2))
        self.give(batch_of([{"sourceIPv6Address": 2**127 + 1, "octetDeltaCount": 1}] * 3))
        self.agg.flush()
        self.assertEqual(sorted(r["flows"] for r in self.rows()), [2, 3])
        held = {b.schema["sourceAddress"].type for b in self.keep.batches}
        self.assertEqual(held, {types.IPV4, types.IPV6})

    def test_a_row_that_lacks_a_key_groups_under_null(self):
        """Apart from a row whose value is 0."""
        self.make(key="sourceTransportPort,protocolIdentifier")
        icmp, udp = {"protocolIdentifier": 1}, {"protocolIdentifier": 17, "sourceTransportPort": 0}
        self.give(batch_of([icmp, udp, icmp, {"protocolIdentifier": 1, "sourceTransportPort": 0}]))
        self.agg.flush()
        found = Counter((r.get("sourceTransportPort"), r["protocolIdentifier"], r["flows"]) for r in self.rows())
        self.assertEqual(found, {(None, 1, 2): 1, (0, 17, 1): 1, (0, 1, 1): 1})

    def test_a_wider_column_is_the_same_key(self):
        """An exporter that sends protocolIdentifier in two octets, or a port in four, is not another group."""
        self.make(key="protocolIdentifier")
        self.give(batch_of([{"protocolIdentifier": 6}]))
        self.give(
            batch_of([{"protocolIdentifier": 6}, {"protocolIdentifier": 300}], protocolIdentifier=types.UNSIGNED16)
        )
        self.agg.flush()
        self.assertEqual([(r["protocolIdentifier"], r["flows"]) for r in self.rows()], [(6, 2)])
        self.assertEqual(self.agg.counters.dropped, {"key_range": 1})
        self.assertEqual(self.graph.unaccounted(), {})

    def test_a_missing_counter_is_null_not_zero(self):
        """Where no row of a key has it; one row that has it is enough."""
        self.make(key="protocolIdentifier")
        rows = [{"protocolIdentifier": 1}, {"protocolIdentifier": 2, "octetDeltaCount": 5}, {"protocolIdentifier": 2}]
        self.give(batch_of(rows))
        self.give(batch_of([{"protocolIdentifier": 3}]))
        self.agg.flush()
        found = {r["protocolIdentifier"]: r.get("octets") for r in self.rows()}
        self.assertEqual(found, {1: None, 2: 5, 3: None})

    def test_totals_count_where_there_are_no_deltas(self):
        """But not those of a record that only tells of an active timeout: a later total will contain it."""
        self.make(key="protocolIdentifier")
        self.give(batch_of([
            {"protocolIdentifier": 6, "octetTotalCount": 10, "flowEndReason": 3},
            {"protocolIdentifier": 6, "octetTotalCount": 7, "flowEndReason": 2},
            {"protocolIdentifier": 17, "octetTotalCount": 7, "flowEndReason": 2},
        ]))  # fmt: skip
        self.agg.flush()
        self.assertEqual({r["protocolIdentifier"]: r.get("octets") for r in self.rows()}, {6: 10, 17: None})

    def test_conntrack_rows_count_once(self):
        """Only the end of a flow, in its original direction, the reply beside it; times out of halves."""
        self.make(source=CONNTRACK, key="5tuple")
        new = {"orig.ip.saddr": 1, "orig.ip.daddr": 2, "orig.ip.protocol": 6, "orig.l4.sport": 3, "orig.l4.dport": 4}
        end = new | {"ct.event": 4, "orig.raw.pktlen": 50, "orig.raw.pktcount": 1, "reply.raw.pktlen": 70}
        end |= {"reply.raw.pktcount": 2, "flow.start.sec": 1, "flow.start.usec": 999999}
        end |= {"flow.end.sec": 2, "flow.end.usec": 1000}
        self.give(batch_of([new | {"ct.event": 1}, end], orig_ip_saddr=types.IPV4, orig_ip_daddr=types.IPV4))
        self.agg.flush()
        (row,) = self.rows()
        expected = {"sourceAddress": 1, "destinationAddress": 2, "protocolIdentifier": 6, "sourceTransportPort": 3}
        expected |= {"destinationTransportPort": 4, "flows": 1, "packets": 1, "octets": 50, "reply_packets": 2}
        expected |= {"reply_octets": 70, "first_ms": 1999, "last_ms": 2001, "interval_start": 0}
        self.assertEqual(row, expected)
        self.assertEqual(self.agg.counters.rows_filtered, 1)
        self.assertEqual(self.graph.unaccounted(), {})

    def test_options_records_are_left_out(self):
        self.make(key="protocolIdentifier")
        batch = batch_of([{"protocolIdentifier": 6}, {"protocolIdentifier": 6}])
        kinds = Coded(np.array([0, 1]), (b"data", b"options"))
        self.give(batch.with_columns({Key("record_kind", types.STRING): kinds}))
        self.agg.flush()
        self.assertEqual([r["flows"] for r in self.rows()], [1])
        self.assertEqual(self.agg.counters.rows_filtered, 1)

    def test_intervals_end_at_multiples(self):
        """A batch of the next interval closes the one before; time closes an interval in which nothing comes."""
        self.make(key="protocolIdentifier", interval=10)
        for now in (100.0, 109.9, 110.0):
            self.give(batch_of([{"protocolIdentifier": 6}], now=now))
        self.agg.wake(110.0)
        self.assertEqual([(r["interval_start"], r["flows"]) for r in self.rows()], [(100, 2)])
        self.agg.wake(119.9)
        self.assertEqual(len(self.rows()), 1)
        self.agg.wake(120.0)
        self.assertEqual([(r["interval_start"], r["flows"]) for r in self.rows()], [(100, 2), (110, 1)])

    def test_flow_time_puts_rows_where_they_ended(self):
        """And late rows still come out, counted as late."""
        self.make(key="protocolIdentifier", interval=10, time="flow", lateness=10)
        ends = [{"protocolIdentifier": 6, "flowEndMilliseconds": t} for t in (100_000, 111_000, 109_999)]
        self.give(batch_of(ends, now=112.0))
        self.give(batch_of([{"protocolIdentifier": 6, "flowEndMilliseconds": 131_000}], now=131.0))
        self.give(batch_of([{"protocolIdentifier": 6, "flowEndMilliseconds": 100_001}], now=131.0))
        self.agg.flush()
        found = sorted((r["interval_start"], r["flows"]) for r in self.rows())
        self.assertEqual(found, [(100, 1), (100, 2), (110, 1), (130, 1)])
        self.assertEqual(self.agg.counters.figures["rows_late"], 1)

    @given(
        st.lists(st.tuples(st.integers(0, 25), st.sampled_from((0, 0, 0, -3600, 3600, -12, 7))), max_size=12),
        st.sampled_from(("arrival", "flow", "spread")),
        st.sampled_from(({}, {"window": 30}, {"age": 15.0})),
    )
    def test_steps_of_the_clock(self, steps, time, options):
        """Wherever the clock is set to, each row is in one interval, and none waits for a time that is far away."""
        if time != "arrival" and "age" in options:
            return
        self.make(key="protocolIdentifier", interval=10, time=time, **options)
        wall, given = 100_000.0, 0
        for passed, step in steps:
            wall += passed + step
            if step:
                self.agg.clock_set(wall, step)
            ends = {"protocolIdentifier": 6, "flowEndMilliseconds": int(wall * 1000) - 1000,
                    "flowStartMilliseconds": int(wall * 1000) - 4000, "octetDeltaCount": 7}  # fmt: skip
            self.give(batch_of([ends], now=wall))
            given += 1
            self.agg.wake(wall)
        for _ in range(100):  # time goes by, which must be enough
            wall += 2.0
            self.agg.wake(wall)
        self.assertEqual(0, self.agg.counters.figures["keys"]())
        if "window" not in options:  # each row is in three of them, fewer around a step
            self.assertEqual(7 * given, sum(row["octets"] for row in self.rows()))
        else:
            self.assertGreaterEqual(sum(row["octets"] for row in self.rows()), 7 * given)

    def test_a_large_table_goes_out_in_slices(self):
        """So that the reactor can do other things in between; a full queue below makes it wait."""
        self.make(key="sourceTransportPort", interval=10)
        self.patch(__import__("ulogd_tw.aggregation.emission", fromlist=["x"]), "EMITTED_AT_ONCE", 100)
        self.give(batch_of([{"sourceTransportPort": p} for p in range(250)], now=0.0))
        self.assertEqual(self.agg.wake(10.0), 0.0)
        self.assertEqual([b.n for b in self.keep.batches], [100])
        self.agg.pause()
        self.assertGreater(self.agg.wake(10.0), 0.0)
        self.assertEqual([b.n for b in self.keep.batches], [100])
        self.agg.resume()
        self.agg.wake(10.0)
        self.agg.wake(10.0)
        self.assertGreater(self.agg.wake(10.0), 0.0)
        self.assertEqual([b.n for b in self.keep.batches], [100, 100, 50])

    def test_overflow_refuse(self):
        self.make(key="sourceTransportPort", max_keys=3, overflow="refuse")
        self.give(batch_of([{"sourceTransportPort": p} for p in (1, 2, 3, 4, 5, 1)]))
        self.agg.flush()
        self.assertEqual(len(self.rows()), 3)
        self.assertEqual(sum(r["flows"] for r in self.rows()) + self.agg.counters.dropped["max_keys"], 6)
        self.assertEqual(self.graph.unaccounted(), {})

    def test_overflow_other(self):
        """The rest is one row without keys."""
        self.make(key="sourceTransportPort", max_keys=3, overflow="other")
        self.give(batch_of([{"sourceTransportPort": p, "octetDeltaCount": 1} for p in (1, 2, 3, 4, 5, 6)]))
        self.give(batch_of([{"sourceTransportPort": p, "octetDeltaCount": 1} for p in (7, 8)]))
        self.agg.flush()
        rest = [r for r in self.rows() if "sourceTransportPort" not in r]
        self.assertEqual([(r["flows"], r["octets"]) for r in rest], [(5, 5)])
        self.assertEqual(len(self.rows()), 4)

    @given(
        st.lists(st.lists(one_row, max_size=30), max_size=6),
        st.integers(1, 40),
        st.sampled_from(["emit", "other", "fold"]),
    )  # fmt: skip
    def test_nothing_is_lost_or_invented(self, batches, max_keys, overflow):
        """Any split into batches and any overflow: the sums over all rows are those of the input, key by key."""
        self.make(key="sourceTransportPort,protocolIdentifier", max_keys=max_keys, overflow=overflow)
        expected, flows = Counter(), Counter()
        for batch in batches:
            rows = []
            for port, protocol, octets in batch:
                rows.append({"sourceTransportPort": port, "octetDeltaCount": octets})
                if protocol is not None:
                    rows[-1]["protocolIdentifier"] = protocol
                expected[port, protocol] += octets
                flows[port, protocol] += 1
            if rows:
                self.give(batch_of(rows))
        self.agg.flush()
        got, got_flows = Counter(), Counter()
        for row in self.rows():
            place = (row.get("sourceTransportPort"), row.get("protocolIdentifier"))
            got[place] += row["octets"]
            got_flows[place] += row["flows"]
        self.assertEqual(got.total(), expected.total())
        self.assertEqual(got_flows.total(), flows.total())
        if overflow == "emit":
            self.assertEqual(+got, +expected)
            self.assertEqual(got_flows, flows)
        self.assertEqual(self.graph.unaccounted(), {})
        for batch in self.keep.batches:
            self.assertLessEqual(batch.n, max_keys)

    @given(
        st.lists(
            st.lists(st.tuples(st.integers(0, 3), *[st.none() | st.integers(0, 2**40)] * 5), max_size=6), max_size=6
        )
    )
    def test_null_is_where_no_row_had_a_value(self, batches):
        """Whatever rows of a key have a counter or a time, in whatever batches: sums, extremes and NULLs of a dict."""
        names = (
            "octetDeltaCount",
            "packetDeltaCount",
            "reverseOctetDeltaCount",
            "flowStartMilliseconds",
            "flowEndMilliseconds",
        )
        given_as = ("octets", "packets", "reply_octets", "first_ms", "last_ms")
        fold = (sum, sum, sum, min, max)
        self.make(key="protocolIdentifier")
        values = {}
        for batch in batches:
            for protocol, *row in batch:
                for name, value in zip(given_as, row, strict=True):
                    values.setdefault(protocol, {}).setdefault(name, []).append(value)
            columns = [n for i, n in enumerate(names) if any(row[i + 1] is not None for row in batch)]
            rows = []
            for protocol, *row in batch:
                held = {n: v for n, v in zip(names, row, strict=True) if n in columns and v is not None}
                rows.append({"protocolIdentifier": protocol} | held)
            if rows:
                self.give(batch_of(rows))
        self.agg.flush()
        expected = {}
        for protocol, held in values.items():
            there = {n: [v for v in held[n] if v is not None] for n in given_as}
            expected[protocol] = {n: f(there[n]) for n, f in zip(given_as, fold, strict=True) if there[n]}
            if expected[protocol].get("last_ms") == 0:
                del expected[protocol]["last_ms"]  # 1970 stands for none
        got = {r["protocolIdentifier"]: {n: r[n] for n in given_as if n in r} for r in self.rows()}
        self.assertEqual(got, expected)

    @given(st.lists(st.sampled_from([b"", b"dns", b"http", b"\xff"]), min_size=1, max_size=20))
    def test_strings_as_keys(self, names):
        self.make(key="applicationName")
        self.give(batch_of([{"applicationName": name} for name in names]))
        self.agg.flush()
        self.assertEqual({r["applicationName"]: r["flows"] for r in self.rows()}, dict(Counter(names)))

    def test_unknown_keys_are_a_mistake(self):
        agg = AGGREGATE("agg", Options(AGGREGATE.all_options(), {"key": "sourceIPv4Adress"}))
        self.assertEqual(
            list(agg.mistakes()), [("key", "there is no key sourceIPv4Adress; did you mean sourceIPv4Address?")]
        )
