"""PRINTPKT: a packet as one line of text, in the format of the kernel's LOG target."""

from __future__ import annotations

from functools import partial

import numpy as np

from ulogd_tw.core.batch import Batch
from ulogd_tw.core.columns import Octets
from ulogd_tw.core.keys import ulogd_keys
from ulogd_tw.core.lines import Field
from ulogd_tw.core.phrases import Colons, Hexadecimal, Phrase, Words, strings, value
from ulogd_tw.core.plugin import PACKET, Filter, Wanted
from ulogd_tw.core.resolve import Found
from ulogd_tw.kernels.rows import Choice

KEYS = (
    "oob.prefix", "oob.in", "oob.out", "oob.uid", "oob.gid", "oob.mark", "oob.protocol", "raw.mac",
    "ip.saddr", "ip.daddr", "ip.totlen", "ip.tos", "ip.ttl", "ip.id", "ip.fragoff",
    "ip6.payloadlen", "ip6.priority", "ip6.hoplimit", "ip6.flowlabel", "ip6.nexthdr", "ip6.fragoff", "ip6.fragid",
    "tcp.sport", "tcp.dport", "tcp.seq", "tcp.ackseq", "tcp.window", "tcp.urg", "tcp.ack", "tcp.psh", "tcp.rst",
    "tcp.syn", "tcp.fin", "tcp.urgp", "tcp.csum", "udp.sport", "udp.dport", "udp.len", "sctp.sport", "sctp.dport",
    "icmp.type", "icmp.code", "icmp.echoid", "icmp.echoseq", "icmp.gateway", "icmp.fragmtu", "icmp.parameter",
    "icmpv6.type", "icmpv6.code", "icmpv6.echoid", "icmpv6.echoseq", "ahesp.spi",
    "arp.operation", "arp.shwaddr", "arp.saddr", "arp.daddr",
)  # fmt: skip
_NAMED = {6: b"TCP", 17: b"UDP", 132: b"SCTP", 50: b"ESP", 51: b"AH"}
_PROTOCOLS = {
    4: Choice([b"PROTO=" + (_NAMED | {1: b"ICMP"}).get(number, b"%d" % number) for number in range(256)]),
    6: Choice([b"PROTO=" + (_NAMED | {58: b"ICMPv6"}).get(number, b"%d" % number) for number in range(256)]),
}
_TOS = Choice([b" TOS=%02X PREC=0x%02X" % (tos & 0x1E, tos & 0xE0) for tos in range(256)])
_FLAGS = Choice(
    [b" ".join(word for bit, word in ((4, b"CE"), (2, b"DF"), (1, b"MF")) if flags & bit) for flags in range(8)]
)
_TCP = ("tcp.urg", "tcp.ack", "tcp.psh", "tcp.rst", "tcp.syn", "tcp.fin")
_TCP_FLAGS = Choice(
    [
        b"".join(name[4:].upper().encode() + b" " for place, name in enumerate(_TCP) if flags >> place & 1)
        for flags in range(64)
    ]
)
_OPERATIONS = {1: b"REQUEST", 2: b"REPLY", 10: b"NAK"}
"""Operations of ARP (RFC 826, RFC 1577)."""


class PRINTPKT(Filter):
    """Gives the key print: a packet as one line of text, for LOGEMU and SYSLOG.

    The format is ulogd2's (IN= OUT= MAC= SRC= DST= LEN= ... PROTO=TCP SPT= DPT= ...), with three corrections: ICMP
    details follow the ICMP type, later fragments have no ports, and every protocol over IPv6 is named. IP2STR is not
    needed.
    """

    name = "PRINTPKT"
    itype = otype = PACKET
    provides = ulogd_keys("print")
    uses = ("ip.protocol",)
    may_use = KEYS

    def requests(self, wanted: Wanted) -> dict[str, bool]:
        return super().requests(wanted) if "print" in wanted else {}

    def process(self, batch: Batch) -> Batch:
        if "print" not in self.wanted:
            return batch
        column = strings(_Text(partial(self.find, batch), batch.n).fields(), batch.n, b" ", b" ")
        return batch.with_columns({self.provides[0]: column})


class _Text:
    """The fields of the lines of one batch."""

    def __init__(self, find, n: int) -> None:
        self.find = find
        self.n = n

    def fields(self) -> list[Field]:
        found: list[Field] = []
        if prefix := self.find("oob.prefix"):
            found.append(value(prefix))
        if (came := self.find("oob.in")) and (left := self.find("oob.out")):
            found.append(Phrase([b"IN=", value(came), b" OUT=", value(left)], _either(came, left)))
        found += self._mac()
        if (total := self.find("ip.totlen")) is not None:
            found += self._ipv4(total)
        elif (size := self.find("ip6.payloadlen")) is not None:
            found += self._ipv6(size)
        elif self.find("arp.operation") is not None:
            found += self._arp()
        elif kind := self.find("oob.protocol"):
            found.append(value(kind, b"PROTO="))
        for name, piece in (("oob.uid", b"UID="), ("oob.gid", b"GID=")):
            if owner := self.find(name):
                found.append(value(owner, piece))
        if mark := self.find("oob.mark"):
            found.append(Phrase([b"MARK=0x", Hexadecimal(mark.values)], mark.missing))
        return found

    def _mac(self) -> list[Field]:
        mac = self.find("raw.mac")
        if mac is None:
            return [Phrase([b"MAC="])]
        octets = mac.values.plain()
        if mac.missing is None:
            return [Colons(b"MAC=", octets)]
        rows = np.where(mac.missing, 0, octets.lengths)
        return [Colons(b"MAC=", Octets.gathered(octets.data, octets.offsets[:-1], rows))]

    # IP

    def _ends(self, prefix: str) -> list[bytes | Field]:
        members: list[bytes | Field] = []
        for piece, name in ((b"SRC=", f"{prefix}.saddr"), (b" DST=", f"{prefix}.daddr")):
            if (address := self.find(name)) is not None:
                members += [piece, value(address)]
        return members

    def _with(self, members: list[bytes | Field], named: tuple[tuple[bytes, str], ...]) -> list[bytes | Field]:
        for piece, name in named:
            if (found := self.find(name)) is not None:
                members += [piece, value(found)]
        return members

    def _ipv4(self, total: Found) -> list[Field]:
        members = [*self._ends("ip"), b" LEN=", value(total)]
        if (tos := self.find("ip.tos")) is not None:
            members.append(Words(_TOS, tos.values))
        found: list[Field] = [Phrase(self._with(members, ((b" TTL=", "ip.ttl"), (b" ID=", "ip.id"))), total.missing)]
        later = None
        if (place := self.find("ip.fragoff")) is not None:
            flags, offset = place.values >> 13, place.values & 0x1FFF
            later = offset != 0
            found.append(Words(_FLAGS, flags, flags == 0))
            if later.any():
                found.append(value(Found(offset, ~later, place.key), b"FRAG:"))
        return found + self._protocol("ip.protocol", 4, later)

    def _ipv6(self, size: Found) -> list[Field]:
        total = Found(size.values.astype(np.uint32) + 40, size.missing, size.key)
        named = ((b" TC=", "ip6.priority"), (b" HOPLIMIT=", "ip6.hoplimit"), (b" FLOWLBL=", "ip6.flowlabel"))
        members = self._with([*self._ends("ip"), b" LEN=", value(total)], named)
        found: list[Field] = [Phrase(members, total.missing)]
        later = None
        if (place := self.find("ip6.fragoff")) and (ident := self.find("ip6.fragid")):
            found.append(Phrase([b"FRAG: ", value(place), b" ID: ", Hexadecimal(ident.values, None, 8)],
                                _either(place, ident)))  # fmt: skip
            later = (place.values != 0) & ~_gone(place, self.n)
        return found + self._protocol("ip6.nexthdr", 6, later)

    def _protocol(self, name: str, family: int, later: np.ndarray | None) -> list[Field]:
        protocol = self.find(name)
        if protocol is None:
            return []
        found: list[Field] = [Words(_PROTOCOLS[family], protocol.values, protocol.missing)]
        incomplete = np.zeros(self.n, bool)
        for number, make in ((6, self._tcp), (17, self._udp), (132, self._sctp), (50, self._spi), (51, self._spi),
                             (1 if family == 4 else 58, self._icmp if family == 4 else self._icmpv6)):  # fmt: skip
            rows = protocol.values == number
            if protocol.missing is not None:
                rows &= ~protocol.missing
            if rows.any():
                fields, gone = make(~rows)
                found += fields
                incomplete |= rows & gone
        if later is not None:
            incomplete &= ~later
        if incomplete.any():
            found.append(Phrase([b"INCOMPLETE"], ~incomplete))
        return found

    def _known(self, last: str, others: np.ndarray) -> np.ndarray | None:
        """A mask of the rows without the header whose last key is this; None if all have it."""
        found = self.find(last)
        return None if found is None else others | _gone(found, self.n)

    def _numbers(self, last: str, others: np.ndarray, *named: tuple[bytes, str]) -> tuple[list[Field], np.ndarray]:
        """The numbers of a header with `last` as its last one; and a mask of the rows without them."""
        missing = self._known(last, others)
        if missing is None:
            return [], np.ones(self.n, bool)
        return [Phrase(self._with([], named), missing)], missing

    # above IP

    def _tcp(self, others: np.ndarray) -> tuple[list[Field], np.ndarray]:
        missing = self._known("tcp.csum", others)
        if missing is None:
            return [], np.ones(self.n, bool)
        named = ((b"SPT=", "tcp.sport"), (b" DPT=", "tcp.dport"), (b" SEQ=", "tcp.seq"), (b" ACK=", "tcp.ackseq"),
                 (b" WINDOW=", "tcp.window"))  # fmt: skip
        flags = np.zeros(self.n, np.uint8)
        for place, name in enumerate(_TCP):
            if (flag := self.find(name)) is not None:
                flags |= flag.values.astype(np.uint8) << place
        members = [*self._with([], named), b" ", Words(_TCP_FLAGS, flags), b"URGP="]
        urgent = self.find("tcp.urgp")
        if urgent is None:
            members.append(b"0")
        else:
            members.append(value(Found(np.where(_gone(urgent, self.n), 0, urgent.values), None, urgent.key)))
        return [Phrase(members, missing)], missing

    def _udp(self, others: np.ndarray) -> tuple[list[Field], np.ndarray]:
        return self._numbers("udp.len", others, (b"SPT=", "udp.sport"), (b" DPT=", "udp.dport"), (b" LEN=", "udp.len"))

    def _sctp(self, others: np.ndarray) -> tuple[list[Field], np.ndarray]:
        return self._numbers("sctp.dport", others, (b"SPT=", "sctp.sport"), (b" DPT=", "sctp.dport"))

    def _spi(self, others: np.ndarray) -> tuple[list[Field], np.ndarray]:
        missing = self._known("ahesp.spi", others)
        if missing is None:
            return [], np.ones(self.n, bool)
        return [Phrase([b"SPI=0x", Hexadecimal(self.find("ahesp.spi").values)], missing)], missing

    def _icmp(self, others: np.ndarray) -> tuple[list[Field], np.ndarray]:
        found, missing = self._numbers("icmp.code", others, (b"TYPE=", "icmp.type"), (b" CODE=", "icmp.code"))
        found += self._numbers("icmp.echoseq", others, (b"ID=", "icmp.echoid"), (b" SEQ=", "icmp.echoseq"))[0]
        for piece, name in (
            (b"PARAMETER=", "icmp.parameter"),
            (b"GATEWAY=", "icmp.gateway"),
            (b"MTU=", "icmp.fragmtu"),
        ):
            found += self._numbers(name, others, (piece, name))[0]
        return found, missing

    def _icmpv6(self, others: np.ndarray) -> tuple[list[Field], np.ndarray]:
        found, missing = self._numbers("icmpv6.code", others, (b"TYPE=", "icmpv6.type"), (b" CODE=", "icmpv6.code"))
        found += self._numbers("icmpv6.echoseq", others, (b"ID=", "icmpv6.echoid"), (b" SEQ=", "icmpv6.echoseq"))[0]
        return found, missing

    def _arp(self) -> list[Field]:
        found: list[Field] = []
        source, target = self.find("arp.saddr"), self.find("arp.daddr")
        if source and target:
            found.append(Phrase([b"SRC=", value(source), b" DST=", value(target)], _either(source, target)))
        operation = self.find("arp.operation")
        different, codes = np.unique(operation.values, return_inverse=True)
        words = [b"PROTO=ARP " + _OPERATIONS.get(number, b"CODE=%d" % number) for number in different.tolist()]
        found.append(Words(words, codes, operation.missing))
        if (mac := self.find("arp.shwaddr")) is not None:
            found.append(Colons(b"REPLY_MAC=", mac.values.plain(), _gone(mac, self.n) | (operation.values != 2)))
        return found


def _gone(found: Found, n: int) -> np.ndarray:
    return np.zeros(n, bool) if found.missing is None else found.missing


def _either(one: Found, other: Found) -> np.ndarray | None:
    """A mask of the rows without one or the other."""
    masks = [found.missing for found in (one, other) if found.missing is not None]
    return np.logical_or.reduce(masks) if masks else None
