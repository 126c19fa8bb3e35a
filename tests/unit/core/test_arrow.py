"""Columns as Arrow's C stream: DuckDB reads what the arrays hold."""

import gc
from ipaddress import ip_address
from uuid import UUID

import duckdb
import numpy as np
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support import given
from ulogd_tw.core import arrow
from ulogd_tw.core.arrow import Stream
from ulogd_tw.core.columns import Coded, Octets, repeated

EXTREMES = {
    "B": ("UTINYINT", 0, 255), "H": ("USMALLINT", 0, 65535), "I": ("UINTEGER", 0, 2**32 - 1),
    "L": ("UBIGINT", 0, 2**64 - 1), "b": ("TINYINT", -128, 127), "h": ("SMALLINT", -32768, 32767),
    "i": ("INTEGER", -(2**31), 2**31 - 1), "l": ("BIGINT", -(2**63), 2**63 - 1),
    "f": ("FLOAT", -0.5, 3.0000000054977558e+38), "d": ("DOUBLE", 5e-324, 1.7976931348623157e308),
}  # fmt: skip
"""Of each NumPy type: DuckDB's, and two values of it."""


def read(stream, query="from t"):
    """The rows of a query that reads the stream as the table t."""
    with duckdb.connect() as connection:
        connection.register("t", stream)
        try:
            return connection.execute(query).fetchall()
        finally:
            connection.unregister("t")


def types_of(stream):
    """DuckDB's types of the columns."""
    return [row[1] for row in read(stream, "describe from t")]


class VectorTests(SynchronousTestCase):
    """Columns of every kind."""

    def test_numbers(self):
        """Integers and fractions of every width come with their type, extremes and missing values."""
        for code, (type_, low, high) in EXTREMES.items():
            array = np.array([low, high, high], np.dtype(code))
            stream = Stream("a", [[arrow.numbers(array, np.array([False, False, True]))]])
            self.assertEqual(types_of(stream), [type_])
            self.assertEqual(read(stream), [(low,), (high,), (None,)])

    def test_booleans(self):
        """More booleans than a machine word has bits."""
        values = [place % 3 == 0 for place in range(131)]
        stream = Stream("a", [[arrow.numbers(np.array(values))]])
        self.assertEqual((types_of(stream), read(stream)), (["BOOLEAN"], [(value,) for value in values]))

    def test_texts(self):
        """Empty, long and odd texts; those of a slice, whose offsets do not begin at 0."""
        texts = ["", "a", "it's", "caf\xe9 \U0001f600", "x" * 70000, "a\0b", '"\\\n']
        column = Octets.of([b"before", *(text.encode() for text in texts)]).take(slice(1, None))
        self.assertNotEqual(column.offsets[0], 0)
        self.assertEqual(read(Stream("a", [[arrow.strings(column)]])), [(text,) for text in texts])

    def test_coded(self):
        """Codes of any width are a dictionary; a missing row may have a code without a value."""
        for dtype in (np.int32, np.int64, np.uint8):
            column = Coded(np.array([1, 0, 7, 1], dtype), [b"one", b"two"])
            missing = np.array([False, False, True, False])
            stream = Stream("a", [[arrow.strings(column, missing)]])
            self.assertEqual(read(stream), [("two",), ("one",), (None,), ("two",)])
        stream = Stream("a", [[arrow.strings(Coded(np.zeros(2, np.int32), []), np.ones(2, bool))]])
        self.assertEqual(read(stream), [(None,), (None,)])

    def test_octets(self):
        """Octets are BLOBs, NULs included."""
        stream = Stream("a", [[arrow.strings(Octets.of([b"\0\xff\0", b""]), None, arrow.OCTETS)]])
        self.assertEqual((types_of(stream), read(stream)), (["BLOB"], [(b"\0\xff\0",), (b"",)]))

    def test_addresses(self):
        """Both families are 16 octets in network order, IPv4 as RFC 4291 section 2.5.5.2 maps it; their order too."""
        four = ["0.0.0.0", "192.0.2.1", "255.255.255.255"]
        six = ["::", "2001:db8::1", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "::ffff:192.0.2.1"]
        numbers4 = np.array([int(ip_address(one)) for one in four], np.uint32)
        numbers6 = np.array([divmod(int(ip_address(one)), 2**64) for one in six], np.uint64)
        stream = Stream("a", [[arrow.addresses(numbers4)], [arrow.addresses(numbers6)]])
        mapped = [UUID(int=int(ip_address(f"::ffff:{one}"))) for one in four]
        expected = [*mapped, *(UUID(int=int(ip_address(one))) for one in six)]
        self.assertEqual((types_of(stream), [row[0] for row in read(stream)]), (["UUID"], expected))
        ordered = [row[0] for row in read(stream, "from t order by a")]
        self.assertEqual(ordered, sorted(expected, key=lambda one: one.int))

    def test_repeated_values(self):
        """Columns of one value, which hold it once."""
        columns = [repeated(7, 3, np.dtype("H")), repeated((1, 2), 3)]
        vectors = [arrow.numbers(columns[0]), arrow.addresses(columns[1]), arrow.strings(repeated(b"x", 3))]
        self.assertEqual(read(Stream("abc", [vectors])), [(7, UUID(int=1 << 64 | 2), "x")] * 3)

    def test_nothing(self):
        """A column without values keeps its type."""
        kinds = [*arrow.NUMBERS.values(), arrow.BOOLEAN, arrow.UUID, arrow.TEXT, arrow.OCTETS]
        stream = Stream(map(str, range(len(kinds))), [[arrow.nothing(kind, 2) for kind in kinds]])
        self.assertEqual(read(stream), [(None,) * len(kinds)] * 2)
        expected = [*(type_ for type_, *_ in EXTREMES.values()), "BOOLEAN", "UUID", "VARCHAR", "BLOB"]
        self.assertEqual(types_of(stream), expected)

    @given(st.lists(st.one_of(st.none(), st.integers(0, 2**64 - 1)), max_size=70))
    def test_missing(self, values):
        """Any pattern of missing values."""
        missing = np.array([value is None for value in values], bool)
        array = np.array([value or 0 for value in values], np.uint64)
        self.assertEqual(read(Stream("a", [[arrow.numbers(array, missing)]])), [(value,) for value in values])


class StreamTests(SynchronousTestCase):
    """Streams of several chunks, and their memory."""

    def stream(self, n=3):
        return Stream("ab", [[arrow.numbers(np.arange(n)), arrow.strings(Octets.of([b"x"] * n))]] * 2)

    def test_parquet(self):
        """Values are the same in a Parquet file."""
        path = self.mktemp()
        column = np.array([[0, 1], [2**64 - 1, 2**64 - 1]], np.uint64)
        texts = Coded(np.array([0, 1]), [b"", "\U0001f600".encode()])
        read(
            Stream("ab", [[arrow.addresses(column), arrow.strings(texts)]]),
            f"copy (from t) to '{path}' (format parquet)",
        )
        found = duckdb.sql(f"from read_parquet('{path}')").fetchall()
        self.assertEqual(found, [(UUID(int=1), ""), (UUID(int=2**128 - 1), "\U0001f600")])

    def test_chunks(self):
        """Chunks follow each other, also again for a second reader; none and empty ones are no rows."""
        stream = self.stream()
        for _ in range(2):
            self.assertEqual(read(stream, "select count(*), sum(a) from t"), [(6, 6)])
        self.assertEqual(read(self.stream(0)), [])
        self.assertEqual(stream.n, 6)

    def test_different_types(self):
        """Chunks of different types are refused."""
        chunks = [[arrow.numbers(np.zeros(1, np.uint8))], [arrow.numbers(np.zeros(1, np.uint16))]]
        self.assertRaises(ValueError, Stream, "a", chunks)

    def test_released(self):
        """Nothing is kept once readers are done, whether they read all, a part or nothing."""
        before = len(arrow._kept)
        stream = self.stream(200_000)
        read(stream)
        read(stream, "from t limit 1")
        capsule = stream.__arrow_c_stream__()
        del capsule
        gc.collect()
        self.assertEqual((len(arrow._kept), len(arrow._capsules)), (before, 0))

    def test_outlives_the_stream(self):
        """A reader that has taken the stream over does not need the object."""
        connection = duckdb.connect()
        self.addCleanup(connection.close)
        found = connection.from_arrow(self.stream(5))
        gc.collect()
        self.assertEqual(len(found.fetchall()), 10)
