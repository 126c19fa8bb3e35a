"""Messages in the rows of an array, as recvmmsg leaves them: which of them can be taken together by their headers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

from ulogd_tw.ipfix.layout import BEFORE
from ulogd_tw.ipfix.message import FIRST_DATA_SET, VERSION

EXPORTED, NUMBER, DOMAIN = 1, 2, 3
"""The words of the Export Time, the Sequence Number and the Observation Domain."""
_ALIKE = (0, 1, 3, 4)
"""Version and length, Export Time, Observation Domain, Set ID and length: what is equal in alike Messages."""
FEWEST = 4
"""Shorter runs are not worth their NumPy calls."""


def headers(rows: np.ndarray) -> np.ndarray:
    """The Message Headers and first Set headers of all rows, as five words each.

    Words beyond a short Message are arbitrary.
    """
    return np.ascontiguousarray(rows[:, :BEFORE]).view(">u4").astype(np.uint32)


def runs(sessions: Sequence[object], words: np.ndarray, lengths: np.ndarray) -> Iterator[tuple[int, int, bool]]:
    """Neighbouring rows as (first, one after the last, alike).

    Alike ones are Messages of one Data Set with equal session, domain, set, length and Export Time.
    """
    n = len(words)
    one_session = sessions.count(sessions[0]) == n
    if one_session and all((words[:, w] == words[0, w]).all() for w in _ALIKE) and (lengths == lengths[0]).all():
        yield 0, n, bool(_plain(words[0], lengths[0])) and n >= FEWEST
        return
    plain = _plain(words.T, lengths)
    same = plain[1:] & plain[:-1]
    for word in _ALIKE:
        same &= words[1:, word] == words[:-1, word]
    if not one_session:
        who = np.fromiter(map(id, sessions), np.uint64, n)
        same &= who[1:] == who[:-1]
    edges = [0, *(np.flatnonzero(~same) + 1).tolist(), n]
    if len(edges) - 1 > n // FEWEST:
        yield 0, n, False
        return
    for first, last in pairwise(edges):
        yield first, last, last - first >= FEWEST


def _plain(words: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Whether these words begin a Message of this length that is one Data Set."""
    return (
        (words[0] == (VERSION << 16 | lengths))
        & (words[4] >= FIRST_DATA_SET << 16)
        & ((words[4] & 0xFFFF) + np.uint32(16) == lengths)
    )
