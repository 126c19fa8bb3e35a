"""Sums by key: columns of a batch become rows of whole numbers, which are sorted, compared and added up."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from typing import Any

import numpy as np

from ulogd_tw.core.batch import Batch
from ulogd_tw.core.columns import Coded, Octets
from ulogd_tw.core.keys import Key

_MAPPED = np.uint64(0xFFFF_0000_0000)
"""An IPv4 address is held as the IPv6 address ::ffff:a.b.c.d, so that one table has both families."""
Text = dict[int, str]
"""Texts by the whole number that stands for them in a key."""


@dataclass
class Sums:
    """A number for each key: `keys` are unsigned64 of shape (groups, columns), in ascending order.

    `texts` are those of strings among the keys.
    """

    keys: np.ndarray
    values: np.ndarray
    texts: Text = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.values)

    def only(self, rows: np.ndarray) -> Sums:
        """These groups."""
        return Sums(self.keys[rows], self.values[rows], self.texts)


def empty(columns: int) -> Sums:
    """No groups."""
    return Sums(np.zeros((0, columns), np.uint64), np.zeros(0))


def numbered(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The different rows of `keys` in ascending order, and which of them each row is."""
    n = len(keys)
    if not n or not keys.shape[1]:
        return keys[:1], np.zeros(n, np.int64)
    begins = np.ones(n, bool)
    if (packed := _packed(keys)) is not None:
        order = np.argsort(packed)
        packed = packed[order]
        begins[1:] = packed[1:] != packed[:-1]
    else:
        order = np.lexsort(keys.T[::-1])
        whole = keys[order]
        begins[1:] = (whole[1:] != whole[:-1]).any(axis=1)
    which = np.empty(n, np.int64)
    which[order] = np.cumsum(begins) - 1
    return keys[order[begins]], which


def _packed(keys: np.ndarray) -> np.ndarray | None:
    """One number for each row, in the same order, where the ranges of the columns fit into 64 bits; sorts faster."""
    least, bits = keys.min(axis=0), [int(span).bit_length() for span in np.ptp(keys, axis=0)]
    if sum(bits) > 64:
        return None
    found = np.zeros(len(keys), np.uint64)
    for column, low, width in zip(keys.T, least, bits, strict=True):
        if width:
            found = (column - low) if width == 64 else (found << np.uint64(width)) | (column - low)
    return found


def united(parts: Sequence[Sums], columns: int) -> Sums:
    """The sums over several parts."""
    parts = [part for part in parts if len(part)]
    if len(parts) < 2:
        return parts[0] if parts else empty(columns)
    keys, which = numbered(np.concatenate([part.keys for part in parts]))
    values = np.bincount(which, np.concatenate([part.values for part in parts]), len(keys))
    texts: Text = {}
    for part in parts:
        texts |= part.texts
    return Sums(keys, values, texts)


class Keyed:
    """The rows of a batch by some keys, worked out once for all rules that ask for these keys."""

    def __init__(self, batch: Batch, names: Sequence[str]) -> None:
        self.texts: Text = {}
        there = np.ones(batch.n, bool)
        columns: list[np.ndarray] = []
        for name in names:
            if name not in batch.columns:
                there[:] = False
                columns += [np.zeros(batch.n, np.uint64)] * 2
                continue
            if name in batch.missing:
                there &= ~batch.missing[name]
            columns += self._columns(batch.columns[name], batch.schema[name])
        self.rows = None if there.all() else np.flatnonzero(there)
        """The rows with a value of each key; None: all."""
        keys = np.column_stack(columns) if columns else np.zeros((batch.n, 0), np.uint64)
        self.keys, self.which = numbered(keys if self.rows is None else keys[self.rows])

    def _columns(self, column: Any, key: Key) -> list[np.ndarray]:
        """Two columns for each key: an address fills both, anything else the second."""
        if isinstance(column, (Coded, Octets)):
            return [np.zeros(len(column), np.uint64), self._strings(column)]
        if key.type.kind == "ipv6":
            return [column[:, 0], column[:, 1]]
        if key.type.kind == "ipv4":
            return [np.zeros(len(column), np.uint64), column.astype(np.uint64) | _MAPPED]
        if column.dtype.kind == "f":
            return [np.zeros(len(column), np.uint64), column.astype(np.float64).view(np.uint64)]
        return [np.zeros(len(column), np.uint64), column.astype(np.int64).view(np.uint64)]

    def _strings(self, column: Coded | Octets) -> np.ndarray:
        """A hash for each string: the same in every batch and every run. Python sees each different string once."""
        listed = column.values if isinstance(column, Coded) else None
        values = list(listed) if listed is not None else column.to_list()
        places = {value: hashed(value) for value in dict.fromkeys(values)}
        self.texts |= {
            place: value.rstrip(b"\0").decode("utf-8", "backslashreplace") for value, place in places.items()
        }
        found = np.array([places[value] for value in values], np.uint64)
        return found[column.codes] if isinstance(column, Coded) else found

    def sums(self, values: np.ndarray | None, chosen: np.ndarray | None) -> Sums:
        """The sum of `values` (None: 1 each) by key, over the rows of the mask `chosen`."""
        which = self.which
        if self.rows is not None:
            values = None if values is None else values[self.rows]
            chosen = None if chosen is None else chosen[self.rows]
        if chosen is not None:
            which, values = which[chosen], None if values is None else values[chosen]
        if not len(which):
            return Sums(self.keys[:0], np.zeros(0))
        found = np.bincount(which, values, len(self.keys)).astype(np.float64)
        if chosen is None:
            return Sums(self.keys, found, self.texts)
        some = np.bincount(which, minlength=len(self.keys)) > 0
        return Sums(self.keys[some], found[some], self.texts)


def hashed(value: bytes) -> int:
    """The whole number that stands for a string in a key."""
    return int.from_bytes(hashlib.blake2b(value.rstrip(b"\0"), digest_size=8).digest(), "big")


def hashes(keys: np.ndarray) -> np.ndarray:
    """A 64-bit hash of each key, the same in every run."""
    found = np.full(len(keys), 0x9E3779B97F4A7C15, np.uint64)
    for column in keys.T:
        found = (found ^ column) * np.uint64(0xBF58476D1CE4E5B9)
        found ^= found >> np.uint64(31)
        found *= np.uint64(0x94D049BB133111EB)
        found ^= found >> np.uint64(29)
    return found


def shown(row: np.ndarray, kinds: Sequence[str], texts: Text) -> tuple[str, ...]:
    """The values of one key as text; `kinds` are the kinds of their types."""
    found = []
    for place, kind in enumerate(kinds):
        high, low = int(row[2 * place]), int(row[2 * place + 1])
        if kind in ("address", "ipv4", "ipv6"):
            address = IPv6Address(high << 64 | low)
            found.append(str(address.ipv4_mapped or address))
        elif kind == "mac":
            found.append(":".join(f"{octet:02x}" for octet in low.to_bytes(8, "big")[2:]))
        elif kind == "float":
            found.append(str(float(np.uint64(low).view(np.float64))))
        elif low in texts and kind in ("string", "octets", "list"):
            found.append(texts[low])
        else:
            found.append(str(low - (1 << 64) if low >> 63 else low))
    return tuple(found)
