"""TCP in any order, and fragments."""

from collections import Counter

from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.fuzz.work import calls
from tests.support import given
from ulogd_tw.packets import reassembly
from ulogd_tw.packets.reassembly import HELD_SEGMENT, Fragments, Held, Stream


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
        self.assertFalse(stream.holds)

    def test_gap(self):
        """What is missing for too long is given up, once, and it goes on behind it."""
        self.patch(reassembly, "MOST_HELD", 8 + 2 * HELD_SEGMENT)
        stream = Stream()
        self.assertEqual(b"ab", stream.take(100, b"ab"))
        self.assertEqual(b"", stream.take(104, b"efgh"))
        self.assertEqual(b"", stream.take(108, b"ijkl"))
        self.assertFalse(stream.full)
        self.assertEqual(b"", stream.take(112, b"m"))
        self.assertTrue(stream.full)
        self.assertEqual(b"efghijklm", stream.resume())
        self.assertFalse(stream.full)
        self.assertEqual(b"n", stream.take(113, b"n"))

    def test_foreign(self):
        """Segments far behind or ahead are of another connection; those near by are not."""
        stream = Stream()
        stream.take(10, b"")
        for near in (1 - reassembly.FARTHEST, -1, 0, reassembly.FARTHEST - 1):
            self.assertFalse(stream.foreign(10 + near & 0xFFFFFFFF), near)
        for far in (-(2**31), -reassembly.FARTHEST, reassembly.FARTHEST, 2**31 - 1):
            self.assertTrue(stream.foreign(10 + far & 0xFFFFFFFF), far)

    def test_many_gaps(self):
        """However many gaps there are and however long what stands behind them is, no more waits than may."""
        self.patch(reassembly, "MOST_HELD", 10_000)
        self.patch(reassembly, "MOST_HELD_IN_ALL", 15_000)
        held = Held()
        connections = [Stream(held) for _ in range(3)]
        for size in (1, 4000):
            for place in range(200):
                stream, gaps = connections[place % 3], 0
                stream.take(0, b"x")
                stream.take((1 + place) * 5000 + size, bytes(size))
                while stream.full:
                    stream.resume()
                    gaps += 1
                self.assertLessEqual(held.octets, 15_000)
                self.assertLess(gaps, 200)
        for stream in connections:
            stream.drop()
        self.assertEqual(0, held.octets)

    def test_work(self):
        """Segments that come last first cost each as much as the first."""
        stream = Stream()
        stream.take(0, b"", syn=True)
        octets = bytes(place % 251 for place in range(3000))
        order = range(2999, -1, -1)
        got = []
        made = calls(lambda: got.extend(stream.take(1 + place, octets[place : place + 1]) for place in order))
        self.assertEqual(octets, b"".join(got))
        self.assertLess(made, 40 * 3000)


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
        self.assertEqual(1 + 300 + 1 - reassembly.MOST_FRAGMENTED - 1, errors["fragments"])
        fragments.take(4, 65528, False, bytes(9), 31.0)
        self.assertEqual(300 + 2 - reassembly.MOST_FRAGMENTED + 1, errors["fragments"])

    def test_overlap(self):
        """A datagram whose pieces overlap is dropped and counted (RFC 5722 section 4); one that came twice is not."""
        errors = Counter()
        fragments = Fragments(errors)
        self.assertIsNone(fragments.take(1, 0, True, bytes(16), 1.0))
        self.assertIsNone(fragments.take(1, 8, True, bytes(16), 1.0))
        self.assertIsNone(fragments.take(1, 24, False, bytes(8), 1.0))
        self.assertEqual({"fragments": 1}, errors)
        for _ in range(2):
            self.assertIsNone(fragments.take(2, 0, True, bytes(16), 1.0))
        self.assertEqual(bytes(24), fragments.take(2, 16, False, bytes(8), 1.0))
        self.assertEqual({"fragments": 1}, errors)

    def test_many_pieces(self):
        """Pieces of a datagram that are together longer than any are given up, so that no more than that waits."""
        errors = Counter()
        fragments = Fragments(errors)
        for place in range(100):
            fragments.take(1, 8 + 8 * place, True, bytes(10_000), 1.0)
        self.assertEqual(14, errors["fragments"])
        self.assertLessEqual(sum(parts.octets for parts in fragments._waiting.values()), 65_535)
