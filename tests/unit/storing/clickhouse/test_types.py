"""The names of ClickHouse's types."""

from twisted.trial.unittest import SynchronousTestCase

from ulogd_tw.core import types
from ulogd_tw.core.keys import Key, known
from ulogd_tw.storing.clickhouse.types import codec_for, holds, parsed, type_for


class ParsedTests(SynchronousTestCase):
    """What a name says."""

    def test_wrapped(self):
        """Nullable and LowCardinality in either order, and sums."""
        found = parsed("LowCardinality(Nullable(String))")
        self.assertEqual((found.base, found.nullable, found.low_cardinality), ("String", True, True))
        self.assertEqual(found.inner, "Nullable(String)")
        self.assertEqual(parsed("SimpleAggregateFunction(sum, UInt64)").inner, "UInt64")
        self.assertEqual(parsed("Nullable(UInt8)").base, "UInt8")

    def test_numbers_in_brackets(self):
        """Sizes and decimal places."""
        self.assertEqual(parsed("FixedString(16)").size, 16)
        self.assertEqual(parsed("DateTime64(9, 'Europe/Berlin')").digits, 9)
        self.assertEqual(parsed("DateTime('UTC')").digits, 0)

    def test_members(self):
        """The words of an Enum, with quotes in them."""
        found = parsed("Enum8('undefined' = 0, 'it\\'s' = -1)")
        self.assertEqual(found.members, ((b"undefined", 0), (b"it's", -1)))

    def test_unknown(self):
        """Arrays and maps cannot be written."""
        for name in ("Array(UInt8)", "Map(String, String)", "Decimal(9, 2)", "UInt256"):
            self.assertFalse(parsed(name).known, name)
        for name in ("UInt64", "IPv6", "Bool", "Date32", "LowCardinality(IPv6)", "Enum16('a' = 1)"):
            self.assertTrue(parsed(name).known, name)


class HoldsTests(SynchronousTestCase):
    """Types that fit keys."""

    def test_fit(self):
        """Addresses, numbers, times and texts."""
        for column, key, fits in (
            ("IPv6", "sourceAddress", True), ("FixedString(16)", "sourceAddress", True),
            ("FixedString(4)", "sourceAddress", False), ("UInt64", "octets", True), ("Float64", "octets", True),
            ("IPv6", "octets", False), ("String", "octets", True), ("UInt32", "interfaceName", False),
            ("Enum8('a' = 1)", "interfaceName", True), ("DateTime", "flowEndMilliseconds", True),
            ("UInt16", "sourceAddress", False), ("LowCardinality(String)", "interfaceName", True),
            ("Array(String)", "interfaceName", False), ("UInt32", "orig.ip.saddr", True),
            ("UInt32", "sourceMacAddress", False),
        ):  # fmt: skip
            self.assertEqual(holds(parsed(column), known(key).type), fits, (column, key))

    def test_types_for_keys(self):
        """The types of a new table hold their keys."""
        names = ("octets", "sourceAddress", "flowEndMilliseconds", "flowEndNanoseconds", "interfaceName", "raw.mac",
                 "sourceMacAddress", "sampling_factor", "mplsTopLabelStackSection")  # fmt: skip
        expected = ("UInt64", "IPv6", "DateTime64(3, 'UTC')", "DateTime64(9, 'UTC')", "LowCardinality(String)",
                    "String", "UInt64", "Float64", "UInt32")  # fmt: skip
        for name, type_name in zip(names, expected, strict=True):
            self.assertEqual(type_for(known(name)), type_name, name)
            self.assertTrue(holds(parsed(type_name), known(name).type), name)
        self.assertEqual(type_for(known("octets"), True), "Nullable(UInt64)")
        self.assertEqual(type_for(Key("x", types.STRING), True), "LowCardinality(Nullable(String))")

    def test_every_type_has_one(self):
        """No type of a key is left out."""
        for type_ in (*types.TYPES.values(), *types.FORMED.values()):
            made = type_for(Key("x", type_))
            self.assertTrue(parsed(made).known, made)
            self.assertTrue(holds(parsed(made), type_), (made, type_))

    def test_codecs(self):
        """Times by differences; names have their dictionary."""
        self.assertEqual(codec_for("DateTime64(3, 'UTC')"), "CODEC(DoubleDelta, ZSTD(1))")
        self.assertEqual(codec_for("LowCardinality(String)"), "")
