"""PRINTPKT, PRINTFLOW and LOGEMU: ulogd2's lines, and those of packets that its run did not have."""

import json
import struct
from ipaddress import ip_address
from pathlib import Path

import numpy as np
from twisted.trial.unittest import SynchronousTestCase

from tests.support import shared_path
from tests.unit.packets.stacks import raw, through
from tests.unit.packets.test_headers import captured_raw
from tests.unit.packets.wire import ip, tcp, udp
from tests.unit.writing.text_rows import GOLDEN, batch_of, in_zone, plugin
from ulogd_tw.core.columns import Octets
from ulogd_tw.core.plugin import FLOW
from ulogd_tw.plugins.filters.base import BASE
from ulogd_tw.plugins.filters.printflow import PRINTFLOW
from ulogd_tw.plugins.filters.printpkt import PRINTPKT
from ulogd_tw.plugins.outputs import logemu
from ulogd_tw.plugins.outputs.logemu import LOGEMU

GIVEN = ("raw.pkt", "raw.pktlen", "oob.family", "oob.protocol", "oob.prefix", "oob.in", "oob.out", "oob.mark",
         "raw.mac", "oob.uid", "oob.gid", "oob.time.sec")  # fmt: skip
ENDS = ("192.0.2.1", "198.51.100.1")
ENDS6 = ("2001:db8::1", "2001:db8::2")


def golden(name):
    """The lines that ulogd2 wrote."""
    return shared_path(*GOLDEN, name).read_text().splitlines()


def logged():
    """The batch of packets that ulogd2 had, as NFLOG gave them to it."""
    rows = [json.loads(line) for line in golden("pkt.json")]
    packets = captured_raw(shared_path(*GOLDEN, "pkt.pcap").read_bytes())
    macs = [bytes.fromhex(row.get("mac.str", "").replace(":", "")) for row in rows]
    texts = {name: [row[name.replace("_", ".")].encode() for row in rows]
             for name in ("oob_prefix", "oob_in", "oob_out")}  # fmt: skip
    numbers = {name: [row.get(name.replace("_", "."), 0) for row in rows]
               for name in ("oob_family", "oob_protocol", "oob_mark", "oob_uid", "oob_gid")}  # fmt: skip
    batch = raw(packets, raw_mac=macs, **texts, **numbers)
    for name in ("oob.uid", "oob.gid"):
        batch.missing[name] = np.array([name not in row for row in rows])
    batch.missing["raw.mac"] = np.array([not mac for mac in macs])
    return batch


def printed(packets, family=2, **more):
    """The texts of packets that begin with IP."""
    batch = raw(packets, oob_family=[family] * len(packets), oob_protocol=[0x0806] * len(packets), **more)
    given = tuple(batch.schema)
    batches, _ = through(given, [(BASE, {}), (PRINTPKT, {})], [batch], ("print",))
    return [text.decode() for batch in batches for text in batch.columns["print"].to_list()]


class PrintpktTests(SynchronousTestCase):
    """Packets as text."""

    maxDiff = None

    def test_as_ulogd2(self):
        """Every line of ulogd2's, which come in the order of their families."""
        expected = [line.split(" vm ", 1)[1] for line in golden("pkt_logemu.log")]
        batches, _ = through(GIVEN[:-1], [(BASE, {}), (PRINTPKT, {})], [logged()], ("print",))
        texts = [text.decode() for batch in batches for text in batch.columns["print"].to_list()]
        four = [line for line in expected if "FLOWLBL" not in line]
        six = [line for line in expected if "FLOWLBL" in line]
        self.assertEqual(four, texts[: len(four)])
        self.assertEqual(six, texts[len(four) :])

    def test_few(self):
        """One packet at a time gives the same as many."""
        batch = logged()
        many, _ = through(GIVEN[:-1], [(BASE, {}), (PRINTPKT, {})], [batch], ("print",))
        texts = [text for part in many for text in part.columns["print"].to_list()]
        singles = [batch.take(slice(row, row + 1)) for row in range(batch.n)]
        single, _ = through(GIVEN[:-1], [(BASE, {}), (PRINTPKT, {})], singles, ("print",))
        self.assertEqual(sorted(texts), sorted(part.columns["print"].to_list()[0] for part in single))

    def test_icmp(self):
        """The detail of ICMP goes by its type: MTU, gateway, pointer, echo."""
        bodies = (
            (struct.pack("!BBHHH", 3, 4, 0, 0, 1400), "TYPE=3 CODE=4 MTU=1400 "),
            (struct.pack("!BBH4s", 5, 1, 0, bytes((10, 0, 0, 254))), "TYPE=5 CODE=1 GATEWAY=10.0.0.254 "),
            (struct.pack("!BBHBBH", 12, 0, 0, 20, 0, 0), "TYPE=12 CODE=0 PARAMETER=20 "),
            (struct.pack("!BBHHH", 8, 0, 0, 7, 9), "TYPE=8 CODE=0 ID=7 SEQ=9 "),
            (struct.pack("!BBHHH", 3, 1, 0, 7, 9), "TYPE=3 CODE=1 "),
        )
        texts = printed([ip(*ENDS, 1, body) for body, _ in bodies])
        self.assertEqual([text for _, text in bodies], [text.partition("PROTO=ICMP ")[2] for text in texts])

    def test_fragments(self):
        """Flags and offset; a later fragment has a protocol but no ports, and one that is cut is incomplete."""
        first = udp(*ENDS, (5, 6), bytes(20))
        packets = [ip(*ENDS, 17, first[20:], 0x2000), ip(*ENDS, 17, bytes(16), 3), ip(*ENDS, 6, b"ab")]
        packets.append(tcp(*ENDS, (1, 2), 3))
        head = "MAC= SRC=192.0.2.1 DST=198.51.100.1 "
        self.assertEqual(
            [
                head + "LEN=48 TOS=00 PREC=0x00 TTL=64 ID=7 MF PROTO=UDP SPT=5 DPT=6 LEN=28 ",
                head + "LEN=36 TOS=00 PREC=0x00 TTL=64 ID=7 FRAG:3 PROTO=UDP ",
                head + "LEN=22 TOS=00 PREC=0x00 TTL=64 ID=7 PROTO=TCP INCOMPLETE ",
                head + "LEN=40 TOS=00 PREC=0x00 TTL=64 ID=7 PROTO=TCP SPT=1 DPT=2 SEQ=3 ACK=1 WINDOW=1000 ACK URGP=0 ",
            ],
            printed(packets),
        )

    def test_ipv6(self):
        """Fragments, security headers, other protocols."""
        piece = struct.pack("!BBHI", 17, 0, 8 << 3, 0xABC) + bytes(8)
        spi = struct.pack("!II", 0xDEADBEEF, 1)
        tail = [text.partition("FLOWLBL=0 ")[2] for text in printed(
            [ip(*ENDS6, 44, piece), ip(*ENDS6, 50, spi), ip(*ENDS6, 89, bytes(8))], 10)]  # fmt: skip
        self.assertEqual(["FRAG: 64 ID: 00000abc PROTO=UDP ", "PROTO=ESP SPI=0xdeadbeef ", "PROTO=89 "], tail)

    def test_arp(self):
        """Requests and replies, whose sender has an address."""

        def arp(operation):
            return struct.pack("!HHBBH6s4s6s4s", 1, 0x0800, 6, 4, operation, b"\2\0\0\0\0\1", bytes((10, 0, 0, 1)),
                               bytes(6), bytes((10, 0, 0, 2)))  # fmt: skip

        head = "MAC= SRC=10.0.0.1 DST=10.0.0.2 PROTO=ARP "
        self.assertEqual(
            [head + "REQUEST ", head + "REPLY REPLY_MAC=02:00:00:00:00:01 ", head + "CODE=77 "],
            printed([arp(1), arp(2), arp(77)], 7),
        )

    def test_hostile_prefix(self):
        """A prefix cannot begin a line of its own."""
        (text,) = printed([udp(*ENDS, (1, 2), b"")], oob_prefix=[b"a\nNov 23 b"])
        self.assertTrue(text.startswith("a\\nNov 23 b MAC= SRC="), text)


class PrintflowTests(SynchronousTestCase):
    """Flows as text."""

    def test_as_ulogd2(self):
        """Every line of ulogd2's, but type and code of ICMP, which it swaps."""
        rows = [json.loads(line) for line in golden("flow_noip2str.json")]
        with_addresses = [json.loads(line) for line in golden("flow.json")]
        expected = [line.split(" vm ", 1)[1] for line in golden("flow_logemu.log")]
        self.assertEqual(len(rows), len(expected))
        got = []
        for row, other in zip(rows, with_addresses, strict=True):
            names = {"orig.ip.saddr": "src_ip", "orig.ip.daddr": "dest_ip", "reply.ip.saddr": "reply.ip.saddr.str",
                     "reply.ip.daddr": "reply.ip.daddr.str"}  # fmt: skip
            keys = {name: other[said] for name, said in names.items()}
            wanted = ("orig", "reply", "icmp", "ct")
            keys |= {name: value for name, value in row.items() if name.split(".")[0] in wanted}
            batch = batch_of([keys])
            (out,), _ = through(tuple(keys), [(PRINTFLOW, {})], [batch], ("print",), FLOW)
            got.append(out.columns["print"].to_list()[0].decode())
        swapped = [line.replace("TYPE=0 CODE=8", "TYPE=8 CODE=0") for line in expected]
        self.assertEqual(swapped, got)

    def test_many(self):
        """Many flows together give what each gives alone."""
        keys = ("orig.ip.saddr", "orig.ip.protocol", "orig.l4.sport", "icmp.type", "icmp.code", "ct.event",
                "orig.raw.pktlen")  # fmt: skip
        protocols, events = (1, 6, 17, 50, 58, 132), (1, 2, 4, 8)
        rows = [
            dict(zip(keys, (str(ip_address(n)), protocols[n % 6], n, n % 18, n % 3, events[n % 4], n * n), strict=True))
            for n in range(100)
        ]
        (many,), _ = through(keys, [(PRINTFLOW, {})], [batch_of(rows)], ("print",), FLOW)
        single, _ = through(keys, [(PRINTFLOW, {})], [batch_of([row]) for row in rows], ("print",), FLOW)
        self.assertEqual([batch.columns["print"].to_list()[0] for batch in single], many.columns["print"].to_list())
        self.assertEqual(
            b"[NEW] ORIG: SRC=0.0.0.0 PROTO=ICMP TYPE=0 CODE=0 BYTES=0 , REPLY: ", many.columns["print"].to_list()[0]
        )


class LogemuTests(SynchronousTestCase):
    """Lines in a file."""

    def setUp(self):
        in_zone(self, "UTC")
        self.patch(logemu.socket, "gethostname", lambda: "vm.example.org")

    def lines(self, *batches):
        path = Path(self.mktemp())
        out = plugin(LOGEMU, path)
        for batch in batches:
            for name in out.requests(frozenset()):
                from ulogd_tw.core.resolve import Recipe

                out.sources.add(name, [Recipe((name,))])
            out.write(batch)
        out.stop()
        return path.read_text()

    def test_as_ulogd2(self):
        """The octets of ulogd2's first line."""
        line = golden("pkt_logemu.log")[0]
        batch = batch_of([{"print": line.split(" vm ")[1], "oob.time.sec": 1795392638}])
        self.assertEqual(line + "\n", self.lines(batch))

    def test_times(self):
        """The time of the packet, or of output where it has none; a day of one digit has a zero, as ulogd2's."""
        rows = [{"print": "a", "oob.time.sec": 0}, {"print": "b", "oob.time.sec": 86399}]
        batch = batch_of(rows, now=1795392638.5)
        batch.missing["oob.time.sec"] = np.array([False, True])
        flow = batch_of([{"print": "c"}], now=1795392638.5)
        self.assertEqual("Jan 01 00:00:00 vm a\nNov 23 00:10:38 vm b\nNov 23 00:10:38 vm c\n", self.lines(batch, flow))

    def test_no_text(self):
        """Rows without a text are left out and counted."""
        batch = batch_of([{"print": "a"}, {"print": "b"}])
        batch.missing["print"] = np.array([True, False])
        batch.columns["print"] = Octets.of([b"", b"b"])
        self.assertEqual("Jan 01 00:00:00 vm b\n", self.lines(batch))
