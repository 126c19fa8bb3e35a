"""One target for each decoder: a function of octets that raises when a promise is broken, and seeds to begin with.

The promises: nothing raises but `MessageError`; the work is bounded (rows and octets of output by the octets of input;
the calls that are made, see `tests.fuzz.work`); what is remembered stays within its limits; after any input a good one
is decoded.

A new decoder: a function here or in a module beside, and a line in `TARGETS`.
"""

import json
import struct
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
from twisted.trial.unittest import SkipTest

from tests.fuzz import texts
from tests.fuzz.replays import fragments, pcapin, segments
from tests.support import shared_path
from tests.unit.ipfix.test_netflow_classic import RECORD1, RECORD7, v1, v7, v8
from tests.unit.ipfix.test_packet_sections import frame, junos
from tests.unit.ipfix.test_sflow import INTERFACE, TCP, datagram, element, flow_sample, raw
from tests.unit.ipfix.test_sflow_former import (
    ETHERNET,
    GATEWAY2,
    GATEWAY4,
    ROUTER,
    SWITCH,
    URL,
    USER,
    counters,
    former,
    sampled,
)
from tests.unit.ipfix.test_sflow_records import RECORDS
from tests.unit.ipfix.walk import check_located
from tests.unit.ipfix.wire import COUNTER, a_set, check, counts, message, options_template, template, varying
from tests.unit.netfilter import logged as packets
from tests.unit.netfilter import messages as netlink
from tests.unit.netfilter.test_nfacct import message as counter_message
from tests.unit.packets.test_tunnels import TUNNELLED
from tests.unit.packets.test_unixsock import FULL
from tests.unit.packets.wire import ip, pcap, pcapng, tcp, udp
from ulogd_tw.core import types
from ulogd_tw.core.batch import Batch, Schema
from ulogd_tw.core.counters import Counters
from ulogd_tw.core.errors import MessageError
from ulogd_tw.core.plugin import ALL
from ulogd_tw.ipfix import set_walk
from ulogd_tw.ipfix.decoder import Decoder, Limits
from ulogd_tw.ipfix.files import FileReader
from ulogd_tw.ipfix.message import Framer
from ulogd_tw.ipfix.session import Session
from ulogd_tw.ipfix.structured import Lists, Plans
from ulogd_tw.ipfix.template import parse_set
from ulogd_tw.netfilter import conntrack, nfacct, nflog_decoder
from ulogd_tw.packets import headers, tunnels, unixsock
from ulogd_tw.packets.capture import Capture
from ulogd_tw.packets.link import beginnings
from ulogd_tw.packets.payloads import Exports
from ulogd_tw.plugins.filters.base import COMMON, FOUND, key_of
from ulogd_tw.transports.netlink import nlmsg

LIMITS = Limits(
    domains=4, domains_in_all=6, templates=8, templates_in_all=12, fields=200, session_fields=400, fields_in_all=600,
    announced_octets=2000, missing=4, parked_octets=4000, layouts=6, layout_fields=300, nesting=4, list_octets=20_000,
    lists_octets=100_000, former=8, events=20, told=10,
)  # fmt: skip
"""Small enough to be reached."""
MACS = bytes.fromhex("020000000002 020000000001 0800")
"""In front of a packet of IPv4."""
GOOD_DOMAIN = 0xFFFFFFF0
_GOOD = message(a_set(2, template(999, (1, 4))), a_set(999, b"\0\0\0\7"), domain=GOOD_DOMAIN)


def joined(parts):
    """Several messages as one input: each with its length in two octets in front."""
    return b"".join(struct.pack("!H", len(part)) + part for part in parts)


def cut(data):
    """The messages of such an input."""
    at, found = 0, []
    while at + 2 <= len(data) and len(found) < 200:
        size = int.from_bytes(data[at : at + 2], "big")
        found.append(data[at + 2 : at + 2 + size])
        at += 2 + size
    return found


@cache
def corpus(*protocols):
    """The messages of each capture of these protocols, as inputs; none where the corpus is not there."""
    try:
        folder = shared_path("corpus", "ipfix", "oracle")
    except SkipTest:
        return ()
    found = []
    for path in sorted(Path(folder).glob("*.json")):
        if json.loads(path.read_text())["protocol"] in protocols:
            lines = (path.parents[1] / "messages" / f"{path.name}l").read_text().splitlines()[:20]
            found.append(joined(bytes.fromhex(json.loads(line)["hex"]) for line in lines))
    return tuple(octets for octets in found if len(octets) < 20_000)


# collectors


def collect(parts, reliable, wanted=ALL, limits=LIMITS, slab=False, streams=1, inner=False, copied=False):
    """Feed a decoder with messages and check its promises; the decoder and its batches."""
    counters = Counters("fuzz")
    decoder = Decoder(wanted, counters, limits, inner=inner, copied=copied)
    overtakes = not reliable or streams > 1
    sessions = [Session(f"192.0.2.{n}", 1, reliable=reliable, overtakes=overtakes) for n in (1, 2)]
    batches = []
    for begin in range(0, len(parts), 7):
        some = parts[begin : begin + 7]
        if slab:
            rows = np.full((len(some), 2048), 0xA5, np.uint8)
            for row, part in zip(rows, some, strict=True):
                row[: len(part)] = np.frombuffer(part[:2048], np.uint8)
            lengths = np.array([min(len(part), 2048) for part in some], np.int64)
            decoder.feed_slab([sessions[place == 5] for place in range(len(some))], rows, lengths, 1000.0 + begin)
        elif streams > 1:
            for place, part in enumerate(some):
                decoder.feed_stream(sessions[place == 5], place % streams, part[:2048], 1000.0 + begin)
        else:
            for place, part in enumerate(some):
                decoder.feed(sessions[place == 5], part[:2048], 1000.0 + begin)
        batches += decoder.drain(1000.0 + begin)
    within(decoder, sessions, limits)
    octets = sum(map(len, parts))
    rows = sum(batch.n for batch in batches)
    assert rows <= octets, (rows, octets)
    assert rows + counters.dropped.total() == counters.rows_received, (rows, counters.rows_received, counters.dropped)
    for batch in batches:
        check(batch)
    assert sum(batch.nbytes for batch in batches) <= 400 * octets + (1 << 20), octets
    decoder.feed(Session("192.0.2.9", 1, reliable=True), _GOOD, 5000.0)
    if counters.errors["limit_domains_in_all"] + counters.errors["limit_templates_in_all"] == 0:
        assert sum(batch.n for batch in decoder.drain(5000.0)) == 1, dict(counters.errors)
    for session in sessions:
        decoder.forget(session)
    return decoder, batches


def within(decoder, sessions, limits):
    """What is remembered stays within the limits."""
    kept = decoder.intake.templates._kept
    domains = [domain for session in sessions for domain in session.domains.values()]
    assert sum(max(len(domain.sequences), 1) for domain in domains) == kept.domains <= limits.domains_in_all
    assert all(len(session.domains) <= limits.domains for session in sessions)
    assert kept.templates == sum(session.templates for session in sessions) <= limits.templates_in_all
    assert kept.fields == sum(session.fields for session in sessions) <= limits.fields_in_all
    assert kept.parked_octets == sum(session.parked_octets for session in sessions) <= limits.parked_octets
    assert kept.told <= limits.told
    assert len(decoder.events) <= limits.events
    assert all(len(domain.missing) <= limits.missing for domain in domains)
    assert all(session.announced_octets <= limits.announced_octets for session in sessions)
    assert not any(domain.deferring for domain in domains)


def ipfix_udp(data):
    """Messages of IPFIX over UDP, all keys wanted; with few keys as many rows, and for outputs that copy the same."""
    parts = cut(data)
    _, batches = collect(parts, False)
    _, copied = collect(parts, False, copied=True)
    assert repr([list(batch.rows()) for batch in batches]) == repr([list(batch.rows()) for batch in copied])
    _, few = collect(parts, False, frozenset({"octetDeltaCount", "sampling_factor", "ingressInterfaceName"}))
    assert sum(batch.n for batch in batches) == sum(batch.n for batch in few)


def sampled_packets(data):
    """Packets in samples of sFlow and in records of IPFIX: as many rows with few keys, and with what is in tunnels."""
    parts = cut(data)
    few = frozenset({"octetDeltaCount", "tunnel.source", "bgpDestinationAsPath", "sourceIPv4Address"})
    ways = ((ALL, False), (ALL, True), (few, True))
    rows = [sum(b.n for b in collect(parts, False, wanted, inner=inner)[1]) for wanted, inner in ways]
    assert len(set(rows)) == 1, rows


def ipfix_reliable(data):
    """The same over a connection: withdrawals count."""
    collect(cut(data), True)


def ipfix_streams(data):
    """The same over an association of several streams."""
    collect(cut(data), True, streams=3)


def slab(data):
    """Datagrams in the memory of recvmmsg give what each by itself gives."""
    set_walk.FEWEST = 2  # so that few Messages that differ are walked together too
    parts = [part[:2048] for part in cut(data)]
    one, two = (collect(parts, False, limits=Limits(), slab=kind) for kind in (False, True))
    for name in ("messages_received", "octets_received", "rows_received", "errors", "lost"):
        assert getattr(one[0].counters, name) == getattr(two[0].counters, name), name
    # those of several domains may come in another order
    rows = (sorted(repr(row) for batch in found[1] for row in batch.rows()) for found in (one, two))
    assert next(rows) == next(rows)


def framer(data):
    """A stream in any pieces gives the Messages of the whole."""
    if not data:
        return
    step, data = data[0] % 50 + 1, data[1:]
    assert _framed(data, len(data) or 1) == _framed(data, step)


def _framed(data, step):
    framing, found = Framer(), []
    for at in range(0, len(data), step):
        try:
            found += framing.feed(data[at : at + step])
        except MessageError as error:
            return [*found, *error.before], True
    assert framing.waiting <= 65535
    return found, False


def varying_records(data):
    """Records of variable length: in lock-step as one by one. First how many fields, their lengths, and bodies."""
    if not data:
        return
    fields = [(65535, 65535, 0, 1, 3)[octet % 5] for octet in data[1 : 2 + data[0] % 5]]
    if 65535 not in fields:
        return
    bodies = cut(data[1 + len(fields) :])
    if bodies:
        check_located(bodies * (1 + data[0] % 20), 0, fields)


def text_lines(data):
    """Lines of text have the same octets with the kernel, with NumPy, and row by row."""
    texts.lines(cut, data)


def file(data):
    """Files of IPFIX: every octet is in a Message, passed over, or left at the end."""
    reader = FileReader()
    found = []
    for at in range(0, len(data), 1000):
        found += reader.feed(data[at : at + 1000])
    found += reader.finish()
    assert sum(map(len, found)) + reader.skipped + reader.waiting == len(data)


def templates(data):
    """Template Sets and Options Template Sets."""
    for set_id in (2, 3):
        try:
            found = parse_set(set_id, data)
        except MessageError:
            continue
        assert sum(4 * len(getattr(one, "fields", ())) + 4 for one in found) <= len(data)


_LISTS = (types.BASIC_LIST, types.SUB_TEMPLATE_LIST, types.SUB_TEMPLATE_MULTI_LIST)


def lists(data):
    """Structured data with templates of fixed and of variable length at hand: JSON, and no more of it than allowed."""
    decoder = Decoder(ALL, Counters("fuzz"))
    session = Session("192.0.2.1", 1, reliable=True)
    inner = [template(256, (8, 4), (7, 2)), template(257, (82, 65535), (291, 65535)), template(258, (292, 65535))]
    decoder.feed(session, message(a_set(2, *inner)), 1.0)
    known = session.domains[1].templates
    for type_ in _LISTS:
        reading = Lists(lambda ident: known[ident].layout if ident in known else None, Plans(1000), 5)
        text, opaque = reading.text(data, type_)
        json.loads(text)
        assert opaque >= 0
        assert len(text) <= 200 * len(data) + 200


# packets


def capture(data):
    """Captures, and the exports in them."""
    errors = Counter()
    reading, exports = Capture(), Exports(frozenset({4739, 2055}), errors)
    seen = 0
    for at in range(0, len(data), 700):
        try:
            packets = reading.feed(data[at : at + 700])
        except MessageError as error:
            packets, data = error.before, b""
        seen += len(packets)
        ends = packets.starts + packets.lengths
        assert not len(packets) or (packets.starts.min() >= 0 and ends.max() <= len(packets.octets) - 64)
        for sent in exports.of(packets):
            assert len(sent.octets) <= 65535


def packet_headers(data):
    """Headers of packets that begin anywhere in the octets."""
    padded = np.frombuffer(data + bytes(64), np.uint8)
    n = min(len(data), 40)
    starts = np.arange(n, dtype=np.int64) * max(len(data) // (n or 1), 1)
    lengths = np.full(n, len(data), np.int64) - starts
    first = np.arange(n) % 3
    found = headers.decode(padded, starts, lengths, first, ALL)
    few = headers.decode(padded, starts, lengths, first, frozenset({"sourceTransportPort", "ipTTL"}))
    of_ip = ([(one.family, one.rows.tolist()) for one in parts if one.family in (4, 6)] for parts in (found, few))
    assert next(of_ip) == next(of_ip)
    assert sorted(row for one in found for row in one.rows.tolist()) == list(range(n))
    for one in found:
        assert all(len(column) == len(one.rows) for column in one.columns.values())
        assert set(one.missing) <= set(one.columns)
        assert (one.payload <= one.ends).all() and (one.ends <= len(data)).all()


def inner_packets(data):
    """What is inside tunnels lies within its packet; many at once as one by one."""
    octets = np.frombuffer(data + bytes(8), np.uint8)
    n = min(len(data), 12)
    starts = np.arange(n, dtype=np.int64) * max(len(data) // (n or 1), 1)
    lengths = np.full(n, len(data), np.int64) - starts
    first = np.array((headers.ETHERNET, headers.IP, headers.MPLS), np.int64)[octets[starts] % 3]
    found = tunnels.inside(octets, starts, lengths, first)
    assert (found.starts >= starts).all() and (found.starts + found.lengths <= starts + lengths).all()
    for place in range(n):
        one = slice(place, place + 1)
        alone = tunnels.inside(octets, starts[one], lengths[one], first[one])
        for name in ("starts", "lengths", "first", "protocol", "ident", "has_ident", "has_ends", "source"):
            assert (getattr(alone, name) == getattr(found, name)[one]).all(), (place, name)


def packet_keys(data):
    """ulogd2's keys of packets of any link, in octets that end with the last packet; one by one gives the same."""
    octets = np.frombuffer(data, np.uint8)
    n = min(len(data), 12)
    starts = np.arange(n, dtype=np.int64) * max(len(data) // (n or 1), 1)
    lengths = np.full(n, len(data), np.int64) - starts
    links = np.array((1, 101, 113, 276, 0, 9, 104, 147), np.int64)[octets[starts] % 8]
    rows = _packet_rows(octets, starts, lengths, links)
    assert len(rows) == n
    for place in range(n):
        one = slice(place, place + 1)
        assert _packet_rows(octets, starts[one], lengths[one], links[one]) == rows[one]


_KEYS_OF_PACKETS = frozenset((*FOUND, *COMMON))


def _packet_rows(octets, starts, lengths, links):
    """The fault and the keys of each packet."""
    starts, lengths, first, unknown = beginnings(octets, starts, lengths, links)
    faults = np.zeros(len(starts), np.uint8)
    rows = [None] * len(starts)
    for found in headers.decode(octets, starts, lengths, first, _KEYS_OF_PACKETS, faults):
        schema = Schema([key_of(name, column) for name, column in found.columns.items()])
        batch = Batch(schema, found.columns, found.missing, n=len(found.rows), now=0.0)
        several = batch.rows() if found.columns else [{}] * len(found.rows)
        for place, row in zip(found.rows.tolist(), several, strict=True):
            rows[place] = (found.family, bool(unknown[place]), row)
    return [(int(fault), *row) for fault, row in zip(faults, rows, strict=True)]


def handed_over(data):
    """Messages of UNIXSOCK: whatever is cut how, and what is held is less than one."""
    framer = unixsock.Framer()
    rows = []
    try:
        for at in range(0, len(data), 100):
            for message in framer.feed(data[at : at + 100]):
                try:
                    rows.append(unixsock.row(message, Counter()))
                except MessageError:
                    continue
            assert len(framer.held) <= unixsock.LONGEST
    except MessageError:
        pass
    if rows:
        assert unixsock.batch(rows, ALL, 1.0).n == len(rows)


# netlink


def ctnetlink(data):
    """Conntrack messages: a batch equals what each gives by itself."""
    parts = [part[:504] for part in cut(data) if len(part) >= 20]
    if not parts:
        return
    refused = Counter()
    decoder = conntrack.Decoder(ALL, refused)
    batches = decoder.decode(*netlink.slab(parts), 1000.0)
    rows = sum(batch.n for batch in batches)
    assert rows + refused.total() == len(parts), (rows, refused, len(parts))
    single = Counter()
    for part in parts:
        single += _plain(conntrack.Decoder(ALL).decode(*netlink.slab([part]), 1000.0))
    assert _plain(batches) == single


LOGGED = frozenset((*(key.name for key in nflog_decoder.KEYS), *(key.name for key in nflog_decoder.CONNECTION_KEYS)))


def nflog(data):
    """Logged packets: a batch equals what each gives by itself."""
    parts = [part for part in cut(data) if len(part) >= 16]
    if not parts:
        return
    refused = Counter()
    decoder = nflog_decoder.Decoder(LOGGED, refused)
    batches = decoder.decode(*packets.together(parts), 1000.0)
    assert sum(batch.n for batch in batches) + refused.total() == len(parts), (batches, refused, len(parts))
    assert decoder.lost() < 1 << 32
    single = Counter()
    for part in parts:
        single += _plain(nflog_decoder.Decoder(LOGGED).decode(*packets.together([part]), 1000.0))
    assert _plain(batches) == single


def nfacct_counters(data):
    """Named counters."""
    refused = Counter()
    assert nfacct.decode(cut(data), ALL, 1.0, refused).n + refused.total() == len(cut(data))


def _plain(batches: list[Batch]) -> Counter:
    return Counter(tuple(sorted(row.items(), key=str)) for batch in batches for row in batch.rows())


def netlink_messages(data):
    """Netlink messages in datagrams."""
    views = [np.frombuffer(part + bytes(-len(part) % 4), np.uint8) for part in cut(data)]
    octets, starts, lengths, broken = nlmsg.places(views)
    assert (lengths >= 16).all() and (starts + lengths <= sum(map(len, views))).all() and broken <= len(views)
    found, broken = nlmsg.split(cut(data))
    assert 0 <= broken <= 200
    assert len(found) * 16 <= len(data)
    for octets in found.octets():
        try:
            nlmsg.control(octets)
        except MessageError:
            continue


def _nflog_seeds():
    datagrams = packets.recorded()
    return [joined(packets.cut(datagram)[:8]) for datagram in datagrams]


def _lists_seeds():
    basic = struct.pack("!BHH", 3, 8, 4) + bytes(8)
    variable = struct.pack("!BHH", 3, 82, 65535) + varying(b"eth0")
    sub = struct.pack("!BH", 3, 256) + bytes(6)
    nested = struct.pack("!BH", 3, 257) + varying(b"x") + varying(basic)
    multi = b"\3" + struct.pack("!HH", 256, 10) + bytes(6)
    return basic, variable, sub, nested, multi


def _netlink_seeds():
    try:
        recorded = netlink.corpus()[:40]
    except SkipTest:
        recorded = []
    flow = netlink.flow_tuple(1, b"\xc0\0\2\1", b"\xc6\x33\x64\7", 6, *netlink.ports(1, 2))
    return [joined(recorded[n : n + 5]) for n in range(0, len(recorded), 5)] + [
        joined([netlink.message(netlink.DESTROY, 2, flow, netlink.counters(9, 1, 2))])
    ]


_OPTIONS = message(
    a_set(3, options_template(300, 1, (10, 4), (82, 65535), (34, 4))), a_set(300, b"\0\0\0\1\4eth0\0\0\0\5"),
    a_set(2, COUNTER), a_set(256, bytes(8)), a_set(999, bytes(8)),
)  # fmt: skip
_PACKETS = [(1.0, udp("192.0.2.1", "198.51.100.1", (5000, 4739), counts(1))),
            (2.0, tcp("2001:db8::1", "2001:db8::2", (5000, 2055), 7, _OPTIONS))]  # fmt: skip

_ENDS = "192.0.2.1", "198.51.100.1"
_DATAGRAM = struct.pack("!HHHH", 5000, 4739, 8 + len(_OPTIONS), 0) + _OPTIONS
_PIECES = [
    (3.0, ip(*_ENDS, 17, _DATAGRAM[:80], 0x2000)),
    (4.0, ip(*_ENDS, 17, _DATAGRAM[80:], 10)),
    *((5.0 + n, tcp("192.0.2.2", "198.51.100.1", (5000, 4739), 100 + n * 40, _OPTIONS[n * 40 :][:40]))
      for n in (0, 2, 1, 3)),
]  # fmt: skip

TARGETS = {
    "ipfix": (ipfix_udp, lambda: (joined([_OPTIONS, counts(1)]), *corpus("ipfix"))),
    "ipfix-reliable": (ipfix_reliable, lambda: (joined([_OPTIONS, counts(1)]), *corpus("ipfix"))),
    "ipfix-streams": (ipfix_streams, lambda: (joined([_OPTIONS, counts(1), counts(2), _OPTIONS]), *corpus("ipfix"))),
    "netflow9": (ipfix_udp, lambda: corpus("netflow9") or (joined([b"\0\x09" + bytes(40)]),)),
    "netflow5": (ipfix_udp, lambda: corpus("netflow5") or (joined([b"\0\x05\0\1" + bytes(68)]),)),
    "sflow": (ipfix_udp, lambda: corpus("sflow5") or (joined([b"\0\0\0\5\0\0\0\1" + bytes(60)]),)),
    "netflow-classic": (slab, lambda: (joined([v1(RECORD1, RECORD1), v7(RECORD7), v8(2)] * 2),
                                       joined([v1(RECORD1)] * 6), joined([v7(RECORD7, RECORD7)] * 6))),
    "sflow-records": (sampled_packets, lambda: tuple(
        joined([datagram(flow_sample(raw(TCP), element(tag, octets)))]) for tag, octets, _ in RECORDS
    )),
    "sflow-former": (sampled_packets, lambda: (
        joined([former(sampled(SWITCH, ROUTER, GATEWAY4, USER, URL), version=4)]),
        joined([former(sampled(SWITCH, GATEWAY2), counters(2, INTERFACE + ETHERNET), version=2)]),
    )),
    "packet-sections": (sampled_packets, lambda: (
        joined(junos(*(frame(MACS + packet) for packet, *_ in TUNNELLED))),
        joined(junos(varying(TCP) * 2, fields=((315, 65535), (313, 65535)))),
    )),
    "tunnels": (inner_packets, lambda: tuple(packet for packet, *_ in TUNNELLED)),
    "slab": (slab, lambda: (joined([_OPTIONS] + [counts(1, 2, number=2 * n) for n in range(6)]),
                            *corpus("ipfix", "netflow9", "netflow5"))),
    "framer": (framer, lambda: (b"\7" + _OPTIONS + counts(1) + counts(2),)),
    "ipfix-file": (file, lambda: (_OPTIONS + counts(1) + b"garbage" + counts(2) + counts(3)[:-3],)),
    "templates": (templates, lambda: (COUNTER * 3, options_template(300, 1, (10, 4), (5, 4, 32473)))),
    "lists": (lists, _lists_seeds),
    "varying": (varying_records, lambda: (
        b"\x11\0\2\1" + joined([b"\2ab\0\1cdef\3ab", b"\xff\0\3abcd\1e", b"\xff\0"]),
    )),
    "text-lines": (text_lines, lambda: (
        joined([b"eth0\0\0", b'say "hi"\n\x1f\x7f', "\u00e9\u20ac\U0001f600\u2028".encode(),
                b"\xed\xa0\x80\xf4\x8f\xe2"]),
        joined([b"a name that is longer than eight octets"] * 30),
    )),
    "capture": (capture, lambda: (pcap(_PACKETS), pcapng(_PACKETS), pcapng(_PACKETS, order=">", resolution=9))),
    "segments": (segments, lambda: (bytes((192, 0, 0, 0, 90, 0, 0, 180, 0, 90, 0, 0, 90, 0, 90)),)),
    "fragments": (fragments, lambda: (bytes((1, 0, 0, 3, 32, 129, 3, 32, 9, 9)),
                                      bytes((2, 0, 8, 200, 0, 2, 0, 16, 200, 0)))),
    "pcapin": (pcapin, lambda: (pcap(_PACKETS), pcapng(_PACKETS, resolution=0), pcap(_PIECES))),
    "packet-keys": (packet_keys, lambda: (_PACKETS[0][1], _PACKETS[1][1])),
    "packet-headers": (packet_headers, lambda: (_PACKETS[0][1], _PACKETS[1][1], bytes(12) + b"\x81\0\0\5\x08\0"
                                                + _PACKETS[0][1])),
    "ctnetlink": (ctnetlink, _netlink_seeds),
    "nflog": (nflog, _nflog_seeds),
    "nfacct": (nfacct_counters, lambda: (joined([counter_message(b"http\0", 1, 2), counter_message(b"x\0", 3, 4)]),)),
    "unixsock": (handed_over, lambda: (FULL + FULL,)),
    "netlink": (netlink_messages, _netlink_seeds),
}  # fmt: skip
"""name -> (target, what gives its seeds)."""
