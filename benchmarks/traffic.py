"""Messages of IPFIX and NetFlow for benchmarks, made with NumPy and struct and by none of our code.

Each maker gives (source address as a number, octets) of each message, the templates first; `n` is the number of
records. They are of 100,000 flows, of which flow number k is seen 1/k times as often as the first one. Each record is
of one packet, so that the sum of packets in an output is the number of records that came through.
"""

import itertools
import struct
import time

import numpy as np

FLOWS = 100_000
LOOPBACK = 0x7F000001
EXPORTERS = 0x7F010001
"""Address of the first of many exporters: 127.1.0.1."""
APPLICATIONS = (b"dns", b"https", b"http/2", b"quic", b"ssh", b"ntp", b"bittorrent-dht", b"smtp")
UPTIME = 3_600_000
"""Milliseconds since an exporter of NetFlow started."""

V4 = [(8, 4), (12, 4)]
V6 = [(27, 16), (28, 16)]
REST = [(7, 2), (11, 2), (4, 1), (6, 1), (5, 1), (136, 1), (10, 4), (14, 4), (1, 4), (2, 4)]
"""Ports, protocol, TCP flags, class of service, end reason, interfaces, octets, packets."""
IPFIX_TIMES = [(152, 8), (153, 8)]
V9_TIMES = [(22, 4), (21, 4)]


def columns(n, seed=1, flows=FLOWS):
    """Values by element number of n records; those of one flow have the same addresses, ports and protocol."""
    random = np.random.default_rng(seed)
    often = np.cumsum(1 / np.arange(1, flows + 1))
    flow = np.searchsorted(often, random.random(n) * often[-1]).astype(np.uint32)
    ends = int(time.time() * 1000) - random.integers(0, 256, n)
    found = {
        8: 0x0A000000 | flow * np.uint32(2654435761) >> 8,
        12: 0xC0A80000 + (flow >> 4), 7: 1024 + flow * 7 % 60000, 11: np.full(n, 443),
        4: np.where(flow & 1, 6, 17), 6: np.where(flow & 1, 0x1B, 0), 10: 1 + flow % 16, 14: 17 + flow % 16,
        136: np.ones(n), 1: random.integers(40, 1440, n), 2: np.ones(n), 152: ends - random.integers(0, 16384, n),
        153: ends,
    }  # fmt: skip
    found[22], found[21] = (UPTIME - 20000 + (found[152] - ends), np.full(n, UPTIME - 20000))
    return found


def fields(family, version=10):
    """(element, length) of each field; NetFlow v9 has no end reason (136), hence the direction (61)."""
    if version == 10:
        return [*family, *REST, *IPFIX_TIMES]
    return [*family, *((61, 1) if field == (136, 1) else field for field in REST), *V9_TIMES]


class Records:
    """n records of one Template, as octets of `size` each."""

    def __init__(self, number, fields, n, seed=1, flows=FLOWS):
        self.number, self.fields = number, fields
        values = columns(n, seed, flows)
        rows = np.zeros(n, np.dtype([(str(e), f">u{size}" if size <= 8 else f"V{size}") for e, size in fields]))
        for element, size in fields:
            if size == 16:
                wide = np.zeros((n, 2), ">u8")
                wide[:, 0], wide[:, 1] = 0x20010DB8 << 32, values[{27: 8, 28: 12}[element]]
                rows[str(element)] = wide.view("V16")[:, 0]
            elif element in values:
                rows[str(element)] = values[element]
        self.size, self.octets = rows.itemsize, rows.tobytes()

    def template(self):
        """The Template Record."""
        told = b"".join(struct.pack("!HH", element & 0x7FFF, size) for element, size in self.fields)
        return struct.pack("!HH", self.number, len(self.fields)) + told

    def set(self, at, count, pad=False):
        """A Data Set of `count` records from record `at` on."""
        body = self.octets[at * self.size : (at + count) * self.size]
        body += bytes(-len(body) % 4) if pad else b""
        return struct.pack("!HH", self.number, 4 + len(body)) + body


class Exporter:
    """Puts Sets into messages of one Transport Session."""

    def __init__(self, version=10, source=LOOPBACK, domain=1):
        self.version, self.source, self.domain, self.sequence = version, source, domain, 0

    def message(self, sets, count):
        """A message of these Sets with `count` records."""
        body, now = b"".join(sets), int(time.time())
        if self.version == 10:
            head = struct.pack("!HHIII", 10, 16 + len(body), now, self.sequence & 0xFFFFFFFF, self.domain)
            self.sequence += count
        else:
            head = struct.pack("!HHIIII", 9, max(count, len(sets)), UPTIME, now, self.sequence, self.domain)
            self.sequence += 1
        return self.source, head + body

    def templates(self, *told):
        """The message that tells them."""
        body = b"".join(told)
        return self.message([struct.pack("!HH", 2 if self.version == 10 else 0, 4 + len(body)) + body], 0)


def ipfix(n, per=28, version=10):
    """One exporter with one template: 28 records of IPv4 fill a datagram of 1,400 octets."""
    records, exporter = Records(256, fields(V4, version), n), Exporter(version)
    yield exporter.templates(records.template())
    for at in range(0, n, per):
        count = min(per, n - at)
        yield exporter.message([records.set(at, count, pad=version == 9)], count)


def netflow9(n, per=28):
    """The same in NetFlow v9."""
    return ipfix(n, per, 9)


def exporters(n, number=1000, per=10):
    """Many exporters, each with an address of its own, in turn."""
    records = Records(256, fields(V4), n)
    all_ = [Exporter(source=EXPORTERS + i // 250 * 256 + i % 250) for i in range(number)]
    yield from (exporter.templates(records.template()) for exporter in all_)
    for at, exporter in zip(range(0, n, per), itertools.cycle(all_), strict=False):
        count = min(per, n - at)
        yield exporter.message([records.set(at, count)], count)


def templates(n, number=4, each=4, per=15):
    """Some exporters with some templates each, all different; the records of a message are of one template."""
    all_ = [Exporter(source=EXPORTERS + i) for i in range(number)]
    kinds = []
    for at, exporter in enumerate(all_):
        own = [Records(256 + k, _variant(at * each + k), n // (number * each) + per) for k in range(each)]
        kinds.append((exporter, own))
        yield exporter.templates(*(records.template() for records in own))
    for turn, at in enumerate(range(0, n, per)):
        (exporter, own), count = kinds[turn % number], min(per, n - at)
        records, turns = own[turn // number % each], turn // (number * each)
        yield exporter.message([records.set(turns * per, count)], count)


def _variant(number):
    """The fields of a record in another order, with another one of unusual elements for each number."""
    extra = [(16, 4), (17, 4), (9, 1), (13, 1), (60, 1), (61, 1), (58, 2), (59, 2), (56, 8), (80, 8), (15, 4), (32, 2),
             (52, 1), (53, 1), (54, 4), (88, 2)][number]  # fmt: skip
    turn = number % len(REST)
    return [*V4, *REST[turn:], extra, *REST[:turn], *IPFIX_TIMES]


def strings(n, per=24):
    """One template that ends with a string of variable length (applicationName), 3 to 14 octets."""
    fixed, exporter = Records(256, fields(V4), n), Exporter()
    told = fixed.template()
    yield exporter.templates(struct.pack("!HH", 256, len(fixed.fields) + 1) + told[4:] + struct.pack("!HH", 96, 65535))
    ends = [bytes([len(name)]) + name for name in APPLICATIONS]
    rows = [fixed.octets[at : at + fixed.size] for at in range(0, n * fixed.size, fixed.size)]
    for at in range(0, n, per):
        some = rows[at : at + per]
        body = b"".join(row + ends[row[7] & 7] for row in some)
        yield exporter.message([struct.pack("!HH", 256, 4 + len(body)) + body], len(some))


def families(n, version=9, per=28, flows=FLOWS):
    """Both families in each message, a tenth of the records IPv6, in two Sets."""
    four, six = (Records(256 + i, fields(family, version), n, 1 + i, flows) for i, family in enumerate((V4, V6)))
    exporter = Exporter(version)
    yield exporter.templates(four.template(), six.template())
    for at in range(0, n, per):
        count = min(per, n - at)
        less = count // 10 or 1
        sets = [four.set(at, count - less, pad=version == 9), six.set(at, less, pad=version == 9)]
        yield exporter.message(sets, count)


def netflow5(n, per=30):
    """One exporter of NetFlow v5."""
    record = Records(0, [(8, 4), (12, 4), (15, 4), (10, 2), (14, 2), (2, 4), (1, 4), (22, 4), (21, 4), (7, 2), (11, 2),
                         (0, 1), (6, 1), (4, 1), (5, 1), (16, 2), (17, 2), (9, 1), (13, 1), (210, 2)], n)  # fmt: skip
    for at in range(0, n, per):
        count = min(per, n - at)
        head = struct.pack("!HHIIIIBBH", 5, count, UPTIME, int(time.time()), 0, at & 0xFFFFFFFF, 0, 0, 0)
        yield LOOPBACK, head + record.octets[at * record.size : (at + count) * record.size]


def sflow(n, per=7):
    """Datagrams of sFlow with raw headers of 64 octets: Ethernet, IPv4, TCP or UDP."""
    known = columns(n)
    sample = np.zeros(n, np.dtype([
        ("tag", ">u4"), ("length", ">u4"), ("sequence", ">u4"), ("id", ">u4"), ("rate", ">u4"), ("pool", ">u4"),
        ("drops", ">u4"), ("in", ">u4"), ("out", ">u4"), ("records", ">u4"), ("kind", ">u4"), ("size", ">u4"),
        ("protocol_", ">u4"), ("frame", ">u4"), ("stripped", ">u4"), ("header", ">u4"), ("macs", "V12"),
        ("type", ">u2"), ("vihl", "u1"), ("tos", "u1"), ("total", ">u2"), ("ident", ">u4"), ("ttl", "u1"),
        ("protocol", "u1"), ("sum", ">u2"), ("source", ">u4"), ("destination", ">u4"), ("sport", ">u2"),
        ("dport", ">u2"), ("rest", "V26"),
    ]))  # fmt: skip
    values = {
        "source": known[8], "destination": known[12], "sport": known[7], "dport": known[11], "protocol": known[4],
        "tag": 1, "length": 32 + 8 + 16 + 64, "sequence": np.arange(n), "id": 1, "rate": 1, "in": 1, "out": 2,
        "records": 1, "kind": 1, "size": 80, "protocol_": 1, "frame": known[1] + 18, "stripped": 4, "header": 64,
        "type": 0x800, "vihl": 0x45, "total": known[1], "ttl": 64,
    }  # fmt: skip
    for name in sample.dtype.names:
        if name in values:
            sample[name] = values[name]
    for number, at in enumerate(range(0, n, per)):
        part = sample[at : at + per]
        yield LOOPBACK, struct.pack("!IIIIIII", 5, 1, 0x7F000001, 0, number, 1000, len(part)) + part.tobytes()


def tells_templates(octets):
    """Whether a message of one of these makers has templates and no records."""
    at = {b"\0\x0a": 16, b"\0\x09": 20}.get(octets[:2])
    return at is not None and octets[at] == 0
