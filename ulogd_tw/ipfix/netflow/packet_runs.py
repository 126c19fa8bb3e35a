"""Packets of NetFlow in the rows of an array, as recvmmsg leaves them: which of them can be taken together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

from ulogd_tw.ipfix.netflow.packet import BEFORE_RECORDS
from ulogd_tw.ipfix.session import Session

_FEWEST = 4
"""Packets; a shorter run is not worth its NumPy calls."""


def any_of(words: np.ndarray) -> bool:
    """Whether some of the messages that begin with these words are NetFlow."""
    versions = words[:, 0] >> 16
    return bool(((versions == 9) | (versions == 5)).any())


def runs(
    sessions: Sequence[Session], rows: np.ndarray, lengths: np.ndarray
) -> Iterator[tuple[int, int, np.ndarray | None]]:
    """Neighbouring rows as (first, one after the last, their first six words or None).

    Words are given for packets of NetFlow that have the same session, length, count, second, source and first FlowSet.
    """
    words = np.ascontiguousarray(rows[:, :BEFORE_RECORDS]).view(">u4").astype(np.uint32)
    versions = words[:, 0] >> 16
    same = (words[1:, 0] == words[:-1, 0]) & (words[1:, 2] == words[:-1, 2]) & (words[1:, 5] == words[:-1, 5])
    same &= (lengths[1:] == lengths[:-1]) & ((versions[1:] == 5) | (words[1:, 4] == words[:-1, 4]))
    if sessions.count(sessions[0]) != len(sessions):
        who = np.fromiter(map(id, sessions), np.uint64, len(sessions))
        same &= who[1:] == who[:-1]
    edges = [0, *(np.flatnonzero(~same) + 1).tolist(), len(words)]
    for first, last in pairwise(edges):
        netflow = versions[first] in (5, 9) and last - first >= _FEWEST
        yield first, last, words[first:last] if netflow else None
