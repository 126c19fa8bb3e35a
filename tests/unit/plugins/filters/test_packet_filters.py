"""HWHDR, IFINDEX, IP2BIN and IP2HBIN: what they add to packets and flows."""

import errno
import json
import struct
from ipaddress import ip_address

import numpy as np
from twisted.internet import defer
from twisted.trial.unittest import SynchronousTestCase

from tests.support import shared_path
from tests.unit.packets.stacks import raw, through
from tests.unit.writing.text_rows import GOLDEN, batch_of
from ulogd_tw.core import types
from ulogd_tw.core.batch import Batch, Schema
from ulogd_tw.core.errors import MessageError, StartError
from ulogd_tw.core.keys import known
from ulogd_tw.core.plugin import FLOW, PACKET
from ulogd_tw.plugins.filters import ifindex
from ulogd_tw.plugins.filters.hwhdr import HWHDR
from ulogd_tw.plugins.filters.ifindex import IFINDEX
from ulogd_tw.plugins.filters.ip2bin import IP2BIN
from ulogd_tw.plugins.filters.ip2hbin import IP2HBIN
from ulogd_tw.plugins.filters.mark import MARK
from ulogd_tw.transports.errors import NetlinkError
from ulogd_tw.transports.netlink import nlmsg
from ulogd_tw.transports.netlink.rtnetlink import link


class HwhdrTests(SynchronousTestCase):
    """Addresses of hardware as text."""

    texts = ("mac.saddr.str", "mac.daddr.str", "mac.str", "raw.type")

    def rows(self, batch, asked=None):
        (out,), _ = through(tuple(batch.schema), [(HWHDR, {})], [batch], asked or self.texts, PACKET)
        return list(out.rows())

    def test_as_ulogd2(self):
        """What ulogd2 made of the headers that NFLOG gave it: Ethernet, loopback, none."""
        said = [json.loads(line) for line in shared_path(*GOLDEN, "pkt.json").read_text().splitlines()]
        headers = [bytes.fromhex(row.get("mac.str", "").replace(":", "")) for row in said]
        senders = [bytes.fromhex(row.get("mac.saddr.str", "").replace(":", "")) for row in said]
        batch = raw(
            headers, raw_mac=headers, raw_type=[row.get("raw.type", 0) for row in said],
            raw_mac_len=[row.get("raw.mac_len", 0) for row in said], **{"raw_mac.saddr": senders},
        )  # fmt: skip
        batch.missing["raw.mac"] = batch.missing["raw.mac.saddr"] = np.array([not header for header in headers])
        batch.missing["raw.type"] = batch.missing["raw.mac_len"] = batch.missing["raw.mac"]
        for theirs, ours in zip(said, self.rows(batch), strict=True):
            expected = {name: theirs[name] for name in self.texts if name in theirs}
            got = {name: ours[name] for name in self.texts if name in ours}
            got = {name: value.decode() if isinstance(value, bytes) else value for name, value in got.items()}
            self.assertEqual(expected, got)

    def test_header_alone(self):
        """Without raw.type and raw.mac.saddr: a header of 14 octets is one of Ethernet, others are none."""
        frame = bytes.fromhex("0200000000020200000000010806")
        batch = raw([b"", b"", b""], raw_mac=[frame, frame[:9], b""])
        one, two, three = self.rows(batch, (*self.texts, "oob.protocol"))
        self.assertEqual(
            (b"02:00:00:00:00:01", b"02:00:00:00:00:02", b"02:00:00:00:00:02:02:00:00:00:00:01:08:06", 1, 0x0806),
            tuple(one[name] for name in (*self.texts, "oob.protocol")),
        )
        self.assertEqual({"mac.str": b"02:00:00:00:00:02:02:00:00", "raw.type": 0xFFFF},
                         {name: value for name, value in two.items() if name in self.texts})  # fmt: skip
        self.assertEqual(set(), set(self.texts) & set(three))

    def test_lies(self):
        """A length that is more than there are octets."""
        batch = raw([b""], raw_mac=[b"\1\2\3"], raw_mac_len=[14], raw_type=[1])
        (row,) = self.rows(batch)
        self.assertEqual({"mac.str": b"01:02:03", "raw.type": 1}, {n: v for n, v in row.items() if n in self.texts})

    def test_nothing(self):
        """Packets without any of it pass as they are."""
        (row,) = self.rows(raw([b"x"]))
        self.assertEqual({"raw.pkt": b"x", "raw.pktlen": 1}, row)


class Port:
    """A netlink socket in memory."""

    there = ()
    """Interfaces of the kernel: number and name."""
    refusals = ()
    """Errors with which the next requests are answered."""

    def __init__(self, events, lost, **given):
        self.events, self.lost, self.given = events, lost, given
        self.asked = []

    def open(self):
        pass

    start = stop = open

    def request(self, *asked):
        *request, received = asked
        self.asked.append(tuple(request))
        received(nlmsg.in_rows([change(16, index, name) for index, name in self.there]))
        if self.refusals:
            number, *Port.refusals = self.refusals
            return defer.fail(NetlinkError(number))
        return defer.succeed([])


def change(kind, index, name, family=0):
    """A message about a link, as rtnetlink(7) has it."""
    attributes = struct.pack("=HH16s", 20, 3, name.encode())
    body = struct.pack("=BxHiII", family, 1, index, 0, 0) + struct.pack("=HHI", 8, 4, 1500) + attributes
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body


class IfindexTests(SynchronousTestCase):
    """Names of interfaces."""

    def setUp(self):
        self.patch(IFINDEX, "make_port", Port)
        self.patch(Port, "there", [(1, "lo"), (2, "eth0")])
        self.patch(Port, "refusals", [])
        self.plugin = IFINDEX("if1")
        self.successResultOf(self.plugin.open())

    def test_request(self):
        """RTM_GETLINK with NLM_F_REQUEST and NLM_F_DUMP, and an ifinfomsg of zeros (rtnetlink(7))."""
        self.assertEqual([(18, 0x301, bytes(16))], self.plugin._port.asked)

    def test_changed_meanwhile(self):
        """A list during which something changed is asked for again; another error keeps the service from starting."""
        Port.refusals = [errno.EINTR, errno.EINTR]
        other = IFINDEX("if2")
        self.successResultOf(other.open())
        self.assertEqual(3, len(other._port.asked))
        Port.refusals = [errno.EPERM]
        failure = self.failureResultOf(IFINDEX("if3").open(), StartError)
        self.assertIn("names of interfaces", str(failure.value))

    def tell(self, *messages):
        self.plugin._port.events(nlmsg.in_rows(list(messages)))

    def names(self, *numbers):
        """The names of these numbers as a packet's input; None for none."""
        batch = raw([b""] * len(numbers), oob_ifindex_in=[number or 0 for number in numbers])
        batch.missing["oob.ifindex_in"] = np.array([number is None for number in numbers])
        self.plugin.wanted = frozenset({"oob.in", "oob.out"})
        self.plugin.sources.add("oob.ifindex_in", self.recipe())
        out = self.plugin.process(batch)
        self.assertEqual([b""] * len(numbers), out.columns["oob.out"].to_list())
        return out.columns["oob.in"].to_list()

    def recipe(self):
        from ulogd_tw.core.resolve import Recipe

        return [Recipe(("oob.ifindex_in",))]

    def test_names(self):
        """Those that were there at the start; none where there is no interface; a number that nobody has."""
        self.assertEqual([b"lo", b"eth0", b"", b"", b"9", b"lo"], self.names(1, 2, None, 0, 9, 1))

    def test_changes(self):
        """Interfaces come, are renamed and go; one that has gone keeps its name until its number is used again."""
        self.tell(change(16, 3, "veth1"), change(16, 2, "wan"))
        self.assertEqual([b"lo", b"wan", b"veth1"], self.names(1, 2, 3))
        self.tell(change(17, 3, "veth1"))
        self.assertEqual([b"veth1"], self.names(3))
        self.tell(change(16, 3, "veth2"))
        self.assertEqual([b"veth2"], self.names(3))
        self.tell(change(17, 2, "wrong", family=7))
        self.assertEqual([b"wan"], self.names(2))

    def test_bound(self):
        """Only so many that have gone are kept."""
        self.patch(ifindex, "MOST_GONE", 2)
        self.tell(*(message for n in range(10, 15) for message in (change(16, n, f"v{n}"), change(17, n, f"v{n}"))))
        self.assertEqual([b"10", b"11", b"12", b"v13", b"v14", b"lo"], self.names(10, 11, 12, 13, 14, 1))

    def test_lost(self):
        """Where messages were lost all names are read anew."""
        Port.there = [(1, "lo"), (2, "new0")]
        self.plugin._port.lost(3)
        self.assertEqual([b"new0"], self.names(2))
        self.assertEqual(3, self.plugin.counters.lost["kernel"])

    def test_octets(self):
        """Every cut of a message is refused, or says nothing."""
        message = change(16, 3, "veth1")
        for size in range(len(message)):
            try:
                self.assertIn(link(message[:size]), (None, (3, "veth1", False, False)))
            except MessageError:
                continue


class MarkTests(SynchronousTestCase):
    """Rows by their mark."""

    def kept(self, marks, connections=None, **options):
        """Which rows are kept; None for a row without that mark."""
        more = {"oob.mark": marks} | ({} if connections is None else {"ct.mark": connections})
        batch = raw([b"x"] * len(marks), **{name.replace(".", "_"): [m or 0 for m in more[name]] for name in more})
        batch.columns["raw.pktlen"][:] = range(len(marks))
        batch.missing |= {name: np.array([m is None for m in values]) for name, values in more.items()}
        out, nodes = through(tuple(batch.schema), [(MARK, options)], [batch], ("raw.pktlen",), PACKET)
        numbers = [n for batch in out for n in batch.columns["raw.pktlen"].tolist()]
        self.assertEqual(len(marks) - len(numbers), nodes[0].plugin.counters.rows_filtered)
        return numbers

    def test_mark(self):
        """The mark under the mask; rows without one are kept."""
        self.assertEqual([0, 3], self.kept([42, 43, 0, None], mark=42))
        self.assertEqual([0, 2], self.kept([0x1F2A, 0x1F2B, 0x2A], mark=0x2A, mask=0xFF))
        self.assertEqual([1], self.kept([5, 0]))
        self.assertEqual([0], self.kept([0xFFFFFFFF, 1], mark=-1, mask=-1))

    def test_of_connections(self):
        """The mark of the connection goes before that of the packet."""
        self.assertEqual([1, 2], self.kept([7, 1, 7], [1, 7, None], mark=7))


class Ip2binTests(SynchronousTestCase):
    """Addresses in other forms."""

    def row(self, class_, name, *addresses):
        key = known(name)
        batch = batch_of([{name: address} for address in addresses])
        asked = tuple(k.name for k in class_.provides)
        (out,), _ = through((key.name,), [(class_, {})], [batch], asked, FLOW)
        return out

    def test_bin(self):
        """16 octets; those of IPv4 are mapped. The last key, which ulogd2 left empty, is there too."""
        for addresses in (("192.0.2.1", "255.255.255.255"), ("fd77::2", "::1")):
            out = self.row(IP2BIN, "reply.ip.daddr", *addresses)
            expected = [ip_address(a if ":" in a else f"::ffff:{a}").packed for a in addresses]
            self.assertEqual(expected, out.columns["reply.ip.daddr.bin"].to_list())

    def test_hbin(self):
        """A number of IPv4; none of IPv6."""
        out = self.row(IP2HBIN, "orig.ip.saddr", "192.0.2.1", "10.77.0.1")
        self.assertEqual([3221225985, 172818433], out.columns["orig.ip.hsaddr"].tolist())
        self.assertIs(types.UNSIGNED32, out.schema["orig.ip.hsaddr"].type)
        self.assertNotIn("orig.ip.hsaddr", self.row(IP2HBIN, "orig.ip.saddr", "::1").schema)

    def test_missing(self):
        """A row without the address has none of its forms."""
        schema = Schema([known("ip.saddr").typed(types.IPV4)])
        batch = Batch(schema, {"ip.saddr": np.array([1, 2], np.uint32)}, {"ip.saddr": np.array([True, False])},
                      n=2, now=0.0)  # fmt: skip
        for class_, name in ((IP2BIN, "ip.saddr.bin"), (IP2HBIN, "ip.hsaddr")):
            (out,), _ = through(("ip.saddr",), [(class_, {})], [batch], (name,), FLOW)
            self.assertEqual([False, True], [name in row for row in out.rows()])
