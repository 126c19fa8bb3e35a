"""Values in the form in which people write them, where that is not the one in which they are held.

MPLS labels are numbers (69), route distinguishers ``64500:1``, application ids ``13:453`` (engine and selector), BGP
communities ``64500:1``, large ones ``64500:1:2``, UUIDs have dashes. Times in microseconds and nanoseconds count since
1970 as others do, numbers of more than 64 bits have decimal digits. What cannot be of its form stays hexadecimal.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from ipaddress import IPv4Address

import numpy as np

from ulogd_tw.core import types
from ulogd_tw.core.columns import Coded, Column, Octets, different, numbers, strings
from ulogd_tw.core.conversions import ntp_to_integer
from ulogd_tw.core.keys import Key
from ulogd_tw.core.types import Type

TIMES = {"microseconds": 10**6, "nanoseconds": 10**9}
"""Forms of times, and their units in a second."""
_LABELS = (3, 4)
"""Octets of a label with its traffic class and bottom bit, and of an entry of a label stack (RFC 3032 section 2.1)."""
_PANA_L7_PEN = 20
"""The classification engine whose selectors begin with an enterprise number (RFC 6759 section 4.1)."""


def type_of(type_: Type) -> Type:
    """The type of what `readable` gives; for labels where they are such."""
    if type_.form in TIMES:
        return types.UNSIGNED64
    if type_.form == "label":
        return types.UNSIGNED32
    if type_.form == "digits":
        return types.DIGITS
    return types.STRING if type_.form else type_


def readable(column: Column, key: Key) -> tuple[Column, Key]:
    """The column and its key; both as they are for most types."""
    form = key.type.form
    if not form:
        return column, key
    if form in TIMES:
        return ntp_to_integer(numbers(column), TIMES[form]), key.typed(types.UNSIGNED64)
    if form == "label":
        return _labels(strings(column), key)
    return _texts(column, _WRITTEN[form]), key.typed(type_of(key.type))


def written(octets: bytes, type_: Type) -> int | str:
    """One value of a type with a form, from its octets in a record, as Python has it."""
    if type_.form in TIMES:
        return int(ntp_to_integer(np.array([int.from_bytes(octets, "big")], np.uint64), TIMES[type_.form])[0])
    if type_.form == "label":
        return int.from_bytes(octets[:3], "big") >> 4 if len(octets) in _LABELS else octets.hex()
    text = _WRITTEN[type_.form](int.from_bytes(octets, "big") if type_.integer else octets).decode()
    return int(text) if type_.form == "digits" else text


def comparable(column: Octets | Coded, form: str) -> Octets | Coded:
    """Values of one of the forms `COMPARED` as equal octets where they are equal, however they came.

    Labels are without traffic class and bottom bit, selectors of applications and long numbers without leading zeros.
    """
    if isinstance(column, Coded):
        return Coded(column.codes, tuple(map(COMPARED[form], column.values)))
    plain = column.plain()
    usual = not (plain.lengths != _USUAL.get(form, -1)).any()
    if not usual:
        values, codes = different(plain)
        return Coded(codes.astype(np.int32), tuple(map(COMPARED[form], values)))
    if form != "label":
        return plain
    data = plain.data[plain.offsets[0] : plain.offsets[-1]].copy()
    data[2::3] &= 0xF0
    return Octets(plain.offsets - plain.offsets[0], data)


def application(octets: bytes) -> bytes:
    """An application id whose selector has three octets, or more if it needs them (RFC 6759 section 4.1)."""
    at = 5 if octets[:1] == bytes([_PANA_L7_PEN]) else 1
    return octets[:at] + octets[at:].lstrip(b"\0").rjust(3, b"\0") if len(octets) > at else octets


def _label_only(octets: bytes) -> bytes:
    return octets[:2] + bytes([octets[2] & 0xF0]) if len(octets) in _LABELS else octets


COMPARED: dict[str, Callable[[bytes], bytes]] = {
    "label": _label_only, "application": application, "digits": lambda octets: octets.lstrip(b"\0"),
}  # fmt: skip
"""Forms of octets of which different ones can be one value, and the octets that stand for all of them."""
_USUAL = {"label": 3, "application": 4}
"""Octets of nearly all values of a form; applications of so many are as `application` has them."""


def labels_only(column: Octets | Coded, missing: np.ndarray | None) -> tuple[Octets | Coded, np.ndarray | None]:
    """Labels, and the mask of missing ones, to which those of a size that no label has are added."""
    plain = column.plain()
    lengths = plain.lengths
    odd = ~np.isin(lengths, _LABELS)
    if not odd.any():
        return column, missing
    kept = Octets.gathered(plain.data, plain.offsets[:-1], np.where(odd, 0, lengths))
    return kept, odd if missing is None else odd | missing


def _labels(column: Octets | Coded, key: Key) -> tuple[Column, Key]:
    """Numbers, unless one has a size that no label has; missing rows may have no octets."""
    values, codes = (column.values, column.codes) if isinstance(column, Coded) else different(column.plain())
    if any(value and len(value) not in _LABELS for value in values):
        return column, key.typed(types.OCTETS)
    found = np.array([int.from_bytes(value[:3], "big") >> 4 for value in values] or [0], np.uint32)
    return found[codes], key.typed(types.UNSIGNED32)


def _texts(column: Column, write: Callable[..., bytes]) -> Coded:
    """One Python step for each different value."""
    if isinstance(column, np.ndarray):
        found, codes = np.unique(column, return_inverse=True)
        return Coded(codes.astype(np.int32), tuple(map(write, found.tolist())))
    if isinstance(column, Coded):
        return Coded(column.codes, tuple(map(write, column.values)))
    values, codes = different(column.plain())
    return Coded(codes.astype(np.int32), tuple(map(write, values)))


def _hexadecimal(octets: bytes) -> bytes:
    return octets.hex().encode()


def _administered(octets: bytes) -> str | None:
    """Administrator and number of six octets behind the two of their type; the three forms of RFC 4364 section 4.2."""
    kind, value = octets[0] & 0x3F, octets[2:]
    if kind == 1:
        return f"{IPv4Address(value[:4])}:{int.from_bytes(value[4:], 'big')}"
    if kind not in (0, 2):
        return None
    place = 2 if kind == 0 else 4
    return f"{int.from_bytes(value[:place], 'big')}:{int.from_bytes(value[place:], 'big')}"


def _distinguisher(octets: bytes) -> bytes:
    """A route distinguisher, whose type is two octets (RFC 4364 section 4.2)."""
    text = None
    if len(octets) == 8 and octets[0] == 0:
        text = _administered(bytes([octets[1], 0]) + octets[2:]) if octets[1] <= 2 else None
    return text.encode() if text else _hexadecimal(octets)


_COMMUNITY_TYPES = {2: "rt", 3: "soo"}
"""Route target and route origin (RFC 4360 sections 4 and 5)."""


def _extended(octets: bytes) -> bytes:
    """An extended community (RFC 4360): ``rt:64500:1``."""
    name = _COMMUNITY_TYPES.get(octets[1]) if len(octets) == 8 else None
    text = _administered(octets) if name else None
    return f"{name}:{text}".encode() if text else _hexadecimal(octets)


def _large(octets: bytes) -> bytes:
    """A large community: three numbers (RFC 8092)."""
    if len(octets) != 12:
        return _hexadecimal(octets)
    return ":".join(str(int.from_bytes(octets[at : at + 4], "big")) for at in (0, 4, 8)).encode()


def community(number: int) -> str:
    """A community as people write it (RFC 1997)."""
    return f"{number >> 16}:{number & 0xFFFF}"


def _community(number: int) -> bytes:
    return community(number).encode()


def _application(octets: bytes) -> bytes:
    """Engine and selector (RFC 6759 section 4), between them an enterprise number where there is one."""
    if len(octets) < 2:
        return _hexadecimal(octets)
    parts = [octets[:1], octets[1:]]
    if octets[0] == _PANA_L7_PEN and len(octets) > 5:
        parts = [octets[:1], octets[1:5], octets[5:]]
    return ":".join(str(int.from_bytes(part, "big")) for part in parts).encode()


def _uuid(octets: bytes) -> bytes:
    return str(uuid.UUID(bytes=octets)).encode() if len(octets) == 16 else _hexadecimal(octets)


def _digits(octets: bytes) -> bytes:
    return str(int.from_bytes(octets, "big")).encode()


_WRITTEN: dict[str, Callable[..., bytes]] = {
    "distinguisher": _distinguisher, "application": _application, "uuid": _uuid, "community": _community,
    "extended": _extended, "large": _large, "digits": _digits,
}  # fmt: skip
