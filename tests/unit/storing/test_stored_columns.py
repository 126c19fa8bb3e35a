"""Columns of the flow store: values of every type come back from a Parquet file as they were."""

import json
from ipaddress import ip_address
from uuid import UUID

import duckdb
import numpy as np
from twisted.trial.unittest import SynchronousTestCase

from ulogd_tw.core import types
from ulogd_tw.core.arrow import Stream
from ulogd_tw.core.columns import Coded, Octets
from ulogd_tw.core.keys import Key, known, registry
from ulogd_tw.storing.stored_columns import ARRIVAL, StoredColumn

NTP_1970 = 2_208_988_800
"""Seconds from 1900 to 1970 (RFC 5905)."""


def stored(asked, column, key=None, missing=None):
    """(type, values) of a column in a Parquet file, as DuckDB reads it; `key` is the batch's."""
    vector = StoredColumn(asked).vector(column, key or asked, missing)
    with duckdb.connect() as connection:
        connection.register("t", Stream([asked.name], [[vector]]))
        connection.execute("copy (from t) to 'one.parquet' (format parquet)")
        connection.unregister("t")
        type_ = connection.execute("describe from 'one.parquet'").fetchall()[0][1]
        return type_, [row[0] for row in connection.execute("from 'one.parquet'").fetchall()]


class StoredColumnTests(SynchronousTestCase):
    """From batches to Parquet."""

    def key(self, type_):
        return Key("a", type_)

    def test_numbers(self):
        """Extremes of every type of numbers."""
        for type_, sql, low, high in (
            (types.UNSIGNED8, "UTINYINT", 0, 255), (types.UNSIGNED16, "USMALLINT", 0, 65535),
            (types.UNSIGNED32, "UINTEGER", 0, 2**32 - 1), (types.UNSIGNED64, "UBIGINT", 2**63, 2**64 - 1),
            (types.SIGNED8, "TINYINT", -128, 127), (types.SIGNED16, "SMALLINT", -32768, 32767),
            (types.SIGNED32, "INTEGER", -(2**31), 2**31 - 1), (types.SIGNED64, "BIGINT", -(2**63), 2**63 - 1),
            (types.FLOAT32, "FLOAT", 0.0, 0.5), (types.FLOAT64, "DOUBLE", -1e308, 5e-324),
            (types.BOOLEAN, "BOOLEAN", False, True), (types.SECONDS, "UINTEGER", 0, 2**32 - 1),
            (types.MILLISECONDS, "UBIGINT", 0, 2**64 - 1), (types.MAC, "UBIGINT", 0, 2**48 - 1),
        ):  # fmt: skip
            array, missing = np.array([low, high, high], type_.array_dtype), np.array([False, False, True])
            self.assertEqual(stored(self.key(type_), array, missing=missing), (sql, [low, high, None]), type_)
            self.assertEqual(StoredColumn(self.key(type_)).sql, sql)

    def test_times(self):
        """Times of NTP form count since 1970; 0x80000000 of a second is half a second (RFC 7011 section 6.1.9)."""
        array = np.array([(NTP_1970 + 1) << 32 | 1 << 31], np.uint64)
        self.assertEqual(stored(known("flowStartMicroseconds"), array), ("UBIGINT", [1_500_000]))
        self.assertEqual(stored(known("flowStartNanoseconds"), array), ("UBIGINT", [1_500_000_000]))

    def test_addresses(self):
        """An address without family takes batches of both; IPv4 is the mapped IPv6 address (RFC 4291)."""
        key = known("sourceAddress")
        four = stored(key, np.array([0xC0000201], np.uint32), key.typed(types.IPV4))
        six = stored(key, np.array([[0, 0xFFFF_C000_0201]], np.uint64), key.typed(types.IPV6))
        self.assertEqual(four, ("UUID", [UUID(int=int(ip_address("::ffff:192.0.2.1")))]))
        self.assertEqual(four, six)

    def test_texts(self):
        """Texts are without padding and UTF-8, whatever was sent; a NUL inside stays."""
        sent = [b"", b"eth0\0\0", b"\0", b"a\0b\0", "caf\xe9".encode(), b"caf\xe9", b"\xc3", b"\xa9", b"'\";--"]
        expected = ["", "eth0", "", "a\0b", "caf\xe9", "caf\ufffd", "\ufffd", "\ufffd", "'\";--"]
        key = self.key(types.STRING)
        coded = Coded(np.arange(len(sent), dtype=np.int32), sent)
        for column in (Octets.of(sent), coded, Octets.of([b"\xff", *sent]).take(slice(1, None))):
            self.assertEqual(stored(key, column), ("VARCHAR", expected))
        whole = ["\xe9", "", "a", "\U0001f600", ""]
        self.assertEqual(stored(key, Octets.of([one.encode() for one in whole])), ("VARCHAR", whole))
        self.assertEqual(stored(key, Octets.of([b"x" * 65536])), ("VARCHAR", ["x" * 65536]))

    def test_octets_and_lists(self):
        """Octets are as they are, NULs too; lists are their JSON text."""
        self.assertEqual(stored(self.key(types.OCTETS), Octets.of([b"\0\xff\0", b""])), ("BLOB", [b"\0\xff\0", b""]))
        self.assertEqual(stored(self.key(types.BASIC_LIST), Octets.of([b'{"a":[1]}'])), ("VARCHAR", ['{"a":[1]}']))

    def test_forms(self):
        """Values in the form in which people write them (RFC 3032, 4364, 6759); an odd label is missing."""
        labels = Octets.of([b"\x00\x04\x51", b"\xff\xff\xf1\x40", b"\x01"])
        self.assertEqual(stored(known("mplsTopLabelStackSection"), labels), ("UINTEGER", [69, 1_048_575, None]))
        wide = known("ipv6ExtensionHeadersFull")
        self.assertEqual(stored(wide, Octets.of([b"\x01" + bytes(31)])), ("VARCHAR", [str(1 << 248)]))
        self.assertEqual(stored(known("applicationId"), Octets.of([b"\x0d\x00\x01\xc5"])), ("VARCHAR", ["13:453"]))
        communities = np.array([64500 << 16 | 1], np.uint32)
        self.assertEqual(stored(known("bgpCommunity"), communities), ("VARCHAR", ["64500:1"]))

    def test_other_types(self):
        """Numbers of another width take the type that was asked for where they fit, else their own."""
        key, wide = self.key(types.UNSIGNED32), self.key(types.UNSIGNED64)
        self.assertEqual(stored(key, np.array([1, 2**32 - 1], np.uint64), wide), ("UINTEGER", [1, 2**32 - 1]))
        self.assertEqual(stored(key, np.array([1, 2**32], np.uint64), wide), ("UBIGINT", [1, 2**32]))
        signed = self.key(types.SIGNED64)
        self.assertEqual(stored(wide, np.array([1, -1]), signed), ("BIGINT", [1, -1]))
        self.assertEqual(stored(wide, np.array([1, 2]), signed), ("UBIGINT", [1, 2]))
        float_ = self.key(types.FLOAT64)
        self.assertEqual(stored(key, np.array([1.5]), float_), ("DOUBLE", [1.5]))
        missing = np.array([False, True])
        self.assertEqual(stored(key, np.array([1, 2**40], np.uint64), wide, missing), ("UINTEGER", [1, None]))

    def test_nothing(self):
        """A batch without the key has NULL of the type."""
        for key in (known("sourceAddress"), known("octetDeltaCount"), known("interfaceName")):
            column = StoredColumn(key)
            with duckdb.connect() as connection:
                connection.register("t", Stream(["a"], [[column.nothing(2)]]))
                self.assertEqual(connection.execute("from t").fetchall(), [(None,), (None,)])
                self.assertEqual(connection.execute("describe from t").fetchall()[0][1], column.sql)
                connection.unregister("t")


class DescribedTests(SynchronousTestCase):
    """Columns in store.json."""

    def test_back(self):
        """Every known key comes back from its description as JSON."""
        for key in (*map(known, sorted(registry.names())), ARRIVAL):
            column = StoredColumn(key)
            found = StoredColumn.of(json.loads(json.dumps(column.described())))
            self.assertEqual((found, found.key.type.form), (column, key.type.form))

    def test_facts(self):
        """Name, type and element are there by themselves."""
        found = StoredColumn(known("octetDeltaCount")).described()
        facts = [found[word] for word in ("name", "type", "pen", "element")]
        self.assertEqual(facts, ["octetDeltaCount", "unsigned64", 0, 1])

    def test_damaged(self):
        """Anything else is a ValueError."""
        whole = StoredColumn(known("octetDeltaCount")).described()
        for odd in ({}, whole | {"type": "unknown"}, whole | {"elements": 7}, whole | {"elements": [["x", 1]]},
                    whole | {"form": "unknown"}, whole | {"type": []}):  # fmt: skip
            self.assertRaises(ValueError, StoredColumn.of, odd)
