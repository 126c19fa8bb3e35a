"""Templates with the headers of several layers, of a tunnel and of what is in it: elements stand in them twice.

Occurrences go from the outermost header to the innermost (RFC 7011 section 8, RFC 5102 section 4). One layer gets the
bare names, for the whole tuple; the fields of the others are further occurrences (``name#2``) even where their element
stands there once, as an IPv6 address does around IPv4.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ulogd_tw.core.columns import Column, numbers
from ulogd_tw.core.keys import NETFLOW9, Key, known
from ulogd_tw.core.plugin import ALL, Wanted
from ulogd_tw.ipfix.context import Source
from ulogd_tw.ipfix.events import Events
from ulogd_tw.ipfix.layout import Found, field_keys
from ulogd_tw.ipfix.template import Field

_SOURCE, _DESTINATION, _PROTOCOL = "source", "destination", "protocol"
_ROLES: dict[int, str] = {
    8: _SOURCE, 27: _SOURCE, 12: _DESTINATION, 28: _DESTINATION, 4: _PROTOCOL, 193: "next header",
    7: "source port", 11: "destination port", 5: "class of service", 6: "flags", 31: "flow label", 54: "identification",
    56: "source MAC", 80: "destination MAC", 60: "version", 64: "extension headers", 88: "fragment offset",
    189: "header length", 190: "payload length", 192: "hops", 197: "fragment flags", 207: "IHL", 224: "total length",
    256: "ethernet type", 32: "ICMP", 139: "ICMP", 176: "ICMP type", 178: "ICMP type", 177: "ICMP code",
    179: "ICMP code", 180: "UDP source", 181: "UDP destination", 182: "TCP source", 183: "TCP destination",
    184: "sequence", 185: "acknowledgement", 186: "window", 195: "code point", 196: "precedence", 205: "UDP length",
}  # fmt: skip
"""What the elements of headers are to a packet."""
_TUPLE = (_SOURCE, _DESTINATION, _PROTOCOL, "source port", "destination port")
"""If one of these is there twice, the fields of all roles have layers; else only the elements that are there twice."""
TUNNEL = {_SOURCE: "tunnel.source", _DESTINATION: "tunnel.destination", _PROTOCOL: "tunnel.protocol"}
"""Keys of the outermost header where the innermost one has the bare names, as those of BASE."""
_SEGMENT = "layer2SegmentId"
"""The element with the type and the identifier of an overlay."""
_MAPPED = np.uint64(0xFFFF << 32)
"""Above an IPv4 address in the low half of an IPv6 address."""


@dataclass(frozen=True, slots=True)
class Layers:
    """The layer of each field of a template, 0 for the outermost; None for what is true of the whole packet."""

    of_fields: tuple[int | None, ...]
    depth: int

    def behind(self, chosen: int) -> frozenset[int]:
        """The places of fields of other layers than the chosen one."""
        return frozenset(i for i, layer in enumerate(self.of_fields) if layer is not None and layer != chosen)


def layers(fields: Sequence[Field]) -> Layers | None:
    """The layers of a template; None where it has one."""
    roles = [_ROLES.get(field.ident) if field.pen in (0, NETFLOW9) else None for field in fields]
    elements = Counter((f.ident, role) for f, role in zip(fields, roles, strict=True) if role)
    twice = {element for element, times in elements.items() if times > 1}
    if not twice:
        return None
    if not any(role in _TUPLE for _, role in twice):
        roles = [role if (f.ident, role) in twice else None for f, role in zip(fields, roles, strict=True)]
    times = Counter(role for role in roles if role)
    starts = _starts(roles) if min(times[_SOURCE], times[_DESTINATION]) > 1 else []
    seen: Counter[str] = Counter()
    found: list[int | None] = []
    for place, role in enumerate(roles):
        if role is None or (times[role] == 1 and not starts):
            found.append(None)
        elif times[role] == 1:
            found.append(sum(start <= place for start in starts))
        else:
            found.append(seen[role])
            seen[role] += 1
    return Layers(tuple(found), max(times.values()))


def _starts(roles: Sequence[str | None]) -> list[int]:
    """Where each layer but the outermost begins: at its first address."""
    first: dict[int, int] = {}
    seen: Counter[str] = Counter()
    for place, role in enumerate(roles):
        if role in (_SOURCE, _DESTINATION):
            first.setdefault(seen[role], place)
            seen[role] += 1
    return [place for layer, place in first.items() if layer]


class Tunnels:
    """Makes the keys of the tunnel of the outermost header, and says once that there are several layers."""

    def __init__(self, fields: tuple[Field, ...], found: Layers, wanted: Wanted, inner: bool, events: Events) -> None:
        self._events = events
        self._inner = inner
        keys = field_keys(fields, ALL, behind=found.behind(found.depth - 1))
        self._made: dict[str, str] = {}
        for place, key in enumerate(keys if inner else ()):
            role = _ROLES.get(fields[place].ident) if found.of_fields[place] == 0 else None
            if role in TUNNEL and TUNNEL[role] in wanted and key is not None and key.type.kind != "octets":
                self._made[TUNNEL[role]] = key.name
            if key is not None and key.name == _SEGMENT and key.type.integer and "tunnel.id" in wanted:
                self._made["tunnel.id"] = _SEGMENT

    def needed(self, wanted: Wanted) -> Wanted:
        return wanted if wanted is ALL else wanted | set(self._made.values())

    def add(self, found: Found, sources: Sequence[Source], counts: np.ndarray) -> Sequence[Key]:
        """See `layout.Made`."""
        columns, missing = found
        for session, template in {source[0].session: source[0] for source in sources}.items():
            self._events.once("layers", session, template.domain.number, 0, "inner" if self._inner else "outer")
        keys = []
        for name, column in self._made.items():
            key = known(name)
            assert key is not None
            columns[name] = _held(columns[column], key) if column != _SEGMENT else _identifier(columns[column], key)
            if column in missing:
                missing[name] = missing[column]
            keys.append(key)
        return keys


def _identifier(column: Column, key: Key) -> np.ndarray:
    """The 24 bits that name a segment: the VNI of VXLAN, the VSID of NVGRE (RFC 7133 section 3.2)."""
    return (numbers(column).astype(np.uint64) & np.uint64(0xFFFFFF)).astype(key.type.dtype)


def _held(column: Column, key: Key) -> np.ndarray:
    """The column in the type of its key; IPv4 addresses mapped into IPv6."""
    values = numbers(column)
    if key.type.kind == "ipv6" and values.ndim == 1:
        return np.stack([np.zeros(len(values), np.uint64), values.astype(np.uint64) | _MAPPED], axis=1)
    return values if key.type.kind == "ipv6" else values.astype(key.type.dtype)


def layered(fields: tuple[Field, ...], chosen: str) -> tuple[Layers, int] | None:
    """The layers of a template and the chosen one, which is ``inner`` or ``outer``; None where there is one only."""
    found = layers(fields) if chosen else None
    return (found, found.depth - 1 if chosen == "inner" else 0) if found is not None else None
