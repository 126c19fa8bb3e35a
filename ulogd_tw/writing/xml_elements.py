"""Rows as the XML elements that libnetfilter_conntrack, _log and _acct make of theirs: ulogd2's output XML."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from ulogd_tw.core import text, types
from ulogd_tw.core.batch import Batch
from ulogd_tw.core.lines import ColumnField, Field, Lines
from ulogd_tw.core.phrases import Hexadecimal, Phrase, Words
from ulogd_tw.core.resolve import Found

Get = Callable[[str], Found | None]
"""The column of a key in the batch that is written."""

_ENTITIES = str.maketrans(
    {"&": "&amp;", "<": "&lt;", ">": "&gt;"} | {c: "?" for c in map(chr, range(32)) if c not in "\t"}
)


def _form() -> text.TextFormat:
    special = text.PLAIN.special.copy()
    special[list(b"&<>")] = True
    return replace(text.PLAIN, escape=lambda value: value.translate(_ENTITIES), special=special)


FORM = _form()
"""Strings with entities; characters that XML cannot hold become question marks. ulogd2 writes both as they are."""

_PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 33: "dccp", 47: "gre", 58: "icmpv6", 132: "sctp", 136: "udplite"}
_WITH_PORTS = np.zeros(256, bool)
_WITH_PORTS[[6, 17, 33, 132, 136]] = True
_STATES = {
    "ct.tcp.state": ("NONE", "SYN_SENT", "SYN_RECV", "ESTABLISHED", "FIN_WAIT", "CLOSE_WAIT", "LAST_ACK", "TIME_WAIT",
                     "CLOSE", "SYN_SENT2"),
    "ct.sctp.state": ("NONE", "CLOSED", "COOKIE_WAIT", "COOKIE_ECHOED", "ESTABLISHED", "SHUTDOWN_SENT",
                      "SHUTDOWN_RECD", "SHUTDOWN_ACK_SENT"),
    "ct.dccp.state": ("NONE", "REQUEST", "RESPOND", "PARTOPEN", "OPEN", "CLOSEREQ", "CLOSING", "TIMEWAIT", "IGNORED",
                      "INVALID"),
}  # fmt: skip
_SEEN_REPLY, _ASSURED = 1 << 1, 1 << 2
_DIRECTIONS = {"orig": "original", "reply": "reply"}
_PARTS = ("ip.saddr", "ip.daddr", "ip.protocol", "l4.sport", "l4.dport", "raw.pktcount", "raw.pktlen")
_PLAIN = (("timeout", "ct.timeout"), ("mark", "ct.mark"), ("zone", "ct.zone"), ("use", "ct.use"), ("id", "ct.id"))
_NOT_ZERO = ("mark", "zone")
"""The kernel does not send these when they are 0, and so libnetfilter_conntrack has no element."""
_TIMES = ("flow.start.sec", "flow.start.usec", "flow.end.sec", "flow.end.usec")

FLOW_KEYS = (
    *(f"{direction}.{part}" for direction in _DIRECTIONS for part in _PARTS), *_STATES, *(key for _, key in _PLAIN),
    "ct.status", "ct.helper", *_TIMES,
)  # fmt: skip
PACKET_KEYS = ("raw.pkt", "oob.prefix", "oob.hook", "oob.protocol", "raw.mac.saddr", "oob.mark", "oob.ifindex_in",
               "oob.ifindex_out")  # fmt: skip
SUM_KEYS = ("sum.name", "sum.pkts", "sum.bytes")

_LINES = Lines(b"\n", b"", b"")


def flows(get: Get, batch: Batch) -> Iterator[tuple[bytes, int]]:
    """``<flow>`` of each connection, as nfct_snprintf() writes it."""
    fields: list[Field] = [Field(b"<flow>")]
    for direction in _DIRECTIONS:
        fields += _direction(get, direction, batch.n)
    fields.append(Field(b'<meta direction="independent">'))
    for key, names in _STATES.items():
        fields += _state(get(key), names)
    for element, key in _PLAIN:
        found = get(key)
        fields += _element(element, _nonzero(found) if element in _NOT_ZERO else found)
    fields += _status(get("ct.status"))
    fields += _seconds(get, batch.n)
    fields += _element("helper", get("ct.helper"))
    fields.append(Field(b"</meta>" + _when(batch.now) + b"</flow>"))
    return _LINES.render(fields, batch.n)


def packets(get: Get, batch: Batch) -> Iterator[tuple[bytes, int]]:
    """``<log>`` of each packet, as nflog_snprintf_xml() writes it."""
    fields: list[Field] = [Field(b"<log>" + _when(batch.now))]
    fields += _element("prefix", get("oob.prefix"))
    fields += _element("hook", get("oob.hook"))
    fields += _hardware(get("oob.protocol"), get("raw.mac.saddr"))
    for element, key in (("mark", "oob.mark"), ("indev", "oob.ifindex_in"), ("outdev", "oob.ifindex_out")):
        fields += _element(element, _nonzero(get(key)))
    fields += _element("payload", get("raw.pkt"))
    fields.append(Field(b"</log>"))
    return _LINES.render(fields, batch.n)


def sums(get: Get, batch: Batch) -> Iterator[tuple[bytes, int]]:
    """``<obj>`` of each named counter, as nfacct_snprintf() writes it: a Python step a row, of which there are few."""
    fields: list[Field] = [Field(b"<obj>"), *_element("name", get("sum.name"))]
    for element, key in (("pkts", "sum.pkts"), ("bytes", "sum.bytes")):
        found = get(key)
        numbers = [0] * batch.n if found is None else found.numbers.tolist()
        texts = [b"<%s>%020d</%s>" % (element.encode(), value, element.encode()) for value in numbers]
        fields.append(Words(texts, np.arange(batch.n)))
    fields.append(Field(_date(batch.now) + b"</obj>"))
    return _LINES.render(fields, batch.n)


def _direction(get: Get, direction: str, n: int) -> list[Field]:
    """``<meta>`` of one direction: addresses, protocol and ports, counters."""
    source, destination, protocol, sport, dport, count, octets = (get(f"{direction}.{part}") for part in _PARTS)
    fields: list[Field] = [Field(f'<meta direction="{_DIRECTIONS[direction]}">'.encode())]
    if source is not None:
        family = b'10" protoname="ipv6' if source.key.type.kind == "ipv6" else b'2" protoname="ipv4'
        fields.append(Field(b'<layer3 protonum="' + family + b'">'))
        fields += [*_element("src", source), *_element("dst", destination), Field(b"</layer3>")]
    if protocol is not None:
        number = protocol.numbers.astype(np.uint8)
        different, codes = np.unique(number, return_inverse=True)
        fields.append(Words([_layer4(value) for value in different.tolist()], codes))
        portless = ~_WITH_PORTS[number]
        fields += [*_element("sport", _without(sport, portless)), *_element("dport", _without(dport, portless))]
        fields.append(Field(b"</layer4>"))
    if count is not None and octets is not None:
        missing = _either(count.missing, octets.missing)
        members = [b"<counters>", *_inside("packets", count), *_inside("bytes", octets), b"</counters>"]
        fields.append(Phrase(members, missing))
    return [*fields, Field(b"</meta>")]


def _layer4(protocol: int) -> bytes:
    return f'<layer4 protonum="{protocol}" protoname="{_PROTOCOLS.get(protocol, "unknown")}">'.encode()


def _state(found: Found | None, names: Sequence[str]) -> list[Field]:
    if found is None:
        return []
    texts = [f"<state>{name}</state>".encode() for name in (*names, "UNKNOWN")]
    return [Words(texts, np.minimum(found.numbers, len(names)).astype(np.int64), found.missing)]


def _status(found: Found | None) -> list[Field]:
    if found is None:
        return []
    bits = found.numbers.astype(np.uint32)
    codes = (bits & _ASSURED != 0) + 2 * (bits & _SEEN_REPLY == 0)
    return [Words([b"", b"<assured/>", b"<unreplied/>", b"<assured/><unreplied/>"], codes, found.missing)]


def _seconds(get: Get, n: int) -> list[Field]:
    """``<deltatime>``: whole seconds from start to end, of connections whose both times are known."""
    found = [column for column in (get(key) for key in _TIMES) if column is not None]
    if len(found) < len(_TIMES):
        return []
    first, first_us, last, last_us = (column.numbers.astype(np.int64) for column in found)
    passed = np.maximum((last - first) * 10**6 + last_us - first_us, 0) // 10**6
    missing = None
    for column in found:
        missing = _either(missing, column.missing)
    key = found[0].key
    return _element("deltatime", Found(passed.astype(np.uint64), missing, key.typed(types.UNSIGNED64)))


def _hardware(protocol: Found | None, source: Found | None) -> list[Field]:
    """``<hw>``: the EtherType in hexadecimal, and the sender's address where the packet came from a wire."""
    if protocol is None:
        return []
    fields: list[Field] = [Field(b"<hw><proto>", protocol.missing)]
    fields.append(Hexadecimal(protocol.numbers, protocol.missing, 4))
    fields.append(Field(b"</proto>", protocol.missing))
    fields += _element("src", source)
    return [*fields, Field(b"</hw>", protocol.missing)]


def _inside(element: str, found: Found) -> list[bytes | Field]:
    return [f"<{element}>".encode(), ColumnField(b"", found.values, None, found.key, FORM), f"</{element}>".encode()]


def _element(element: str, found: Found | None) -> list[Field]:
    """The element of a column, in the rows that have a value."""
    return [] if found is None else [Phrase(_inside(element, found), found.missing)]


def _without(found: Found | None, mask: np.ndarray) -> Found | None:
    """The column, missing in the rows of the mask too."""
    return None if found is None else replace(found, missing=_either(found.missing, mask))


def _nonzero(found: Found | None) -> Found | None:
    return None if found is None else _without(found, found.numbers == 0)


def _either(one: np.ndarray | None, other: np.ndarray | None) -> np.ndarray | None:
    return other if one is None else one if other is None else one | other


def _when(now: float) -> bytes:
    return b"<when>" + _date(now) + b"</when>"


def _date(now: float) -> bytes:
    """The local time of writing. The days of the week begin with Sunday, 1."""
    at = time.localtime(now)
    return (
        f"<hour>{at.tm_hour}</hour><min>{at.tm_min:02}</min><sec>{at.tm_sec:02}</sec>"
        f"<wday>{(at.tm_wday + 1) % 7 + 1}</wday><day>{at.tm_mday}</day><month>{at.tm_mon}</month>"
        f"<year>{at.tm_year}</year>"
    ).encode()
