"""NetFlow v1 and v7 by octets written by hand and by tshark; v8 is refused by its name."""

import random
import struct
import subprocess

import numpy as np
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support import given, require_program
from tests.unit.ipfix.test_netflow import record5, v5
from tests.unit.ipfix.wire import Collected, hexed, ipv4
from tests.unit.packets import wire as packets

BEGINNING = hexed("c0000201 c6336407 cb007101 0003 0004 0000000a 000003e8") + struct.pack("!II", 90_000, 95_000)
"""From 192.0.2.1 to 198.51.100.7 by 203.0.113.1, interfaces 3 and 4, ten packets of 1000 octets."""
RECORD1 = BEGINNING + hexed("0400 0035 0000 11 20 1b 000000 00000000 00000000")
RECORD7 = BEGINNING + hexed("0400 0035 01 1b 11 20 fde8 fde9 18 10 0002 c0000263")
COMMON = {
    "srcaddr": ipv4("192.0.2.1"), "dstaddr": ipv4("198.51.100.7"), "nexthop": ipv4("203.0.113.1"), "input": 3,
    "output": 4, "dPkts": 10, "dOctets": 1000, "first": 90_000, "last": 95_000, "srcport": 1024, "dstport": 53,
    "tcp_flags": 0x1B, "prot": 17, "tos": 0x20, "flowStartMilliseconds": 990_250, "flowEndMilliseconds": 995_250,
}  # fmt: skip


def v1(*records, count=None, uptime=100_000):
    """A packet of v1, which has no number."""
    count = len(records) if count is None else count
    return struct.pack("!HHIII", 1, count, uptime, 1000, 250_000_000) + b"".join(records)


def v7(*records, number=0, count=None):
    """A packet of v7."""
    count = len(records) if count is None else count
    return struct.pack("!HHIIIII", 7, count, 100_000, 1000, 250_000_000, number, 0) + b"".join(records)


def v8(records=1):
    """A packet of v8, aggregated by autonomous systems."""
    head = struct.pack("!HHIIIIBBBBI", 8, records, 100_000, 1000, 0, 0, 0, 0, 1, 2, 0)
    return head + bytes(28 * records)


class ClassicTests(SynchronousTestCase):
    """Records of fixed layouts."""

    def test_version1(self):
        """V7-2: no masks, no autonomous systems, no number that could be lost; the version is templateId."""
        found = Collected()
        (row,) = found.rows(v1(RECORD1))
        self.assertEqual(COMMON, row)
        self.assertEqual((0, {}), (found.lost, found.errors))
        (batch,) = Collected().batches(v1(RECORD1, RECORD1))
        self.assertEqual([1, 1], batch.columns["templateId"].tolist())
        self.assertEqual((0, {}), (Collected().feed(v1(RECORD1), v1(RECORD1), v1(RECORD1)).lost, found.errors))

    def test_version7(self):
        """V7-1: as v5, with the flags of what is invalid and the router that was gone past; numbers count flows."""
        found = Collected()
        (row,) = found.rows(v7(RECORD7, number=5))
        more = {"src_as": 65000, "dst_as": 65001, "src_mask": 24, "dst_mask": 16, "flags": 2,
                "router_sc": ipv4("192.0.2.99")}  # fmt: skip
        self.assertEqual(COMMON | more, row)
        found.rows(v7(RECORD7, number=8))
        self.assertEqual((2, {}), (found.lost, found.errors))

    def test_version8(self):
        """V7-3: refused by name and counted; nothing else of the exporter is touched."""
        found = Collected()
        self.assertEqual(1, len(found.rows(v8(), v5(record5()), v8(7), b"\0\x08")))
        self.assertEqual(({"netflow8": 3}, 0), (found.errors, found.decoder.malformed))
        self.assertEqual(["netflow8", "netflow8"], [kind for kind in found.kinds if kind != "domain"][:2])

    def test_beside(self):
        """Versions of one exporter are domains of their own, whose numbers and templates do not meet."""
        found = Collected()
        rows = found.rows(
            v1(RECORD1), v5(record5(), engine=(0, 0)), v7(RECORD7), v5(record5(), number=1, engine=(0, 0))
        )
        self.assertEqual((4, 0, {}), (len(rows), found.lost, found.errors))

    def test_every_cut(self):
        """Each cut is malformed and raises nothing; octets behind the last record are counted."""
        for packet in (v1(RECORD1, RECORD1), v7(RECORD7, RECORD7)):
            for end in range(2, len(packet)):
                found = Collected()
                self.assertEqual(([], {"length": 1}), (found.rows(packet[:end]), found.errors), end)
            found = Collected()
            self.assertEqual((2, {"trailing": 1}), (len(found.rows(packet + b"abc")), found.errors))
        for packet in (v1(RECORD1, count=2), v7(RECORD7, count=0xFFFF)):
            found = Collected()
            self.assertEqual(([], {"length": 1}), (found.rows(packet), found.errors))

    def test_wanted(self):
        """By v5's names and the times; an exporter of IPv6 too."""
        found = Collected(frozenset({"dOctets", "flowEndMilliseconds"}), peer="2001:db8::1")
        self.assertEqual([{"dOctets": 1000, "flowEndMilliseconds": 995_250}] * 2, found.rows(v1(RECORD1), v7(RECORD7)))

    @given(st.integers(0, (1 << 32) - 1), st.lists(st.sampled_from("157"), min_size=1, max_size=12))
    def test_many_at_once(self, seed, versions):
        """Out of the rows of an array as one by one, whatever is between them."""
        chance, sent = random.Random(seed), []
        for number, version in enumerate(versions):
            records = [RECORD1, record5(), RECORD7]["157".index(version)]
            packet = {"1": v1, "5": v5, "7": v7}[version](*[records] * chance.randrange(4))
            sent.append(packet[: chance.randrange(2, len(packet))] if chance.random() < 0.2 else packet)
            del number
        one, many = Collected(), Collected()
        expected = one.rows(*sent)
        rows = np.zeros((len(sent), 1500), np.uint8)
        for place, packet in enumerate(sent):
            rows[place, : len(packet)] = np.frombuffer(packet, np.uint8)
        lengths = np.array([len(packet) for packet in sent])
        many.decoder.feed_slab([many.session] * len(sent), rows, lengths, 2000.0)
        self.assertEqual((expected, one.errors, one.lost), (many.rows(), many.errors, many.lost))


class TsharkTests(SynchronousTestCase):
    """tshark as a second opinion."""

    def test_fields(self):
        """Addresses, ports, octets, flags as tshark reads them."""
        require_program("tshark")
        path = self.mktemp()
        sent = [v1(RECORD1), v7(RECORD7)]
        with open(path, "wb") as file:
            file.write(packets.pcap([(1.0, packets.udp("192.0.2.1", "192.0.2.2", (2055, 2055), p)) for p in sent]))
        fields = ["srcaddr", "dstaddr", "nexthop", "srcport", "dstport", "packets", "octets", "protocol", "tcpflags",
                  "routersc"]  # fmt: skip
        run = subprocess.run(
            ["tshark", "-r", path, "-T", "fields", *(part for name in fields for part in ("-e", f"cflow.{name}"))],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        ours = ["192.0.2.1", "198.51.100.7", "203.0.113.1", "1024", "53", "10", "1000", "17"]
        for line, router in zip(run.stdout.splitlines(), ("", "192.0.2.99"), strict=True):
            said = line.split("\t")
            self.assertEqual((ours, 0x1B, router), (said[:8], int(said[8], 0), said[9] if len(said) > 9 else ""))
