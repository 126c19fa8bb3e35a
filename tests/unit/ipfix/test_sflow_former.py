"""sFlow version 2 and 4: octets written by hand from RFC 3176, and by tshark."""

import random
import subprocess

from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support import given, require_program
from tests.unit.ipfix.test_sflow import INTERFACE, TCP, datagram, element, flow_sample, raw, words
from tests.unit.ipfix.test_sflow_records import address, text
from tests.unit.ipfix.wire import Collected, hexed, ipv4, ipv6
from tests.unit.packets import wire as packets

HEAD = words(1, 3, 100, 5000, 0, 3, 4)
"""Number, source, rate, pool, drops, input, output of a flow sample."""


def former(*samples, version=4, agent="c0000207", number=1, count=None):
    """A datagram of these samples."""
    octets = hexed(agent)
    head = words(version, 1 if len(octets) == 4 else 2) + octets + words(number, 1000)
    return head + words(len(samples) if count is None else count) + b"".join(samples)


def sampled(*extended, packet=None, count=None):
    """A flow sample with the header of a packet."""
    if packet is None:
        packet = words(1, 1, len(TCP) + 4, len(TCP)) + TCP + bytes(-len(TCP) % 4)
    return words(1) + HEAD + packet + words(len(extended) if count is None else count) + b"".join(extended)


def counters(kind, octets, number=5, source=7):
    """A sample of counters."""
    return words(2, number, source, 30, kind) + octets


SWITCH = words(1, 10, 1, 20, 2)
ROUTER = words(2) + address("203.0.113.1") + words(24, 16)
GATEWAY4 = words(3, 64500, 64501, 64502, 2, 2, 2, 64503, 64504, 1, 1, 64505, 1, 64500 << 16 | 7, 150)
GATEWAY2 = words(3, 64500, 64501, 64502, 3, 64503, 64504, 64505)
USER = words(4) + text(b"alice") + text(b"bob")
URL = words(5, 1) + text(b"/index.html")
ETHERNET = words(*range(1, 14))


class FormerTests(SynchronousTestCase):
    """Each version."""

    maxDiff = None

    def rows(self, *octets, **keywords):
        self.found = Collected(reliable=False, **keywords)
        return self.found.rows(*octets)

    def test_as_version5(self):
        """SFV-1: a sample is what it is in version 5, with the same records beside its packet."""
        of_5 = (element(1001, SWITCH[4:]), element(1002, ROUTER[4:]),
                element(1003, bytes(4) + GATEWAY4[4:]))  # fmt: skip
        (expected,) = self.rows(datagram(flow_sample(raw(TCP), *of_5)))
        (row,) = self.rows(former(sampled(SWITCH, ROUTER, GATEWAY4)))
        self.assertEqual(expected, row)
        found = tuple(row[name] for name in ("bgpDestinationAsPath", "bgpLocalPreference", "exporterIPv4Address"))
        self.assertEqual((b"64503 64504 {64505}", 150, ipv4("192.0.2.7")), found)
        (row,) = self.rows(former(sampled(SWITCH, ROUTER), version=2))
        names = [name for name in expected if not name.startswith("bgp")]
        self.assertEqual({name: expected[name] for name in names}, row)
        self.assertEqual({}, self.found.errors)

    def test_gateway2(self):
        """Version 2 has a path without segments; no communities and no preference."""
        (row,) = self.rows(former(sampled(GATEWAY2), version=2))
        self.assertEqual(
            {"bgpSourceAsNumber": 64501, "bgpDestinationAsNumber": 64505, "bgpPrevAdjacentAsNumber": 64502,
             "bgpNextAdjacentAsNumber": 64503, "bgpDestinationAsPath": b"64503 64504 64505"},
            {name: value for name, value in row.items() if name.startswith("bgp")},
        )  # fmt: skip
        (row,) = self.rows(former(sampled(words(3, 64500, 0, 0, 0)), version=2))
        self.assertEqual((64500, 64500), (row["bgpSourceAsNumber"], row["bgpDestinationAsNumber"]))
        self.assertNotIn("bgpDestinationAsPath", row)

    def test_user_and_url(self):
        """Without a character set, and without a host."""
        (row,) = self.rows(former(sampled(USER, URL)))
        self.assertEqual((b"alice", b"bob", b"/index.html", 1), tuple(
            row[name] for name in ("userName", "destinationUserName", "httpRequestTarget", "urlDirection")
        ))  # fmt: skip

    def test_packets_of_the_agent(self):
        """IPv4 and IPv6 as the agent has read them."""
        four = words(2, 1500, 6, ipv4("192.0.2.1"), ipv4("198.51.100.7"), 1024, 443, 0x12, 0x10)
        six = words(3, 1500, 17) + b"".join(ipv6(a).to_bytes(16, "big") for a in ("2001:db8::1", "2001:db8::2"))
        rows = self.rows(former(sampled(packet=four), sampled(packet=six + words(53, 5353, 0, 0))))
        self.assertEqual(
            {(ipv4("192.0.2.1"), None, 443, 1500), (None, ipv6("2001:db8::1"), 5353, 1500)},
            {tuple(row.get(name) for name in ("sourceIPv4Address", "sourceIPv6Address", "destinationTransportPort",
                                              "octetDeltaCount")) for row in rows},
        )  # fmt: skip

    def test_counters(self):
        """Counters of every version: that of any interface stands in front of most."""
        for kind, octets, read in (
            (1, INTERFACE, True), (2, INTERFACE + ETHERNET, True), (3, INTERFACE + bytes(72), True),
            (4, INTERFACE, True), (5, INTERFACE + bytes(80), True), (6, INTERFACE, True), (7, bytes(28), False),
        ):  # fmt: skip
            found = Collected(reliable=False)
            batches = found.batches(former(counters(kind, octets), sampled()))
            rows = [row for batch in batches for row in batch.rows()]
            self.assertEqual(2, len(rows), kind)
            (row,) = (row for row in rows if row["record_kind"] == b"options")
            self.assertEqual((7 if read else None, 2 if kind == 2 else None),
                             (row.get("ifIndex"), row.get("dot3StatsFCSErrors")), kind)  # fmt: skip

    def test_sequence(self):
        """Datagrams are counted, for each agent and beside version 5."""
        found = Collected(reliable=False)
        found.rows(
            former(sampled(), number=7), former(sampled(), number=10), datagram(flow_sample(raw(TCP)), number=11)
        )
        self.assertEqual({"sequence": 2}, dict(found.counters.lost))

    def test_unknown(self):
        """SFV-2: nothing behind a kind that RFC 3176 does not have can be read; what stands before it is kept."""
        for octets, rows, left_out in (
            (former(sampled(), words(3, 1, 2, 3), sampled()), 1, 2),
            (former(sampled(), sampled(words(9, 1, 2)), sampled()), 1, 2),
            (former(sampled(packet=words(4, 1, 2, 3))), 0, 1),
            (former(counters(9, INTERFACE), sampled()), 0, 2),
        ):
            self.assertEqual(rows, len(self.rows(octets)))
            self.assertEqual({"sample_format": left_out}, {k: v for k, v in self.found.errors.items() if v})

    def test_every_cut(self):
        """Of a datagram that is cut anywhere what stands before is kept, and it is counted; the next one is read."""
        for version, gateway in ((2, GATEWAY2), (4, GATEWAY4)):
            last = counters(2, INTERFACE + ETHERNET)
            whole = former(sampled(SWITCH, ROUTER, gateway, USER, URL), last, version=version)
            self.assertEqual(2, len(self.rows(whole)))
            for size in range(4, len(whole)):
                rows = self.rows(whole[:size], former(sampled(), number=2))
                errors = sum(n for reason, n in self.found.errors.items() if reason in ("length", "record"))
                first = len(whole) - len(last)
                self.assertEqual((1 + (size >= first), 1), (len(rows), errors), size)

    def test_counts_beyond(self):
        """Counts and lengths that cannot be."""
        for count in (2, 0x3FFFFFFF, 0x40000000, 0xFFFFFFFF):
            for octets in (
                former(sampled(count=count)),
                former(sampled(words(3, 1, 2, 3, count, 2, 1, 4, 0, 0))),
                former(sampled(words(3, 1, 2, 3, 1, 2, count, 4, 0, 0))),
                former(sampled(packet=words(1, 1, 60, count))),
            ):
                rows = self.rows(octets, former(sampled(), number=2))
                self.assertEqual((1, 1), (len(rows), self.found.decoder.malformed), (count, octets))
        rows = self.rows(former(sampled(), count=2), words(4, 0, 3, 1000, 1) + sampled())
        self.assertEqual((2, {"record": 1}), (len(rows), self.found.errors))
        for octets in (words(4), words(4, 3) + bytes(40), words(4, 1), former(agent="c0000207")[:20]):
            self.assertEqual([], self.rows(octets))
            self.assertEqual(1, self.found.decoder.malformed)

    @given(st.integers(0, (1 << 32) - 1), st.integers(1, 6), st.sampled_from((2, 4)))
    def test_any_octets(self, seed, n, version):
        """Changed anywhere: nothing raises, and the next datagram is read."""
        chance = random.Random(seed)
        records = [SWITCH, ROUTER, GATEWAY2 if version == 2 else GATEWAY4, USER, URL]
        samples = [sampled(*chance.sample(records, chance.randrange(4))) for _ in range(n)]
        octets = bytearray(former(*samples, version=version))
        for _ in range(chance.randrange(4)):
            place = chance.randrange(1, len(octets) // 4) * 4
            octets[place : place + 4] = words(chance.choice((0, 1, 2, 3, 255, 1 << 31, 0xFFFFFFFF)))
        self.found = Collected(reliable=False)
        self.found.rows(bytes(octets))
        self.assertEqual(1, len(self.found.rows(former(sampled(), number=2))))


class TsharkTests(SynchronousTestCase):
    """tshark as a second opinion of the octets."""

    def test_structures(self):
        """Nothing is malformed, and the autonomous systems are there."""
        require_program("tshark")
        sent = [former(sampled(SWITCH, ROUTER), version=2), former(sampled(SWITCH, ROUTER, GATEWAY4)),
                former(counters(2, INTERFACE + ETHERNET))]  # fmt: skip
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(packets.pcap([(1.0, packets.udp("192.0.2.1", "192.0.2.2", (6343, 6343), d)) for d in sent]))
        run = subprocess.run(["tshark", "-r", path, "-V"], capture_output=True, text=True, check=True)
        self.assertNotIn("alformed", run.stdout)
        for part in ("Datagram version: 2", "Datagram version: 4", "192.0.2.1", "203.0.113.1"):
            self.assertIn(part, run.stdout)
