"""The reports of an exporter about itself, as records of Options Templates: sampling, losses, keys, types, names.

Each function gives the Records of one kind. Their templates come from a `RecordEncoder`, beside those of the flows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ulogd_tw.core import types
from ulogd_tw.core.columns import Column, Octets
from ulogd_tw.core.keys import NETFLOW9_SCOPE, REVERSE_PEN, registry
from ulogd_tw.ipfix.builder import Messages
from ulogd_tw.ipfix.element_types import DATA_TYPES, SEMANTICS, UNITS
from ulogd_tw.ipfix.encoder import Records
from ulogd_tw.ipfix.record_encoder import RecordEncoder
from ulogd_tw.ipfix.template import VARIABLE, Field, Template
from ulogd_tw.ipfix.wire_format import WireFormat

_COUNT_BASED = 1
"""selectorAlgorithm: systematic count-based sampling (RFC 5477 section 8.2.1); samplingAlgorithm: deterministic."""
_NO_KEYS = frozenset((136, 148, 61, 239, 145, 149, 130, 131, 217, 405, 225, 226, 227, 228, 281, 282))
"""Identifiers that tell no flows apart: its own number, its end, its direction, what NAT made of it, its origin."""
_MOST_BITS = 64
"""Fields that a flowKeyIndicator can speak of."""
_OCTETS, _PACKETS = (1, 85), (2, 86)


@dataclass(slots=True)
class Loss:
    """The losses so far, and the times of the first and the last one: milliseconds since 1970, 0 for none."""

    flows: int = 0
    packets: int = 0
    octets: int = 0
    first_ms: int = 0
    last_ms: int = 0

    def grown(self, now: float, flows: int, packets: int = 0, octets: int = 0) -> None:
        """It is so much by now."""
        if flows > self.flows or packets > self.packets:
            self.last_ms = int(now * 1000)
            self.first_ms = self.first_ms or self.last_ms
        self.flows, self.packets, self.octets = flows, packets, octets


def _one(outgoing: RecordEncoder, scopes: int, *values: tuple[int, int]) -> Records:
    """A record of these elements of IANA and their values."""
    fields, columns = [], []
    for ident, value in values:
        type_ = registry.element(0, ident).type
        fields.append(Field(0, ident, type_.octets))
        columns.append(np.array([value], type_.dtype))
    return outgoing.encoder(fields, scopes).encode(columns, 1)


def sampling(outgoing: RecordEncoder, domain: int, form: WireFormat) -> Records:
    """Every packet counts: 1 in 1 (RFC 7011 has no default; some collectors drop flows of which they do not know)."""
    if form.version == 9:
        scope, value = Field(NETFLOW9_SCOPE, 1, 4), np.array([domain], np.uint32)
        fields = (scope, Field(0, 34, 4), Field(0, 35, 1))
        kinds = (types.UNSIGNED32, types.UNSIGNED32, types.UNSIGNED8)
        return outgoing.encoder(fields, 1, kinds).encode([value, *(np.array([1], t.dtype) for t in kinds[1:])], 1)
    return _one(outgoing, 1, (149, domain), (304, _COUNT_BASED), (305, 1), (306, 0), (34, 1), (35, _COUNT_BASED))


def metering_statistics(outgoing: RecordEncoder, domain: int, messages: int, records: int, octets: int) -> Records:
    """The numbers of exported Messages, records and octets (RFC 7011 section 4.1)."""
    return _one(outgoing, 1, (149, domain), (41, messages), (42, records), (40, octets))


def metering_reliability(outgoing: RecordEncoder, domain: int, loss: Loss) -> Records:
    """The kernel's losses (section 4.2): packets, or events of as many flows; octets are unknown."""
    return _one(outgoing, 1, (149, domain), (164, loss.packets), (323, loss.first_ms), (323, loss.last_ms))


def exporting_reliability(outgoing: RecordEncoder, process: int, loss: Loss) -> Records:
    """Metered flows that were not sent (section 4.3)."""
    return _one(
        outgoing, 1, (144, process), (166, loss.flows), (167, loss.packets), (168, loss.octets), (323, loss.first_ms),
        (323, loss.last_ms),
    )  # fmt: skip


def flow_keys(outgoing: RecordEncoder, templates: Iterable[Template]) -> Records | None:
    """The flow keys among the fields of these templates (section 4.4)."""
    idents, bits = [], []
    for template in templates:
        keys = [place for place, field in enumerate(template.fields[:_MOST_BITS]) if _is_key(field)]
        if keys and not template.options:
            idents.append(template.ident)
            bits.append(sum(1 << place for place in keys))
    if not idents:
        return None
    encoder = outgoing.encoder((Field(0, 145, 2), Field(0, 173, 8)), 1)
    return encoder.encode([np.array(idents, np.uint16), np.array(bits, np.uint64)], len(idents))


def _is_key(field: Field) -> bool:
    key = registry.element(field.pen, field.ident)
    if field.pen:
        return field.pen != REVERSE_PEN and key.semantics == "identifier"
    address = key.type.kind in ("ipv4", "ipv6", "mac")
    return field.ident not in _NO_KEYS and (address or key.semantics == "identifier")


def element_types(outgoing: RecordEncoder, templates: Iterable[Template]) -> Records | None:
    """The types of enterprise elements in these templates (RFC 5610); reversed elements of IANA need none."""
    elements = sorted({
        (field.pen, field.ident) for template in templates for field in template.fields
        if field.pen not in (0, REVERSE_PEN) and (field.pen, field.ident) in registry.enterprise
    })  # fmt: skip
    if not elements:
        return None
    keys = [registry.element(*element) for element in elements]
    units = {name: code for code, name in UNITS.items()}
    columns: list[Column] = [
        np.array([pen for pen, _ in elements], np.uint32),
        np.array([ident for _, ident in elements], np.uint16),
        np.array([_place(key.type, DATA_TYPES) for key in keys], np.uint8),
        np.array([_place(key.semantics, SEMANTICS) for key in keys], np.uint8),
        np.array([units.get(key.unit, 0) for key in keys], np.uint16),
        Octets.of(key.name.encode() for key in keys),
    ]
    fields = [Field(0, ident, octets) for ident, octets in ((346, 4), (303, 2), (339, 1), (344, 1), (345, 2))]
    return outgoing.encoder((*fields, Field(0, 341, VARIABLE)), 2).encode(columns, len(elements))


def _place(what: object, codes: Sequence[object]) -> int:
    """The code, 0 where there is none: octets, and default."""
    return codes.index(what) if what in codes else 0


def interface_names(outgoing: RecordEncoder, names: Mapping[int, str]) -> Records | None:
    """Names of interfaces by their index."""
    if not names:
        return None
    encoder = outgoing.encoder((Field(0, 10, 4), Field(0, 82, VARIABLE)), 1)
    return encoder.encode([np.array(list(names), np.uint32), Octets.of(n.encode() for n in names.values())], len(names))


def tells_interfaces(templates: Iterable[Template]) -> bool:
    """Whether records of these templates have an interface."""
    return any(not field.pen and field.ident in (10, 14) for template in templates for field in template.fields)


def counted(messages: Messages, templates: Mapping[int, Template]) -> tuple[int, int]:
    """Packets and octets that the records of these Messages speak of, of templates without variable lengths."""
    packets = octets = 0
    for ident, records in messages.records_by_template(templates):
        at = 0
        for field in templates[ident].fields:
            if not field.pen and field.ident in (*_PACKETS, *_OCTETS):
                total = _sum(records[:, at : at + field.length])
                packets, octets = packets + total * (field.ident in _PACKETS), octets + total * (field.ident in _OCTETS)
            at += field.length
    return packets, octets


def _sum(columns: np.ndarray) -> int:
    """The sum of big-endian numbers, one a row."""
    return sum(int(part) << 8 * place for place, part in enumerate(columns[:, ::-1].sum(axis=0, dtype=np.uint64)))
