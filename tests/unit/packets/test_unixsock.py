"""Packets that a program hands over: the messages of ulogd2's UNIXSOCK."""

import struct
from collections import Counter

from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support import given
from ulogd_tw.core.errors import MessageError
from ulogd_tw.core.keys import registry
from ulogd_tw.core.plugin import ALL
from ulogd_tw.packets import unixsock

PACKET = bytes.fromhex("4500001d000100004011f96c0a0000010a00000204d20035000900007a")
SIX = bytes.fromhex("6000000000083a40") + bytes(31) + b"\1" + bytes(8)


def message(packet, *options):
    """As NuFW's program makes it: each text with its NUL, all values padded to 8 octets."""

    def padded(octets):
        return octets + bytes(-len(octets) % 8)

    body = padded(packet)
    for number, value in options:
        body += struct.pack(">II", number, len(value)) + padded(value)
    return struct.pack(">IHIH", 0x41C90FD4, 8 + len(body), 0, len(packet)) + body


FULL = message(
    PACKET, (1, b"D: drop\0"), (2, b"eth0\0"), (3, b"eth1\0"), (4, struct.pack("=I", 1795394676) + b"\0"),
    (200, b"lisa\0"), (201, struct.pack("=I", 1000) + b"\0"), (202, b"Linux\0"), (203, b"6.18\0"),
    (204, b"#1 SMP\0"), (205, b"/usr/bin/curl\0"), (206, b"\1\0"),
)  # fmt: skip
ROW = {
    "raw.pkt": PACKET, "raw.pktlen": 29, "raw.pktcount": 1, "oob.prefix": b"D: drop", "oob.time.sec": 1795394676,
    "oob.in": b"eth0", "oob.out": b"eth1", "oob.family": 2, "oob.protocol": 0x800, "raw.label": 1,
    "nufw.user.name": b"lisa", "nufw.user.id": 1000, "nufw.os.name": b"Linux", "nufw.os.rel": b"6.18",
    "nufw.os.vers": b"#1 SMP", "nufw.app.name": b"/usr/bin/curl",
}  # fmt: skip


def fed(*parts):
    """The messages that a framer finds in these parts."""
    framer = unixsock.Framer()
    return [m for part in parts for m in framer.feed(part)], framer


class FramerTests(SynchronousTestCase):
    """From a stream to messages."""

    @given(st.lists(st.sampled_from([FULL, message(SIX), message(b"")]), max_size=5), st.integers(1, 90))
    def test_pieces(self, messages, size):
        """However the stream is cut, the messages are the same, and nothing is left."""
        stream = b"".join(messages)
        found, framer = fed(*(stream[n : n + size] for n in range(0, len(stream), size)))
        self.assertEqual((found, framer.held), (messages, b""))

    def test_held(self):
        """Of a message that has not ended, what is there is kept: less than the longest message."""
        longest = message(bytes(65520))
        found, framer = fed(longest[:-1])
        self.assertEqual((found, len(framer.held)), ([], len(longest) - 1))
        self.assertLessEqual(len(longest), unixsock.LONGEST)

    def test_no_message(self):
        """Another mark, or lengths that do not fit, end the stream, after the messages before them."""
        for wrong, reason in ((b"\0" * 12, "mark"), (struct.pack(">IHIH", unixsock.MARK, 20, 0, 29), "length")):
            framer, found = unixsock.Framer(), []
            with self.assertRaises(MessageError) as caught:
                for one in framer.feed(FULL + wrong):
                    found.append(one)
            self.assertEqual((found, caught.exception.reason), ([FULL], reason))


class RowTests(SynchronousTestCase):
    """From messages to rows."""

    def test_everything(self):
        """Every option comes out under ulogd2's key."""
        unknown = Counter()
        batch = unixsock.batch([unixsock.row(FULL, unknown)], ALL, 1.0)
        self.assertEqual(list(batch.rows()), [ROW])
        self.assertEqual((unknown, list(batch.schema)), ({}, [key.name for key in unixsock.KEYS]))
        for key in batch.schema.values():
            self.assertEqual(key, registry.ulogd[key.name])

    def test_rows_of_different_options(self):
        """A key that a message has not is missing; one that none has is no column."""
        rows = [unixsock.row(m, Counter()) for m in (message(SIX, (1, b"a\0")), message(PACKET), message(b"\xff"))]
        batch = unixsock.batch(rows, ALL, 1.0)
        self.assertEqual(list(batch.rows()), [
            {"raw.pkt": SIX, "raw.pktlen": len(SIX), "raw.pktcount": 1, "oob.prefix": b"a", "oob.family": 10,
             "oob.protocol": 0x86DD},
            {"raw.pkt": PACKET, "raw.pktlen": 29, "raw.pktcount": 1, "oob.family": 2, "oob.protocol": 0x800},
            {"raw.pkt": b"\xff", "raw.pktlen": 1, "raw.pktcount": 1, "oob.family": 0},
        ])  # fmt: skip
        self.assertTrue(batch.held)
        self.assertEqual(list(unixsock.batch(rows, {"oob.family"}, 1.0).schema), ["oob.family"])

    def test_unknown_option(self):
        """An option that nobody knows is stepped over and counted."""
        unknown = Counter()
        self.assertEqual(unixsock.row(message(PACKET, (77, b"x"), (2, b"lo\0")), unknown)["oob.in"], b"lo")
        self.assertEqual(unknown, {"unknown option": 1})

    def test_bad_options(self):
        """An option beyond the end, or a number that is too short, makes the message none."""
        beyond = message(PACKET) + struct.pack(">II", 1, 9) + bytes(8)
        for wrong in (beyond, message(PACKET, (4, b"ab"))):
            with self.assertRaises(MessageError) as caught:
                unixsock.row(wrong, Counter())
            self.assertEqual(caught.exception.reason, "option length")

    @given(st.lists(st.tuples(st.integers(0, 400), st.binary(min_size=1, max_size=3)), min_size=1), st.integers(1, 50))
    def test_damaged(self, patches, size):
        """Damaged streams raise nothing but MessageError, and what is held stays bounded."""
        stream = bytearray(FULL * 3)
        for at, octets in patches:
            stream[at : at + len(octets)] = octets
        framer = unixsock.Framer()
        for at in range(0, len(stream), size):
            try:
                for one in framer.feed(bytes(stream[at : at + size])):
                    try:
                        unixsock.batch([unixsock.row(one, Counter())], ALL, 1.0)
                    except MessageError:
                        continue
            except MessageError:
                break
            self.assertLessEqual(len(framer.held), unixsock.LONGEST)
