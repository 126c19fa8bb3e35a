"""Hashes of 64 bits of the values of a column."""

from __future__ import annotations

from hashlib import blake2b

import numpy as np

from ulogd_tw.core.columns import Coded, Column


def hashes(column: Column) -> np.ndarray:
    """A hash for each value (uint64), the same in every process, and of a number the same in every width.

    One Python step for each row of octets (2 M a second), for each different value where they are coded.
    """
    if isinstance(column, Coded):
        return _of_octets(column.values)[column.codes]
    if not isinstance(column, np.ndarray):
        return _of_octets(column.to_list())
    if column.ndim == 2:
        return mixed(mixed(column[:, 0]) ^ column[:, 1])
    return mixed(column.astype(np.float64).view(np.uint64) if column.dtype.kind == "f" else column.astype(np.uint64))


def _of_octets(values: list[bytes] | tuple[bytes, ...]) -> np.ndarray:
    return np.array([int.from_bytes(blake2b(v, digest_size=8).digest(), "big") for v in values], np.uint64)


def mixed(numbers: np.ndarray) -> np.ndarray:
    """Each number mixed up (the finalizer of splitmix64): different ones stay different."""
    numbers = numbers + np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        numbers = (numbers ^ (numbers >> np.uint64(shift))) * np.uint64(factor)
    return numbers ^ (numbers >> np.uint64(31))
