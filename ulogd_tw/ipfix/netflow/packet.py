"""Export packets of NetFlow v9 (RFC 3954) and of v1, v5 and v7: headers, FlowSets and templates.

Fields stand under `keys.NETFLOW9`, `keys.NETFLOW9_SCOPE` and `keys.NETFLOW5` in the place of an enterprise number, so
that a layout is never shared with IPFIX. A v9 packet has no length, and its count means records with some exporters and
FlowSets with others: the lengths of its FlowSets say where it ends.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import accumulate
from typing import NamedTuple

from ulogd_tw.core.errors import MessageError
from ulogd_tw.core.keys import NETFLOW5, NETFLOW9, NETFLOW9_SCOPE
from ulogd_tw.core.plurals import plural
from ulogd_tw.ipfix.layout import PADDING
from ulogd_tw.ipfix.message import FIRST_DATA_SET, SET_HEADER
from ulogd_tw.ipfix.template import Field, Template, Unusable

V9, V8, V7, V5, V1 = (bytes((0, version)) for version in (9, 8, 7, 5, 1))
"""How a packet begins."""
VERSIONS = frozenset((V9, V8, V7, V5, V1))
HEADER9 = struct.Struct("!HHIIII")
"""Version, count, sysUptime (ms), unix_secs, Sequence Number, Source ID (RFC 3954 section 5.1)."""
HEADER5 = struct.Struct("!HHIIIIBBH")
"""Version, count, sysUptime (ms), unix_secs, unix_nsecs, flow_sequence, engine type and id, sampling."""
_HEADER7 = struct.Struct("!HHIIII4x")
_HEADER1 = struct.Struct("!HHIII")
INTERVAL5 = 0x3FFF
"""The bits of v5's sampling that are the interval; those above are the mode."""
TEMPLATE_FLOWSET = 0
OPTIONS_FLOWSET = 1
_ALIGNED = 4
"""FlowSets begin at multiples of so many octets (RFC 3954 section 5.3)."""
BEFORE_RECORDS = 24
"""Octets before the records of a packet: v9's header and the header of the first FlowSet, or v5's and v7's header."""


# v9


def flowsets(packet: bytes) -> Iterator[tuple[int, int, int]]:
    """The FlowSets of a v9 packet: id, where the body begins, where it ends.

    Fewer than four octets after the last one, or nothing but zeros, are fill; some exporters count fill in the length
    of the last one and do not send it. `MessageError` for a length below 4 or beyond the packet comes after the
    FlowSets in front of it.
    """
    at, end = HEADER9.size, len(packet)
    while end - at >= SET_HEADER.size:
        set_id, length = SET_HEADER.unpack_from(packet, at)
        if end - at < length < end - at + _ALIGNED:
            length = end - at
        if not SET_HEADER.size <= length <= end - at:
            if not any(packet[at:]):  # Palo Alto fills its packets up
                return
            raise MessageError(
                f"flowset {set_id} has the length {length} of {plural(end - at, 'octet')}", "set_length", at
            )
        yield set_id, at + SET_HEADER.size, at + length
        at += length


def parse_templates(set_id: int, body: bytes) -> list[Template | Unusable]:
    """The records of a Template FlowSet (0) or Options Template FlowSet (1), without padding.

    A template may have records of no octets. A template without fields or with an id below 256 is unusable, and so is a
    cut one, which ends the FlowSet.
    """
    found: list[Template | Unusable] = []
    at, end = 0, len(body)
    while end - at >= 4:
        ident, count = SET_HEADER.unpack_from(body, at)
        if ident == 0 and count == 0 and not any(body[at:end]):
            break  # padding
        at += 4
        scopes = 0
        if set_id == OPTIONS_FLOWSET:
            if end - at < 2:
                break  # padding
            # Some exporters name a length that is no whole number of fields (9 for two).
            scopes, options = count // 4, int.from_bytes(body[at : at + 2], "big") // 4
            count = scopes + options
            at += 2
        if end - at < 4 * count:
            found.append(Unusable(ident, f"it is cut: {(end - at) // 4} of {plural(count, 'field')}"))
            break
        words = struct.unpack_from(f"!{2 * count}H", body, at)
        at += 4 * count
        if ident < FIRST_DATA_SET or not count:  # without fields it would be remembered beyond the limit of fields
            found.append(Unusable(ident, "it has no fields" if not count else "its id is below 256"))
            continue
        fields = (
            _field(NETFLOW9_SCOPE if place < scopes else NETFLOW9, ident_, length)
            for place, (ident_, length) in enumerate(zip(words[::2], words[1::2], strict=True))
        )
        # An options template without a scope is one nevertheless.
        found.append(Template(ident, tuple(fields), max(scopes, 1) if set_id == OPTIONS_FLOWSET else 0))
    return found


def _field(vocabulary: int, ident: int, length: int) -> Field:
    if vocabulary == NETFLOW9 and ident == PADDING[1]:
        return Field(*PADDING, length)
    return Field(vocabulary, ident, length)


# v1, v5, v7

_V5 = (4, 4, 4, 2, 2, 4, 4, 4, 4, 2, 2, -1, 1, 1, 1, 2, 2, 1, 1, -2)
"""Sizes of the fields of a record, in the order of `keys.NETFLOW5_KEYS`; below 0: padding, which has no key."""
_V7 = (*_V5[:-1], 2, 4)
"""The padding octet of v5 marks invalid fields here, as flags does."""
_V1 = (*_V5[:11], -2)
"""Behind the ports: padding, then protocol, type of service and flags, in another order than v5."""


def _classic(version: int, sizes: tuple[int, ...], more: tuple[Field, ...] = ()) -> Template:
    places = accumulate((octets > 0 for octets in sizes), initial=0)
    fields = (
        Field(NETFLOW5, place, octets) if octets > 0 else Field(*PADDING, -octets)
        for place, octets in zip(places, sizes, strict=False)
    )
    return Template(version, (*fields, *more))


class Classic(NamedTuple):
    """A version without templates: its header, the template of its records, and octets of one."""

    header: struct.Struct
    template: Template
    octets: int


_PROT, _TOS, _FLAGS = (Field(NETFLOW5, place, 1) for place in (12, 13, 11))
CLASSIC = {
    version: Classic(header, template, template.least_octets)
    for version, header, template in (
        (1, _HEADER1, _classic(1, _V1, (_PROT, _TOS, _FLAGS, Field(*PADDING, 11)))),
        (5, HEADER5, _classic(5, _V5)),
        (7, _HEADER7, _classic(7, _V7)),
    )
}
"""The records of v1 and v7 have 52 octets, those of v5 48; the version is the template id."""
TEMPLATE5, OCTETS5 = CLASSIC[5].template, CLASSIC[5].octets
assert [classic.octets for classic in CLASSIC.values()] == [52, 48, 52]
