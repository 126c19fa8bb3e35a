"""Octets of records to columns (columns.c)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ulogd_tw.kernels import ffi, lib

_KINDS = {"unsigned": 0, "mac": 0, "milliseconds": 0, "seconds": 0, "ntp": 0, "ipv4": 0, "boolean": 0, "signed": 1,
          "float": 2, "octets": 3, "ipv6": 4}  # fmt: skip


@dataclass(frozen=True, slots=True)
class FieldPlan:
    """A wanted field of fixed length: octets before it in its run, its length, and the kind and dtype of its values.

    Without dtype its octets are copied as they are, `length` a row.
    """

    at: int
    length: int
    kind: str
    dtype: np.dtype | None


class Program:
    """Reads the fields of a run of `octets` octets into columns that share one block of memory."""

    def __init__(self, octets: int, plans: Sequence[FieldPlan]) -> None:
        self._octets = octets
        self._fields = ffi.new("ut_field[]", len(plans))
        self._columns: list[tuple[np.dtype, int, int]] = []
        for field, plan in zip(self._fields, plans, strict=True):
            dtype = plan.dtype or np.dtype(np.uint8)
            each = plan.length if plan.dtype is None else 2 if plan.kind == "ipv6" else 1
            field.at, field.length, field.width = plan.at, plan.length, 0 if plan.dtype is None else dtype.itemsize
            field.kind = _KINDS["octets" if plan.dtype is None else plan.kind]
            self._columns.append((dtype, each, dtype.itemsize * each))

    def fixed(self, memory: np.ndarray, starts: np.ndarray, counts: np.ndarray, n: int) -> list[np.ndarray]:
        """`n` records: `counts` of them one after another from each of `starts` on in `memory` (int64, uint8)."""
        block, columns = self._block(n)
        octets = ffi.from_buffer("uint8_t[]", memory)
        rows = lib.ut_fixed(
            octets, len(octets), ffi.from_buffer("int64_t[]", starts), ffi.from_buffer("int64_t[]", counts),
            len(starts), self._octets, self._fields, len(self._fields), ffi.from_buffer("uint8_t[]", block),
            len(block), n,
        )  # fmt: skip
        assert rows == n, f"{rows} of {n} records lie in their memory"
        return columns

    def located(self, memory: np.ndarray, bases: np.ndarray) -> list[np.ndarray]:
        """A run at each of `bases` (int64)."""
        n = len(bases)
        block, columns = self._block(n)
        octets = ffi.from_buffer("uint8_t[]", memory)
        rows = lib.ut_located(
            octets, len(octets), ffi.from_buffer("int64_t[]", bases), n, self._octets, self._fields,
            len(self._fields), ffi.from_buffer("uint8_t[]", block), len(block),
        )  # fmt: skip
        assert rows == n, "a run of fields lies outside its memory"
        return columns

    def _block(self, n: int) -> tuple[np.ndarray, list[np.ndarray]]:
        """Memory for the columns of `n` rows, and the columns in it."""
        places, at = [], 0
        for field, (_, _, octets) in zip(self._fields, self._columns, strict=True):
            field.out = at
            places.append(at)
            at += octets * n + 7 & ~7
        block = np.empty(at, np.uint8)
        columns = [
            np.ndarray((n, 2) if each == 2 and dtype.itemsize == 8 else (n * each,), dtype, block, place)
            for place, (dtype, each, _) in zip(places, self._columns, strict=True)
        ]
        return block, columns


def locate(
    memory: np.ndarray, starts: np.ndarray, ends: np.ndarray, segments: Sequence[tuple[int, int]], tail: int, least: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The records of variable length in bodies from `starts` to `ends`.

    How many each body has, whether its last one is cut, and an array of int64: where each record begins, then where
    each value begins and its octets, a row for each of them.
    """
    most = int(((ends - starts) // least).sum())
    found = np.empty((1 + 2 * len(segments), most), np.int64)
    counts, cut = np.empty(len(starts), np.int64), np.empty(len(starts), np.uint8)
    octets = ffi.from_buffer("uint8_t[]", memory)
    rows = lib.ut_locate(
        octets, len(octets), ffi.from_buffer("int64_t[]", starts), ffi.from_buffer("int64_t[]", ends), len(starts),
        ffi.new("ut_segment[]", segments), len(segments), tail, least, most, ffi.from_buffer("int64_t[]", counts),
        ffi.from_buffer("uint8_t[]", cut), ffi.from_buffer("int64_t[]", found),
    )  # fmt: skip
    assert rows >= 0, "bodies lie outside their memory"
    return counts, cut.view(bool), found[:, :rows]


def strings(memory: np.ndarray, starts: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Octet strings from `starts` on, put one after another at `offsets`, which has one more (int64)."""
    out = np.empty(int(offsets[-1]), np.uint8)
    octets = ffi.from_buffer("uint8_t[]", memory)
    done = lib.ut_strings(octets, len(octets), ffi.from_buffer("int64_t[]", starts),
                          ffi.from_buffer("int64_t[]", offsets), len(starts), ffi.from_buffer("uint8_t[]", out),
                          len(out))  # fmt: skip
    assert done == len(starts), "a string lies outside its memory"
    return out


def scatter(out: np.ndarray, to: np.ndarray, memory: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> None:
    """Copy ``memory[starts[i]:starts[i] + lengths[i]]`` to ``out[to[i]:]`` (int64, uint8)."""
    places = (
        ffi.from_buffer("int64_t[]", np.ascontiguousarray(numbers, np.int64)) for numbers in (starts, lengths, to)
    )
    octets, target = ffi.from_buffer("uint8_t[]", np.ascontiguousarray(memory)), ffi.from_buffer("uint8_t[]", out)
    from_, sizes, at = places
    done = lib.ut_scatter(octets, len(octets), from_, sizes, len(starts), target, len(target), at)
    assert done == len(starts), "a string lies outside its memory"
