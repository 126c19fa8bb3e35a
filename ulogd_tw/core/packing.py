"""Packs key columns into 64-bit words and back. Equal rows give equal words, whatever their width on the wire."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ulogd_tw.core import types
from ulogd_tw.core.columns import Coded, Column, Octets, numbers, strings, unpadded
from ulogd_tw.core.keys import Key, known
from ulogd_tw.core.types import Type


class Dictionary:
    """Codes for different octet strings, at most `most`; they last as long as the table."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.values: list[bytes] = []
        self._codes: dict[bytes, int] = {}

    @property
    def full(self) -> bool:
        """Whether no further string can get a code."""
        return len(self.values) >= self.most

    def codes(self, column: Octets | Coded) -> np.ndarray:
        """The code of each row, uint32; 0xFFFFFFFF for a new string when the dictionary is full.

        `Octets` take one Python step a row (5 M rows a second), `Coded` one step for each different value.
        """
        if isinstance(column, Coded):
            return np.array([self._code(v) for v in column.values], np.uint32)[column.codes]
        code = self._code
        return np.fromiter((code(v) for v in column.to_list()), np.uint32, len(column))

    def restore(self, values: list[bytes]) -> None:
        """The strings of another dictionary, with its codes."""
        self.values = values
        self._codes = {value: code for code, value in enumerate(values)}

    def _code(self, value: bytes) -> int:
        found = self._codes.get(value)
        if found is None:
            if self.full:
                return 0xFFFFFFFF
            found = self._codes[value] = len(self.values)
            self.values.append(value)
        return found


@dataclass(frozen=True, slots=True)
class _Place:
    """The place of a key: `bits` bits from `shift` upwards in word `word`; an IPv6 address takes two whole words."""

    key: Key
    bits: int
    word: int
    shift: int


def packed_type(name: str, held: Key) -> Type:
    """The type in which a key is packed: its declared type, so that every width on the wire gives the same words.

    An address has the family of its column.
    """
    declared = known(name.partition("/")[0])
    if declared is None or declared.type.kind in ("address", "octets", "list"):
        return held.type
    if declared.type.variable != held.type.variable or not types.compatible(declared.type, held.type):
        return held.type
    return declared.type if declared.type.dtype is not None or declared.type.variable else held.type


class Packing:
    """The layout of a table's present keys in words. `absent` keys are NULL in every row."""

    def __init__(self, present: Sequence[Key], dictionaries: dict[str, Dictionary]) -> None:
        self._dictionaries = dictionaries
        self._places: list[_Place] = []
        filled: list[int] = []  # bits used of each word
        for key in sorted(present, key=lambda k: -_bits(k.type)):
            bits = _bits(key.type)
            if bits == 128:
                self._places.append(_Place(key, 128, len(filled), 0))
                filled += [64, 64]
                continue
            word = next((i for i, used in enumerate(filled) if used + bits <= 64), len(filled))
            if word == len(filled):
                filled.append(0)
            self._places.append(_Place(key, bits, word, filled[word]))
            filled[word] += bits
        self.words = max(len(filled), 1)

    def pack(self, columns: dict[str, Column], n: int) -> tuple[list[np.ndarray], np.ndarray | None]:
        """The words of each row, and a mask of the rows that fit (None: all): a value may be too wide for its key."""
        words: list[np.ndarray | None] = [None] * self.words
        fits: np.ndarray | None = None
        for place in self._places:
            column = columns[place.key.name]
            if place.bits == 128:
                words[place.word], words[place.word + 1] = np.ascontiguousarray(numbers(column).T)
                continue
            if place.key.type.variable:
                text = strings(column)
                column = self._dictionaries[place.key.name].codes(unpadded(text) if place.key.type.text else text)
                good = column != np.uint32(0xFFFFFFFF)
                if not good.all():
                    fits = good if fits is None else fits & good
            word, good = _as_word(numbers(column), place.key.type)
            if good is not None:
                fits = good if fits is None else fits & good
            if place.shift:
                word = word << np.uint64(place.shift)
            known_part = words[place.word]
            words[place.word] = word if known_part is None else known_part | word
        return [np.zeros(n, np.uint64) if w is None else w for w in words], fits

    def again(self, words: list[np.ndarray], packing: Packing) -> tuple[list[np.ndarray], np.ndarray | None]:
        """As `pack`, for words packed by another `Packing` of the same keys."""
        if not any(place.key.type.variable for place in self._places):
            return words, None
        columns = {key.name: column for key, column in packing.unpack(words).items()}
        for name, column in columns.items():
            if isinstance(column, Coded):  # only the strings that there are
                codes, places = np.unique(column.codes, return_inverse=True)
                columns[name] = Coded(places, [column.values[code] for code in codes.tolist()])
        return self.pack(columns, len(words[0]))

    def check(self, words: Sequence[np.ndarray]) -> None:
        """Raise ValueError for words with an unknown code of a string."""
        for key, column in self.unpack(words).items():
            if isinstance(column, Coded) and len(column) and int(column.codes.max()) >= len(column.values):
                raise ValueError(f"a string of {key.name} is missing")

    def unpack(self, words: Sequence[np.ndarray]) -> dict[Key, Column]:
        """The key columns of packed rows."""
        found: dict[Key, Column] = {}
        for place in self._places:
            if place.bits == 128:
                found[place.key] = np.stack((words[place.word], words[place.word + 1]), axis=1)
                continue
            value = words[place.word] >> np.uint64(place.shift)
            if place.bits < 64:
                value &= np.uint64((1 << place.bits) - 1)
            if place.key.type.variable:
                found[place.key] = Coded(value.astype(np.int64), self._dictionaries[place.key.name].values)
            else:
                found[place.key] = _from_word(value, place.key.type)
        return found


def _bits(type_: Type) -> int:
    if type_.variable:
        return 32
    if type_ is types.IPV6:
        return 128
    return 48 if type_ is types.MAC else 8 * type_.array_dtype.itemsize


def _as_word(column: np.ndarray, type_: Type) -> tuple[np.ndarray, np.ndarray | None]:
    """A column as uint64 with only the type's bits, and a mask of the rows that fit (None: all)."""
    if type_.kind == "float":
        # one NaN and one zero, so that equal values are one key
        column = np.where(np.isnan(column), np.nan, column.astype(np.float64) + 0.0).astype(type_.array_dtype)
        return column.view(np.dtype(f"u{type_.array_dtype.itemsize}")).astype(np.uint64), None
    good = None
    if not type_.variable and type_ is not types.MAC and column.dtype != type_.array_dtype:
        narrow = column.astype(type_.array_dtype)
        same = narrow == column
        good = None if same.all() else same
        column = narrow
    if column.dtype.kind == "i":
        column = column.view(np.dtype(f"u{column.dtype.itemsize}"))
    return column.astype(np.uint64), good


def _from_word(value: np.ndarray, type_: Type) -> np.ndarray:
    if type_ is types.MAC:
        return value
    if type_.kind in ("float", "signed"):
        return value.astype(np.dtype(f"u{type_.array_dtype.itemsize}")).view(type_.array_dtype)
    return value.astype(type_.array_dtype)
