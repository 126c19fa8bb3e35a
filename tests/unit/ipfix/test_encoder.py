"""Records and Messages: RFC 7011's examples, and what an independent reader finds in what was written."""

import struct

import numpy as np
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support import given
from ulogd_tw.core.columns import Coded, Octets, repeated
from ulogd_tw.ipfix.builder import MessageBuilder, recut, template_messages
from ulogd_tw.ipfix.encoder import Encoder, Records
from ulogd_tw.ipfix.template import VARIABLE, Field, Template


def template(*fields, ident=256):
    """A template of IANA elements, each as (id, octets)."""
    return Template(ident, tuple(Field(0, element, octets) for element, octets in fields))


def column(kind, values):
    """A column of this dtype."""
    return np.array(values, kind)


def encoded(fields, *columns):
    """The octets of all records."""
    records = Encoder(template(*fields)).encode(columns, len(columns[0]))
    return records.data.tobytes()


def numbered(n, size=10, ident=256, start=0):
    """n records of `size` octets, each with its number at the end."""
    data = np.zeros((n, size), np.uint8)
    data[:, -4:] = np.arange(start, start + n, dtype=">u4").view(np.uint8).reshape(-1, 4)
    return Records(template((1, 8), (210, size - 8), ident=ident), data)


def walk(message):
    """(header, [(set id, body)]) of one Message, read with struct alone."""
    header = struct.unpack_from("!HHIII", message)
    assert header[1] == len(message), (header, len(message))
    sets, at = [], 16
    while at < len(message):
        ident, length = struct.unpack_from("!HH", message, at)
        assert 4 < length <= len(message) - at, (ident, length)
        sets.append((ident, message[at + 4 : at + length]))
        at += length
    return header, sets


class Rfc7011Tests(SynchronousTestCase):
    """The examples of RFC 7011 appendix A."""

    addresses = {name: int.from_bytes(map(int, name.split(".")), "big") for name in (
        "192.0.2.12", "192.0.2.254", "192.0.2.1", "192.0.2.27", "192.0.2.23", "192.0.2.2", "192.0.2.56", "192.0.2.65",
        "192.0.2.3")}  # fmt: skip

    def column(self, *names):
        return np.array([self.addresses[name] for name in names], np.uint32)

    def test_template_and_data(self):
        """A.2.1 and A.3: a Template Set and the Data Set of three records, in one Message each."""
        wanted = template((8, 4), (12, 4), (15, 4), (2, 4), (1, 4))
        (told,) = template_messages([wanted], 1500, 0, 12345678, 0x43B71F00)
        self.assertEqual(
            "000a002c" "43b71f00" "00000000" "00bc614e"
            "0002001c" "01000005" "00080004" "000c0004" "000f0004" "00020004" "00010004", told.hex()
        )  # fmt: skip
        records = Encoder(wanted).encode(
            [self.column("192.0.2.12", "192.0.2.27", "192.0.2.56"),
             self.column("192.0.2.254", "192.0.2.23", "192.0.2.65"),
             self.column("192.0.2.1", "192.0.2.2", "192.0.2.3"), column("L", [5009, 748, 5]),
             column("L", [5344385, 388934, 6534])], 3,
        )  # fmt: skip
        builder = MessageBuilder(1500)
        self.assertEqual([], builder.add(records))
        (messages,) = builder.flush()
        octets = messages.stamped(0, 12345678, 0x43B71F00).tobytes()
        self.assertEqual(
            "000a0050" "43b71f00" "00000000" "00bc614e" "01000040"
            "c000020c" "c00002fe" "c0000201" "00001391" "00518c81"
            "c000021b" "c0000217" "c0000202" "000002ec" "0005ef46"
            "c0000238" "c0000241" "c0000203" "00000005" "00001986", octets.hex()
        )  # fmt: skip

    def test_variable_length(self):
        """A.5: one length octet up to 254 octets, else 255 and two."""
        short, long = b"short", b"x" * 1000
        found = encoded([(82, VARIABLE)], Octets.of([short, long, b"", b"y" * 254, b"z" * 255]))
        expected = b"\x05short" + b"\xff\x03\xe8" + long + b"\0" + b"\xfe" + b"y" * 254 + b"\xff\x00\xff" + b"z" * 255
        self.assertEqual(expected, found)


class ValuesTests(SynchronousTestCase):
    """Each abstract data type in each length that it may have."""

    def test_types(self):
        """Section 6.1, type by type."""
        for element, octets, values, expected in (
            (4, 1, column("B", [6]), "06"),
            (7, 2, column("H", [443]), "01bb"),
            (10, 4, column("I", [0x01020304]), "01020304"),
            (1, 8, column("L", [0x0102030405060708]), "0102030405060708"),
            (434, 4, column("i", [-2]), "fffffffe"),
            (320, 8, column("d", [1.5]), "3ff8000000000000"),
            (320, 4, column("d", [1.5]), "3fc00000"),
            (276, 1, column("?", [True, False]), "0102"),
            (8, 4, column("I", [0xC0000201]), "c0000201"),
            (27, 16, np.array([[0x20010DB800000000, 1]], np.uint64), "20010db8000000000000000000000001"),
            (56, 6, column("L", [0x020304050607]), "020304050607"),
            (150, 4, column("I", [1]), "00000001"),
            (152, 8, column("L", [1700000000123]), "0000018bcfe5687b"),
            (154, 8, column("L", [0xE8FFFFFFFFFFFFFF]), "e8fffffffffff800"),
            (156, 8, column("L", [0xE8FFFFFFFFFFFFFF]), "e8ffffffffffffff"),
            (82, 6, Octets.of([b"eth0", b"veth01"]), "6574683000007665746830" "31"),
            (82, 4, Coded(np.array([1, 0]), [b"eth0", b"lo"]), "6c6f000065746830"),
            (82, VARIABLE, repeated(b"lo", 2), "026c6f026c6f"),
        ):  # fmt: skip
            self.assertEqual(expected, encoded([(element, octets)], values).hex(), (element, octets))

    def test_reduced_sizes(self):
        """Section 6.2: integers in every smaller length, the sign kept."""
        for octets in range(1, 9):
            value = 0x0102030405060708 & (1 << 8 * octets) - 1
            self.assertEqual(value.to_bytes(octets, "big"), encoded([(1, octets)], column("L", [value])))
        for octets in range(1, 5):
            found = encoded([(434, octets)], column("i", [-2, 5]))
            self.assertEqual((-2).to_bytes(octets, "big", signed=True) + (5).to_bytes(octets, "big"), found)

    def test_value_too_large(self):
        """A value that does not fit is refused, never cut (RFC 7012 section 2.1)."""
        for octets in range(1, 8):
            self.assertRaises(ValueError, encoded, [(1, octets)], column("L", [1, 1 << 8 * octets]))
        self.assertRaises(ValueError, encoded, [(434, 1)], column("i", [-129]))
        self.assertRaises(ValueError, encoded, [(434, 1)], column("i", [128]))
        self.assertRaises(ValueError, encoded, [(82, 3)], Octets.of([b"eth0"]))

    def test_lengths_that_are_not_allowed(self):
        """Only integers and float64 shrink; only strings, octets and lists vary."""
        wrong = ((8, 3), (27, 8), (4, 2), (152, 4), (276, 2), (56, 8), (82, 0), (1, 0), (1, 9), (1, VARIABLE))
        for element, octets in wrong:
            self.assertRaises(ValueError, Encoder, template((element, octets)))

    def test_no_rows(self):
        """A batch of no rows gives no records."""
        self.assertEqual(b"", encoded([(1, 8), (8, 4)], column("L", []), column("I", [])))
        self.assertEqual(b"", encoded([(1, 8), (82, VARIABLE)], column("L", []), Octets.of([])))

    @given(st.lists(st.tuples(
        st.integers(0, 2**64 - 1), st.binary(max_size=300), st.integers(0, 65535), st.binary(max_size=3),
        st.integers(0, 2**24 - 1)), max_size=20), st.integers(0, 3))  # fmt: skip
    def test_variable_records(self, rows, skip):
        """Fixed and variable fields in turn, and a column that is a part of another one."""
        numbers, texts, ports, others, reduced = (list(c) for c in zip(*rows, strict=True)) if rows else ([],) * 5
        texts = Octets.of([b"gone"] * skip + texts).take(slice(skip, None))
        records = Encoder(template((1, 8), (82, VARIABLE), (7, 2), (83, VARIABLE), (2, 3))).encode(
            [column("L", numbers), texts, column("H", ports), Octets.of(others), column("L", reduced)], len(rows)
        )
        octets, at, found = records.data.tobytes(), 0, []
        for place in range(len(rows)):
            self.assertEqual(records.offsets[place], at)
            (number,) = struct.unpack_from("!Q", octets, at)
            text, at = self.read(octets, at + 8)
            (port,) = struct.unpack_from("!H", octets, at)
            other, at = self.read(octets, at + 2)
            found.append((number, text, port, other, int.from_bytes(octets[at : at + 3], "big")))
            at += 3
        self.assertEqual(rows, found)
        self.assertEqual(at, len(octets))

    def read(self, octets, at):
        """The value of variable length at this octet, and where it ends."""
        length, at = octets[at], at + 1
        if length == 255:
            length, at = struct.unpack_from("!H", octets, at)[0], at + 2
        return octets[at : at + length], at + length


class MessageBuilderTests(SynchronousTestCase):
    """Messages are cut at the largest length; nothing is lost or moved."""

    def numbers(self, ident, body):
        """The number at the end of each record."""
        size = self.sizes[ident]
        return [struct.unpack("!I", body[end - 4 : end])[0] for end in range(size, len(body) + 1, size)]

    def check(self, blocks, most):
        """Stamp all messages as a session does; the numbers of the records, in order, by set id."""
        sequence, found = 7, []
        for block in blocks:
            self.assertEqual(block.all_records, block.count * block.records)
            stamped = block.stamped(sequence, 9, 1700000000.9)
            for message in stamped:
                header, sets = walk(message.tobytes())
                self.assertEqual((10, 1700000000, sequence & 0xFFFFFFFF, 9), (header[0], *header[2:]))
                self.assertLessEqual(header[1], most)
                here = [(ident, number) for ident, body in sets for number in self.numbers(ident, body)]
                self.assertEqual(block.records, len(here))
                self.assertEqual(set(block.templates), {ident for ident, _ in sets})
                sequence += len(here)
                found += here
        return found

    @given(st.lists(st.tuples(st.integers(256, 258), st.integers(0, 120)), max_size=8), st.integers(60, 300))
    def test_cut(self, adds, most):
        """Records of several templates, added in any numbers: each once, in order, none over the length."""
        self.sizes = {256: 12, 257: 20, 258: 40}
        builder, blocks, expected = MessageBuilder(most), [], []
        for ident, n in adds:
            start = len(expected)
            blocks += builder.add(numbered(n, self.sizes[ident], ident, start))
            expected += [(ident, start + i) for i in range(n)]
        blocks += builder.flush()
        self.assertEqual(0, builder.open_records)
        self.assertEqual(expected, self.check(blocks, most))

    @given(st.lists(st.lists(st.integers(0, 60), max_size=30), max_size=5), st.integers(60, 200))
    def test_cut_of_variable_records(self, adds, most):
        """Records of different lengths fill each message as far as they fit; one that never fits is counted."""
        wanted = template((82, VARIABLE))
        builder, blocks, expected, number = MessageBuilder(most), [], [], 0
        for lengths in adds:
            texts = [bytes([65 + number % 26 + i % 3]) * length for i, length in enumerate(lengths)]
            number += 1
            blocks += builder.add(Encoder(wanted).encode([Octets.of(texts)], len(texts)))
            expected += [text for text in texts if len(text) < most - 20]
        self.assertEqual(sum(map(len, adds)) - len(expected), builder.too_long)
        blocks += builder.flush()
        found = []
        for block in blocks:
            (header, sets) = walk(block.stamped(0, 1, 0)[0].tobytes())
            self.assertLessEqual(header[1], most)
            for _, body in sets:
                while body:
                    found.append(body[1 : 1 + body[0]])
                    body = body[1 + body[0] :]
        self.assertEqual(expected, found)

    def test_two_families_share_a_message(self):
        """SET-3, SET-4: Sets of several templates stand in one message, and records of the same one in one set."""
        builder = MessageBuilder(1000)
        for ident, n in ((256, 2), (257, 1), (257, 1), (256, 1)):
            self.assertEqual([], builder.add(numbered(n, 10, ident)))
        (messages,) = builder.flush()
        _, sets = walk(messages.stamped(0, 1, 0)[0].tobytes())
        self.assertEqual([(256, 20), (257, 20), (256, 10)], [(ident, len(body)) for ident, body in sets])
        self.assertEqual((5, (256, 257)), (messages.records, messages.templates))

    def test_many_full_messages_are_one_block(self):
        """Full messages of one template come as one array; the rest waits."""
        builder = MessageBuilder(1452)
        (block,) = builder.add(numbered(10_000, 50))
        self.assertEqual((357, 28, 20 + 28 * 50), (block.count, block.records, block.length))
        self.assertEqual(4, builder.open_records)

    def test_copies_of_collectors(self):
        """Each collector's copy differs in time, sequence and domain only; the sequence wraps at 2**32."""
        builder = MessageBuilder(100)
        (block,) = builder.add(numbered(16, 20))
        before = block.octets.copy()
        one, other = block.stamped(2**32 - 4, 1, 5), block.stamped(0, 0xFFFFFFFF, 6)
        self.assertEqual([2**32 - 4, 0, 4, 8], [struct.unpack_from("!I", m.tobytes(), 8)[0] for m in one])
        self.assertEqual([0, 4, 8, 12], [struct.unpack_from("!I", m.tobytes(), 8)[0] for m in other])
        self.assertEqual(one[:, 16:].tobytes(), other[:, 16:].tobytes())
        self.assertTrue((block.octets == before).all())

    def test_recut(self):
        """Messages for a wide path, cut again for a narrow one, have the same records."""
        self.sizes = {256: 12, 257: 20}
        builder = MessageBuilder(600)
        wide = builder.add(numbered(100, 12)) + builder.add(numbered(70, 20, 257)) + builder.flush()
        templates = {i: numbered(0, s, i).template for i, s in self.sizes.items()}
        narrow = [m for messages in wide for m in recut(messages, 200, templates)]
        self.assertEqual(self.check(wide, 600), self.check(narrow, 200))

    def test_templates_are_cut_too(self):
        """TPL-9: Many templates go out in several messages, each within the length, and change no sequence number."""
        templates = [template(*[(1, 8)] * 12, ident=256 + i) for i in range(30)]
        messages = template_messages(templates, 484, 77, 1, 0)
        found = []
        for message in messages:
            self.assertLessEqual(len(message), 484)
            header, ((set_id, body),) = walk(message)
            self.assertEqual((2, 77), (set_id, header[3]))
            found += [struct.unpack_from("!H", body, at)[0] for at in range(0, len(body), 52)]
        self.assertEqual([t.ident for t in templates], found)

    def test_lengths_that_cannot_be(self):
        """A message has room for a header and a record, and at most 65535 octets."""
        for length in (20, 65536):
            self.assertRaises(ValueError, MessageBuilder, length)
