"""Columns of octets against Python's own bytes."""

import numpy as np
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support import given
from ulogd_tw.core.columns import Octets, Pieces, joined, repeated

sizes = st.lists(st.one_of(st.integers(0, 40), st.integers(0, 1200)), max_size=40)


def places(lengths, gap=3):
    """A buffer with strings of these lengths in it, where they begin, and the strings."""
    buffer = np.random.default_rng(len(lengths)).integers(0, 256, sum(lengths) + gap * len(lengths) + 1, np.uint8)
    starts = np.cumsum([0, *(length + gap for length in lengths)])[:-1]
    strings = [buffer[s : s + n].tobytes() for s, n in zip(starts.tolist(), lengths, strict=True)]
    return buffer, starts, np.array(lengths, np.int64), strings


class OctetsTests(SynchronousTestCase):
    """Strings one behind the other, and in pieces."""

    @given(sizes)
    def test_gathered(self, lengths):
        """Strings of any lengths from anywhere, short and long ones together."""
        buffer, starts, counts, strings = places(lengths)
        self.assertEqual(strings, Octets.gathered(buffer, starts, counts).to_list())

    @given(sizes, st.data())
    def test_pieces(self, lengths, data):
        """A column in pieces is like one that is together."""
        buffer, starts, counts, strings = places(lengths)
        pieces = Pieces(buffer, starts, counts)
        rows = data.draw(st.lists(st.integers(0, len(lengths) - 1), max_size=20)) if lengths else []
        self.assertEqual(len(strings), len(pieces))
        self.assertEqual([strings[row] for row in rows], pieces.take(np.array(rows, np.int64)).to_list())
        self.assertEqual(strings[1:7], pieces.take(slice(1, 7)).to_list())
        self.assertEqual(strings, pieces.to_list())
        self.assertEqual(strings + strings, joined([pieces, Octets.of(strings)]).to_list())
        self.assertEqual([len(string) for string in strings], pieces.lengths.tolist())


class RepeatedTests(SynchronousTestCase):
    """Columns with one value."""

    @given(st.integers(0, 5))
    def test_as_numpy_does(self, n):
        """As np.broadcast_to: no row costs memory, and nobody can write into what others share."""
        for value, dtype in ((7, np.dtype(np.uint16)), (2**64 - 1, np.dtype(np.uint64)), ((1, 2), None), (9, None)):
            found = repeated(value, n, dtype)
            expected = np.broadcast_to(np.array(value, np.uint64 if dtype is None and value != 9 else dtype),
                                       (n, 2) if value == (1, 2) else n)  # fmt: skip
            self.assertEqual((found.tolist(), found.dtype, found.shape), (expected.tolist(), expected.dtype,
                                                                          expected.shape))  # fmt: skip
            self.assertEqual((found.strides[0], found.flags.writeable), (0, False))
        self.assertEqual(repeated(b"data", n).to_list(), [b"data"] * n)
