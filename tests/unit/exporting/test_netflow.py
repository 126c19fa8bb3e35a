"""The exporter's NetFlow v9 and v5, read octet by octet as RFC 3954 and Cisco's description of v5 have them."""

import struct

import numpy as np
from hypothesis import strategies as st

from tests.support import given
from tests.unit.exporting.doubles import V4, flows
from tests.unit.ipfix.wire import Collected
from tests.unit.plugins.outputs.test_ipfix import ExporterCase, RecordsCase
from ulogd_tw.core.options import Options
from ulogd_tw.ipfix.wire_format import NetFlow9
from ulogd_tw.plugins.outputs.ipfix import IPFIX

START, END = 1700000000250, 1700000005999
V5 = struct.Struct("!4s4s4sHHIIIIHHxBBBHHBBxx")


class NetFlowCase(ExporterCase):
    """What goes out of an exporter over UDP."""

    def sent(self, *batches, **options):
        plugin = self.exporter(*batches, collectors=("udp:192.0.2.1",), **options)
        for batch in batches:
            self.assertIsNone(plugin.write(batch))
        self.tick(plugin)
        self.plugin = plugin
        self.end()
        return self.sockets[-1].sent


class Version9Tests(NetFlowCase):
    """NetFlow v9 (RFC 3954)."""

    def read(self, packets):
        """(template id, {type: number}) of each record; times of flows are made absolute."""
        templates, found, self.headers = {}, [], []
        for packet in packets:
            version, count, uptime, seconds, sequence, source = struct.unpack_from("!HHIIII", packet)
            self.assertEqual((9, len(self.headers), 0), (version, sequence, len(packet) % 4))
            self.headers.append(source)
            at, records = 20, 0
            while at < len(packet):
                ident, length = struct.unpack_from("!HH", packet, at)
                self.assertEqual(0, length % 4)
                body, at = packet[at + 4 : at + length], at + length
                if ident == 0:
                    while len(body) >= 4:
                        number, fields = struct.unpack_from("!HH", body)
                        words = struct.unpack_from(f"!{2 * fields}H", body, 4)
                        templates[number] = list(zip(words[::2], words[1::2], strict=True))
                        body, records = body[4 + 4 * fields :], records + 1
                    continue
                size = sum(octets for _, octets in templates[ident])
                self.assertLess(len(body) % size, 4)  # padding
                for start in range(0, len(body) // size * size, size):
                    record, place = {}, start
                    for kind, octets in templates[ident]:
                        record[kind], place = int.from_bytes(body[place : place + octets], "big"), place + octets
                    for kind in {21, 22} & set(record):
                        record[kind] = 1000 * seconds - uptime + record[kind]
                    found.append((ident, record))
                    records += 1
            self.assertEqual(count, records)
        return found

    def test_two_directions(self):
        """As over IPFIX, but for times, which are milliseconds of uptime."""
        found = self.read(self.sent(flows(1), version="9", oid=77))
        (ident, original), (_, reply) = found
        self.assertEqual(256, ident)
        common = {4: 6, 22: START, 21: END, 136: 3, 148: 100}
        self.assertEqual({8: V4["a"], 12: V4["b"], 7: 1024, 11: 443, 1: 1000, 2: 10, 61: 0} | common, original)
        self.assertEqual((2**32, 1), (reply[1], reply[61]))
        self.assertEqual({77}, set(self.headers))

    def test_rows_of_another_exporter(self):
        """All keys that v9 can have: no enterprises, no variable lengths; times as uptimes."""
        batch = RecordsCase.collected(self, 2, sourceIPv4Address=[1, 2], octetDeltaCount=5, bgpSourceAsNumber=64512,
                                      flowStartMilliseconds=START)  # fmt: skip
        found = self.read(self.sent(batch, version="9"))
        self.assertEqual([{8: n, 1: 5, 16: 64512, 22: START} for n in (1, 2)], [record for _, record in found])

    def test_old_flows(self):
        """Times that no uptime can tell (49 days) stay absolute, under a template of their own."""
        old = flows(1, flow__start__sec=1600000000, flow__end__sec=1600000009)
        found = self.read(self.sent(old, flows(1), version="9"))
        self.assertEqual([1600000000250, 1600000000250, None, None], [r.get(152) for _, r in found])
        self.assertEqual([None, None, START, START], [r.get(22) for _, r in found])

    def test_long_run(self):
        """The uptime begins anew before it is over; what was told before then is as right as what comes then."""
        form = NetFlow9(1_700_000_000.0)
        for day in range(120):
            now = 1_700_000_000.0 + 86400 * day
            form.keep(now)
            header = struct.unpack("!HHIIII", form.pack(1, 20, 0, 1, now))
            ms = np.array([now * 1000 - 5000], np.uint64)
            self.assertTrue(form.tells(ms).all())
            self.assertEqual(5000, header[2] - int(form.uptime(ms)[0]))

    @given(st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(0, 3)), min_size=1, max_size=80))
    def test_any(self, rows):
        """Whatever rows lack, and however they lie in packets: all arrive, by our own decoder too."""
        self.setUp()
        masks = {"orig.raw.pktlen": [row[0] for row in rows], "ct.id": [row[1] for row in rows]}
        nat = [V4["nat"] if row[2] == 1 else V4["a"] for row in rows]
        packets = self.sent(flows(len(rows), missing=masks, reply__ip__daddr=nat), version="9", mtu=600)
        found = self.read(packets)
        self.assertEqual(2 * len(rows), len(found))
        expected = sorted(1000 + i for i, row in enumerate(rows) if not row[0])
        self.assertEqual(expected, sorted(r[1] for _, r in found if r[61] == 0 and 1 in r))
        collected = Collected()
        batches = [batch for packet in packets for batch in collected.batches(packet)]
        self.assertEqual((2 * len(rows), {}, 0), (sum(b.n for b in batches), dict(collected.errors), collected.lost))
        self.assertTrue(all(len(packet) <= 572 for packet in packets))


class Version5Tests(NetFlowCase):
    """NetFlow v5."""

    NAMES = ("srcaddr", "dstaddr", "nexthop", "input", "output", "packets", "octets", "first", "last", "srcport",
             "dstport", "flags", "prot", "tos", "src_as", "dst_as", "src_mask", "dst_mask")  # fmt: skip

    def read(self, packets):
        found, self.counts = [], []
        for packet in packets:
            head = struct.unpack_from("!HHIIIIBBH", packet)
            version, count, uptime, seconds, nanoseconds, sequence, kind, engine, sampling = head
            self.assertEqual((5, 24 + 48 * count, len(found)), (version, len(packet), sequence))
            self.assertEqual((0, 0), (nanoseconds, sampling))
            self.counts.append((count, kind, engine))
            for start in range(24, len(packet), 48):
                record = dict(zip(self.NAMES, V5.unpack_from(packet, start), strict=True))
                record |= {edge: 1000 * seconds - uptime + record[edge] for edge in ("first", "last")}
                record |= {side: int.from_bytes(record[side], "big") for side in ("srcaddr", "dstaddr", "nexthop")}
                found.append(record)
        return found

    def test_two_directions(self):
        original, reply = self.read(self.sent(flows(1, reply__raw__pktlen=7), version="5", oid=0x0102))
        nothing = dict.fromkeys(self.NAMES, 0)
        common = {"first": START, "last": END, "prot": 6}
        self.assertEqual(nothing | common | {"srcaddr": V4["a"], "dstaddr": V4["b"], "srcport": 1024, "dstport": 443,
                                             "octets": 1000, "packets": 10}, original)  # fmt: skip
        self.assertEqual((V4["b"], 443, 7, 20), tuple(reply[n] for n in ("srcaddr", "srcport", "octets", "packets")))
        self.assertEqual([(2, 1, 2)], self.counts)

    def test_packets(self):
        """At most 30 records in a packet; sequence numbers count records."""
        self.assertEqual(200, len(self.read(self.sent(flows(100, reply__raw__pktlen=1), version="5"))))
        self.assertEqual([30] * 6 + [20], [count for count, _, _ in self.counts])

    def test_large_counters(self):
        """A counter of more than 32 bits becomes several records, whose sum it is."""
        octets = 3 * 2**32 + 5
        found = self.read(self.sent(flows(2, orig__raw__pktlen=[octets, 9], reply__raw__pktcount=0), version="5"))
        first = [r for r in found if r["srcport"] == 1024]
        self.assertEqual((octets, 10), (sum(r["octets"] for r in first), sum(r["packets"] for r in first)))
        self.assertEqual((4, 5), (len(first), len(found)))

    def test_icmp(self):
        """Type and code stand in the place of the destination's port."""
        found = self.read(self.sent(flows(1, orig__ip__protocol=1, icmp__type=8, icmp__code=0), version="5"))
        self.assertEqual((0, 0x0800), (found[0]["srcport"], found[0]["dstport"]))

    def test_ipv6(self):
        """There is no room for it: counted."""
        self.assertEqual([], self.read(self.sent(flows(3, six=True), version="5")))
        self.assertEqual({"ipv6": 6}, dict(self.plugin.counters.dropped))

    def test_rows_of_another_exporter(self):
        """What v5 has and the row too; a number that is too large is 0 and counted."""
        batch = RecordsCase.collected(
            self, 2, sourceIPv4Address=1, destinationIPv4Address=2, octetDeltaCount=5, packetDeltaCount=1,
            bgpSourceAsNumber=[64512, 1 << 20], ipNextHopIPv4Address=9, tcpControlBits=0x12, ingressInterface=7,
        )  # fmt: skip
        found = self.read(self.sent(batch, version="5"))
        names = ("nexthop", "src_as", "flags", "input", "octets", "packets")
        self.assertEqual([(9, 64512, 0x12, 7, 5, 1), (9, 0, 0x12, 7, 5, 1)],
                         [tuple(record[name] for name in names) for record in found])  # fmt: skip
        self.assertEqual({"unfit": 1}, dict(self.plugin.counters.errors))


class MistakesTests(ExporterCase):
    """What NetFlow cannot do."""

    def test_mistakes(self):
        for options, expected in (
            ({"version": "9", "collectors": ("tcp:192.0.2.1",)}, ["version"]),
            ({"version": "5", "collectors": ("udp:192.0.2.1",), "spool": "/tmp"}, ["spool"]),
            ({"version": "5", "collectors": ("udp:192.0.2.1",), "fields": "all"}, ["fields"]),
            ({"version": "9", "collectors": ("udp:192.0.2.1",), "fields": "biflow"}, ["fields"]),
            ({"version": "9", "collectors": ("udp:192.0.2.1",)}, []),
        ):
            plugin = IPFIX("e", Options(IPFIX.all_options(), options))
            self.assertEqual(expected, [option for option, _ in plugin.mistakes()], options)


class ClockSetTests(NetFlowCase):
    """Somebody sets the clock of an exporter of NetFlow v9."""

    def test_uptime_goes_on(self):
        """It never falls, as a collector takes that for a restart; times of flows are those of the new clock."""
        for step in (-3600.0, 3600.0):
            plugin = self.exporter(flows(1), collectors=("udp:192.0.2.1",), version="9")
            plugin.write(flows(1))
            plugin.wake(plugin.clock())
            self.ahead += step
            plugin.clock_set(plugin.clock(), step)
            end = int(plugin.clock())
            plugin.write(flows(1, flow__end__sec=end, flow__start__sec=end))
            self.reactor.advance(1.0)
            plugin.wake(plugin.clock())
            uptimes = [struct.unpack_from("!I", packet, 4)[0] for packet in self.sockets[-1].sent]
            self.assertEqual(sorted(uptimes), uptimes)
            self.assertLess(uptimes[-1] - uptimes[0], 10_000)
            reader = Version9Tests()
            found = [record for _, record in reader.read(self.sockets[-1].sent)]
            self.assertEqual(
                [END + 1000 * int(step), 1000 * end + 999], [record[21] for record in found if record[8] == V4["a"]]
            )
            self.end()
