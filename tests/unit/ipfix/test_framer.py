"""Cutting a stream into Messages, and a Message into Sets."""

from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support import given
from tests.unit.ipfix.wire import a_set, message
from ulogd_tw.core.errors import MessageError
from ulogd_tw.ipfix.message import Framer, cut_sets


class FramerTests(SynchronousTestCase):
    """TCP-1: Messages are cut by the length field only."""

    messages = [message(), message(a_set(256, b"abc")), message(a_set(2, b""), a_set(300, bytes(40)))]

    def test_every_split(self):
        """TCP-1: a stream in two parts, split at every place, gives the same Messages."""
        stream = b"".join(self.messages)
        for at in range(len(stream) + 1):
            framer = Framer()
            found = framer.feed(stream[:at]) + framer.feed(stream[at:])
            self.assertEqual(self.messages, found, at)
            self.assertEqual(0, framer.waiting)

    @given(st.lists(st.integers(0, 65519), max_size=6), st.lists(st.integers(1, 4000), min_size=1, max_size=50))
    def test_any_parts(self, sizes, parts):
        """MSG-2, TCP-1: Messages of any size up to 65535 octets, in parts of any size."""
        messages = [message(bytes([i]) * size) for i, size in enumerate(sizes)]
        stream, framer, found, at, turn = b"".join(messages), Framer(), [], 0, 0
        while at < len(stream):
            size = parts[turn % len(parts)]
            found += framer.feed(stream[at : at + size])
            at += size
            turn += 1
            done = sum(map(len, found))
            self.assertEqual(min(at, len(stream)) - done, framer.waiting)
        self.assertEqual(messages, found)

    def test_lost(self):
        """Where no Message can begin the stream is lost; the Messages before it are given with the error."""
        for wrong in (b"\0\x09\0\x20", b"\0\x0a\0\x0f", b"\0\x0a\0\0", b"GET "):
            framer = Framer()
            self.assertEqual([], framer.feed(self.messages[1][:10]))
            error = self.assertRaises(MessageError, framer.feed, self.messages[1][10:] + self.messages[0] + wrong)
            self.assertEqual("framing", error.reason)
            self.assertEqual([self.messages[1], self.messages[0]], error.before)
            self.assertEqual(0, framer.waiting)

    def test_early(self):
        """A wrong version is seen with the first four octets, not after the length that it claims."""
        framer = Framer()
        self.assertEqual([], framer.feed(b"\0\5\xff"))
        self.assertRaises(MessageError, framer.feed, b"\xff")


class CutSetsTests(SynchronousTestCase):
    """SET-1, SET-7: Sets are found by their lengths only."""

    def test_sets(self):
        whole = message(a_set(2, b"1234"), a_set(700, b""), a_set(3, b"x"))
        self.assertEqual([(2, 20, 24), (700, 28, 28), (3, 32, 33)], cut_sets(whole))
        self.assertEqual([], cut_sets(message()))

    def test_wrong_lengths(self):
        for wrong in (b"\1", b"\1\0\0", b"\1\0\0\0", b"\1\0\0\3", b"\1\0\0\5", b"\1\0\xff\xff12"):
            for before in (b"", a_set(2, b"abc")):
                error = self.assertRaises(MessageError, cut_sets, message(before, wrong))
                self.assertEqual("set_length", error.reason)

    @given(st.lists(st.tuples(st.integers(0, 65535), st.binary(max_size=9)), max_size=5), st.data())
    def test_every_cut(self, sets, data):
        """A cut anywhere gives fewer whole sets or is refused."""
        whole = message(*(a_set(ident, body) for ident, body in sets))
        cut = data.draw(st.integers(16, len(whole)))
        expected = []
        at = 16
        for ident, body in sets:
            expected.append((ident, at + 4, at + 4 + len(body)))
            at += 4 + len(body)
        self.assertEqual(expected, cut_sets(whole))
        ends = [16] + [end for _, _, end in expected]
        if cut in ends:
            self.assertEqual([s for s in expected if s[2] <= cut], cut_sets(whole[:cut]))
        else:
            self.assertRaises(MessageError, cut_sets, whole[:cut])
