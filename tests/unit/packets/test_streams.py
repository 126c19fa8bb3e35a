"""TCP in any order, and fragments."""

from collections import Counter

from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support import given
from ulogd_tw.packets import streams
from ulogd_tw.packets.streams import Fragments, Stream


class StreamTests(SynchronousTestCase):
    """One direction of a connection."""

    @given(st.binary(min_size=1, max_size=300), st.integers(0, 2**32 - 1), st.data())
    def test_any_order(self, octets, first, data):
        """Segments in any order, overlapping, repeated, around the wrap of the numbers: all octets once, in order."""
        edges = sorted({0, len(octets), *data.draw(st.lists(st.integers(0, len(octets)), max_size=6))})
        segments = list(zip(edges, edges[1:], strict=False))
        more = data.draw(st.lists(st.tuples(st.integers(0, len(octets)), st.integers(0, len(octets))), max_size=4))
        segments = data.draw(st.permutations(segments + [(a, b) for a, b in more if a < b]))
        stream = Stream()
        got = stream.take(first, b"", syn=True)
        for begin, end in segments:
            got += stream.take(first + 1 + begin & 0xFFFFFFFF, octets[begin:end])
        self.assertEqual(octets, got)
        self.assertEqual(0, stream.held)

    def test_gap(self):
        """Behind what is missing it goes on when it is told to, around the wrap of the numbers too."""
        for first in (100, 2**32 - 3):
            stream = Stream()
            self.assertEqual(b"ab", stream.take(first, b"ab"))
            self.assertEqual(b"", stream.take(first + 4 & 0xFFFFFFFF, b"efgh"))
            self.assertEqual(b"", stream.take(first + 10 & 0xFFFFFFFF, b"kl"))
            self.assertEqual(6 + 2 * streams.SEGMENT_COST, stream.held)
            self.assertEqual(b"efgh", stream.skip())
            self.assertEqual(b"kl", stream.skip())
            self.assertEqual(0, stream.held)
            self.assertEqual(b"m", stream.take(first + 12 & 0xFFFFFFFF, b"m"))

    def test_foreign(self):
        """Segments far behind or ahead are of another connection; those near by are not."""
        stream = Stream()
        stream.take(10, b"")
        for near in (1 - streams.FARTHEST, -1, 0, streams.FARTHEST - 1):
            self.assertFalse(stream.foreign(10 + near & 0xFFFFFFFF), near)
        for far in (-(2**31), -streams.FARTHEST, streams.FARTHEST, 2**31 - 1):
            self.assertTrue(stream.foreign(10 + far & 0xFFFFFFFF), far)


class FragmentTests(SynchronousTestCase):
    """Datagrams in pieces."""

    @given(st.binary(min_size=1, max_size=200), st.data())
    def test_any_order(self, octets, data):
        """Pieces in any order, also twice."""
        edges = sorted({0, len(octets), *(8 * e for e in data.draw(st.lists(st.integers(0, len(octets) // 8))))})
        pieces = list(zip(edges, edges[1:], strict=False))
        errors = Counter()
        fragments = Fragments(errors)
        got = [
            fragments.take(("a", "b", 1), begin, end < len(octets), octets[begin:end], 1.0)
            for begin, end in data.draw(st.permutations(pieces))
        ]
        self.assertEqual([octets], [whole for whole in got if whole is not None])
        self.assertEqual({}, errors)

    def test_missing(self):
        """What does not come is given up after a while, and beyond a number; what is too long at once."""
        errors = Counter()
        fragments = Fragments(errors)
        fragments.take(1, 0, True, b"a", 0.0)
        fragments.take(2, 0, True, b"a", 31.0)
        self.assertEqual(1, errors["fragments"])
        for key in range(300):
            fragments.take((3, key), 0, True, b"a", 31.0)
        self.assertEqual(1 + 300 + 1 - streams.MOST_FRAGMENTED - 1, errors["fragments"])
        fragments.take(4, 65528, False, bytes(9), 31.0)
        self.assertEqual(300 + 2 - streams.MOST_FRAGMENTED + 1, errors["fragments"])

    def test_pieces(self):
        """A datagram in too many pieces is given up."""
        errors = Counter()
        fragments = Fragments(errors)
        for piece in range(streams.MOST_PIECES + 1):
            self.assertIsNone(fragments.take(1, 8 * piece, True, bytes(8), 0.0))
        self.assertEqual({"fragments": 1}, errors)
