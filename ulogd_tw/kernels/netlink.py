"""Messages of netlink (netlink.c): where they begin, which layout each one has, and their values."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ulogd_tw.kernels import ffi, lib

_LEAST = 16
"""Octets of the shortest message."""


def _numbers(array: np.ndarray) -> np.ndarray:
    """Places as the kernels have them; of NumPy's own type, which has 64 bits on most machines, nothing is copied."""
    return np.ascontiguousarray(array, np.int64)


def _of(form: str, array: np.ndarray) -> object:
    return ffi.from_buffer(f"{form}[]", array)


def datagrams(memory: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Where messages begin in datagrams one after another, and their octets; and the datagrams with other octets.

    `ends` (int64): the end of each datagram in `memory` (uint8), a multiple of 4.
    """
    room = int(ends[-1]) // _LEAST if len(ends) else 0
    starts, lengths, broken = np.empty(room, np.int64), np.empty(room, np.int64), ffi.new("int64_t *")
    n = lib.ut_datagrams(_of("uint8_t", memory), len(memory), _of("int64_t", ends), len(ends),
                         _of("int64_t", starts), _of("int64_t", lengths), room, broken)  # fmt: skip
    assert n >= 0, "a datagram lies outside its memory"
    return starts[:n], lengths[:n], broken[0]


class Tables:
    """The layouts to compare messages with, in the form of the kernel.

    `expected` and `mask` are uint64, a row a layout; `first` is the first layout of a bucket and `following` the next
    one after another; `open_at` is the place of a last attribute of any length. `hashed` has (word, factor, beyond):
    the words that choose the bucket, and if not 0 the octets of the attribute `text` that they need.
    """

    def __init__(
        self, expected: np.ndarray, mask: np.ndarray, first: np.ndarray, following: np.ndarray, open_at: np.ndarray,
        hashed: Sequence[tuple[int, int, int]], text: int,
    ) -> None:  # fmt: skip
        layouts, self._wide = expected.shape
        places = [_of("int64_t", _numbers(array)) for array in (first, following, open_at)]
        self._kept = (_of("uint64_t", expected), _of("uint64_t", mask), *places, ffi.new("ut_hashed[]", hashed))
        self._tables = ffi.new("ut_layouts *")
        for name, value in zip(("expected", "mask", "first", "next", "open_at", "hashed"), self._kept, strict=True):
            setattr(self._tables, name, value)
        self._tables.wide, self._tables.layouts = self._wide, min(layouts, len(following), len(open_at))
        self._tables.buckets, self._tables.n_hashed, self._tables.text = len(first), len(hashed), text

    def match(self, memory: np.ndarray, starts: np.ndarray, lengths: np.ndarray, octets: int) -> tuple[np.ndarray, int]:
        """The layout of each message in `memory` (uint8), and how many have none of these: their number is 0.

        `octets` of each message are there to be compared, a multiple of 8; what is behind shorter ones is arbitrary.
        """
        self._tables.compared = min(octets // 8, self._wide)
        ids = np.empty(len(starts), np.int64)
        unknown = lib.ut_match(self._tables, _of("uint8_t", memory), len(memory), _of("int64_t", _numbers(starts)),
                               _of("int64_t", _numbers(lengths)), len(starts), _of("int64_t", ids))  # fmt: skip
        assert unknown >= 0, "a message lies outside its memory"
        return ids.astype(np.intp, copy=False), unknown


def values(
    memory: np.ndarray, bases: np.ndarray, ids: np.ndarray, words: np.ndarray, sizes: Sequence[int]
) -> list[np.ndarray]:
    """The values of messages that begin at `bases`: matrices of those of 64, 32, 16 and 8 bits, a row a value.

    `words` has the 32-bit words of a message where each layout has values: those of 32, 16 and 8 bits, the high and
    the low halves of 64. `sizes`: the numbers of values of 64, 32, 16 and 8 bits.
    """
    n = len(bases)
    octets = [n * size * width for size, width in zip(sizes, (8, 4, 2, 1), strict=True)]
    block = np.empty(sum(octets), np.uint8)
    words = _numbers(words)
    wrong = lib.ut_values(
        _of("uint8_t", memory), len(memory), _of("int64_t", _numbers(bases)), _of("int64_t", _numbers(ids)), n,
        _of("int64_t", words), words.shape[1], *sizes, _of("uint8_t", block), len(block),
    )  # fmt: skip
    assert not wrong, "a value lies outside its memory"
    found, at = [], 0
    for size, form, taken in zip(sizes, (np.uint64, np.uint32, np.uint16, np.uint8), octets, strict=True):
        found.append(block[at : at + taken].view(form).reshape(size, n))
        at += taken
    return found
