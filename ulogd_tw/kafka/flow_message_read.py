"""FlowMessages become columns: each step reads the next field of all messages at once."""

from __future__ import annotations

import numpy as np

from ulogd_tw.core.keys import known
from ulogd_tw.kafka.flow_message import FIELDS, FlowField
from ulogd_tw.kafka.rows import MAPPED, RENAMED, Cell, MistakenRows

_MOST_FIELDS = 512
_FIELDS = {field.number: field for field in FIELDS}
_VARINT, _EIGHT, _LENGTH, _FOUR = 0, 1, 2, 5


def delimited(message: bytes) -> list[tuple[int, int]]:
    """Beginning and end of each FlowMessage in one message of Kafka: many with their lengths, or one by itself."""
    found, at = [], 0
    while at < len(message):
        start, length, shift = at, 0, 0
        while start < len(message):
            octet = message[start]
            length |= (octet & 0x7F) << shift
            start, shift = start + 1, shift + 7
            if octet < 0x80:
                break
        at = start + length
        if not length or at > len(message) or message[start] != 0x08:  # the type is there in each
            return [(0, len(message))]
        found.append((start, at))
    return found


class _Cursor:
    """Places in octets, one for each message that is not at its end."""

    def __init__(self, octets: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> None:
        self.octets = np.concatenate([octets, np.zeros(16, np.uint8)])
        self.rows = np.arange(len(starts))
        self.at, self.ends = starts.copy(), ends

    def narrow(self) -> None:
        """Leave out those at their end."""
        left = self.at < self.ends
        if not left.all():
            self.rows, self.at, self.ends = self.rows[left], self.at[left], self.ends[left]

    def varint(self, which: np.ndarray | slice = slice(None)) -> np.ndarray:
        """The next number of some of them."""
        at = self.at[which]
        value = np.zeros(len(at), np.uint64)
        open_ = np.ones(len(at), bool)
        for step in range(10):
            octets = self.octets[np.minimum(at, len(self.octets) - 1)]
            value |= np.where(open_, octets & 0x7F, 0).astype(np.uint64) << np.uint64(7 * step)
            at = at + open_
            open_ &= octets >= 0x80
            if not open_.any():
                break
        self.at[which] = at
        return value


def cells(octets: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> dict[str, Cell]:
    """The columns of messages, by the names of their fields. Raises `MistakenRows`."""
    n, cursor = len(starts), _Cursor(octets, starts, ends)
    numbers: dict[int, np.ndarray] = {}
    places: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    for _ in range(_MOST_FIELDS):
        cursor.narrow()
        if not len(cursor.rows):
            break
        tags = cursor.varint()
        for tag in np.unique(tags).tolist():
            _field(cursor, int(tag), np.flatnonzero(tags == tag), n, numbers, places)
        if (cursor.at > cursor.ends).any():
            raise MistakenRows("a field ends beyond its message")
    return _cells(cursor.octets, n, numbers, places)


def _field(
    cursor: _Cursor, tag: int, which: np.ndarray, n: int, numbers: dict[int, np.ndarray],
    places: dict[int, tuple[np.ndarray, np.ndarray]],
) -> None:  # fmt: skip
    number, wire = tag >> 3, tag & 7
    rows = cursor.rows[which]
    if wire == _VARINT:
        values = cursor.varint(which)
        if number in _FIELDS:
            numbers.setdefault(number, np.zeros(n, np.uint64))[rows] = values
    elif wire == _LENGTH:
        lengths = cursor.varint(which).astype(np.int64)
        if number in _FIELDS:
            at, sizes = places.setdefault(number, (np.zeros(n, np.int64), np.zeros(n, np.int64)))
            at[rows], sizes[rows] = cursor.at[which], lengths
        cursor.at[which] += np.minimum(lengths, 1 << 40)
    elif wire in (_EIGHT, _FOUR):
        cursor.at[which] += 8 if wire == _EIGHT else 4
    else:
        raise MistakenRows(f"there is no wire type {wire}; is format= as the sender has it?")


def _cells(
    octets: np.ndarray, n: int, numbers: dict[int, np.ndarray], places: dict[int, tuple[np.ndarray, np.ndarray]]
) -> dict[str, Cell]:
    found = {}
    for field in FIELDS:
        key = known(RENAMED.get(field.keys[0], field.keys[0]))
        if key is None:
            continue
        if field.address and field.number in places:
            values, sizes = _addresses(octets, *places[field.number])
            found[field.name] = Cell(key, values, ~np.isin(sizes, (4, 16)))
        elif not field.address and field.number in numbers:
            found[field.name] = Cell(key, _numbers(field, numbers[field.number]).astype(key.type.array_dtype))
    return found


def _numbers(field: FlowField, values: np.ndarray) -> np.ndarray:
    return values // np.uint64(field.factor) if field.factor != 1 else values


def _addresses(octets: np.ndarray, at: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """16 octets each."""
    found = np.zeros((len(at), 16), np.uint8)
    for size in (4, 16):
        rows = np.flatnonzero((sizes == size) & (at + size <= len(octets)))
        found[rows, 16 - size :] = octets[at[rows, None] + np.arange(size)]
    found[sizes == 4, :12] = MAPPED
    return found, sizes
