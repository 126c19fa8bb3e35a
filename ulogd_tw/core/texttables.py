"""Tables for texts of numbers and addresses, each made at its first use.

Texts of at most 8 octets are words: the octets at their end, and lengths beside them.
"""

from __future__ import annotations

from functools import cache

import numpy as np


@cache
def four_digits() -> np.ndarray:
    """0 to 9999 as four digits each."""
    return np.frombuffer(b"".join(b"%04d" % i for i in range(10_000)), np.uint32)


def _words(texts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Texts (dtype S) of at most 8 octets as right-aligned words, and their lengths."""
    texts = texts.astype("S8")
    lengths = np.strings.str_len(texts)
    words = texts.view("<u8") << (64 - 8 * lengths).astype(np.uint64)
    return np.where(lengths, words, np.uint64(0)), lengths.astype(np.int8)


def _right_aligned(digits: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The last `lengths` octets in rows of 8, as words."""
    digits[np.arange(8) < 8 - lengths[:, None]] = 0
    return digits.reshape(-1).view("<u8")


@cache
def small_numbers() -> tuple[np.ndarray, np.ndarray]:
    """0 to 65535."""
    numbers = np.arange(65536)
    digits = np.zeros((65536, 8), np.uint8)
    lengths = np.ones(65536, np.int8)
    for place in range(5):
        digits[:, 7 - place] = ord("0") + numbers // 10**place % 10
        lengths += place > 0 and (numbers >= 10**place)
    return _right_aligned(digits, lengths), lengths


def _pairs(first: str, second: str) -> tuple[np.ndarray, np.ndarray]:
    """Two numbers of an octet each, with these texts before them."""
    octets = np.arange(256).astype("S3")
    one, two = (np.strings.add(before.encode(), octets) if before else octets for before in (first, second))
    return _words(np.strings.add(one[:, None], two[None, :]).reshape(-1))


@cache
def first_half() -> tuple[np.ndarray, np.ndarray]:
    """``a.b`` of an IPv4 address."""
    return _pairs("", ".")


@cache
def second_half() -> tuple[np.ndarray, np.ndarray]:
    """``.c.d`` of an IPv4 address."""
    return _pairs(".", ".")


_NOTHING, _COLON, _TWO_COLONS = 65536, 65537, 65538


@cache
def groups() -> tuple[np.ndarray, np.ndarray]:
    """``:abcd`` for each group of an IPv6 address, then nothing, ``:`` and ``::`` for groups left out."""
    numbers = np.arange(65536)
    digits = np.zeros((65536, 8), np.uint8)
    lengths = np.full(65536, 2, np.int8)
    for place in range(4):
        digits[:, 7 - place] = np.frombuffer(b"0123456789abcdef", np.uint8)[numbers >> 4 * place & 15]
        lengths += place > 0 and (numbers >= 16**place)
    digits[numbers, 8 - lengths] = ord(":")
    rest = _words(np.array([b"", b":", b"::"]))
    words = np.concatenate([_right_aligned(digits, lengths), rest[0]])
    return words, np.concatenate([lengths, rest[1]])


@cache
def zero_runs() -> tuple[np.ndarray, np.ndarray]:
    """For each mask of zero groups (bit 0: the first): the text for group i (0: its digits); the place of the run.

    RFC 5952 section 4.2: the longest run of two or more, the first of equally long ones.
    """
    stands = np.zeros((256, 8), np.int32)
    begins = np.full(256, -1, np.int8)
    for mask in range(256):
        runs = [
            (length, -start)
            for start in range(8)
            for length in range(2, 9 - start)
            if all(mask >> g & 1 for g in range(start, start + length))
        ]
        if runs:
            length, start = max(runs)[0], -max(runs)[1]
            stands[mask, start : start + length] = _NOTHING
            stands[mask, start] = _TWO_COLONS if start + length == 8 else _COLON
            begins[mask] = start
    return stands, begins


@cache
def hexadecimal() -> np.ndarray:
    """Each octet as two hexadecimal digits."""
    return np.frombuffer(b"".join(b"%02x" % i for i in range(256)), np.uint16)
