"""Hashes of 64 bits: of the values of a column, of whole rows, of the flows behind rows."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b

import numpy as np

from ulogd_tw.core.batch import Batch
from ulogd_tw.core.columns import Coded, Column, strings, take, unpadded
from ulogd_tw.core.resolve import Find, Found


def hashes(column: Column, text: bool = False) -> np.ndarray:
    """A hash for each value (uint64): the same in every process, and for a number the same in every width.

    Of a `text` trailing NULs do not count.

    Octets take one Python step a row (2 M a second), coded strings one step for each different value.
    """
    if text:
        column = unpadded(strings(column))
    if isinstance(column, Coded):
        return _of_octets(column.values)[column.codes]
    if not isinstance(column, np.ndarray):
        return _of_octets(column.to_list())
    if column.ndim == 2:
        return mixed(mixed(column[:, 0]) ^ column[:, 1])
    if column.dtype.kind == "f":  # one NaN and one zero
        column = np.where(np.isnan(column), np.nan, column.astype(np.float64) + 0.0)
        return mixed(column.view(np.uint64))
    return mixed(column.astype(np.uint64))


def _of_octets(values: list[bytes] | tuple[bytes, ...]) -> np.ndarray:
    return np.array([int.from_bytes(blake2b(v, digest_size=8).digest(), "big") for v in values], np.uint64)


def mixed(numbers: np.ndarray) -> np.ndarray:
    """Each number scrambled (the finalizer of splitmix64); different numbers give different results."""
    numbers = numbers + np.uint64(0x9E3779B97F4A7C15)  # of our own from here on
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        numbers ^= numbers >> np.uint64(shift)
        numbers *= np.uint64(factor)
    numbers ^= numbers >> np.uint64(31)
    return numbers


def of_rows(columns: Iterable[Found | None], n: int, secret: np.uint64) -> np.ndarray:
    """A hash for each of n rows, over all its values; a missing value counts as a value, a missing column not at all.

    Without the `secret` nobody can make rows with equal hashes.
    The first columns cost nothing a row while they are absent or have one value.
    """
    found = np.full(1, secret)  # one for all rows, until a column differs among them
    for column in columns:
        found = mixed(found + _part(column, secret)) if column is not None else mixed(found)
    return found if len(found) == n else np.repeat(found, n)


def _part(column: Found, secret: np.uint64) -> np.ndarray:
    """The contribution of one column to the hashes of the rows; one for all if they have one value."""
    values = column.values
    codes = values.codes if isinstance(values, Coded) else values
    if isinstance(codes, np.ndarray) and len(codes) > 1 and not codes.strides[0] and column.missing is None:
        values = take(values, slice(0, 1))
    part = mixed(hashes(values, column.key.type.text) ^ secret)
    if column.missing is not None:
        part[column.missing] = 0
    return part


def of_flows(find: Find, batch: Batch, names: tuple[str, str, str, str, str]) -> np.ndarray:
    """A number for each row, the same for a flow and its reverse.

    `names` are the keys of the two addresses, the two ports and the protocol.
    """
    ends = []
    *ports, protocol = names
    for end_names in (ports[0::2], ports[1::2]):
        end = np.zeros(batch.n, np.uint64)
        for found in (find(batch, name) for name in end_names):
            if found is not None and isinstance(found.values, np.ndarray):
                end = mixed(end ^ _numbers(found))
        ends.append(end)
    found = find(batch, protocol)
    both = ends[0] + ends[1]
    return both if found is None else both ^ _numbers(found)


def _numbers(found: Found) -> np.ndarray:
    values = found.numbers.astype(np.uint64)
    if values.ndim == 2:
        values = mixed(values[:, 0]) + values[:, 1]
    return values if found.missing is None else np.where(found.missing, np.uint64(0), values)
