"""Octets of the Native format, against those that ClickHouse's documents and its own output have."""

import numpy as np
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support import given
from ulogd_tw.core.columns import Coded, Octets, Pieces
from ulogd_tw.storing.clickhouse import native
from ulogd_tw.storing.clickhouse.native import NativeColumn


def leb128(number):
    """A varint, as Wikipedia's LEB128 has it, one octet after the other."""
    found = b""
    while True:
        number, low = number >> 7, number & 127
        found += bytes([low | 128 if number else low])
        if not number:
            return found


def one_by_one(values):
    """The octets of a String column, row by row."""
    return b"".join(leb128(len(value)) + value for value in values)


class BlockTests(SynchronousTestCase):
    """Blocks."""

    def test_reference(self):
        """SELECT 1::UInt8 AS a, 'xy' AS s, NULL::Nullable(UInt16) AS n FORMAT Native, as the server gives it."""
        reference = bytes.fromhex("03 01 01 61 05") + b"UInt8" + bytes.fromhex("01 01 73 06") + b"String"
        reference += bytes.fromhex("02") + b"xy" + bytes.fromhex("01 6e 10") + b"Nullable(UInt16)" + b"\1\0\0"
        columns = [
            NativeColumn("a", "UInt8", (native.raw(np.array([1], np.uint8)),)),
            NativeColumn("s", "String", (native.strings(Octets.of([b"xy"])),)),
            NativeColumn("n", "Nullable(UInt16)", (native.nulls(np.array([True]), 1), native.raw(np.zeros(1, "<u2")))),
        ]
        self.assertEqual(b"".join(native.block(columns, 1)), reference)

    def test_many_rows(self):
        """The number of rows is a varint: 300 is ac 02."""
        self.assertEqual(b"".join(native.block([], 300)), b"\0\xac\2")

    def test_octets(self):
        """A column knows its size."""
        self.assertEqual(NativeColumn("a", "UInt8", (b"12", b"3")).octets, 3)


class VarintTests(SynchronousTestCase):
    """Lengths."""

    def test_documented(self):
        """624485 is e5 8e 26 (DWARF 4, section 7.6)."""
        self.assertEqual(native.varint(624485), bytes.fromhex("e58e26"))

    def test_edges(self):
        """One octet up to 127, two up to 16383, three behind."""
        values = [b"x" * size for size in (0, 1, 127, 128, 16383, 16384, 40000)]
        self.assertEqual(bytes(native.strings(Octets.of(values))), one_by_one(values))


class StringTests(SynchronousTestCase):
    """String columns, whichever way they are held."""

    @given(st.lists(st.binary(max_size=300)), st.integers(0, 3))
    def test_octets(self, values, skipped):
        """Many at once are as one by one, also where the column is a part of a larger one."""
        column = Octets.of(values).take(slice(skipped, None))
        self.assertEqual(bytes(native.strings(column)), one_by_one(values[skipped:]))

    @given(st.lists(st.binary(max_size=20), min_size=1, max_size=5), st.data())
    def test_coded(self, values, data):
        """A few different values."""
        codes = data.draw(st.lists(st.integers(0, len(values) - 1), max_size=40))
        column = Coded(np.array(codes, np.int32), values)
        self.assertEqual(bytes(native.strings(column)), one_by_one([values[code] for code in codes]))

    def test_pieces(self):
        """Strings left in a buffer."""
        buffer = np.frombuffer(b"abcdefgh", np.uint8)
        column = Pieces(buffer, np.array([4, 0, 2]), np.array([3, 0, 2]))
        self.assertEqual(bytes(native.strings(column)), b"\3efg\0\2cd")

    def test_fixed(self):
        """Shorter strings are filled with NULs."""
        self.assertEqual(bytes(native.fixed(Octets.of([b"ab", b"", b"abcd"]), 4)), b"ab\0\0\0\0\0\0abcd")


class LowCardinalityTests(SynchronousTestCase):
    """Columns with a dictionary: version 1, flags 0x600 and a type of places (SerializationLowCardinality.cpp)."""

    def test_plain(self):
        """Version, flags, values, and a place a row."""
        column = Coded(np.array([1, 0, 1], np.int32), [b"x", b"yy"])
        octets = b"".join(native.low_cardinality(column, None, False))
        expected = "0100000000000000 0006000000000000 0200000000000000 0178 027979 0300000000000000 010001"
        self.assertEqual(octets, bytes.fromhex(expected))

    def test_nullable(self):
        """The first value stands for NULL."""
        column = Coded(np.array([1, 0, 1], np.int32), [b"x", b"yy"])
        octets = b"".join(native.low_cardinality(column, np.array([False, False, True]), True))
        expected = "0100000000000000 0006000000000000 0300000000000000 00 0178 027979 0300000000000000 020100"
        self.assertEqual(octets, bytes.fromhex(expected))

    def test_wide(self):
        """More than 256 values have places of two octets."""
        column = Coded(np.array([299], np.int32), [b"%d" % n for n in range(300)])
        parts = native.low_cardinality(column, None, False)
        self.assertEqual(bytes(parts[0])[8:16], bytes.fromhex("0106000000000000"))
        self.assertEqual(bytes(parts[-1]), (299).to_bytes(2, "little"))
