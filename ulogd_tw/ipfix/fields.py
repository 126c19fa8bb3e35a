"""The Information Element that holds the values of a key: what an Exporting Process can tell of it."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ulogd_tw.core import types
from ulogd_tw.core.keys import CONTEXT, NETFLOW9, Element, Key, known, registry
from ulogd_tw.core.types import Type
from ulogd_tw.ipfix.template import VARIABLE, Field

ORIGIN: dict[str, tuple[Element, ...]] = {
    "exporter": ((0, 130), (0, 131)),
    "exporter_port": ((0, 217),),
    "observationDomainId": ((0, 405),),
    "received_ms": ((0, 258),),
}
"""The elements for a record's context: exporterIPv4Address and -IPv6Address, exporterTransportPort,
originalObservationDomainId (149 would be that of the exporter's own Messages; RFC 7119 section 7),
collectionTimeMilliseconds."""
_MOST = 0x8000
_NONE: Mapping[str, Key] = {}
_OCCURRENCE = re.compile(r"#\d+$")
_UNSAID = frozenset(key.name for key in CONTEXT) - set(ORIGIN) | {"export.to"}
"""Keys about the received Message only, given by the kind of template, or meant for the exporter itself."""


def is_said(key: Key) -> bool:
    """Whether a key ought to be in a record: not what only the received Message had, nor a stack's own copies."""
    return key.name not in _UNSAID and "@" not in key.name


def field_of(key: Key, others: Mapping[str, Key] = _NONE, octets: int | None = None) -> tuple[Field, Type] | None:
    """The Field Specifier for a key's values with their held type, and its element's type; None without an element.

    `octets` is the wanted length, if the element allows it.

    ``name#2`` is the same element as ``name``; elements described only by an exporter are found among `others`. Fields
    of NetFlow and sFlow without an element of IANA have none.
    """
    for pen, ident in _elements(key, others):
        # Vendors number some elements as NetFlow v9 can; IPFIX has 15 bits (RFC 7011 section 3.2).
        if pen >= NETFLOW9 or ident >= _MOST:
            continue
        kind = registry.element(pen, ident).type
        if pen and (pen, ident) not in registry.enterprise:
            kind = key.type  # as the exporter has described it (RFC 5610), or octets
        if length := _length(kind, key.type):
            return Field(pen, ident, octets or length), kind
    return None


def _elements(key: Key, others: Mapping[str, Key]) -> tuple[Element, ...]:
    if key.name in ORIGIN:
        return ORIGIN[key.name]
    name = _OCCURRENCE.sub("", key.name)
    bare = (found.elements for found in (known(name), others.get(name)) if found is not None)
    return sum(bare, key.elements)


def _length(element: Type, held: Type) -> int:
    """The length of the field for values held as `held`; 0 where they are none of the element's type.

    Integers never get longer than their element (a value that does not fit is no value of it), nor longer than they
    are held (RFC 7011 section 6.2). A list is held as text, which is none.
    """
    if element.kind in ("string", "octets"):
        return VARIABLE if held.kind in ("string", "octets") else 0
    if element.integer and element.kind == held.kind:
        return min(element.octets, held.octets)
    if element == types.FLOAT64 and held == types.FLOAT32:
        return held.octets
    return element.octets if element == held and element.kind != "list" else 0


def most_of(field: Field, held: Type) -> tuple[int, int] | None:
    """The least and the greatest number allowed in the field, if a held value can be beyond it."""
    if field.length == VARIABLE or held.dtype is None or held.dtype.itemsize <= field.length:
        return None
    if held.kind == "signed":
        bits = 8 * field.length - 1
        return -(1 << bits), (1 << bits) - 1
    return (0, (1 << 8 * field.length) - 1) if held.kind in ("unsigned", "mac") else None
