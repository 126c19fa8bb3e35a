"""Tests of FLOWCACHE: every rule of flows against a plain model, however packets are cut into batches."""

from collections import Counter
from pathlib import Path

import numpy as np
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support import given
from tests.unit.core.doubles import KEEP
from tests.unit.plugins.filters.test_aggregate import batch_of
from ulogd_tw.core.batch import plain_values
from ulogd_tw.core.keys import ulogd_keys
from ulogd_tw.core.ledger import Ledger, former
from ulogd_tw.core.options import Options
from ulogd_tw.core.plugin import PACKET, Input
from ulogd_tw.core.stack import Builder, StackSpec
from ulogd_tw.metering import flow_table
from ulogd_tw.plugins.filters.flowcache import FLOWCACHE

SYN, FIN, RST, ACK = 2, 1, 4, 16


class PACKETS(Input):
    """Gives what an interpreter of packets gives."""

    name = "PACKETS"
    otype = PACKET
    provides = ulogd_keys(
        "sourceIPv4Address", "destinationIPv4Address", "sourceIPv6Address", "destinationIPv6Address",
        "protocolIdentifier", "sourceTransportPort", "destinationTransportPort", "icmpTypeCodeIPv4",
        "icmpTypeCodeIPv6", "tcpControlBits", "ipTotalLength", "ipClassOfService", "ipTTL", "vlanId",
        "ingressInterface", "raw.pktlen", "oob.time.sec", "oob.time.usec", "oob.in",
    )  # fmt: skip


def packet(at, **fields):
    """A packet at a time in seconds; from 10.0.0.1 to .2 unless fields say otherwise."""
    seconds, rest = divmod(round(at * 1e6), 1_000_000)
    row = {"oob.time.sec": seconds, "oob.time.usec": rest, "ipTotalLength": 100}
    row |= {"sourceIPv4Address": 0x0A000001, "destinationIPv4Address": 0x0A000002, "protocolIdentifier": 17}
    return row | {"sourceTransportPort": 1000, "destinationTransportPort": 53} | fields


def tcp(at, flags, back=False, **fields):
    """A segment of one connection, or one back."""
    ends = ("destination", "source") if back else ("source", "destination")
    addresses = {f"{ends[0]}IPv4Address": 0x0A000001, f"{ends[1]}IPv4Address": 0x0A000002}
    ports = {f"{ends[0]}TransportPort": 1000, f"{ends[1]}TransportPort": 80}
    return packet(at, protocolIdentifier=6, tcpControlBits=flags, **addresses, **ports, **fields)


class Model:
    """The rules, one packet at a time."""

    def __init__(self, idle=30, active=120, linger=5, both=False):
        self.both = both
        self.idle, self.active, self.linger = (round(s * 1e6) for s in (idle, active, linger))
        self.flows, self.ended, self.clock = {}, [], 0

    def add(self, row):
        self.clock = now = max(self.clock, row["oob.time.sec"] * 1_000_000 + row["oob.time.usec"])
        one = (row["sourceIPv4Address"], row["sourceTransportPort"])
        two = (row["destinationIPv4Address"], row["destinationTransportPort"])
        key = (min(one, two), max(one, two)) if self.both else (one, two)
        key += (row["protocolIdentifier"],)
        flags = row.get("tcpControlBits", 0)
        flow = self.flows.get(key)
        if flow is not None:
            syn = self.closed(flow) and flags & SYN
            if self.over(flow, now) or syn:
                self.end(key)
                flow = None
        if flow is None:
            flow = self.flows[key] = {"ends": (one, two), "protocol": row["protocolIdentifier"], "start": now,
                                      "packets": [0, 0], "octets": [0, 0], "flags": [0, 0]}  # fmt: skip
        way = int(self.both and one != flow["ends"][0])
        flow["last"] = now
        flow["packets"][way] += 1
        flow["octets"][way] += row["ipTotalLength"]
        flow["flags"][way] |= flags

    def closed(self, flow):
        one, two = flow["flags"]
        if self.both:
            return bool((one & FIN and two & FIN) or (one | two) & RST)
        return bool(one & (FIN | RST))

    def over(self, flow, now):
        quiet = min(self.linger, self.idle) if self.closed(flow) else self.idle
        return now >= min(flow["last"] + quiet, flow["start"] + self.active)

    def end(self, key, reason=0):
        flow = self.flows.pop(key)
        if self.closed(flow):
            reason = 3
        elif not reason:
            reason = 1 if flow["last"] + self.idle <= flow["start"] + self.active else 2
        self.ended.append((flow, reason))

    def finish(self):
        """Every flow, as tuples in a multiset."""
        for key, flow in list(self.flows.items()):
            self.end(key, 0 if self.over(flow, self.clock) else 4)
        return Counter(
            (*f["ends"], f["protocol"], f["start"] // 1000, f["last"] // 1000, tuple(f["packets"]), tuple(f["octets"]),
             tuple(f["flags"]) if f["protocol"] == 6 else (None, None), reason)
            for f, reason in self.ended
        )  # fmt: skip


steps = st.sampled_from((0, 0, 0.001, 0.4, 1, 2.5, 5, 8, 29.9, 30, 31, 119, 200))
some_packets = st.lists(
    st.tuples(steps, st.integers(0, 3), st.sampled_from((6, 6, 17)), st.booleans(),
              st.sampled_from((0, ACK, ACK, SYN, SYN | ACK, FIN | ACK, RST)), st.integers(20, 1500)),
    max_size=60,
)  # fmt: skip


def rows_of(drawn):
    """Packets of few flows, so that they meet."""
    found, at = [], 1000.0
    for step, host, protocol, back, flags, octets in drawn:
        at += step
        make = tcp(at, flags, back) if protocol == 6 else tcp(at, 0, back) | {"protocolIdentifier": 17}
        if protocol == 17:
            del make["tcpControlBits"]
        make["ipTotalLength"] = octets
        make["destinationIPv4Address" if back else "sourceIPv4Address"] += host
        found.append(make)
    return found


def cut(rows, places):
    """The rows in batches that begin at these places."""
    edges = sorted({0, len(rows), *(p % (len(rows) + 1) for p in places)})
    return [rows[a:b] for a, b in zip(edges, edges[1:], strict=False)]


class FlowCacheTestCase(SynchronousTestCase):
    """FLOWCACHE between an input and an output that keeps what it gets."""

    def make(self, **options):
        classes = {c.name: c for c in (PACKETS, FLOWCACHE, KEEP)}

        def read(instance, class_):
            return Options(class_.all_options(), options if class_ is FLOWCACHE else {}), []

        spec = StackSpec("s", "t:1", (("in", "PACKETS"), ("cache", "FLOWCACHE"), ("keep", "KEEP")))
        builder = Builder(lambda name, position: classes[name], read)
        self.graph = builder.build([spec])
        self.assertEqual(builder.mistakes, [])
        self.source, self.cache, self.keep = (self.graph.instances[i] for i in ("in", "cache", "keep"))
        self.source.own_clock = True
        return self.cache

    def give(self, rows, **held_as):
        if rows:
            batch = batch_of(rows, now=float(rows[-1]["oob.time.sec"]), **held_as)
            self.source.counters.rows_received += batch.n
            self.source.emit(batch)

    def rows(self, flush=True):
        """What came out, as plain rows."""
        if flush:
            self.cache.flush()
        found = []
        for batch in self.keep.batches:
            names = list(batch.schema)
            values = [plain_values(batch.columns[n], batch.schema[n]) for n in names]
            for i, row in enumerate(zip(*values, strict=True)):
                row = dict(zip(names, row, strict=True))
                found.append({n: v for n, v in row.items() if n not in batch.missing or not batch.missing[n][i]})
        self.assertEqual(self.graph.unaccounted(), {})
        return found

    def flows(self):
        """What came out in the form of the model."""

        def two(row, name):
            back = "reverse" + name[0].upper() + name[1:]
            return row.get(name), row.get(back, 0 if name in row else None)

        return Counter(
            ((r["sourceAddress"], r["sourceTransportPort"]), (r["destinationAddress"], r["destinationTransportPort"]),
             r["protocolIdentifier"], r["flowStartMilliseconds"], r["flowEndMilliseconds"],
             two(r, "packetDeltaCount"), two(r, "octetDeltaCount"), two(r, "tcpControlBits"), r["flowEndReason"])
            for r in self.rows()
        )  # fmt: skip


class ModelTests(FlowCacheTestCase):
    """Any packets, in any batches, with both kinds of direction."""

    def compare(self, rows, batches, both, end_timeout=5.0):
        self.make(biflow=both, end_timeout=end_timeout)
        for part in batches:
            self.give(part)
        model = Model(linger=end_timeout, both=both)
        for row in rows:
            model.add(row)
        self.assertEqual(self.flows(), model.finish())

    @given(some_packets, st.lists(st.integers(0, 60), max_size=6), st.booleans(), st.sampled_from((0.0, 5.0, 40.0)))
    def test_flows_are_those_of_the_model(self, drawn, places, both, end_timeout):
        """Keys, times, counters of both directions, control bits and reasons."""
        rows = rows_of(drawn)
        self.compare(rows, cut(rows, places), both, end_timeout)

    @given(st.integers(1, 400), st.booleans())
    def test_one_flow_that_ends_with_every_packet(self, count, both):
        """As many flows as packets, in one batch: each SYN behind a RST begins another one."""
        rows = [tcp(1000 + i / 10, SYN | RST) for i in range(count)]
        self.compare(rows, [rows], both)

    def test_tables_that_are_renewed(self):
        """Flows are the same while they move from one table to the next."""
        for name, value in (("FIRST_ENTRIES", 8), ("SLICE", 3)):
            self.patch(flow_table, name, value)
        self.patch(flow_table, "MOST_PACKETS", 50)
        random = np.random.default_rng(7)
        rows, at = [], 1000.0
        for i in range(6000):
            at += float(random.choice([0.0, 0.01, 0.3], p=[0.3, 0.6, 0.1]))
            flags = int(random.choice([ACK, SYN, FIN | ACK]))
            row = tcp(at, flags, bool(random.integers(2)))
            row["sourceTransportPort"] = int(random.integers(0, 40)) + i // 30
            rows.append(row)
        renewed = []
        self.patch(flow_table.FlowTable, "_fetch", _counted(flow_table.FlowTable._fetch, renewed))
        for both in (False, True):
            self.compare(rows, [rows[i : i + 7] for i in range(0, len(rows), 7)], both)
        self.assertGreater(len(renewed), 20)

    def test_packets_out_of_order(self):
        """One that comes late counts with the time of the one before it."""
        rows = [packet(1000.0), packet(1002.0), packet(1001.0), packet(1031.5), packet(1003.0)]
        self.compare(rows, [rows[:2], rows[2:]], False)


def _counted(function, calls):
    def counting(*arguments):
        calls.append(1)
        return function(*arguments)

    return counting


class KeyTests(FlowCacheTestCase):
    """What makes a flow, and what it carries."""

    def test_what_is_missing_is_a_value_of_its_own(self):
        """Later fragments without ports, and ICMP, are flows apart from those with port 0 or type 0."""
        self.make()
        fragment = packet(1000.0)
        del fragment["sourceTransportPort"], fragment["destinationTransportPort"]
        ping = fragment | {"protocolIdentifier": 1, "icmpTypeCodeIPv4": 0x0800}
        pong = ping | {"icmpTypeCodeIPv4": 0}
        zero = packet(1000.0, sourceTransportPort=0, destinationTransportPort=0)
        self.give([fragment, ping, pong, zero, fragment])
        rows = self.rows()
        self.assertEqual(sorted(r["packetDeltaCount"] for r in rows), [1, 1, 1, 2])
        self.assertEqual([r for r in rows if r.get("icmpTypeCodeIPv4") == 0 and "sourceTransportPort" in r], [])
        self.assertEqual(sum("sourceTransportPort" in r for r in rows), 1)

    def test_the_columns_of_a_batch_do_not_make_the_flow(self):
        """A batch that lacks a column altogether feeds the same flows as one in which some rows lack it."""
        self.make()
        fragment = packet(1000.0)
        del fragment["sourceTransportPort"], fragment["destinationTransportPort"]
        self.give([fragment, packet(1000.0)])
        self.give([fragment])
        self.assertEqual(sorted(r["packetDeltaCount"] for r in self.rows()), [1, 2])

    def test_both_families(self):
        """Each with its addresses under the one name; packets that are not of IP are filtered out."""
        self.make()
        six = {"sourceIPv6Address": 2**127 + 5, "destinationIPv6Address": 7, "protocolIdentifier": 58}
        six |= {"icmpTypeCodeIPv6": 0x8000, "ipTotalLength": 104, "oob.time.sec": 1000, "oob.time.usec": 0}
        self.give([packet(1000.0)])
        self.give([six, six])
        self.give([{"oob.time.sec": 1000, "oob.time.usec": 0, "raw.pktlen": 60}] * 3)
        rows = sorted(self.rows(), key=lambda r: r["packetDeltaCount"])
        self.assertEqual([r["packetDeltaCount"] for r in rows], [1, 2])
        self.assertEqual(rows[1]["sourceAddress"], 2**127 + 5)
        self.assertEqual((rows[1]["icmpTypeCodeIPv6"], rows[1]["octetDeltaCount"]), (0x8000, 208))
        self.assertEqual(self.cache.counters.rows_filtered, 3)

    def test_clock_set(self):
        """Where the clock goes back, flows end at once, not in an hour; packets of the new time are other flows."""
        self.make()
        self.source.own_clock = False
        self.give([packet(100_000.0)])
        self.cache.wake(100_003.0)
        self.cache.clock_set(96_404.0, -3600.0)
        self.cache.wake(96_404.0)
        self.assertEqual([1], [row["packetDeltaCount"] for row in self.rows(flush=False)])
        self.give([packet(96_405.0), packet(96_406.0)])
        for now in range(96_407, 96_480):
            self.cache.wake(float(now))
        self.assertEqual([1, 2], [row["packetDeltaCount"] for row in self.rows(flush=False)])

    def test_queries_and_answers_are_one_biflow(self):
        """Echo, and one whose answer was seen first: its type is that of the sender of the first packet."""
        self.make(biflow=True)
        base = packet(1000.0, protocolIdentifier=1)
        del base["sourceTransportPort"], base["destinationTransportPort"]
        back = base | {"sourceIPv4Address": base["destinationIPv4Address"],
                       "destinationIPv4Address": base["sourceIPv4Address"]}  # fmt: skip
        self.give([base | {"icmpTypeCodeIPv4": 0x0800}, back | {"icmpTypeCodeIPv4": 0}])
        self.give([back | {"icmpTypeCodeIPv4": 14 << 8, "oob.time.sec": 1001}])
        self.give([base | {"icmpTypeCodeIPv4": 13 << 8, "oob.time.sec": 1002, "ipTotalLength": 50}])
        ping, stamp = sorted(self.rows(), key=lambda r: r["flowStartMilliseconds"])
        self.assertEqual((ping["icmpTypeCodeIPv4"], ping["sourceAddress"]), (0x0800, 0x0A000001))
        self.assertEqual((ping["packetDeltaCount"], ping["reversePacketDeltaCount"]), (1, 1))
        self.assertEqual((ping["biflowDirection"], stamp["biflowDirection"]), (1, 1))  # RFC 5103: initiator
        self.assertEqual((stamp["icmpTypeCodeIPv4"], stamp["sourceAddress"]), (14 << 8, 0x0A000002))
        self.assertEqual((stamp["octetDeltaCount"], stamp["reverseOctetDeltaCount"]), (100, 50))

    def test_of_the_first_packet(self):
        """Class of service, VLAN and interface, where they are no part of the key; least and greatest length."""
        self.make()
        lengths = (100, 40, 1500, 60)
        rows = [
            packet(1000 + i, ipTotalLength=n, ipClassOfService=i, ingressInterface=7) for i, n in enumerate(lengths)
        ]
        rows[0]["vlanId"] = 5
        self.give(rows[:2])
        self.give(rows[2:])
        (row,) = self.rows()
        self.assertEqual((row["ipClassOfService"], row["vlanId"], row["ingressInterface"]), (0, 5, 7))
        self.assertEqual(row["octetDeltaCount"], 1700)

    def test_a_key_of_other_names(self):
        """VLAN and interface by name; flows of different VLANs are apart, strings too."""
        self.make(key="vlanId,oob.in,sourceAddress")
        base = packet(1000.0)
        self.give([base | {"vlanId": 1, "oob.in": b"eth0"}, base | {"vlanId": 1, "oob.in": b"eth1"}, base,
                   base | {"vlanId": 2, "oob.in": b"eth0"}, base | {"vlanId": 1, "oob.in": b"eth0"}])  # fmt: skip
        rows = {(r.get("vlanId"), r.get("oob.in")): r["packetDeltaCount"] for r in self.rows()}
        self.assertEqual(rows, {(1, b"eth0"): 2, (1, b"eth1"): 1, (2, b"eth0"): 1, (None, None): 1})

    def test_octets_of_segments_that_the_card_joined(self):
        """A length of 0 in the header of IP: the frame's is taken."""
        self.make()
        self.give([packet(1000.0, ipTotalLength=0) | {"raw.pktlen": 66000}, packet(1000.0) | {"raw.pktlen": 114}])
        self.assertEqual(self.rows()[0]["octetDeltaCount"], 66100)


class BoundTests(FlowCacheTestCase):
    """Room, time, sampling."""

    def test_more_flows_than_there_is_room_for(self):
        """Those without a packet for the longest time end early, with reason 5; no packet is lost."""
        self.make(max_flows=32)
        for i in range(100):
            self.give(
                [packet(1000 + i / 100, sourceTransportPort=i), packet(1000 + i / 100, sourceTransportPort=65535)]
            )
            self.assertLessEqual(self.cache.counters.figures["flows"](), 32)
        rows = self.rows()
        self.assertEqual(sum(r["packetDeltaCount"] for r in rows), 200)
        (busy,) = (r for r in rows if r["sourceTransportPort"] == 65535)
        self.assertEqual((busy["packetDeltaCount"], busy["flowEndReason"]), (100, 4))
        self.assertEqual({r["flowEndReason"] for r in rows if r["sourceTransportPort"] < 50}, {5})
        self.assertGreater(self.cache.counters.figures["ended"]["max_flows"], 60)

    def test_flows_of_one_moment_beyond_the_bound(self):
        """A flood in one batch, all at one time."""
        self.make(max_flows=10)
        self.give([packet(1000.0, sourceTransportPort=i) for i in range(5000)])
        self.assertLessEqual(self.cache.counters.figures["flows"](), 10)
        self.assertEqual(sum(r["packetDeltaCount"] for r in self.rows()), 5000)

    def test_a_file_of_an_earlier_time(self):
        """Its clock begins anew: what there was ends, and timeouts go on to work."""
        self.make()
        self.give([packet(9000.0)])
        self.give([packet(1000.0)])
        self.give([packet(1031.0)])
        ended = Counter((r["flowStartMilliseconds"], r["flowEndReason"]) for r in self.rows())
        self.assertEqual(ended, {(9_000_000, 4): 1, (1_000_000, 1): 1, (1_031_000, 4): 1})

    def test_families_of_one_batch(self):
        """They come one after another: neither has the times of the other, and one without packets ends too."""
        self.make()
        six = {"sourceIPv6Address": 5, "destinationIPv6Address": 7, "protocolIdentifier": 17, "ipTotalLength": 100}
        self.give([packet(1000.0), packet(1020.0), packet(1049.0)])
        self.give([six | {"oob.time.sec": at, "oob.time.usec": 0} for at in (1000, 1010, 1045)])
        self.give([packet(at) for at in (1050.0, 1079.0, 1108.0)])
        self.give([packet(1109.0)])
        self.cache.wake(0.0)
        found = [(r["flowStartMilliseconds"], r["flowEndMilliseconds"], r["flowEndReason"]) for r in self.rows(False)]
        self.assertEqual(found, [(1_000_000, 1_010_000, 1), (1_045_000, 1_045_000, 1)])
        found = [(r["flowStartMilliseconds"], r["flowEndMilliseconds"], r["flowEndReason"]) for r in self.rows()]
        self.assertEqual(found[2:], [(1_000_000, 1_109_000, 4)])

    def test_flows_end_while_no_packet_comes(self):
        """By the clock of the machine, with the reason of the timeout that was over first."""
        self.make()
        self.source.own_clock = False
        self.give([packet(1000.0), tcp(1000.0, SYN), tcp(1000.5, RST)])
        self.cache.wake(1003.0)
        self.assertEqual(self.rows(flush=False), [])
        self.cache.wake(1007.0)
        self.assertEqual([r["flowEndReason"] for r in self.rows(flush=False)], [3])
        self.cache.wake(1029.0)
        self.assertEqual(len(self.keep.batches), 1)
        self.cache.wake(1032.0)
        self.assertEqual([r["flowEndReason"] for r in self.rows(flush=False)], [3, 1])
        self.assertFalse(self.cache.holds)

    def test_the_end_of_the_files(self):
        """Everything ends then, and only then by the clock of the machine."""
        self.make()
        self.give([packet(1000.0)])
        self.cache.wake(1e9)
        self.assertEqual(self.rows(flush=False), [])
        self.source.at_end = True
        self.cache.wake(1e9)
        self.assertEqual([r["flowEndReason"] for r in self.rows(flush=False)], [4])
        self.assertFalse(self.cache.holds)

    @given(st.integers(1, 20), st.lists(st.integers(0, 500), max_size=5))
    def test_every_so_manieth_packet(self, every, places):
        """Also over the borders of batches; flows tell the interval, and scale=1 multiplies."""
        rows = [packet(1000 + i / 100, ipTotalLength=100 + i) for i in range(500)]
        for scale in (False, True):
            self.make(sampling=every, scale=scale)
            for part in cut(rows, places):
                self.give(part)
            (row,) = self.rows()
            factor = every if scale else 1
            taken = rows[::every]
            self.assertEqual(row["packetDeltaCount"], factor * len(taken))
            self.assertEqual(row["octetDeltaCount"], factor * sum(r["ipTotalLength"] for r in taken))
            self.assertEqual(row.get("samplingInterval"), every if every > 1 else None)

    @given(st.integers(2, 20), st.lists(st.integers(0, 500), max_size=5))
    def test_one_of_so_many_by_chance(self, every, places):
        """One of each group of so many, wherever batches begin."""
        self.make(sampling=every, sampling_method="random", key="sourceTransportPort")
        rows = [packet(1000.0, sourceTransportPort=i // every) for i in range(500 - 500 % every)]
        for part in cut(rows, places):
            self.give(part)
        found = self.rows()
        self.assertEqual({r["packetDeltaCount"] for r in found}, {1})
        self.assertEqual(len(found), len(rows) // every)

    def test_a_full_queue_below(self):
        """Flows wait, and a file is read no further, until there is room again."""
        self.make(max_flows=100_000)
        paused = []
        self.source.pause, self.source.resume = lambda: paused.append(1), lambda: paused.append(0)
        self.cache.pause()
        for at in (1000.0, 2000.0):
            self.give([packet(at, sourceTransportPort=i) for i in range(20_000)])
        self.cache.wake(0.0)
        self.assertEqual((self.keep.batches, paused), ([], [1]))
        self.cache.resume()
        self.assertEqual(paused, [1, 0])
        self.assertEqual(sum(r["packetDeltaCount"] for r in self.rows()), 40_000)

    def test_mistakes(self):
        """Unknown keys, one end without the other, times that cannot be."""
        options = {"key": "sourceAddress,sourceTransportPorts,vlanId", "biflow": True, "idle_timeout": 0.0}
        cache = FLOWCACHE("c", Options(FLOWCACHE.all_options(), options))
        found = dict.fromkeys(option for option, _ in cache.mistakes())
        text = " ".join(text for _, text in cache.mistakes())
        self.assertEqual(list(found), ["key", "idle_timeout"])
        self.assertIn("did you mean sourceTransportPort?", text)
        self.assertIn("sourceAddress without destinationAddress", text)


class KilledTests(FlowCacheTestCase):
    """A kill loses the packets of open flows; the ledger has their number."""

    def unsaved(self, **options):
        """Of five packets of three flows: with all open, and when one flow of two packets has ended."""
        path = Path(self.mktemp())
        self.make(**options)
        self.ledger = Ledger(path, self.graph)
        self.addCleanup(self.ledger.close)
        self.give(
            [tcp(1.0, SYN), tcp(1.1, SYN, back=True), packet(1.2), packet(1.3), packet(1.4, protocolIdentifier=1)]
        )
        before = former(path).unsaved("cache")
        self.cache._end_all()
        self.cache._send()
        return before, former(path).unsaved("cache"), len(self.rows())

    def test_open_flows(self):
        self.assertEqual((5, 0, 4), self.unsaved())

    def test_both_directions(self):
        self.assertEqual((5, 0, 3), self.unsaved(biflow=True))
