"""Texts of many rows, laid out so that one copy a row puts each text at its place in a buffer of lines.

Each text ends at a known place (right-aligned), because lines are built from their ends: a copy of fixed width spoils
some octets to the left, and the text written next covers them.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from ulogd_tw.core.columns import LONG, scatter

CHUNK = 64
"""Octets moved by one copy; a longer string takes several copies."""


def window(buffer: np.ndarray, width: int) -> np.ndarray:
    """All stretches of `width` octets of a buffer as overlapping elements: one copy a row, whatever the width."""
    return np.ndarray((len(buffer) - width + 1,), _void(width), buffer, 0, (1,))


@lru_cache(1024)
def _void(width: int) -> np.dtype:
    return np.dtype(f"V{width}")


class Aligned:
    """Texts in a matrix of octets, one a row, each ending at the right edge.

    `lengths`: an array, or one number for all rows; `least`: the smallest length; `spill`: the most octets spoilt by
    `put` to the left of a text.
    """

    __slots__ = ("matrix", "lengths", "least", "spill")

    def __init__(self, matrix: np.ndarray, lengths: np.ndarray | int, least: int) -> None:
        self.matrix = matrix
        self.lengths = lengths
        self.least = least
        self.spill = matrix.shape[1] - least

    def put(self, out: np.ndarray, ends: np.ndarray, rows: np.ndarray | None) -> None:
        """Write the texts so that they end at `ends`, for all rows or those in `rows`. Octets left of a text are
        spoilt."""
        width = self.matrix.shape[1]
        values = self.matrix.view(_void(width))[:, 0]
        window(out, width)[ends - width] = values if rows is None else values[rows]

    def strings(self) -> Strings:
        """The same texts as `Strings`."""
        rows, width = self.matrix.shape
        data = np.concatenate([np.zeros(CHUNK, np.uint8), self.matrix.ravel()])
        lengths = np.broadcast_to(np.asarray(self.lengths, np.int64), rows)
        return Strings(data, np.arange(1, rows + 1) * width + CHUNK, lengths)


class Strings:
    """Texts anywhere in `data`: text i is the `lengths[i]` octets before ``ends[i]``.

    CHUNK octets precede the first text.
    """

    __slots__ = ("data", "ends", "lengths", "least", "spill", "_longest", "_chunk")

    def __init__(self, data: np.ndarray, ends: np.ndarray, lengths: np.ndarray) -> None:
        self.data = data
        self.ends = ends
        self.lengths = lengths
        self.least = int(lengths.min()) if len(lengths) else 0
        self._longest = int(lengths.max()) if len(lengths) else 0
        self._chunk = min(CHUNK, max(self._longest, 1))
        self.spill = self._chunk if self._longest > CHUNK else self._chunk - self.least

    @classmethod
    def of(cls, texts: list[bytes], codes: np.ndarray) -> Strings:
        """The text of each row: `codes` into a few different `texts`."""
        data = np.frombuffer(bytes(CHUNK) + b"".join(texts), np.uint8)
        lengths = np.fromiter(map(len, texts), np.int64, len(texts))
        return cls(data, (np.cumsum(lengths) + CHUNK).take(codes), lengths.take(codes))

    def put(self, out: np.ndarray, ends: np.ndarray, rows: np.ndarray | None) -> None:
        """See `Aligned.put`."""
        source, left = self.ends, self.lengths
        if rows is not None:
            source, left = source[rows], left[rows]
        width = self._chunk
        to, from_ = window(out, width), window(self.data, width)
        to[ends - width] = from_[source - width]
        done = width
        while done < self._longest:
            more = np.flatnonzero(left > done)
            to[ends[more] - (done + width)] = from_[source[more] - (done + width)]
            done += width

    def strings(self) -> Strings:
        """Itself."""
        return self

    def put_exactly(self, out: np.ndarray, ends: np.ndarray, rows: np.ndarray | None) -> None:
        """Write without spoiling anything, for the first text of a short line. It costs a few nanoseconds an octet."""
        source, lengths = self.ends, self.lengths
        if rows is not None:
            source, lengths = source[rows], lengths[rows]
        if int(lengths.sum()) >= LONG * len(lengths):
            scatter(out, ends - lengths, self.data, source - lengths, np.asarray(lengths, np.int64))
            return
        before = np.cumsum(lengths) - lengths
        run = np.arange(int(lengths.sum()))
        out[np.repeat(ends - lengths - before, lengths) + run] = self.data[
            np.repeat(source - lengths - before, lengths) + run
        ]


Texts = Aligned | Strings
Part = bytes | Texts
