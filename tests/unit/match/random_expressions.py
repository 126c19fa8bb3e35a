"""Random rows with odd values, and random expressions with all words of the language of MATCH about them."""

import ipaddress

import numpy as np

from ulogd_tw.core import types
from ulogd_tw.core.batch import Batch, Schema
from ulogd_tw.core.columns import Coded, Octets
from ulogd_tw.core.keys import known
from ulogd_tw.match import words

EDGES = (0, 1, 255, 256, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**63 - 1, 2**63, 2**64 - 1)
COUNTERS = ("octetDeltaCount", "octetTotalCount", "packetDeltaCount", "deltaFlowCount", "raw.pktlen")
PORTS = ("sourceTransportPort", "destinationTransportPort", "postNAPTSourceTransportPort",
         "postNAPTDestinationTransportPort")  # fmt: skip
SMALL = (
    "protocolIdentifier", "tcpControlBits", "ipClassOfService", "ipTTL", "ingressInterface", "egressInterface",
    "bgpSourceAsNumber", "bgpDestinationAsNumber", "vlanId", "dot1qVlanId", "ct.mark", "oob.mark", "icmp.type",
    "icmpv6.type", "icmp.code", "engineType", "engineId", "forwardingStatus", "observationDomainId", "flowEndReason",
    "sourceIPv4PrefixLength", "destinationIPv4PrefixLength", "src.as", "bgpCommunity",
)  # fmt: skip
SIGNED = ("mibObjectValueInteger", "tlsValidityNotBefore")
FRACTIONS = ("sampling_factor", "ixiaSrcLatitude")
MILLISECONDS = ("flowStartMilliseconds", "flowEndMilliseconds")
NTP = ("observationTimeMicroseconds", "observationTimeNanoseconds")
ADDRESSES = ("sourceAddress", "destinationAddress", "postNATSourceAddress", "postNATDestinationAddress",
             "ipNextHopAddress", "bgpNextHopAddress", "exporter")  # fmt: skip
MACS = ("sourceMacAddress", "destinationMacAddress")
TEXTS = ("oob.prefix", "interfaceName", "src.country", "dst.country", "basicList")
OCTETS = ("e4242id7", "mplsTopLabelStackSection", "applicationId", "tcpOptionsFull")
NAMES = (*COUNTERS, *PORTS, *SMALL, *SIGNED, *FRACTIONS, *MILLISECONDS, *NTP, *ADDRESSES, *MACS, *TEXTS, *OCTETS,
         "hashDigestOutput")  # fmt: skip
DERIVED = ("flow.start.sec", "flow.start.usec", "flowStartSeconds", "flow.end.sec", "flowEndSeconds", "octets",
           "raw.pktcount", "flowStartMicroseconds", "flowEndNanoseconds")  # fmt: skip
"""Numbers that are made of stored ones, or are stored under another name."""
FORMED = {
    "mplsTopLabelStackSection": ("69", "70", "1048575", "0x45"),
    "applicationId": ("13:453", "13:1", "3:80", "0d0001c5"),
    "bgpCommunity": ("64500:1", "0:5", "0:0", "65535:65535", "5"), "tcpOptionsFull": ("5", "0x5", "256", "0"),
}  # fmt: skip
VALUES = {
    "oob.prefix": ("", "drop ssh", "drop web", "accept", "été", "É", "it's", '"', "a\nb", "a\0b", "\ufffd", "%_\\",
                   "x" * 300, "--", "Drop"),
    "interfaceName": ("eth0", "eth1", "ETH0", "", "wlan0.7", "ünï"),
    "src.country": ("DE", "FR", "US", ""), "dst.country": ("DE", "FR", "US", ""),
    "basicList": ('{"semantic":"allOf","values":[1,2]}', "[]", "A"),
}  # fmt: skip
HEXADECIMAL = {
    "e4242id7": ("", "ab00", "ab", "00", "ff80", "41420a", "c3a9"),
    "mplsTopLabelStackSection": ("000451", "00045e", "000461", "fffff1", "00045100", "0451"),
    "applicationId": ("0d0001c5", "0d000001", "0300000050", "03000050", "14000000090000d431", "0d"),
    "tcpOptionsFull": ("0005", "06", "0100", "00"),
}
BEYOND_UTF8 = (b"\xff", b"\xc3", b"drop \xe9", b"pad\0\0", b"\xed\xa0\x80")
ODD = "\udcff"
"""An octet outside UTF-8, as a file of sets or an argument has it."""
PATTERNS = ("^drop", "web$", ".", "^$", "^.t.$", "(?i)drop", "(?i)É", "[éÉ]", r"\w+ \w", r"^[^a]*$", "a.b", "(?s)a.b",
            "^.{3}$", r"\\", "a|e|x", "%", "_", r"eth\d", "x{20,}", r"\Z", r"\x61", "'", '^\\x{fffd}$', "b$", "^a",
            "drop.*b", "(?m)^b", "e.*h.*0", "[[:alpha:]]", r"\pL", "values", "xé{,3}")  # fmt: skip
PATTERNS_OF_OCTETS = (r"\xab", "^$", ".", "^..$", "é", r"(?i)ab", r"[\x80-\xff]", r"\x00", "A.?B", "^[^\\n]*$", r"\C$")
FOUR = (
    "10.0.0.1",
    "10.1.2.3",
    "10.255.255.255",
    "192.0.2.1",
    "192.0.2.128",
    "0.0.0.0",
    "255.255.255.255",
    "172.16.0.9",
)
MAPPED = ("::ffff:10.0.0.1", "::ffff:192.0.2.1", "::ffff:0.0.0.0", "::ffff:255.255.255.255")
SIX = ("2001:db8::1", "2001:db8:1::1", "fe80::1", "::", "::1", "::fffe:ffff:ffff", "::1:0:0:0", "ff02::1",
       "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "::10.0.0.1")  # fmt: skip
NETWORKS = ("10.0.0.0/8", "10.0.0.0/31", "192.0.2.0/25", "0.0.0.0/0", "128.0.0.0/1", "::/0", "::/64", "2001:db8::/32",
            "2001:db8::/48", "::ffff:0:0/96", "::ffff:10.0.0.0/104", "::ffff:0:0/95", "fe80::/10", "8000::/1",
            "255.255.255.255/32", "::fffe:0:0/95")  # fmt: skip


def random_rows(random, n):
    """Rows as dicts; a key that a row lacks is missing there. Of most rows all addresses have one family."""
    return [_row(random, random.choice(((), (), ADDRESSES, ADDRESSES, ADDRESSES[1::2]))) for _ in range(n)]


def _row(random, six):
    return {name: value for name in NAMES if (value := _value(random, name, name in six)) is not None}


def _value(random, name, six):
    if random.random() < 0.2:
        return None
    if name in ADDRESSES:
        return random.choice(random.choice((MAPPED, SIX)) if six else FOUR)
    if name in TEXTS:
        if name in ("oob.prefix", "interfaceName") and random.random() < 0.15:
            return random.choice(BEYOND_UTF8)
        return random.choice(VALUES[name]).encode()
    if name in OCTETS:
        return bytes.fromhex(random.choice(HEXADECIMAL[name]))
    if name in FRACTIONS:
        return random.choice((0.0, 0.5, 1.0, 1.5, 2.5, 0.1, -1.0, 1e30, 3e38, float("inf"), float("nan"), -0.0, 100.0))
    if name == "hashDigestOutput":
        return random.random() < 0.5
    return random_number(random, name)


def random_number(random, name):
    """A number that a column of this key can have: mostly small, sometimes at an edge."""
    if name in MACS:
        return random.choice((0, 1, 0x020304050607, 2**48 - 1))
    if name in NTP:
        return random.choice(
            (0, 3908988800 << 32, 3908988800 << 32 | 1 << 31, 1 << 63, 2**64 - 1, 3908988801 << 32 | 7)
        )
    dtype = known(name).type.dtype
    limits = np.iinfo(dtype)
    draw = random.random()
    if name in MILLISECONDS:
        if draw < 0.8:
            return 1_700_000_000_000 + random.randrange(0, 100_000, 250)
    elif draw < 0.6:
        return random.randrange(10)
    elif draw < 0.75:
        return min(random.randrange(70_000), limits.max)
    if limits.min < 0 and random.random() < 0.5:
        return random.choice((-1, -5, limits.min, limits.min + 1))
    return random.choice([edge for edge in (*EDGES, limits.max, limits.max - 1) if edge <= limits.max])


def batches_of(random, rows):
    """Batches of one family for each address, with the numbers of their rows. Texts are `Octets` or `Coded`."""
    groups = {}
    for number, row in enumerate(rows):
        six = any(":" in row.get(name, "") for name in ADDRESSES[::2])
        half = any(":" in row.get(name, "") for name in ADDRESSES[1::2])
        groups.setdefault(tuple(half if place % 2 else six for place in range(len(ADDRESSES))), []).append(number)
    return [(numbers, _batch(random, [rows[n] for n in numbers], six)) for six, numbers in groups.items()]


def _batch(random, rows, six):
    columns, missing, keys = {}, {}, []
    for name in NAMES:
        key, values = known(name), [row.get(name) for row in rows]
        if name in ADDRESSES:
            key = key.typed(types.IPV6 if six[ADDRESSES.index(name)] else types.IPV4)
            numbers = [int(ipaddress.ip_address(value)) if value else 0 for value in values]
            halves = [(number >> 64, number & 2**64 - 1) for number in numbers]
            columns[name] = np.array(*((halves, np.uint64) if key.type is types.IPV6 else (numbers, np.uint32)))
        elif key.type.variable:
            columns[name] = _octets(random, [value or b"" for value in values])
        else:
            columns[name] = np.array([value or 0 for value in values], key.type.dtype)
        keys.append(key)
        if None in values:
            missing[name] = np.array([value is None for value in values])
    return Batch(Schema(keys), columns, missing, n=len(rows), now=0.0)


def _octets(random, values):
    if random.random() < 0.5:
        return Octets.of(values)
    different = sorted(set(values))
    return Coded(np.array([different.index(value) for value in values], np.int32), different)


class Expressions:
    """Random expressions about such rows; `sets` are their named sets."""

    def __init__(self, random):
        self.random = random
        self.sets = {
            "nets": [random.choice(NETWORKS) for _ in range(9)],
            "ports": [str(random.randrange(70_000)) for _ in range(5)] + ["1-3", "60000-65535"],
            "texts": ["drop ssh", "eth0", "\udcff", "DE"],
        }
        self._kinds = [getattr(self, name) for name in dir(self) if name.startswith("term_")]

    def expression(self, depth=0):
        """A term, or terms joined by and, or, not and brackets."""
        draw = self.random.random()
        if depth > 3 or draw < 0.4:
            return self.random.choice(self._kinds)()
        if draw < 0.52:
            return f"{self._one_of('not', '!')} {self._bracketed(depth)}"
        sign = self._one_of(" and ", " or ", " && ", " || ")
        return sign.join(self._bracketed(depth) for _ in range(self.random.choice((2, 2, 2, 3, 4))))

    def _bracketed(self, depth):
        inner = self.expression(depth + 1)
        return f"({inner})" if " " in inner else inner

    def _one_of(self, *choices):
        return self.random.choice(choices)

    def _sides(self, *words_):
        return self._one_of("", "src ", "dst ", "src or dst ", "src and dst ", "dst and src ") if not words_ else (
            self._one_of("", *(f"{word} " for word in words_)))  # fmt: skip

    # values

    def _number(self, name):
        """A constant near the values of a key, or anything."""
        draw = self.random.random()
        if name in FRACTIONS:
            return self._one_of(
                "0", "0.5", "1", "1.5", "0.1", "-1", "2", "1k", "1" + "0" * 30, "9" * 60, "9" * 400, "-0.5"
            )
        if name in (*MILLISECONDS, "time") and draw < 0.5:
            return str(1_700_000_000_000 + self.random.randrange(0, 100_000, 50))
        if draw < 0.5:
            return str(self.random.randrange(12))
        return self._one_of(*map(str, EDGES), str(2**64), "-1", "-5", str(-(2**63)), "1.5", "2.0", "1.5k", "0x10",
                            "70k", "1m", "2G", "9" * 30, "5t", "0.5", "1" + "0" * 400)  # fmt: skip

    def _range(self, name):
        low, high = (self._number(name) for _ in "ab")
        if self.random.random() < 0.4 or "-" in (low[0], high[0]):
            return low
        return f"{low}-{high}" if _plain(low) <= _plain(high) else f"{high}-{low}"

    def _numbers(self, name, list_=None):
        """What follows a word for a number."""
        draw = self.random.random()
        if draw < 0.5:
            return f" {self._one_of('=', '==', '!=', '<', '<=', '>', '>=')} {self._number(name)}"
        if draw < 0.6:
            return f" {self._range(name)}"
        if draw < 0.7 and name not in FRACTIONS:
            bits = self._one_of(
                "1", "0x3", "0xff", "0x8000000000000000", "0xffffffffff", str(2**64 - 1), str(2**70), "6"
            )
            return f" {self._one_of('0', '1', '0x2', '4', '0x8000000000000000', bits)}/{bits}"
        if list_ and draw < 0.75:
            return f"{self._one_of(' in', '')} @{list_}"
        between = self._one_of(" ", ", ")
        values = between.join(self._range(name) for _ in range(self.random.choice((1, 2, 3, 8))))
        return f"{self._one_of(' in', '')} {self._one_of(f'[{values}]', f'{{{values}}}')}"

    def _network(self):
        draw = self.random.random()
        if draw < 0.4:
            return self._one_of(*FOUR, *MAPPED, *SIX)
        if draw < 0.8:
            return self._one_of(*NETWORKS)
        return f"{self._one_of(*FOUR)}/{self.random.randrange(33)}"

    def _networks(self):
        """What follows a word for an address."""
        draw = self.random.random()
        sign = self._one_of("", "", " =", " !=", " ==")
        if draw < 0.5:
            return f"{sign} {self._network()}"
        if draw < 0.6:
            return f"{sign}{self._one_of(' in', '')} @nets"
        between = self._one_of(" ", ", ")
        return f"{sign} in [{between.join(self._network() for _ in range(self.random.choice((1, 2, 4, 20))))}]"

    def _quoted(self, value):
        if self.random.random() < 0.5:
            return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
        return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"

    def _texts(self, name):
        draw = self.random.random()
        values = VALUES.get(name) or FORMED[name]
        sign = self._one_of("", " =", " =", " !=")
        if name in VALUES and draw < 0.4 or draw < 0.3:
            return f" {self._one_of('~', '~', '!~')} {self._quoted(self._one_of(*PATTERNS))}"
        if name in ("oob.prefix", "interfaceName") and draw < 0.5:
            return f"{sign} @texts"
        if draw < 0.7:
            return f"{sign} {self._quoted(self._one_of(*values, ODD, 'no such text'))}"
        return f"{sign} in [{', '.join(self._quoted(self._one_of(*values)) for _ in range(self._one_of(1, 2, 4)))}]"

    # terms: one method for each kind

    def term_any(self):
        return "any"

    def term_exists(self):
        return f"exists {self._one_of(*NAMES, *DERIVED, 'icmpv6.code', 'ct.id', 'flowEndSeconds')}"

    def term_family(self):
        family = self._one_of("inet", "ipv4", "ip", "inet6", "ipv6", "ip6")
        return self._one_of(family, f"{family} {self.term_host()}", f"{family} {self.term_port()}")

    def term_host(self):
        return f"{self._sides()}{self._one_of('host', 'net')}{self._networks()}"

    def term_ip(self):
        return f"{self._one_of('src ', 'dst ', 'src or dst ')}ip{self._networks()}"

    def term_short_network(self):
        return f"{self._sides()}net {self._one_of('10', '10.1', '192.0.2', '10/7', '10.0.0.0 mask 255.0.0.0')}"

    def term_value_alone(self):
        return self._one_of(
            f"port {self.random.randrange(9)} or {self.random.randrange(9)}", f"host {self._one_of(*FOUR)} or 10.0.0.1",
            f"src port ({self.random.randrange(9)} or 3-6)", "proto 6 or 1", "tcp port 1 or 2", "if 1 or 2",
            "dst country DE or FR", "src mac 00:00:00:00:00:01 or 02:03:04:05:06:07",
        )  # fmt: skip

    def term_port(self):
        word = self._one_of("port", "portrange")
        return f"{self._sides()}{word}{self._one_of(self._numbers('port', 'ports'), ' http', ' in [https 1 domain]')}"

    def term_nat(self):
        return f"{self._sides()}nat {self._one_of('ip' + self._networks(), 'port' + self._numbers('port', 'ports'))}"

    def term_as(self):
        return f"{self._sides()}as{self._numbers('as')}"

    def term_country(self):
        word = self._one_of("country", "geo")
        value = self._one_of("DE", "fr", "= us", "!= DE", "in [DE FR]", '~ "^.E"', '""')
        return f"{self._sides()}{word} {value}"

    def term_interface(self):
        return f"{self._sides('in', 'out')}if{self._numbers('if')}"

    def term_mac(self):
        word = self._one_of(f"{self._sides()}mac", "ether host", "ether src", "ether dst")
        value = self._one_of("02:03:04:05:06:07", "00-00-00-00-00-01", "ffff.ffff.ffff", "000000000000")
        return f"{word} {self._one_of(value, f'= {value}', f'!= {value}', f'in [{value} 02:03:04:05:06:07]')}"

    def term_mask(self):
        return f"{self._sides()}mask{self._numbers('mask')}"

    def term_next(self):
        return (
            f"{self._one_of('next ip', 'bgpnext ip', 'router ip', 'exporter', 'ident', 'next net')}{self._networks()}"
        )

    def term_plain(self):
        word = self._one_of(*words.PLAIN)
        return "vlan" if word == "vlan" and self.random.random() < 0.3 else f"{word}{self._numbers(word)}"

    def term_rate(self):
        word = self._one_of(*words.RATES)
        value = self._one_of("0", "1", "8", "0.5", "100", "1k", "1.5M", "10000", "1" + "0" * 400, str(2**63))
        return f"{word} {self._one_of('=', '!=', '<', '<=', '>', '>=', '')} {value}"

    def term_less(self):
        return f"{self._one_of('less', 'greater')} {self._number('len')}"

    def term_dscp(self):
        return f"dscp {self._one_of('0', '1', '2', '46', '63')}"

    def term_protocol(self):
        name = self._one_of("tcp", "udp", "icmp", "esp", "6", "1", "3")
        word = self._one_of("proto", "protocol")
        bare = self._one_of("tcp", "udp", "icmp")
        return self._one_of(f"{word} {name}", f"{word} != {name}", f"{word} in [{name} udp 9]", bare,
                            f"{bare} {self.term_port()}")  # fmt: skip

    def term_flags(self):
        return f"flags {self._one_of('S', 'SA', 'F', 'X', 'c', '0x2', '= 3', '> 1', '2-7')}"

    def term_key_number(self):
        name = self._one_of(*COUNTERS, *PORTS, *SIGNED, *FRACTIONS, *SMALL, *DERIVED, "hashDigestOutput")
        if known(name).type.form and known(name).type.form not in ("microseconds", "nanoseconds"):
            return f"{name}{self._texts(name)}"
        if name == "hashDigestOutput":
            return f"{name} {self._one_of('= true', '!= true', '= 0', '> 0', 'in [0 5]', 'in [1 5]', '1', '< 300')}"
        return f"{name}{self._numbers(name)}"

    def term_time(self):
        name = self._one_of(*MILLISECONDS, "flowStartSeconds", *NTP, "flowStartMicroseconds", "flowEndNanoseconds")
        time = self._one_of("2023-11-14T22:13:20", "2023-11-14T22:14:00.5Z", "2023-11-15T00:14:10+02:00", "2023-11-14",
                            "2023-11-14T22:13:20.5")  # fmt: skip
        return f"{name} {self._one_of('<', '>', '>=', '<=', '=', '!=')} {self._one_of(time, self._number('time'))}"

    def term_key_address(self):
        name = self._one_of(*ADDRESSES, "orig.ip.saddr", "ip.daddr")
        return f"{name}{self._networks()}"

    def term_text(self):
        name = self._one_of("oob.prefix", "oob.prefix", "interfaceName", "src.country")
        return f"{name}{self._texts(name)}"

    def term_list(self):
        return self._one_of(
            f"basicList ~ {self._quoted(self._one_of(*PATTERNS))}", "basicList = 41", "basicList in [5b5d 41]",
        )  # fmt: skip

    def term_formed(self):
        name = self._one_of("applicationId", "tcpOptionsFull", "bgpCommunity")
        return f"{name}{self._texts(name)}"

    def term_label(self):
        return f"mplsTopLabelStackSection{self._one_of(' = 69', ' != 69', ' > 69', ' 60-70', ' in [69 1048575]')}"

    def term_octets(self):
        value = self._one_of(*HEXADECIMAL["e4242id7"][1:])
        pattern = self._quoted(self._one_of(*PATTERNS_OF_OCTETS))
        rest = self._one_of(value, f"= 0x{value}", f"!= {value}", f"in [{value} ab]", f"~ {pattern}", f"!~ {pattern}")
        return f"e4242id7 {rest}"


def _plain(number):
    factor = {"k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}.get(number[-1].lower(), 1)
    digits = number[:-1] if factor > 1 else number
    if digits.startswith("0x"):
        return int(digits, 16)
    return float(digits) * factor if "." in digits else int(digits) * factor
