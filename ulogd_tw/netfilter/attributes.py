"""Netlink attributes (struct nlattr): walking through them and writing them.

An attribute is a 16-bit length (its 4 header octets included), a 16-bit type whose two highest bits are flags, the
payload, and padding to a multiple of 4. Header fields are in the byte order of the host.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from ulogd_tw.core.errors import MessageError
from ulogd_tw.core.plurals import plural

NESTED = 0x8000
_TYPE_MASK = 0x3FFF

_HEAD = struct.Struct("=HH")


def attributes(octets: bytes, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(type without flags, start of the payload, its length) of each attribute between `start` and `end`.

    Raises `MessageError` for a length below 4 or beyond `end`, and for octets left over.
    """
    while start < end:
        if end - start < 4:
            raise MessageError(f"{plural(end - start, 'octet')} after the last attribute", "attribute length", start)
        length, kind = _HEAD.unpack_from(octets, start)
        if length < 4 or start + length > end:
            raise MessageError(
                f"attribute {kind & _TYPE_MASK} says {plural(length, 'octet')}", "attribute length", start
            )
        yield kind & _TYPE_MASK, start + 4, length - 4
        start += (length + 3) & ~3


def attribute(kind: int, payload: bytes) -> bytes:
    """One attribute with its padding."""
    return _HEAD.pack(4 + len(payload), kind) + payload + bytes(-len(payload) % 4)


def nest(kind: int, *inside: bytes) -> bytes:
    """An attribute that holds attributes."""
    return attribute(kind | NESTED, b"".join(inside))
