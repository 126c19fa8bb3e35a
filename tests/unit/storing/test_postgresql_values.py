"""The binary form of values beside psycopg's own, and rows beside the server's description of COPY."""

import datetime
import struct
from decimal import Decimal
from ipaddress import IPv4Address, IPv6Address

import numpy as np
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support import given
from tests.unit.storing.sql_rows import batch_of
from ulogd_tw.core import types
from ulogd_tw.core.columns import Coded
from ulogd_tw.core.keys import Key
from ulogd_tw.core.resolve import Found
from ulogd_tw.storing.columns import Target
from ulogd_tw.storing.postgresql_rows import HEAD, TAIL, as_literals, encoded
from ulogd_tw.storing.postgresql_values import cells

try:
    from psycopg.adapt import PyFormat, Transformer
    from psycopg.types.numeric import Int8
except ModuleNotFoundError:
    skip = "install: psycopg"

UTC = datetime.UTC


def found(type_, values):
    """A column of these values; None is a missing one."""
    batch = batch_of((Key("k", type_), values))
    return Found(batch.columns["k"], batch.missing.get("k"), Key("k", type_))


def theirs(value):
    """The octets of a Python value, by psycopg."""
    return bytes(Transformer().get_dumper(value, PyFormat.BINARY).dump(value))


def ours(type_, value, kind):
    """The octets of one value for a column of this type."""
    (row,) = cells_of(found(type_, [value]), kind)
    return row


def cells_of(column, kind):
    """The octets of each value."""
    made = cells(column, kind)
    if made.starts is None:
        return [row.tobytes() for row in made.octets]
    return [made.octets[a : a + n].tobytes() for a, n in zip(made.starts, made.lengths, strict=True)]


class ValuesTests(SynchronousTestCase):
    """One value at a time."""

    @given(st.integers(0, 2**64 - 1))
    def test_integers(self, value):
        """Integers as int8_recv reads them; those that do not fit are refused."""
        made = cells(found(types.UNSIGNED64, [value]), "bigint")
        if value < 1 << 63:
            self.assertEqual(([theirs(Int8(value))], {}), ([made.octets.tobytes()], made.refused))
        else:
            self.assertEqual(["out of range for type bigint"], list(made.refused))

    @given(st.integers(0, 2**64 - 1))
    def test_numeric(self, value):
        """A numeric has the same digits as psycopg's, but for zeros before them."""
        octets = ours(types.UNSIGNED64, value, "numeric")
        count, weight, sign, scale, *digits = struct.unpack(">hhhh5h", octets)
        self.assertEqual((5, 4, 0, 0), (count, weight, sign, scale))
        self.assertEqual(value, sum(digit * 10000 ** (4 - place) for place, digit in enumerate(digits)))
        their_count, their_weight, _, _, *their_digits = struct.unpack(">4h", theirs(Decimal(value))[:8])
        rest = struct.unpack(f">{their_count}h", theirs(Decimal(value))[8:])
        self.assertEqual(
            [d for d in digits if any(digits)][4 - their_weight :][: len(rest)], list(rest) if value else []
        )

    def test_limits(self):
        """The first number that does not fit each type, and the last one that does."""
        for kind, bits in (("smallint", 16), ("integer", 32), ("bigint", 64)):
            last = (1 << bits - 1) - 1
            made = cells(found(types.UNSIGNED64, [last, last + 1, None]), kind)
            self.assertEqual([[False, True, False]], [mask.tolist() for mask in made.refused.values()])
        made = cells(found(types.SIGNED64, [-32768, -32769, 32767, 32768]), "smallint")
        self.assertEqual([[False, True, False, True]], [mask.tolist() for mask in made.refused.values()])
        self.assertEqual({}, cells(found(types.BOOLEAN, [True, False]), "smallint").refused)
        made = cells(found(types.FLOAT64, [1e300, 1.5, None]), "real")
        self.assertEqual([[True, False, False]], [mask.tolist() for mask in made.refused.values()])

    @given(st.integers(0, 2**32 - 1))
    def test_times(self, seconds):
        """Times of all units are microseconds since 2000."""
        moment = datetime.datetime.fromtimestamp(seconds, UTC)
        ntp = ((seconds + 2208988800) & 0xFFFFFFFF) << 32 | 1 << 31
        self.assertEqual(theirs(moment), ours(types.SECONDS, seconds, "timestamp with time zone"))
        self.assertEqual(theirs(moment), ours(types.UNSIGNED32, seconds, "timestamp with time zone"))
        later = moment + datetime.timedelta(milliseconds=7)
        self.assertEqual(theirs(later), ours(types.MILLISECONDS, seconds * 1000 + 7, "timestamp without time zone"))
        if seconds < 2085978496:  # NTP's second era begins
            half = moment + datetime.timedelta(milliseconds=500)
            self.assertEqual(theirs(half), ours(types.MICROSECONDS, ntp, "timestamp with time zone"))

    def test_time_out_of_range(self):
        """A time after the year 294276 is refused, the largest number too; missing ones are not."""
        made = cells(
            found(types.MILLISECONDS, [(1 << 64) - 1, 9224318016000000, 9224318015999999, None]),
            "timestamp with time zone",
        )
        self.assertEqual([[True, True, False, False]], [mask.tolist() for mask in made.refused.values()])

    @given(st.integers(0, 2**128 - 1))
    def test_addresses(self, number):
        """Addresses of both families, and MACs."""
        self.assertEqual(theirs(IPv6Address(number)), ours(types.IPV6, number, "inet"))
        self.assertEqual(theirs(IPv4Address(number >> 96)), ours(types.IPV4, number >> 96, "inet"))
        mac = number >> 80
        self.assertEqual(mac.to_bytes(6, "big"), ours(types.MAC, mac, "macaddr"))
        self.assertEqual(str(IPv6Address(number)).encode().count(b"."), 0)

    @given(st.lists(st.binary(max_size=6), min_size=1, max_size=5))
    def test_strings(self, values):
        """Strings are UTF-8 without NULs behind them; a NUL inside refuses the row; octets are as they are."""
        for column in (found(types.STRING, values), found(types.STRING, [values[0]] * 3)):
            held = (
                values if len(column.values) == len(values) and column.values.to_list() == values else [values[0]] * 3
            )
            for some in (column, Found(Coded(np.arange(len(held)), held), None, column.key)):
                made = cells(some, "text")
                stripped = [value.rstrip(b"\0") for value in held]
                expected = [value.decode("utf-8", "replace").encode() for value in stripped]
                self.assertEqual(expected, cells_of(some, "text"))
                bad = next(iter(made.refused.values())).tolist() if made.refused else [False] * len(held)
                self.assertEqual([b"\0" in value for value in stripped], bad)
        self.assertEqual(values, cells_of(found(types.OCTETS, values), "bytea"))

    def test_texts(self):
        """Other values in columns of text are as people write them."""
        for type_, value, expected in (
            (types.IPV4, 0x0A000001, b"10.0.0.1"),
            (types.UNSIGNED64, 1 << 63, b"9223372036854775808"),
            (types.OCTETS, b"\0\xff", b"00ff"),
            (types.MAC, 1, b"00:00:00:00:00:01"),
        ):
            self.assertEqual(expected, ours(type_, value, "text"))

    def test_no_form(self):
        """Pairs of types that only the server can bring together have no binary form."""
        for type_, value, kind in (
            (types.STRING, b"10.0.0.1", "inet"),
            (types.FLOAT64, 1.0, "bigint"),
            (types.IPV4, 1, "integer"),
            (types.UNSIGNED8, 1, "boolean"),
            (types.UNSIGNED8, 1, "jsonb"),
        ):
            self.assertIsNone(cells(found(type_, [value]), kind))


def read(octets):
    """The rows of a binary COPY, each a list of octets or None."""
    assert octets.startswith(HEAD) and octets.endswith(TAIL)
    at, rows = len(HEAD), []
    while True:
        (fields,) = struct.unpack_from(">h", octets, at)
        at += 2
        if fields == -1:
            return rows
        row = []
        for _ in range(fields):
            (length,) = struct.unpack_from(">i", octets, at)
            at += 4
            row.append(None if length == -1 else octets[at : at + length])
            at += max(length, 0)
        rows.append(row)


PORTS = st.one_of(st.none(), st.integers(0, 65535))
NAMES = st.one_of(st.none(), st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=5))


class RowsTests(SynchronousTestCase):
    """Rows of several columns."""

    @given(st.lists(st.tuples(PORTS, NAMES, st.integers(0, 255), PORTS), min_size=1, max_size=30))
    def test_rows(self, rows):
        """Each row has its values in order, NULL where one is missing; any run of rows can be sent."""
        ports, names, protocols, last = zip(*rows, strict=True)
        batch = [
            found(types.UNSIGNED16, ports),
            found(types.STRING, names),
            found(types.UNSIGNED8, protocols),
            found(types.UNSIGNED16, last),
        ]
        values = [(Target(f"c{place}", ()), column) for place, column in enumerate(batch)]
        values.insert(2, (Target("none", ()), None))
        made = encoded(values, ["integer", "text", "bigint", "smallint", "bigint"], len(rows))
        expected = [
            [None if a is None else struct.pack(">i", a), None if b is None else b.encode(), None, struct.pack(">h", c),
             None if d is None else struct.pack(">q", d)] for a, b, c, d in rows
        ]  # fmt: skip
        self.assertTrue(made.binary)
        self.assertEqual(expected, read(made.piece(0, len(rows))))
        middle = len(rows) // 2
        self.assertEqual(
            expected[:middle] + expected[middle:], read(made.piece(0, middle)) + read(made.piece(middle, len(rows)))
        )

    @given(st.lists(st.tuples(PORTS, NAMES), min_size=1, max_size=30))
    def test_text(self, rows):
        """The same as lines, with the escapes of COPY."""
        ports, names = zip(*rows, strict=True)
        values = [(Target("a", ()), found(types.UNSIGNED16, ports)), (Target("b", ()), found(types.STRING, names))]
        made = encoded(values, ["xml", "inet"], len(rows))
        self.assertFalse(made.binary)
        escapes = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\"}
        lines = [made.piece(row, row + 1).decode().removesuffix("\n").split("\t") for row in range(len(rows))]

        def value(field):
            if field == "\\N":
                return None
            parts, at = [], 0
            while at < len(field):
                parts.append(escapes[field[at + 1]] if field[at] == "\\" else field[at])
                at += 2 if field[at] == "\\" else 1
            return "".join(parts)

        self.assertEqual(
            [(None if a is None else str(a), b) for a, b in rows], [tuple(map(value, line)) for line in lines]
        )

    def test_literals(self):
        """Statements have numbers bare and all else in quotes, each row on one line."""
        columns = (
            ("integer", types.UNSIGNED16, [1, None]),
            ("text", types.STRING, ["it's\n\\", "x"]),
            ("boolean", types.BOOLEAN, [True, False]),
            ("bytea", types.OCTETS, [b"\0\x01", b""]),
            ("timestamp with time zone", types.MILLISECONDS, [1_790_000_000_123, 0]),
            ("inet", types.IPV4, [1, 2]),
        )
        values = [(Target(kind, ()), found(type_, held)) for kind, type_, held in columns]
        made = as_literals(values, [kind for kind, _, _ in columns], 2, b"SELECT f(", b");")
        self.assertEqual(
            b"SELECT f(1,E'it''s\\n\\\\','1',E'\\\\x0001',E'2026-09-21T14:13:20.123000Z','0.0.0.1');\n"
            b"SELECT f(NULL,E'x','0',E'\\\\x',E'1970-01-01T00:00:00.000000Z','0.0.0.2');\n",
            made.piece(0, 2),
        )
        self.assertEqual([1, 1, 2], [made.within(0, 2, octets) for octets in (1, 100, 10000)])
