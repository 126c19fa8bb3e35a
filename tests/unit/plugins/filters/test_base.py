"""BASE: ulogd2's keys of packets, against ulogd2's own output and against one packet read at a time."""

import json
import random

from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support import given, shared_path
from tests.unit.packets import frames, plain
from tests.unit.packets.stacks import raw, through
from tests.unit.packets.test_headers import captured_raw
from ulogd_tw.core.batch import Batch
from ulogd_tw.core.columns import Octets, Pieces
from ulogd_tw.plugins.filters.base import BASE, COMMON, FOUND

GIVEN = ("raw.pkt", "raw.pktlen", "oob.family", "oob.protocol")
LINKED = ("raw.pkt", "raw.pktlen", "raw.linktype")
EVERY = (*FOUND, *COMMON, "oob.family", "oob.protocol")
seeds = st.integers(0, (1 << 32) - 1)
KEYS = frozenset(FOUND) | {"icmp.parameter"}


def rows_of(batches):
    """The plain rows, in the order of the key `raw.pktlen`, in which tests number packets."""
    rows = [row for batch in batches for row in batch.rows()]
    return sorted(rows, key=lambda row: row["raw.pktlen"])


def numbered(packets, links):
    """A batch whose raw.pktlen numbers the packets."""
    batch = raw([packet for packet, _ in packets], raw_linktype=links)
    batch.columns["raw.pktlen"][:] = range(len(packets))
    return batch


def keys_of(packets, asked=EVERY):
    """(family, ulogd2's keys) of each packet (octets, whether with Ethernet) in one batch."""
    links = [1 if link else 101 if link is not None else 147 for _, link in packets]
    batches, _ = through(LINKED, [(BASE, {})], [numbered(packets, links)], (*asked, "raw.pktlen"))
    families = {2: 4, 10: 6, 7: 0x0806, None: 0}
    return [
        (families[row.get("oob.family")], {name: value for name, value in row.items() if name in KEYS})
        for row in rows_of(batches)
    ]


class BaseTests(SynchronousTestCase):
    """The filter in a stack."""

    maxDiff = None

    def test_as_ulogd2(self):
        """The packets that ulogd2 logged, key by key as it printed them; but tcp.offset, which it gets wrong."""
        packets = captured_raw(shared_path("ulogd2", "golden", "out", "pkt.pcap").read_bytes())
        lines = shared_path("ulogd2", "golden", "out", "pkt.json").read_text().splitlines()
        said = [json.loads(line) for line in lines]
        self.assertEqual(len(said), len(packets))
        batch = raw(
            packets, oob_family=[row["oob.family"] for row in said], oob_protocol=[r["oob.protocol"] for r in said]
        )
        batch.columns["raw.pktlen"][:] = range(len(packets))
        batches, _ = through(GIVEN, [(BASE, {})], [batch])
        self.assertEqual(2, len(batches))
        for theirs, ours in zip(said, rows_of(batches), strict=True):
            protocol = {6: "tcp", 17: "udp"}.get(theirs["ip.protocol"], "")
            ports = {"src_port": f"{protocol}.sport", "dest_port": f"{protocol}.dport"}
            theirs = {ports.get(name, name): value for name, value in theirs.items()}
            found = {name: value for name, value in theirs.items() if name in FOUND and name != "tcp.offset"}
            addresses = {"ip.saddr", "ip.daddr", "tcp.offset"}
            if "icmp.csum" in found:  # ulogd2 has its octets in the order of this machine
                found["icmp.csum"] = int.from_bytes(found["icmp.csum"].to_bytes(2, "little"), "big")
            if "icmpv6.csum" in found:
                found["icmpv6.csum"] = int.from_bytes(found["icmpv6.csum"].to_bytes(2, "little"), "big")
            self.assertEqual(found, {n: v for n, v in ours.items() if n in FOUND and n not in addresses})
            self.assertEqual(theirs["ip.protocol"] == 6, "tcp.offset" in ours)
            self.assertIn(ours.get("tcp.offset", 8), (5, 8, 10))
            self.assertTrue(addresses - {"tcp.offset"} <= set(ours))

    @given(st.lists(seeds, max_size=30))
    def test_row_by_row(self, several):
        """Each packet of many has the keys that it has when it is read alone."""
        packets = [frames.any_packet(random.Random(seed)) for seed in several]
        for packet, one, other in zip(
            packets, [plain.read_keys(*packet) for packet in packets], keys_of(packets), strict=True
        ):
            self.assertEqual(one, other, packet)

    @given(seeds)
    def test_every_cut(self, seed):
        """A packet cut anywhere: what is not there is missing, nothing raises."""
        packet, link = frames.any_packet(random.Random(seed))
        cuts = [(packet[:size], link) for size in range(len(packet) + 1)]
        for cut, one, other in zip(cuts, [plain.read_keys(*cut) for cut in cuts], keys_of(cuts), strict=True):
            self.assertEqual(one, other, cut)

    @given(st.lists(seeds, max_size=10), st.frozensets(st.sampled_from(sorted(FOUND))))
    def test_wanted(self, several, asked):
        """Only what is wanted is there, and it is the same."""
        packets = [frames.any_packet(random.Random(seed)) for seed in several]
        expected = [{name: value for name, value in found.items() if name in asked} for _, found in keys_of(packets)]
        links = [1 if link else 101 if link is not None else 147 for _, link in packets]
        batches, _ = through(LINKED, [(BASE, {})], [numbered(packets, links)], (*asked, "raw.pktlen"))
        got = [{n: v for n, v in row.items() if n not in LINKED} for row in rows_of(batches)]
        self.assertEqual(expected, got)

    def test_common(self):
        """One key for all transports and both families; what a packet is as a flow."""
        tcp = bytes.fromhex("1f90005000000001000000025012000000000000")
        udp = bytes.fromhex("0035003500080000")
        four = bytes.fromhex("4500002800000000400600000a0000010a000002") + tcp
        six = bytes.fromhex("6000000000081140") + bytes(31) + b"\1" + udp
        asked = ("sourceTransportPort", "protocolIdentifier", "tcpControlBits", "octetDeltaCount", "packetDeltaCount",
                 "sourceAddress", "ipTTL")  # fmt: skip
        batches, _ = through(LINKED, [(BASE, {})], [raw([four, six, four], raw_linktype=[101] * 3)], asked)
        self.assertEqual([2, 1], [batch.n for batch in batches])
        first, second = (next(batch.rows()) for batch in batches)
        self.assertEqual((8080, 6, 0x012, 40, 1, 64), tuple(first[name] for name in (*asked[:5], "ipTTL")))
        self.assertEqual((53, 17, 48, 1, 64), tuple(second[n] for n in (*asked[:2], *asked[3:5], "ipTTL")))
        self.assertNotIn("tcpControlBits", second)
        self.assertEqual((0x0A000001, 0), (first["ip.saddr"], second["ip.saddr"]))
        self.assertNotIn("raw.pkt", first)

    def test_faults(self):
        """Packets that are cut, make no sense, or are of a link that nobody knows are passed on and counted."""
        whole = bytes.fromhex("4500002800000000400600000a0000010a000002") + bytes(12) + b"\x50" + bytes(7)
        wrong = b"\x41" + whole[1:]
        packets = [(whole, 101), (whole[:30], 101), (whole[:10], 101), (wrong, 101), (b"\x65" + whole, 12)]
        packets.append((whole, 147))
        batch = raw([packet for packet, _ in packets], raw_linktype=[link for _, link in packets])
        batches, nodes = through(LINKED, [(BASE, {})], [batch], ("ip.saddr", "tcp.sport"))
        self.assertEqual({"cut": 3, "malformed": 1, "link": 1}, dict(nodes[0].plugin.counters.errors))
        self.assertEqual(6, sum(batch.n for batch in batches))
        self.assertEqual(2, sum("tcp.sport" in row for batch in batches for row in batch.rows()))

    def test_pieces(self):
        """Packets that lie anywhere in a buffer give the same, and are passed on where somebody asks for them."""
        packets = [frames.ethernet(random.Random(seed)) for seed in range(50)]
        batch = raw(packets, raw_linktype=[1] * 50)
        buffer = Octets.of([b"x" * 16 + packet for packet in packets])
        pieces = Pieces(buffer.data, buffer.offsets[:-1] + 16, buffer.lengths - 16)
        other = Batch(batch.schema, batch.columns | {"raw.pkt": pieces}, n=50, now=0.0)
        one, _ = through(LINKED, [(BASE, {})], [batch], (*EVERY, "raw.pkt"))
        two, _ = through(LINKED, [(BASE, {})], [other], (*EVERY, "raw.pkt"))
        rows = [[list(b.rows()) for b in batches] for batches in (one, two)]
        self.assertEqual(rows[0], rows[1])
        self.assertEqual(sorted(packets), sorted(row["raw.pkt"] for batch in rows[1] for row in batch))

    def test_bridge(self):
        """Of a bridge, what a packet is follows from its EtherType."""
        packet = bytes.fromhex("0001080006040002020000000001c0a80001020000000002c0a80002")
        batches, _ = through(GIVEN, [(BASE, {})], [raw([packet], oob_family=[7], oob_protocol=[0x0806])])
        (row,) = batches[0].rows()
        self.assertEqual((2, 0xC0A80001, 0xC0A80002), (row["arp.operation"], row["arp.saddr"], row["arp.daddr"]))
        self.assertEqual(bytes.fromhex("020000000001"), row["arp.shwaddr"])
