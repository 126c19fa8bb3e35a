"""Expressions: what they mean row by row, written out one value at a time; and what is said of mistakes."""

import ipaddress
import operator

import numpy as np
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support import given
from tests.unit.ipfix.wire import hexed
from ulogd_tw.core import types
from ulogd_tw.core.batch import Batch, Schema
from ulogd_tw.core.columns import Coded, Octets
from ulogd_tw.core.keys import Key, known
from ulogd_tw.core.resolve import Provided, Sources
from ulogd_tw.match.errors import MatchError
from ulogd_tw.match.grammar import parse
from ulogd_tw.match.terms import COMPARE
from ulogd_tw.match.words import ALL

SIGNS = {"=": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}


def batch_of(rows, six=False, coded=False):
    """A batch out of dicts; a key that a row lacks is missing there."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    keys, columns, missing = [], {}, {}
    for name in names:
        key = known(name)
        values = [row.get(name) for row in rows]
        if key.type in (types.ADDRESS, types.IPV4):
            key = key.typed(types.IPV6 if six else types.IPV4)
            numbers = [int(ipaddress.ip_address(v)) if v else 0 for v in values]
            if six:
                columns[name] = np.array([(n >> 64, n & (1 << 64) - 1) for n in numbers], np.uint64).reshape(-1, 2)
            else:
                columns[name] = np.array(numbers, np.uint32)
        elif key.type.variable:
            octets = [v or b"" for v in values]
            different = sorted(set(octets))
            codes = np.array([different.index(v) for v in octets], np.int64)
            columns[name] = Coded(codes, different) if coded else Octets.of(octets)
        else:
            columns[name] = np.array([v or 0 for v in values], key.type.dtype)
        keys.append(key)
        if None in values:
            missing[name] = np.array([v is None for v in values])
    return Batch(Schema(keys), columns, missing, n=len(rows), now=0.0)


SERVICES = {"http": 80, "https": 443, "domain": 53}


def rows_of(text, batch, sets=None):
    """The numbers of the rows of which an expression is true."""
    term = parse(text, sets, SERVICES.get)
    sources = Sources()
    provided = Provided(batch.schema.values())
    for name in term.keys():
        sources.add(name, provided.recipes(name))
    return np.flatnonzero(term.rows(sources.find, batch)).tolist()


FLOWS = [
    {"sourceAddress": "10.1.2.3", "destinationAddress": "192.0.2.1", "sourceTransportPort": 51000,
     "destinationTransportPort": 443, "protocolIdentifier": 6, "octetDeltaCount": 1500, "packetDeltaCount": 3,
     "tcpControlBits": 0x12, "ipClassOfService": 8, "flowStartMilliseconds": 1000, "flowEndMilliseconds": 2000,
     "ingressInterface": 1, "egressInterface": 2, "bgpSourceAsNumber": 64512},
    {"sourceAddress": "192.0.2.1", "destinationAddress": "10.1.2.3", "sourceTransportPort": 443,
     "destinationTransportPort": 51000, "protocolIdentifier": 6, "octetDeltaCount": 900, "packetDeltaCount": 2,
     "tcpControlBits": 0x02, "flowStartMilliseconds": 1000, "flowEndMilliseconds": 1000, "ingressInterface": 2},
    {"sourceAddress": "172.16.0.9", "destinationAddress": "10.255.0.1", "sourceTransportPort": 53,
     "destinationTransportPort": 53, "protocolIdentifier": 17, "octetDeltaCount": 2_000_000, "packetDeltaCount": 1},
    {"sourceAddress": "10.0.0.1", "destinationAddress": "10.0.0.2", "protocolIdentifier": 1, "octetDeltaCount": 84,
     "packetDeltaCount": 1},
]  # fmt: skip


class MeaningTests(SynchronousTestCase):
    """Which of four flows an expression is true of."""

    def check(self, expected, *texts, **keywords):
        for text in texts:
            self.assertEqual(expected, rows_of(text, batch_of(FLOWS), **keywords), text)

    def test_addresses(self):
        self.check([0, 3], "src net 10.0.0.0/8", "src ip 10/8", "src host in [10.1.2.3, 10.0.0.1]",
                   "sourceAddress = 10.0.0.0/8", "sourceIPv4Address in [10.1.2.3/32 10.0.0.1]")  # fmt: skip
        self.check([0, 1, 2, 3], "net 10.0.0.0/8", "src or dst net 10.0.0.0/8", "any")
        self.check([3], "src and dst net 10.0.0.0/8")
        self.check([0, 1], "ip 192.0.2.1", "host = 192.0.2.1")
        self.check([1, 2], "src ip != 10.0.0.0/8", "not src ip 10.0.0.0/8")
        self.check([], "ip 2001:db8::/32", "inet6")
        self.check([0, 1, 2, 3], "inet", "ipv4", "src ip != 2001:db8::1")

    def test_ports(self):
        self.check([0, 1], "port 443", "port in [443, 80]", "port 440-450", "port = 443")
        self.check([0], "dst port 443", "src port > 1024", "src port 1024-65535")
        self.check([2], "port 53", "src port < 100 and dst port <= 53")
        self.check([0, 1, 2], "src port >= 0", "exists sourceTransportPort")
        self.check([3], "not src port >= 0", "not exists sourceTransportPort")
        self.check([0, 2], "src port != 443")

    def test_protocols(self):
        self.check([0, 1], "proto tcp", "tcp", "proto 6", "protocolIdentifier = 6")
        self.check([2, 3], "proto in [udp icmp]", "udp or icmp", "not tcp", "proto != tcp")

    def test_counters(self):
        """Factors of nfdump; the first counter that a row may have counts."""
        self.check([0, 2], "octets > 1k", "bytes >= 1.5k", "octetDeltaCount > 1000")
        self.check([2], "octets > 1M", "bytes 2m")
        self.check([0, 1, 3], "octets < 2M")
        self.check([0], "packets > 2")

    def test_rates(self):
        self.check([0], "bps > 11k", "pps = 3", "duration >= 1000", "bpp 500 and tcp and duration > 0")
        self.check([1], "duration = 0 and pps = 0")

    def test_flags(self):
        self.check([0], "flags SA", "flags A", "flags = 0x12")
        self.check([1], "flags S and not flags A")

    def test_others(self):
        self.check([0], "tos 8", "src as 64512", "in if 1", "out if 2")
        self.check([0, 1], "if 2")
        self.check([0, 1], "flowStartMilliseconds < 1970-01-01T00:00:02")
        self.check([], "flowStartMilliseconds > 2020-01-01")

    def test_forms(self):
        """Texts as people write them, and as outputs print them: labels, times, ids of several parts."""
        start = (2_208_988_800 + 1_700_000_000) << 32
        rows = [
            {"mplsTopLabelStackSection": hexed("000451"), "mplsVpnRouteDistinguisher": hexed("0000fbf400000001"),
             "applicationId": hexed("0d0001c5"), "bgpCommunity": 64500 << 16 | 1, "flowStartNanoseconds": start,
             "flowStartMicroseconds": start + (1 << 31), "tcpOptionsFull": hexed("0005")},
            {"mplsTopLabelStackSection": hexed("00045e"), "applicationId": hexed("0d000001"), "bgpCommunity": 5},
            {"mplsTopLabelStackSection": hexed("000461"), "tcpOptionsFull": hexed("06")},
        ]  # fmt: skip
        for expected, *texts in (
            ([0, 1], "mplsTopLabelStackSection = 69", "mplsTopLabelStackSection < 70"),
            ([0, 1], "mplsTopLabelStackSection 60-69"),
            ([2], "mplsTopLabelStackSection != 69", "mplsTopLabelStackSection = 0x46"),
            ([0], "mplsVpnRouteDistinguisher = 64500:1", "mplsVpnRouteDistinguisher ~ ^64500:"),
            ([0], "applicationId = 13:453", "applicationId 0d0001c5", "applicationId in [13:453 13:454]"),
            ([1], "applicationId != 13:453"),
            ([0, 1], "applicationId ~ ^13:"),
            ([0], "bgpCommunity = 64500:1", "bgpCommunity = 4227072001"),
            ([0], "flowStartNanoseconds = 1700000000000000000", "flowStartNanoseconds < 2023-11-14T22:13:20.000001",
             "flowStartNanoseconds >= 2023-11-14T22:13:20", "flowStartMicroseconds = 1700000000500000",
             "flowStartMicroseconds > 2023-11-14T22:13:20.499999", "flowStartNanoseconds > 1G"),
            ([0], "tcpOptionsFull = 5", "tcpOptionsFull 0x5"),
        ):  # fmt: skip
            for text in texts:
                self.assertEqual(expected, rows_of(text, batch_of(rows)), text)

    def test_without_and(self):
        """A protocol or family before ports and addresses, as pcap-filter(7) has it."""
        self.check([0, 1], "tcp port 443", "ip host 192.0.2.1", "tcp net 10")
        self.check([2], "udp src or dst port 53", "ip proto 17", "udp src port 53")
        self.check([0, 1, 2, 3], "ip", "ip or tcp", "(ip)", "not ip6", "ip net 10")
        self.check([], "ip6", "ip6 net ::/0", "tcp port 53")
        self.check([1], "not udp and tcp src port 443", "! tcp dst port 443 && tcp")

    def test_value_alone(self):
        """A value without a word is of what the term before is about."""
        self.check([0, 1, 2], "port 443 or 53", "tcp port 443 or udp", "port (443 or 53)", "port https or domain")
        self.check([0, 1], "tcp port 443 or 53", "host 192.0.2.1 or 192.0.2.2", "proto 6 or 132", "if 1 or 2")
        self.check([2, 3], "not (port 443 or 51000)", "net 10 and not 192.0.2.1")
        self.check([0, 1, 2, 3], "not port 443 or 51000")
        self.check([0], "dst port 80 or 443", "src port > 1024 and dst port 443 or 80", "ip 10.1.2.3 and dst port 443")

    def test_short_networks(self):
        """Networks as tcpdump and nfdump write them."""
        self.check([0, 3], "src net 10", "src net 10.0.0.0 mask 255.0.0.0", "src net 10.0.0.0 255.0.0.0",
                   "src net 10.1.2 or src net 10.0")  # fmt: skip
        self.check([0, 1], "net 10.1.2.0 255.255.255.0", "net 10.1.2 and net 192.0.2")

    def test_services(self):
        """Names of services are their ports."""
        self.check([2], "port domain", "src port domain")
        self.check([0, 1], "port in [http https]", "port https")

    def test_other_words(self):
        """Next hops, NAT, countries, marks with a mask, lengths of packets, VLANs."""
        rows = [
            {"ipNextHopAddress": "192.0.2.7", "postNATSourceAddress": "198.51.100.1", "src.country": b"DE",
             "postNAPTSourceTransportPort": 4000, "ct.mark": 0x15, "raw.pktlen": 60, "vlanId": 7, "engineType": 1,
             "ipClassOfService": 0xB8, "src.as": 64500, "sourceMacAddress": 0x020000000001, "exporter": "192.0.2.1"},
            {"ct.mark": 0x25, "raw.pktlen": 100, "src.country": b"FR", "ipClassOfService": 0xBB, "src.as": 3},
            {"dst.country": b"DE"},
        ]  # fmt: skip
        for texts, expected in (
            (("next ip 192.0.2.7", "src nat ip 198.51.100.0/24", "nat ip 198.51.100.1", "nat port 4000",
              "src nat port 3000-5000", "mark 0x10/0xf0", "less 60", "len < 100", "not greater 61 and exists src.as",
              "vlan", "vlan 7", "vlan and any", "engine-type 1", "src as 64500", "ether src 02:00:00:00:00:01",
              "ether host 02:00:00:00:00:01", "router ip 192.0.2.1", "src country DE"), [0]),
            (("src country DE or FR", "src country in [de fr]", "src geo = DE or FR", "dscp 46", "mark 5/7"), [0, 1]),
            (("country DE", "geo de"), [0, 2]),
            (("mark 0x100/0xff00", "mark 1/0xffffffffff", "bgpnext ip 10.0.0.1"), []),
        ):  # fmt: skip
            for text in texts:
                self.assertEqual(expected, rows_of(text, batch_of(rows)), text)

    def test_joined(self):
        """not binds closest, then and, then or; signs of C too."""
        self.check([0, 2], "tcp and src net 10/8 or udp", "(tcp && src net 10/8) || udp")
        self.check([0], "tcp and (src net 10/8 or udp)")
        self.check([3], "! tcp && ! udp", "not (tcp or udp)")
        self.check([0], "src net 10.0.0.0/8 and dst port 443 and octets > 1k and not proto icmp")
        self.check([0, 1], "tcp # what stands behind this sign means nothing")

    def test_sets(self):
        sets = {"hosts": ["10.1.2.0/24", "192.0.2.1"], "ports": ["53", "440-450"], "none": []}
        self.check([0, 1], "src ip in @hosts", "src ip @hosts", sets=sets)
        self.check([0, 1, 2], "port in @ports", sets=sets)
        self.check([], "src ip in @none", "port in @none", sets=sets)

    def test_ipv6(self):
        rows = [{"sourceAddress": "2001:db8::1"}, {"sourceAddress": "2001:db8:1::1"}, {"sourceAddress": "fe80::1"}]
        for text, expected in (("src net 2001:db8::/48", [0]), ("src net 2001:db8::/32", [0, 1]),
                               ("src ip fe80::1", [2]), ("inet6", [0, 1, 2]), ("src ip 10.0.0.1", [])):  # fmt: skip
            self.assertEqual(expected, rows_of(text, batch_of(rows, six=True)), text)

    def test_mapped(self):
        """An IPv6 address within ::ffff:0:0/96 is the IPv4 address, and a network there the IPv4 network."""
        rows = [{"sourceAddress": a} for a in ("::ffff:10.1.2.3", "2001:db8::1", "::ffff:192.0.2.1", "::10.1.2.3")]
        four = [{"sourceAddress": a} for a in ("10.1.2.3", "192.0.2.1")]
        many = " ".join(f"10.{n}.0.0/16 2001:db8:{n}::/48" for n in range(12))
        for text, of_six, of_four in (
            ("src net 10.0.0.0/8", [0], [0]), ("src net ::ffff:10.0.0.0/104", [0], [0]), ("src ip 10.1.2.3", [0], [0]),
            ("src ip ::ffff:10.1.2.3", [0], [0]), ("inet", [0, 2], [0, 1]), ("inet6", [1, 3], []),
            ("src net ::/0", [1, 3], []), ("src net ::/64", [3], []), ("src net ::ffff:0:0/96", [0, 2], [0, 1]),
            ("src net 0.0.0.0/0", [0, 2], [0, 1]), ("src ip != 10.0.0.0/8", [1, 2, 3], [1]),
            (f"src ip in [{many}]", [0, 1], [0]), (f"src ip in [{many} ::/0]", [0, 1, 3], [0]),
            (f"src ip in [{many} ::ffff:c000:201]", [0, 1, 2], [0, 1]), ("ip host 10.1.2.3", [0], [0]),
        ):  # fmt: skip
            self.assertEqual(of_six, rows_of(text, batch_of(rows, six=True)), text)
            self.assertEqual(of_four, rows_of(text, batch_of(four)), text)

    def test_fractions(self):
        """Ends of ranges may be fractions, and numbers may be larger than any column."""
        rows = [{"sampling_factor": v, "octetDeltaCount": n, "sourceTransportPort": n, "hashDigestOutput": n == 2}
                for v, n in ((0.5, 1), (1.5, 2), (2.5, 3))]  # fmt: skip
        large = "9" * 400
        for text, expected in (
            ("sampling_factor 0.2-0.8", [0]), ("sampling_factor in [1-2, 3-4]", [1]),
            ("sampling_factor in [0-1, 2-3]", [0, 2]), ("sampling_factor in [0.5 2.5]", [0, 2]),
            ("octets in [1.5 3]", [2]), ("src port in [0.5-1.5, 3]", [0, 2]), ("octets 1.5-2.5", [1]),
            (f"sampling_factor < {large}", [0, 1, 2]), (f"sampling_factor > -{large}", [0, 1, 2]),
            (f"octets < {large}.5", [0, 1, 2]), (f"octets = {large}", []), (f"octets 2-{large}", [1, 2]),
            (f"bpp < {large}", []), (f"sampling_factor in [{large} 1.5]", [1]), ("hashDigestOutput in [1 5]", [1]),
            ("hashDigestOutput = true", [1]), ("hashDigestOutput != true", [0, 2]),
        ):  # fmt: skip
            self.assertEqual(expected, rows_of(text, batch_of(rows)), text[:60])

    def test_characters(self):
        """Texts are compared as outputs write them: characters, U+FFFD for octets outside UTF-8, no padding."""
        rows = [{"oob.prefix": v} for v in ("été".encode(), b"\xff", "\ufffd\0".encode(), b"\0", b"a\0b")]
        for text, expected in (
            ("oob.prefix ~ '^.t.$'", [0]), ("oob.prefix ~ '(?i)ÉTÉ'", [0]), ("oob.prefix ~ '^[éà]'", [0]),
            ("oob.prefix = '\ufffd'", [1, 2]), ("oob.prefix ~ '^\ufffd$'", [1, 2]), ("oob.prefix = '\udcff'", [1, 2]),
            ("oob.prefix ~ '\udcff'", [1, 2]), ("oob.prefix = ''", [3]), ("oob.prefix ~ '^a.b$'", [4]),
        ):  # fmt: skip
            for coded in (False, True):
                self.assertEqual(expected, rows_of(text, batch_of(rows, coded=coded)), ascii(text))
        self.check([], "oob.prefix in @odd", sets={"odd": ["\udcff"]})

    def test_odd_labels(self):
        """A label of a size that no label has is missing; the labels of other rows are as they would be without it."""
        rows = [{"mplsTopLabelStackSection": hexed(v)} for v in ("000451", "00045100", "0451", "")]
        for coded in (False, True):
            self.assertEqual([0, 1], rows_of("mplsTopLabelStackSection = 69", batch_of(rows, coded=coded)))
            self.assertEqual([2, 3], rows_of("not exists mplsTopLabelStackSection", batch_of(rows, coded=coded)))

    def test_strings(self):
        rows = [{"oob.prefix": b"drop ssh"}, {"oob.prefix": b"accept"}, {}, {"oob.prefix": b"drop web\0"}]
        for coded in (False, True):
            for text, expected in (
                ('oob.prefix = "accept"', [1]), ('oob.prefix ~ "^drop"', [0, 3]), ('oob.prefix = "drop web"', [3]),
                ('oob.prefix != "accept"', [0, 3]), ('oob.prefix !~ "drop"', [1]), ("oob.prefix ~ 'web$'", [3]),
                ("oob.prefix ~ '^drop web$'", [3]), ("oob.prefix !~ 'web$'", [0, 1]),
                ("oob.prefix in ['accept', 'drop ssh']", [0, 1]), ('not oob.prefix ~ "drop"', [1, 2]),
            ):  # fmt: skip
                self.assertEqual(expected, rows_of(text, batch_of(rows, coded=coded)), text)

    def test_octets(self):
        key = Key("e4242id7", types.OCTETS, ((4242, 7),))
        batch = Batch(Schema([key]), {key.name: Octets.of([b"\xab\x00", b"\xab"])}, n=2, now=0.0)
        self.assertEqual([0], rows_of("e4242id7 = ab00", batch))
        self.assertEqual([1], rows_of("e4242id7 = 0xAB", batch))

    def test_macs(self):
        rows = [{"sourceMacAddress": 0x020304050607}, {"sourceMacAddress": 1}]
        self.assertEqual([0], rows_of("src mac 02:03:04:05:06:07", batch_of(rows)))
        self.assertEqual([1], rows_of("mac != 02-03-04-05-06-07", batch_of(rows)))


NUMBER_KEYS = ("sourceTransportPort", "octetDeltaCount", "mibObjectValueInteger", "protocolIdentifier")
values = st.one_of(st.integers(-5, 70000), st.integers(-(2**70), 2**70), st.sampled_from((0.5, 255.5, -1.5)))
leaf = st.tuples(st.sampled_from(NUMBER_KEYS), st.sampled_from(list(SIGNS)), values)
ranges = st.tuples(st.sampled_from(NUMBER_KEYS), st.just("in"),
                   st.lists(st.tuples(st.integers(0, 300), st.integers(0, 300)), min_size=1, max_size=5))  # fmt: skip
trees = st.recursive(leaf | ranges, lambda inner: st.tuples(st.sampled_from(("and", "or")), inner, inner)
                     | st.tuples(st.just("not"), inner), max_leaves=8)  # fmt: skip


def written(tree):
    """A tree as an expression."""
    if tree[0] in ("and", "or"):
        return f"({written(tree[1])} {tree[0]} {written(tree[2])})"
    if tree[0] == "not":
        return f"not {written(tree[1])}"
    if tree[1] == "in":
        return f"{tree[0]} in [{' '.join(f'{min(pair)}-{max(pair)}' for pair in tree[2])}]"
    return f"{tree[0]} {tree[1]} {tree[2]}"


def holds(tree, row):
    """Whether it is true of one row, as Python compares."""
    if tree[0] == "and":
        return holds(tree[1], row) and holds(tree[2], row)
    if tree[0] == "or":
        return holds(tree[1], row) or holds(tree[2], row)
    if tree[0] == "not":
        return not holds(tree[1], row)
    value = row.get(tree[0])
    if value is None:
        return False
    if tree[1] == "in":
        return any(min(pair) <= value <= max(pair) for pair in tree[2])
    return SIGNS[tree[1]](value, tree[2])


row_of_numbers = st.fixed_dictionaries({}, optional={
    "sourceTransportPort": st.integers(0, 400), "octetDeltaCount": st.integers(0, 2**64 - 1),
    "mibObjectValueInteger": st.integers(-(2**31), 2**31 - 1), "protocolIdentifier": st.integers(0, 255),
})  # fmt: skip
networks = st.one_of(
    st.builds(lambda n, bits: ipaddress.ip_network((n, bits), strict=False), st.integers(0, 2**32 - 1),
              st.integers(0, 32)),
    st.builds(lambda n, bits: ipaddress.ip_network((n, bits), strict=False), st.integers(2**32, 2**128 - 1),
              st.integers(0, 128)),
)  # fmt: skip


class PropertyTests(SynchronousTestCase):
    """Many rows at once give what each gives alone."""

    @given(trees, st.lists(row_of_numbers, min_size=1, max_size=20))
    def test_row_by_row(self, tree, rows):
        rows[0] = {name: rows[0].get(name, 0) for name in NUMBER_KEYS}  # every key is there at least once
        expected = [place for place, row in enumerate(rows) if holds(tree, row)]
        self.assertEqual(expected, rows_of(written(tree), batch_of(rows)), written(tree))

    @given(st.lists(networks, min_size=1, max_size=30), st.lists(st.integers(0, 2**128 - 1), min_size=1, max_size=10),
           st.booleans())  # fmt: skip
    def test_prefixes(self, nets, numbers, six):
        """Few prefixes and many, of both families; also addresses at their edges."""
        edges = [int(n[place]) for n in nets for place in (0, -1) if n.version == (6 if six else 4)]
        numbers = [*edges, *(n + 1 for n in edges), *(n - 1 for n in edges if n), *numbers]
        numbers = [n & (2**128 - 1 if six else 2**32 - 1) for n in numbers]
        addresses = [ipaddress.IPv6Address(n) if six else ipaddress.IPv4Address(n) for n in numbers]
        meant = [getattr(a, "ipv4_mapped", None) or a for a in addresses]
        expected = [i for i, a in enumerate(meant) if any(a in n for n in nets if n.version == a.version)]
        batch = batch_of([{"sourceAddress": str(a)} for a in addresses], six=six)
        self.assertEqual(expected, rows_of(f"src ip in [{', '.join(map(str, nets))}]", batch))

    @given(st.one_of(
        st.text(alphabet="()[],!=<>~\"'@ abdenorstip0149./:k", max_size=40),
        st.lists(st.sampled_from((*ALL, *"()[]=,~@", "and", "or", "not", "in", "src", "dst", "mask", "80", "10.0.0.1/8",
                                  "1-2", "x", "10", "tcp", "SA", "'t'", "0x1/2")), max_size=9).map(" ".join),
    ))  # fmt: skip
    def test_any_text(self, text):
        """A text is an expression, or a mistake with its place."""
        try:
            parse(text)
        except MatchError as error:
            self.assertTrue(1 <= error.column <= len(text) + 1, text)


class MistakesTests(SynchronousTestCase):
    """Mistakes are told where they are."""

    def test_mistakes(self):
        for text, column, expected in (
            ("src port 80 and", 16, "a term is missing before the end"),
            ("src prt 80", 5, "src prt has no meaning"),
            ("octetDeltaCont > 5", 1, "did you mean octetDeltaCount?"),
            ("src net 10.0.0.0/33", 9, "is neither an address nor a prefix"),
            ("port 80 443", 9, "'443' does not go on from what stands before it"),
            ("(tcp or udp", 12, "')' is missing before the end"),
            ("proto foo", 7, "'foo' is not a protocol"),
            ("octets > many", 10, "'many' is not a number"),
            ("port 90-80", 6, "the second number is less than the first"),
            ("flags Z", 7, "write TCP flags as letters"),
            ('oob.prefix ~ "("', 14, "is not a regular expression"),
            ("src ip in @blocked", 11, "there is no set blocked"),
            ("src ip in []", 12, "the list is empty"),
            ('"tcp"', 1, "begin the term with a word"),
            ("oob.prefix = 'x", 14, "the closing quote is missing"),
            ("tcp & udp", 5, "'&' has no meaning here"),
            ("tcp[13] = 2", 4, "for flags of TCP there is flags S"),
            ("octets > 5 and 80", 16, "'80' cannot stand alone"),
            ("port 80 or 10.0.0.1", 12, "'10.0.0.1' cannot stand alone"),
            ("port > 80 or 90", 14, "'90' cannot stand alone"),
            ("host www.example.org", 6, "names are not looked up"),
            ("port nonesuch", 6, "nor a service of this machine"),
            ("net 10.0.0.0 mask 255.0.255.0", 19, "is not a mask"),
            ("net in [10.0.0.0 10.1.0.0] mask 255.0.0.0", 28, "'mask' does not go on"),
            ("src ip 10.1", 8, "is neither an address"),
            ("nat host-name x", 5, "nat must be followed by ip, net or port"),
            ("ether proto 5", 7, "ether must be followed by src, dst or host"),
            ("dscp 64", 6, "is not a code point from 0 to 63"),
            ("port (80 or 443", 16, "')' is missing before the end"),
            ("tcp port", 9, "a number is missing before the end"),
            ("basicList = 5", 11, "is missing"),
        ):  # fmt: skip
            error = self.assertRaises(MatchError, parse, text)
            if expected != "is missing":
                self.assertEqual((column, True), (error.column, expected in str(error)), f"{text}: {error}")

    def test_depth(self):
        """Brackets and not have a bound, whoever writes them; what is said is a mistake like others."""
        deep = "(" * 100 + "tcp" + ")" * 100
        for text in (deep, "not " * 100 + "tcp"):
            parse(text)
        for text in (f"({deep})", "(" * 5000, "not " * 5000 + "tcp", "(not " * 2500 + "tcp", "port 80 or (" * 1000):
            error = self.assertRaises(MatchError, parse, text)
            self.assertIn("nested deeper than 100", str(error))

    def test_all_signs(self):
        self.assertEqual(set(SIGNS), set(COMPARE))
