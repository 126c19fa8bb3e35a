"""Keys made of others for groups: ``sourceAddress/24:48`` (prefixes), ``flowStartSeconds/300`` (multiples)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from ulogd_tw.core import types
from ulogd_tw.core.batch import Batch
from ulogd_tw.core.columns import strings
from ulogd_tw.core.keys import Key, known
from ulogd_tw.core.readable import COMPARED, comparable
from ulogd_tw.core.resolve import Found

_WORD = (1 << 64) - 1
_ADDRESSES = ("ipv4", "ipv6", "address")
_NUMBERS = ("unsigned", "seconds", "milliseconds")


@dataclass(frozen=True)
class Derived:
    """The key `base`, and its derivation: prefixes of some bits, or steps of some size; `name` as written.

    `base_key` is None for an unknown key, a mistake of the configuration.
    """

    name: str
    base: str
    base_key: Key | None
    prefixes: tuple[int, int] | None = None
    step: int = 0

    @property
    def changes(self) -> bool:
        """Whether its columns are others than those of the base."""
        return self.base != self.name or (self.base_key is not None and self.base_key.type.form in COMPARED)

    @property
    def key(self) -> Key:
        """The key of its columns: of the type of the base, and no element, as it is no longer the value that was."""
        key = self.base_key or Key(self.name, types.UNSIGNED64)
        return key.named(self.name) if self.base == self.name else Key(self.name, key.type, (), key.unit)

    def find(self, find: Callable[[Batch, str], Found | None], batch: Batch) -> Found | None:
        """The column of a batch."""
        found = find(batch, self.base)
        if found is not None and (form := found.key.type.form) in COMPARED:
            found = replace(found, values=comparable(strings(found.values), form))
        if found is None or self.base == self.name:
            return found
        key = Key(self.name, found.key.type, (), found.key.unit)
        return Found(self._changed(found.numbers, found.key), found.missing, key)

    def _changed(self, column: np.ndarray, key: Key) -> np.ndarray:
        if self.prefixes is None:
            if self.step > np.iinfo(column.dtype).max:  # held in fewer octets than the key may have
                return np.zeros_like(column)
            return column - column % column.dtype.type(self.step)
        four, six = self.prefixes
        if key.type is types.IPV6:
            return _masked(column, four, six)
        return column & np.uint32((1 << 32) - (1 << 32 - four))


def _masked(column: np.ndarray, four: int, six: int) -> np.ndarray:
    """Addresses of 16 octets without the bits behind a prefix; those within ::ffff:0:0/96 are IPv4 addresses."""
    mask = (1 << 128) - (1 << 128 - six)
    found = column & np.array([mask >> 64, mask & _WORD], np.uint64)
    mapped = (column[:, 0] == 0) & (column[:, 1] >> np.uint64(32) == 0xFFFF)
    if mapped.any():
        found[mapped] = column[mapped] & np.array([_WORD, _WORD - (1 << 32 - four) + 1], np.uint64)
    return found


def parse(name: str) -> Derived:
    """The key meant by a word of the option `key`. ValueError for an impossible one."""
    base, slash, words = name.partition("/")
    key = known(base.partition("@")[0])
    if not slash:
        return Derived(name, base, key)
    numbers = words.split(":")
    if key is None or not all(word.isascii() and word.isdecimal() and len(word) < 50 for word in numbers):
        raise ValueError(f"{name}: write a number after the slash, or for addresses one of each family: /24:48")
    if key.type.kind in _ADDRESSES:
        four = min(int(numbers[0]), 32) if key.type.kind == "address" else int(numbers[0])
        if len(numbers) > 2 or not 0 <= four <= 128 or int(numbers[-1]) > 128 or key.type.kind == "ipv4" and four > 32:
            raise ValueError(f"{name}: a prefix has 0 to 32 bits, in IPv6 0 to 128, as in {base}/24:48")
        return Derived(name, base, key, (min(four, 32), int(numbers[-1])))
    if key.type.kind in _NUMBERS and len(numbers) == 1 and not int(numbers[0]):
        raise ValueError(f"{name}: the number after the slash must be 1 or more")
    if key.type.kind not in _NUMBERS or len(numbers) != 1:
        raise ValueError(f"{name}: {base} is neither an address nor a number, so nothing may follow with a slash")
    if int(numbers[0]) > np.iinfo(key.type.dtype).max:
        raise ValueError(f"{name}: the number after the slash is too large for {base}")
    return Derived(name, base, key, None, int(numbers[0]))
