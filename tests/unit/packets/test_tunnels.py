"""Packets within packets: what is inside is read as it is read alone; tshark reads the same."""

import ipaddress
import random
import struct

from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support import given
from tests.unit.packets import frames, plain, test_headers
from tests.unit.packets.stacks import through
from tests.unit.packets.test_headers import read_by_tshark
from tests.unit.plugins.filters.test_base import EVERY, KEYS, LINKED, keys_of, numbered, rows_of
from ulogd_tw.plugins.filters.base import BASE, TUNNEL

KINDS = ("ipip", "gre", "gre-ethernet", "vxlan", "vxlan-old", "geneve", "geneve-ip")
seeds = st.integers(0, (1 << 32) - 1)


def around(chance, body, protocol, six):
    """An IP packet with this body, and its addresses as integers of IPv6."""
    ends = [chance.randbytes(16 if six else 4) for _ in range(2)]
    if six:
        packet = struct.pack("!IHBB", 6 << 28, len(body), protocol, 9) + b"".join(ends) + body
        return packet, [int.from_bytes(end, "big") for end in ends]
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 1, 0, 9, protocol, 0) + b"".join(ends)
    return head + body, [0xFFFF << 32 | int.from_bytes(end, "big") for end in ends]


def tunnelled(chance, kind, six):
    """(packet, whether the inner one begins with Ethernet, inner packet, protocol, identifier, ends)."""
    ethernet = kind in ("gre-ethernet", "vxlan", "vxlan-old", "geneve")
    while True:
        inner = frames.ethernet(chance, True) if ethernet else frames.ip(chance, True)
        if not {4, 41, 47, 97, 137, 143} & {plain.read(inner, ethernet)[1].get("protocolIdentifier")}:
            break
    of_ip = 0x0800 if inner[0] >> 4 == 4 else 0x86DD
    ident = None
    if kind == "ipip":
        body, protocol = inner, 4 if inner[0] >> 4 == 4 else 41
    elif kind.startswith("gre"):
        checksum, key, sequence = (chance.random() < 0.5 for _ in range(3))
        flags = 0x8000 * checksum | 0x2000 * key | 0x1000 * sequence
        ident = chance.randrange(1 << 32) if key else None
        options = bytes(4 * checksum) + (struct.pack("!I", ident) if key else b"") + bytes(4 * sequence)
        body = struct.pack("!HH", flags, 0x6558 if ethernet else of_ip) + options + inner
        protocol = 47
    else:
        ident, protocol = chance.randrange(1 << 24), 17
        if kind.startswith("vxlan"):
            port, head = 4789 if kind == "vxlan" else 8472, struct.pack("!BBHI", 8, 0, 0, ident << 8)
        else:
            options = chance.randbytes(4 * chance.choice((0, 1, 5)))
            port = 6081
            head = struct.pack("!BBHI", len(options) // 4, 0, 0x6558 if ethernet else of_ip, ident << 8) + options
        body = struct.pack("!HHHH", 50000, port, 8 + len(head) + len(inner), 0) + head + inner
    packet, ends = around(chance, body, protocol, six)
    return packet, ethernet, inner, protocol, ident, ends


def inner_keys(packets):
    """The keys that BASE gives of what is inside, and those of the tunnels, of packets without a link header."""
    batch = numbered([(packet, False) for packet in packets], [101] * len(packets))
    asked = (*EVERY, *TUNNEL, "raw.pktlen")
    batches, filters = through(LINKED, [(BASE, {"tunnels": "inner"})], [batch], asked)
    return rows_of(batches), filters[0].plugin


class InsideTests(SynchronousTestCase):
    """BASE with tunnels=inner."""

    maxDiff = None

    @given(seeds, st.lists(st.tuples(st.sampled_from(KINDS), st.booleans()), min_size=1, max_size=12))
    def test_as_alone(self, seed, kinds):
        """The keys are those of the packet inside; the tunnel has its own; packets in no tunnel stay as they are."""
        chance = random.Random(seed)
        made = [tunnelled(chance, kind, six) for kind, six in kinds]
        others = [p for p in (frames.ip(chance, True) for _ in range(3)) if p[9 if p[0] >> 4 == 4 else 6] in (6, 132)]
        rows, _ = inner_keys([*(m[0] for m in made), *others])
        alone = keys_of([*((m[2], m[1]) for m in made), *((packet, False) for packet in others)])
        self.assertEqual([keys for _, keys in alone], [{n: v for n, v in r.items() if n in KEYS} for r in rows])
        for row, (_, _, _, protocol, ident, (source, destination)) in zip(rows, made, strict=False):
            found = tuple(row.get(name) for name in TUNNEL)
            self.assertEqual((protocol, ident, source, destination), found)
        self.assertTrue(all("tunnel.protocol" not in row for row in rows[len(made) :]))

    def test_nested(self):
        """Tunnels within tunnels: the innermost packet, and the outermost tunnel; five are too deep."""
        chance = random.Random(1)
        inner = packet = frames.ipv4(random.Random(5), True)
        self.assertIn(inner[9], (1, 6, 17, 33, 58, 132, 136))
        depths = []
        for depth in range(1, 6):
            packet, ends = around(chance, packet, 4, False)
            depths.append((packet, ends, depth))
        rows, _ = inner_keys([packet for packet, *_ in depths])
        ((_, keys),) = keys_of([(inner, False)])
        for row, (_, ends, depth) in zip(rows, depths, strict=True):
            found = {name: value for name, value in row.items() if name in KEYS}
            self.assertEqual(depth <= 4, found == keys, depth)
            self.assertEqual(ends, [row["tunnel.source"], row["tunnel.destination"]])

    @given(seeds, st.sampled_from(KINDS), st.booleans(), st.data())
    def test_any_cut(self, seed, kind, six, data):
        """Cut anywhere, or with wrong octets: nothing raises, and every packet goes on."""
        packet = bytearray(tunnelled(random.Random(seed), kind, six)[0])
        for place in data.draw(st.lists(st.integers(0, len(packet) - 1), max_size=3)):
            packet[place] = data.draw(st.integers(0, 255))
        size = data.draw(st.integers(0, len(packet)))
        whole = tunnelled(random.Random(seed + 1), kind, six)[0]
        rows, plugin = inner_keys([bytes(packet[:size]), whole])
        self.assertEqual((2, {}), (len(rows), dict(plugin.counters.dropped)))

    def test_outer(self):
        """By default the headers around are read, and there is no key of a tunnel."""
        packet, *_ = tunnelled(random.Random(3), "vxlan", False)
        ((_, keys),) = keys_of([(packet, False)])
        self.assertEqual((17, 4789), (keys["ip.protocol"], keys["udp.dport"]))

    def test_later_fragments(self):
        """What stands in a later fragment is no header."""
        packet = bytearray(tunnelled(random.Random(3), "ipip", False)[0])
        packet[6:8] = struct.pack("!H", 5)
        (row,), _ = inner_keys([bytes(packet)])
        self.assertNotIn("tunnel.protocol", row)


class TsharkTests(SynchronousTestCase):
    """What tshark reads inside."""

    def test_addresses(self):
        """The innermost addresses and protocol, and the network identifiers, of tunnels of every kind."""
        self.patch(test_headers, "PROTOCOLS", test_headers.PROTOCOLS | {"gre", "vxlan", "geneve"})
        made = [tunnelled(random.Random(seed), KINDS[seed % len(KINDS)], seed % 2 == 0) for seed in range(140)]
        made = [m for m in made if _addressed(m[2], m[1])]
        packets = [bytes(12) + struct.pack("!H", 0x0800 if m[0][0] >> 4 == 4 else 0x86DD) + m[0] for m in made]
        names = ["ip.src", "ipv6.src", "vxlan.vni", "geneve.vni", "gre.key", "udp.dstport"]
        rows = read_by_tshark(self, packets, names)
        ours, _ = inner_keys([m[0] for m in made])
        checked = 0
        for (packet, ethernet, *_), tshark, row in zip(made, rows, ours, strict=True):
            if "8472" in tshark["udp.dstport"][:1]:
                continue  # which tshark does not take for VXLAN
            four, six = tshark["ip.src"], tshark["ipv6.src"]
            outer_four = packet[0] >> 4 == 4
            said = [int(ipaddress.ip_address(a)) for a in four[outer_four:] + six[not outer_four :]]
            self.assertEqual(said, [row["ip.saddr"]] if "ip.saddr" in row else [], (packet.hex(), ethernet))
            checked += len(said)
            idents = [int(text, 0) for name in ("vxlan.vni", "geneve.vni", "gre.key") for text in tshark[name]]
            if idents:
                self.assertEqual(idents[0], row["tunnel.id"])
        self.assertGreater(checked, 60)


def _addressed(inner, ethernet):
    """Whether the packet inside is IP, straight in its frame."""
    return not ethernet or inner[12:14] in (b"\x08\x00", b"\x86\xdd")


MACS = "020000000002 020000000001"
INNER = "4500 0028 0001 0000 40 06 66cd 0a000001 0a000002 04d2 01bb 00000001 00000001 5018 03e8 0000 0000"
"""From 10.0.0.1 port 1234 to 10.0.0.2 port 443."""
FRAME = MACS + "0800" + INNER


def within(protocol, body, ports=None):
    """An IPv4 packet from 192.0.2.1 to 192.0.2.2 with this body, over UDP where there are ports."""
    body = bytes.fromhex(body)
    if ports is not None:
        body = struct.pack("!HHHH", *ports, 8 + len(body), 0) + body
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 1, 0, 9, protocol, 0)
    return head + bytes.fromhex("c0000201 c0000202") + body


GTP = "c0000201"
TUNNELLED = (
    (within(137, "000101ff" + INNER), 137, None),
    (within(143, FRAME), 143, None),
    (within(97, "3000" + FRAME), 97, None),
    (within(47, "0000 8847 000101ff" + INNER), 47, None),
    (within(47, "2000 6558 00abcd01" + FRAME), 47, 0xABCD01),
    (within(47, "0000 88be" + FRAME), 47, None),
    (within(47, "1000 88be 00000007 1001 0064 00000003" + FRAME), 47, None),
    (within(47, "1000 22eb 00000007 2001 0064 00000000 00000000" + FRAME), 47, None),
    (within(47, "1000 22eb 00000007 2001 0064 00000000 00000001 0000000000000000" + FRAME), 47, None),
    (within(17, "08000000 00001400" + FRAME, (5000, 4789)), 17, 20),
    (within(17, "0c000001 00001400" + INNER, (5000, 4790)), 17, 20),
    (within(17, "0c000003 00001400" + FRAME, (5000, 4790)), 17, 20),
    (within(17, "000101ff" + INNER, (5000, 6635)), 17, None),
    (within(17, "30ff 0028" + GTP + INNER, (2152, 2152)), 17, 0xC0000201),
    (within(17, "32ff 002c" + GTP + "0001 00 00" + INNER, (2152, 2152)), 17, 0xC0000201),
    (within(17, "34ff 0030" + GTP + "0000 00 85 01 1009 00" + INNER, (2152, 2152)), 17, 0xC0000201),
    (within(17, "34ff 0034" + GTP + "0000 00 c0 01 0001 85 01 1009 00" + INNER, (2152, 2152)), 17, 0xC0000201),
)  # fmt: skip
"""Packets, the protocol that carries what is inside, and its identifier."""


class KindTests(SynchronousTestCase):
    """Headers of tunnels written by hand from their specifications."""

    def row(self, packet, ethernet=False):
        batch = numbered([(packet, ethernet)], [1 if ethernet else 101])
        batches, _ = through(LINKED, [(BASE, {"tunnels": "inner"})], [batch], (*EVERY, *TUNNEL))
        (row,) = rows_of(batches)
        return row

    def test_inside(self):
        """The packet inside, protocol and identifier of the tunnel."""
        for packet, protocol, ident in TUNNELLED:
            row = self.row(packet)
            found = tuple(row.get(name) for name in ("ip.saddr", "tcp.sport", "tunnel.protocol", "tunnel.id"))
            self.assertEqual((0x0A000001, 1234, protocol, ident), found, packet.hex())
            self.assertEqual(0xFFFFC0000201, row["tunnel.source"])

    def test_every_cut(self):
        """Cut at any octet, alone or between others: the row is there, and its neighbours are as they were."""
        whole = TUNNELLED[0][0]
        for packet, *_ in TUNNELLED:
            cuts = [packet[:size] for size in range(len(packet))]
            rows, plugin = inner_keys([whole, *(each for cut in cuts for each in (cut, whole))])
            self.assertEqual((2 * len(cuts) + 1, {}), (len(rows), dict(plugin.counters.dropped)))
            same = [row for row in rows if (row.get("tunnel.protocol"), row.get("tcp.sport")) == (137, 1234)]
            complete = sum(packet == whole and len(cut) >= 46 for cut in cuts)
            self.assertEqual(len(cuts) + 1 + complete, len(same), packet.hex())

    def test_ethernet_over_mpls(self):
        """A frame behind a label stack, with a control word or without (case 29); there are no ends of the tunnel."""
        stack = MACS + "8847 000100ff 000201ff"
        for behind in ("00000000" + FRAME, FRAME, "00000000" + MACS + "8100 0064 0800" + INNER):
            row = self.row(bytes.fromhex(stack + behind), True)
            found = tuple(row.get(name) for name in ("ip.saddr", "tcp.sport", *TUNNEL))
            self.assertEqual((0x0A000001, 1234, 137, 32, None, None), found, behind)

    def test_no_tunnel(self):
        """What cannot be read inside, or is none, stays as it is: the headers around are not lost."""
        for packet in (
            within(47, "0000 0001" + INNER),
            within(47, "0000 00fe" + INNER),
            within(47, "3081 880b 0028 0001 00000001 00000001" + INNER),
            within(17, "00000001 00000100" + INNER, (5000, 6081)),
            within(17, "00000000 00001400" + FRAME, (5000, 4789)),
            within(17, "32fe 002c 00000001 00000000" + INNER, (2152, 2152)),
            within(17, "0c000007 00001400" + INNER, (5000, 4790)),
            within(17, "08000000", (5000, 4789)),
            within(17, "08000000 00001400" + MACS + "1234" + INNER, (5000, 4789)),
            within(17, "30ff 0028 00000001" + "11" + INNER, (2152, 2152)),
            within(4, "51" + INNER[2:]),
            within(41, "71" + INNER[2:]),
            within(143, MACS + "1234" + INNER),
            bytes.fromhex(MACS + "8847 000101ff 00000000" + MACS + "1234" + INNER),
        ):
            ethernet = packet[:1] == b"\x02"
            row = self.row(packet, ethernet)
            self.assertNotIn("tunnel.protocol", row, packet.hex())
            if not ethernet:
                self.assertEqual(0xC0000201, row["ip.saddr"])
