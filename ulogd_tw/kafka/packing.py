"""Rows that were written as octets become messages: one row each, or many of one partition."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from ulogd_tw.core.columns import Octets
from ulogd_tw.kafka.sending import Message


@dataclass(slots=True)
class Packed:
    """Messages, with the numbers of the rows in each."""

    messages: list[Message] = field(default_factory=list)
    rows: list[np.ndarray] = field(default_factory=list)

    def add(self, other: Packed, first: int) -> None:
        """The messages of further rows; `first` is the number of the first one."""
        self.messages += other.messages
        self.rows += [numbers + first for numbers in other.rows]

    def rows_of(self, message: Message) -> np.ndarray:
        """The numbers of the rows in a message that came back."""
        places = [i for i, one in enumerate(self.messages) if one["value"] == message["value"]]
        exact = [i for i in places if self.messages[i].get("key") == message.get("key")] or places
        return self.rows[exact[0]] if exact else np.zeros(0, np.int64)


def one_each(values: Octets, keys: Octets | None) -> Packed:
    """A message for each row, with its key."""
    octets = values.to_list()
    rows = list(np.arange(len(octets)).reshape(-1, 1))
    if keys is None:
        return Packed([{"value": value} for value in octets], rows)
    pairs = zip(octets, keys.to_list(), strict=True)
    return Packed([{"value": value, "key": key} for value, key in pairs], rows)


def groups(partitions: np.ndarray | None, n: int) -> Iterator[tuple[int | None, np.ndarray]]:
    """The rows of each partition, in their order; all together where any partition will do."""
    if partitions is None:
        yield None, np.arange(n)
        return
    order = np.argsort(partitions, kind="stable")
    different, starts = np.unique(partitions[order], return_index=True)
    yield from zip(different.tolist(), np.split(order, starts[1:]), strict=True)


def many(values: Octets, separator: bytes, partitions: np.ndarray | None, most_rows: int, most_octets: int) -> Packed:
    """Messages of many rows each, with the separator between them."""
    found = Packed()
    for partition, rows in groups(partitions, len(values)):
        octets = values.take(rows).to_list() if partition is not None else values.to_list()
        lengths = values.lengths[rows] + len(separator)
        for start, end in cuts(lengths, most_rows, most_octets):
            message: Message = {"value": separator.join(octets[start:end])}
            if partition is not None:
                message["partition"] = partition
            found.messages.append(message)
            found.rows.append(rows[start:end])
    return found


def cuts(lengths: np.ndarray, most_rows: int, most_octets: int) -> Iterator[tuple[int, int]]:
    """Beginning and end of each message: as many rows as fit, but one at least."""
    ends = np.cumsum(lengths)
    start, n = 0, len(lengths)
    while start < n:
        before = int(ends[start - 1]) if start else 0
        fit = int(np.searchsorted(ends, before + most_octets, side="right"))
        end = min(max(fit, start + 1), start + most_rows, n)
        yield start, end
        start = end
