"""The values of many messages as columns: numbers, addresses, texts; and the sources of keys."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ulogd_tw.core import columns, types
from ulogd_tw.core.columns import Column, Octets
from ulogd_tw.core.keys import Key, ulogd_keys
from ulogd_tw.kernels import lib
from ulogd_tw.kernels.netlink import values
from ulogd_tw.netfilter.grammar import IPV4, IPV6, Field
from ulogd_tw.netfilter.layout import Places

_HALF = np.uint64(32)

Value = tuple[Column, np.ndarray | None]
"""A column and the mask of its missing rows, None where none is missing."""


class Values:
    """The fields of the messages of one family; all numbers are gathered at once.

    `octets` holds all messages: message i of this family begins at octet `base[i]` and has the layout `ids[i]`. The
    first of `places` has the fields always needed; the others are read on request.
    """

    def __init__(
        self, family: int, places: Sequence[Places], octets: np.ndarray, base: np.ndarray, ids: np.ndarray
    ) -> None:
        self.family = family
        self.n = len(ids)
        self._octets, self._base, self._ids = octets, base, ids
        self._places, self._later = places[0], places[1:]
        self._kept: dict[str, Value] = {}
        used = np.bincount(ids).nonzero()[0]
        self._some_absent = self._places.absent[:, used].any(axis=1).tolist()
        self._values = self._gather()

    def _gather(self) -> dict[int, np.ndarray]:
        """Octets of a value -> (values, n)."""
        if lib is not None:
            sizes = [block.stop - block.start for block in map(self._places.block.get, (8, 4, 2, 1))]
            found = values(self._octets, self._base, self._ids, self._places.words, sizes)
            return dict(zip((8, 4, 2, 1), found, strict=True))
        index = self._places.words.take(self._ids, axis=1)
        index += self._base >> 2
        words = self._octets.view(np.uint32).take(index)
        if sys.byteorder == "little":
            words.byteswap(inplace=True)
        block = self._places.block
        both = words[block[8]].astype(np.uint64)
        both <<= _HALF
        both |= words[block[-8]]
        return {
            1: (words[block[1]] >> np.uint32(24)).astype(np.uint8),
            2: (words[block[2]] >> np.uint32(16)).astype(np.uint16),
            4: words[block[4]],
            8: both,
        }

    @cached_property
    def _further(self) -> Values:
        return Values(self.family, self._later, self._octets, self._base, self._ids)

    def event(self) -> np.ndarray:
        return self._places.event.take(self._ids)

    def absent(self, name: str) -> np.ndarray | None:
        """A mask of the rows without this field, None if all have it."""
        row = self._places.row[name]
        return self._places.absent[row].take(self._ids) if self._some_absent[row] else None

    def once(self, name: str, make: Callable[[], Value]) -> Value:
        """The result of `make`, computed once."""
        if name not in self._kept:
            self._kept[name] = make()
        return self._kept[name]

    def number(self, name: str) -> Value:
        """A field of 1, 2, 4 or 8 octets, in the natural width."""
        if name not in self._places.row:
            return self._further.number(name)
        return self._values[self._places.known[name].octets][self._places.place[name]], self.absent(name)

    def address(self, name: str) -> Value:
        """An address of our family."""
        return self.number(name + "4") if self.family == IPV4 else self.once(name, lambda: self._ipv6(name + "6"))

    def _ipv6(self, name: str) -> Value:
        place = self._places.place[name]
        return np.ascontiguousarray(self._values[8][place : place + 2].T), self.absent(name)

    def octets(self, name: str) -> Value:
        """A field of variable size."""
        starts, lengths = self._span(name)
        if not lengths.any():
            return columns.repeated(b"", self.n), self.absent(name)
        return Octets.gathered(self._octets, starts, lengths), self.absent(name)

    def text(self, name: str) -> Value:
        """A field of variable size, up to its first NUL."""
        starts, lengths = self._span(name)
        if not lengths.any():
            return columns.repeated(b"", self.n), self.absent(name)
        column = Octets.gathered(self._octets, starts, lengths)
        nul = np.append((column.data == 0).nonzero()[0], len(column.data))
        lengths = np.minimum(nul[np.searchsorted(nul, column.offsets[:-1])] - column.offsets[:-1], lengths)
        return Octets.gathered(self._octets, starts, lengths), self.absent(name)

    def _span(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        starts, lengths = self._places.spans[:, self._places.variable[name]].take(self._ids, axis=1)
        return starts + self._base, lengths


Give = Callable[[Values, float], Value]
"""Makes the values of a key, given `now`."""


@dataclass(frozen=True, slots=True)
class Source:
    """The source of a key's values: its fields, and the function that makes the column.

    `stand_ins` are fields used only if some message lacks the others. `families`: the families of messages with the
    key, empty for all.
    """

    key: Key
    fields: tuple[str, ...]
    give: Give
    families: tuple[int, ...] = (IPV4, IPV6)
    stand_ins: tuple[str, ...] = ()

    def key_of(self, family: int) -> Key:
        """The key with its type in a batch of this family."""
        if self.key.type is not types.ADDRESS:
            return self.key
        return self.key.typed(types.IPV4 if family == IPV4 else types.IPV6)


def places(
    family: int, sources: Sequence[Source], known: Mapping[str, Field], always: Sequence[str] = ()
) -> tuple[Places, Places]:
    """The places for the fields always needed by these sources, and for their stand-ins."""
    first = {name for source in sources for name in source.fields if known[name].family in (0, family)}
    second = {name for source in sources for name in source.stand_ins} - first
    return Places(sorted(first | set(always)), known), Places(sorted(second), known)


def known_key(name: str) -> Key:
    """The key of this name."""
    return ulogd_keys(name)[0]


def number(field: str) -> Give:
    """Gives a field of numbers unchanged."""
    return lambda rows, _: rows.number(field)


def plain(key: Key, field: str, *families: int) -> Source:
    """A key taken from a field of numbers."""
    return Source(key, (field,), number(field), families or (IPV4, IPV6))


def either(first: Value, second: Value) -> Value:
    """`first`, or `second` where it is missing."""
    if first[1] is None:
        return first
    missing = None if second[1] is None else first[1] & second[1]
    return np.where(first[1], second[0], first[0]), missing if missing is not None and missing.any() else None


def or_constant(given: Value, number: int) -> Value:
    """A value, or a constant where it is missing."""
    return given if given[1] is None else (np.where(given[1], given[0].dtype.type(number), given[0]), None)


def changed(give: Give, change: Callable[[np.ndarray], np.ndarray]) -> Give:
    """Applies `change` to a column."""

    def changing(rows: Values, now: float) -> Value:
        column, absent = give(rows, now)
        return change(column), absent

    return changing
