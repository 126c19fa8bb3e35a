"""Columns to text: equal to each value rendered alone, and safe for whatever strings hold."""

import json
import math
import socket
import struct
from fractions import Fraction
from ipaddress import IPv4Address, IPv6Address
from math import floor

import numpy as np
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support import given
from ulogd_tw.core import lines, text, types
from ulogd_tw.core.columns import Coded, Octets, repeated
from ulogd_tw.core.keys import Key
from ulogd_tw.core.lines import ColumnField, Lines
from ulogd_tw.core.python_values import canonical_list

MANY = text.FEW * 3
"""Rows that go the way of arrays."""


def canonical(value, type_):
    """The rule of corpus/ipfix/README.md for one value; but IPv6 addresses are those of glibc's inet_ntop, and NTP
    times are whole micro- or nanoseconds since 1970."""
    kind = type_.kind
    if kind == "ipv4":
        return str(IPv4Address(value))
    if kind == "ipv6":
        return socket.inet_ntop(socket.AF_INET6, value.to_bytes(16, "big"))
    if kind == "mac":
        return ":".join(f"{octet:02x}" for octet in value.to_bytes(6, "big"))
    if kind == "ntp":
        if not value:
            return 0
        since_1970 = Fraction(value, 1 << 32) - 2_208_988_800
        since_1970 += (1 << 32) * (since_1970 < 0)
        return floor(since_1970 * 10 ** (6 if type_ is types.MICROSECONDS else 9) + Fraction(1, 2))
    if kind == "string":
        return value.rstrip(b"\0").decode("utf-8", "replace")
    if kind == "octets":
        return value.hex()
    return value


def column(values, type_):
    """The column of these plain values."""
    if type_.variable:
        return Octets.of(values)
    if type_.kind == "ipv6":
        halves = [(v >> 64, v & (1 << 64) - 1) for v in values]
        return np.array(halves, np.uint64).reshape(-1, 2)
    return np.array(values, type_.dtype)


def unsigned(bits):
    """Numbers, with every change of the number of digits."""
    edges = [n for p in range(20) for n in (10**p - 1, 10**p, 10**p + 1) if n < 1 << bits]
    return st.one_of(st.sampled_from([*edges, (1 << bits) - 1]), st.integers(0, (1 << bits) - 1))


def signed(bits):
    """Numbers of either sign."""
    edges = [-(1 << bits - 1), -1, 0, (1 << bits - 1) - 1]
    return st.one_of(st.sampled_from(edges), unsigned(bits - 1).map(lambda v: -v))


GROUPS = st.lists(st.sampled_from([0, 0, 0, 1, 0xF, 0x10, 0xFFF, 0xDB8, 0xFFFF]), min_size=8, max_size=8)
STRINGS = st.one_of(
    st.sampled_from([b"", b"\0\0", b"eth0", b"eth0\0\0\0", b'say "hi"\\', b"a\nb\tc\x1f\x7f", b"a\0b\0"]),
    st.sampled_from([b"\xff\xfe", b"\xc3", b"\xa9", "\u00e9\u20ac\U0001f600".encode(), b"\xed\xa0\x80"]),
    st.text(max_size=20).map(str.encode),
    st.binary(max_size=200),
)
VALUES = {
    types.UNSIGNED8: unsigned(8),
    types.UNSIGNED16: unsigned(16),
    types.UNSIGNED32: unsigned(32),
    types.UNSIGNED64: unsigned(64),
    types.SIGNED8: signed(8),
    types.SIGNED32: signed(32),
    types.SIGNED64: signed(64),
    types.SECONDS: unsigned(32),
    types.MILLISECONDS: st.one_of(unsigned(64), st.integers(1795392639000, 1795392739000)),
    types.NANOSECONDS: unsigned(64),
    types.BOOLEAN: st.booleans(),
    types.FLOAT32: st.floats(width=32),
    types.FLOAT64: st.floats(),
    types.IPV4: unsigned(32),
    types.IPV6: st.one_of(
        GROUPS.map(lambda groups: int.from_bytes(struct.pack(">8H", *groups), "big")), st.integers(0, (1 << 128) - 1)
    ),
    types.MAC: unsigned(48),
    types.STRING: STRINGS,
    types.OCTETS: st.binary(max_size=150),
}


@st.composite
def a_column(draw, n=None):
    """(type, plain values, mask of missing rows or None)."""
    type_ = draw(st.sampled_from(list(VALUES)))
    n = draw(st.sampled_from([0, 1, 3, MANY, MANY + 41])) if n is None else n
    pool = draw(st.lists(VALUES[type_], min_size=1, max_size=12))
    dice = np.random.default_rng(draw(st.integers(0, 99)))
    values = [pool[place] for place in dice.integers(0, len(pool), n)]
    return type_, values, dice.random(n) < draw(st.sampled_from([0, 0.5, 1])) if draw(st.booleans()) else None


def field(name, type_, values, mask=None, form=text.JSON):
    """A field of a line."""
    piece = json.dumps(name).encode() + b":" if form is text.JSON else f"{name}=".encode()
    return ColumnField(piece, column(values, type_), mask, Key(name, type_), form)


def rendered(fields, n, lead=b"\n{", separator=b",", end=b"}"):
    """The lines of these fields."""
    pieces = list(Lines(lead, separator, end).render(fields, n))
    assert sum(rows for _, rows in pieces) == n
    return b"".join(octets for octets, _ in pieces)


def objects(fields, n):
    """The rows as `json.loads` reads them."""
    return [json.loads(line) for line in rendered(fields, n).decode("utf-8").split("\n")[:-1]]


def plain_json(value):
    """A value as JSON can have it."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


class CanonicalListTests(SynchronousTestCase):
    """`canonical_list`."""

    @given(a_column())
    def test_equals_each_value_alone(self, drawn):
        """Every type gives the canonical Python values, in rows few and many; None where the value is missing."""
        type_, values, mask = drawn
        found = canonical_list(column(values, type_), Key("k", type_), mask)
        expected = [canonical(v, type_) for v in values]
        if mask is not None:
            expected = [None if gone else v for v, gone in zip(expected, mask, strict=True)]
        self.assertEqual(repr(found), repr(expected))  # repr: NaN equals itself, True is not 1

    def test_repeated_and_coded(self):
        """Columns of one value, and of codes, give plain lists too."""
        one = repeated(0xC0000201, 100, types.IPV4.dtype)
        self.assertEqual(canonical_list(one, Key("k", types.IPV4)), ["192.0.2.1"] * 100)
        self.assertEqual(canonical_list(repeated(b"data", 2), Key("k", types.STRING)), ["data"] * 2)
        coded = Coded(np.array([1, 0, 1]), (b"\xff\x01", b"ab\0"))
        self.assertEqual(canonical_list(coded, Key("k", types.OCTETS)), ["616200", "ff01", "616200"])
        self.assertEqual(canonical_list(coded, Key("k", types.STRING)), ["ab", "\ufffd\x01", "ab"])
        one = np.broadcast_to(np.array((1 << 61, 1), np.uint64), (90, 2))
        self.assertEqual(canonical_list(one, Key("k", types.IPV6)), ["2000::1"] * 90)


class LinesTests(SynchronousTestCase):
    """`Lines` and the texts of columns."""

    @given(st.lists(a_column(MANY), min_size=1, max_size=5))
    def test_json_equals_row_by_row(self, drawn):
        """An object has the canonical values of its row, in order, and no member for a missing one."""
        fields = [field(f"k{i}", type_, values, mask) for i, (type_, values, mask) in enumerate(drawn)]
        expected = []
        for row in range(MANY):
            expected.append({
                f"k{i}": plain_json(canonical(values[row], type_))
                for i, (type_, values, mask) in enumerate(drawn)
                if mask is None or not mask[row]
            })  # fmt: skip
        for row, wanted in zip(objects(fields, MANY), expected, strict=True):
            self.assertEqual(list(row.items()), list(wanted.items()))

    @given(st.lists(a_column(MANY), min_size=1, max_size=5), st.booleans())
    def test_few_rows_look_like_many(self, drawn, as_json):
        """What goes the way of Python for few rows has the very octets of what goes through arrays."""
        form = text.JSON if as_json else text.PLAIN
        frame = (b"\n{", b",", b"}") if as_json else (b"\n", b",", b"")
        every = [field("k", t, values, mask, form) for t, values, mask in drawn]
        first = [field("k", t, v[:3], None if m is None else m[:3], form) for t, v, m in drawn]
        many = rendered(every, MANY, *frame)
        self.assertEqual(rendered(first, 3, *frame), b"".join(many.splitlines(True)[:3]))

    def test_no_row(self):
        """An empty batch gives nothing."""
        self.assertEqual(rendered([field("k", types.IPV4, [])], 0), b"")

    def test_rows_without_any_value(self):
        """Such a row is an empty object, the rows around it are whole."""
        mask = np.arange(MANY) % 2 == 0
        found = objects([field("a", types.UNSIGNED64, range(10**9, 10**9 + MANY), mask)], MANY)
        self.assertEqual(found, [{} if gone else {"a": 10**9 + i} for i, gone in enumerate(mask)])
        self.assertEqual(objects([field("a", types.IPV4, [1] * MANY, np.ones(MANY, bool))], MANY), [{}] * MANY)

    def test_wide_values_after_short_names(self):
        """A value much wider than the name before it spoils no other row."""
        numbers = [10 ** (i % 20) for i in range(MANY)]
        octets = [bytes([i % 256]) * (i * 7 % 300) for i in range(MANY)]
        fields = [
            ColumnField(b"", column(numbers, types.UNSIGNED64), None, Key("a", types.UNSIGNED64), text.PLAIN),
            ColumnField(b"", column(octets, types.OCTETS), None, Key("b", types.OCTETS), text.PLAIN),
            ColumnField(b"", column(numbers, types.UNSIGNED64), None, Key("c", types.UNSIGNED64), text.PLAIN),
        ]
        expected = "".join(f"{n} {o.hex()} {n}\n" for n, o in zip(numbers, octets, strict=True))
        self.assertEqual(rendered(fields, MANY, b"\n", b" ", b""), expected.encode())

    def test_slices(self):
        """A batch of several slices gives every row once, in order."""
        n = lines.SLICE_ROWS * 2 + 5
        values = np.arange(n, dtype=np.uint32) * 37
        key = Key("a", types.UNSIGNED32)
        found = rendered([ColumnField(b"a=", values, None, key, text.PLAIN)], n, b"\n", b",", b"")
        self.assertEqual(found.decode(), "".join(f"a={v}\n" for v in values.tolist()))

    def test_control_characters_end_no_line(self):
        """In plain lines a newline inside a string is printed as an escape."""
        values = [b"one\ntwo\r\x1b[0m", "a\u2028b".encode()] * MANY
        found = rendered([field("k", types.STRING, values, form=text.PLAIN)], len(values), b"\n", b",", b"")
        self.assertEqual(found, b"k=one\\ntwo\\r\\x1b[0m\nk=a\\x2028b\n" * MANY)

    def test_known_ipv6_texts(self):
        """The forms of RFC 5952 section 4: short, lower case, the first longest run, no run of one."""
        known = ["2001:db8::1", "2001:db8:0:1:1:1:1:1", "2001:0:0:1::1", "::", "::1", "1::", "2001:db8::1:0:0:1"]
        known += ["64:ff9b::c000:201", "0:1::", "::1", "::ffff", "::fffe:c000:201", "::ffff:0:c000:201", "0:0:1::1:0"]
        values = [int(IPv6Address(a)) for a in known]
        for times in (1, MANY):
            found = canonical_list(column(values * times, types.IPV6), Key("k", types.IPV6))
            self.assertEqual(found, known * times)

    def test_embedded_addresses(self):
        """IPv4-mapped and -compatible addresses have one text, with dots, in every size of a batch, and in lists."""
        for value, expected in (
            (0xFFFFC0000201, "::ffff:192.0.2.1"), (0xFFFF00000000, "::ffff:0.0.0.0"),
            (0xFFFFFFFFFFFF, "::ffff:255.255.255.255"),
            (0xC0000201, "::192.0.2.1"), (0x10000, "::0.1.0.0"), (0xFFFF, "::ffff"),
        ):  # fmt: skip
            key = Key("k", types.IPV6)
            for n in (1, text.FEW, text.FEW + 1, MANY):
                found = canonical_list(column([value, *range(n - 1)], types.IPV6), key)
                self.assertEqual(expected, found[0])
                self.assertEqual([canonical(v, types.IPV6) for v in range(n - 1)], found[1:])
            self.assertEqual(expected, text.ipv6_text(value))
