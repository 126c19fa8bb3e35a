"""Columns of batches in the types of a table, against values computed one by one."""

from ipaddress import ip_address

import numpy as np
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support import given
from tests.unit.storing.sql_rows import batch_of
from ulogd_tw.core import types
from ulogd_tw.core.columns import Coded
from ulogd_tw.core.keys import Key, known
from ulogd_tw.core.resolve import Found
from ulogd_tw.storing.clickhouse.types import parsed
from ulogd_tw.storing.clickhouse.values import prepared

NTP = (2208988800 + 1_790_000_000) << 32 | 1 << 31


def found(key, values):
    """A column with these values."""
    batch = batch_of((key, values))
    return Found(batch.columns[key.name], batch.missing.get(key.name), key)


def octets(key, values, type_name):
    """The octets of a column of this type."""
    return b"".join(map(bytes, prepared("c", parsed(type_name), found(key, values)).native().values))


def bad(key, values, type_name):
    """The rows that do not fit."""
    mask = prepared("c", parsed(type_name), found(key, values)).bad
    return [] if mask is None else np.flatnonzero(mask).tolist()


class NumberTests(SynchronousTestCase):
    """Integers, floats, truth values."""

    @given(st.lists(st.integers(0, 2**64 - 1), min_size=1), st.sampled_from(["UInt8", "Int16", "UInt32", "Int64"]))
    def test_range(self, values, type_name):
        """A number that does not fit is refused; the others are there."""
        bits = int("".join(filter(str.isdigit, type_name)))
        top = 2 ** (bits - (type_name[0] == "I"))
        self.assertEqual(bad(known("octets"), values, type_name), [n for n, v in enumerate(values) if v >= top])
        good = [value for value in values if value < top]
        self.assertEqual(
            octets(known("octets"), good, type_name), b"".join(v.to_bytes(bits // 8, "little") for v in good)
        )

    def test_negative(self):
        """Negative numbers do not fit unsigned ones."""
        self.assertEqual(bad(Key("n", types.SIGNED8), [-1, 1], "UInt64"), [0])

    def test_missing_number_fits(self):
        """The content of a row without a value is no reason to refuse it."""
        values = found(known("octets"), [70000, 5])
        values = Found(values.values, np.array([True, False]), values.key)
        self.assertIsNone(prepared("c", parsed("UInt8"), values).bad)
        self.assertEqual(b"".join(map(bytes, prepared("c", parsed("UInt8"), values).native().values)), b"\0\5")
        nullable = prepared("c", parsed("Nullable(UInt8)"), values).native()
        self.assertEqual(b"".join(map(bytes, nullable.values)), b"\1\0\0\5")

    def test_factor(self):
        """A factor with a fraction is rounded for integers."""
        self.assertEqual(octets(known("sampling_factor"), [99.6], "UInt64"), (100).to_bytes(8, "little"))
        self.assertEqual(bad(known("sampling_factor"), [-1.0, 1e30, 5.0], "UInt64"), [0, 1])

    def test_truth(self):
        """Truth values are 1 and 0."""
        self.assertEqual(octets(Key("b", types.BOOLEAN), [True, False], "Bool"), b"\1\0")


class TimeTests(SynchronousTestCase):
    """Points in time."""

    def test_units(self):
        """Each key in each type."""
        ms, ns = known("flowEndMilliseconds"), known("flowEndNanoseconds")
        for key, value, type_name, expected in (
            (ms, 1_790_000_000_123, "DateTime64(3)", 1_790_000_000_123),
            (ms, 1_790_000_000_123, "DateTime", 1_790_000_000),
            (ms, 1_790_000_000_123, "DateTime64(9)", 1_790_000_000_123_000_000),
            (ms, 1_790_000_000_123, "DateTime64(0)", 1_790_000_000), (ms, 86_400_000 * 7, "Date", 7),
            (known("flowEndSeconds"), 5, "DateTime64(3)", 5000), (ns, NTP, "DateTime64(9)", 1_790_000_000_500_000_000),
            (ns, NTP, "DateTime64(3)", 1_790_000_000_500), (ns, NTP, "DateTime", 1_790_000_000),
            (known("flow.end.sec"), 5, "DateTime", 5),
        ):  # fmt: skip
            size = parsed(type_name).dtype.itemsize
            self.assertEqual(octets(key, [value], type_name), expected.to_bytes(size, "little"), (key, type_name))

    def test_too_late(self):
        """A time that its column cannot have is refused."""
        key = known("flowEndMilliseconds")
        self.assertEqual(bad(key, [2**63, 1, 2**32 * 1000], "DateTime"), [0, 2])
        self.assertEqual(bad(key, [2**63, 1, 10**16], "DateTime64(9)"), [0, 2])


class AddressTests(SynchronousTestCase):
    """Addresses of both families."""

    def test_ipv4_in_ipv6(self):
        """16 octets in network order, as IPv6 has ::ffff:a.b.c.d."""
        for type_name in ("IPv6", "FixedString(16)", "LowCardinality(IPv6)"):
            key = known("sourceAddress").typed(types.IPV4)
            self.assertEqual(octets(key, [0x0A4D0001], type_name), ip_address("::ffff:10.77.0.1").packed)

    def test_missing(self):
        """A row without an address has ::, and leaves the others as they are."""
        address = ip_address("fd77:1::9")
        key = known("sourceAddress").typed(types.IPV6)
        self.assertEqual(octets(key, [int(address), None], "IPv6"), address.packed + bytes(16))

    def test_ipv6(self):
        """As they are."""
        address = ip_address("fd77:1::9")
        key = known("sourceAddress").typed(types.IPV6)
        self.assertEqual(octets(key, [int(address)], "IPv6"), address.packed)
        self.assertEqual(bad(key, [int(address), int(ip_address("::ffff:1.2.3.4"))], "IPv4"), [0])
        for type_name in ("IPv4", "UInt32"):
            self.assertEqual(octets(key, [int(ip_address("::ffff:1.2.3.4"))], type_name), bytes([4, 3, 2, 1]))


class TextTests(SynchronousTestCase):
    """Strings, and anything as text."""

    def test_string(self):
        """Without the NULs behind it."""
        self.assertEqual(octets(known("interfaceName"), ["eth0\0\0", None, ""], "String"), b"\4eth0\0\0")

    def test_address_as_text(self):
        """An address in a String column is what people write."""
        self.assertEqual(octets(known("sourceAddress").typed(types.IPV4), [0x0A4D0001], "String"), b"\x0910.77.0.1")

    def test_too_long(self):
        """A string longer than a FixedString is refused."""
        self.assertEqual(bad(known("interfaceName"), ["ab", "abc"], "FixedString(2)"), [1])

    def test_enum(self):
        """Words by their numbers; others are refused."""
        name = "Enum8('undefined' = 0, 'external' = 1)"
        self.assertEqual(octets(known("interfaceName"), ["external", "undefined"], name), b"\1\0")
        self.assertEqual(bad(known("interfaceName"), ["external", "other"], name), [1])
        self.assertEqual(bad(known("octets"), [1, 2], name), [1])

    def test_dictionary(self):
        """A few different values of a LowCardinality column go as a dictionary, others as plain strings."""
        coded = Found(Coded(np.array([0, 0]), [b"x"]), np.array([False, True]), known("interfaceName"))
        made = prepared("c", parsed("LowCardinality(String)"), coded).native()
        self.assertEqual(made.type, "LowCardinality(String)")
        self.assertEqual(b"".join(map(bytes, made.values))[16:], bytes.fromhex(
            "0200000000000000 0178 00 0200000000000000 0001"))  # fmt: skip
        self.assertEqual(octets(known("interfaceName"), ["x"], "LowCardinality(String)"), b"\1x")
