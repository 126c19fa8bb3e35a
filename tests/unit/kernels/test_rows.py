"""Rows to lines of text: what the kernel writes is what NumPy and Python write, to the octet."""

import dataclasses

import numpy as np
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support import given
from tests.unit.core.test_text import MANY, STRINGS, VALUES, column, signed
from tests.unit.kernels import SKIP
from ulogd_tw import kernels
from ulogd_tw.core import text, types
from ulogd_tw.core.columns import Coded, Octets, Pieces
from ulogd_tw.core.keys import Key
from ulogd_tw.core.lines import ColumnField, Field, Lines
from ulogd_tw.core.phrases import Colons, Hexadecimal, Phrase, Words
from ulogd_tw.kernels.rows import COLONS, UNSIGNED, Cells, Choice, Memory
from ulogd_tw.plugins.outputs.json import Timestamp

LISTS = st.sampled_from([b"[1,2]", b'{"semantic":"allOf"}', b"[]"])
EVERY = VALUES | {types.SIGNED16: signed(16), types.UNSIGNED16: VALUES[types.UNSIGNED16], types.BASIC_LIST: LISTS} | {
    type_: st.binary(max_size=17) for type_ in types.FORMED.values() if type_.variable
} | {type_: VALUES[types.UNSIGNED32] for type_ in types.FORMED.values() if not type_.variable}  # fmt: skip
OTHER = dataclasses.replace(text.PLAIN, quote=b"'", escape=lambda value: value.replace("'", "''"))
"""A format whose escapes the kernel does not know."""
FORMS = (text.JSON, text.JSON.with_numbers_for_truth(), text.PLAIN, OTHER)
FRAMES = (
    (b"\n{", b",", b"}"),
    (b"\n", b",", b""),
    (b"\n", b"", b" "),
    (b"\n<5>", b" ", b"."),
    (b"\nBOUNDARY", b"\n", b""),
)


def shaped(values, type_, shape, dice):
    """A column of these values in one of the shapes that columns have."""
    plain = column(values, type_)
    if shape == "repeated" and values and not isinstance(plain, Octets):
        return np.broadcast_to(plain[0], plain.shape)
    if isinstance(plain, np.ndarray):
        return np.repeat(plain, 2, 0)[::2] if shape == "spread" else plain
    if shape == "plain":
        return plain
    if shape == "pieces":
        data = np.concatenate([plain.data, plain.data[:1]])
        order = dice.permutation(len(plain))
        return Pieces(data, plain.offsets[:-1][order], plain.lengths[order])
    if shape == "spread":
        return Octets.of([b"before", *values, b"behind"]).take(slice(1, len(values) + 1))
    different = tuple(dict.fromkeys(values))
    codes = np.array([different.index(value) for value in values], np.int32)
    if shape == "repeated" and values:
        return Coded(np.broadcast_to(codes[0], len(values)), different)
    return Coded(codes, different)


@st.composite
def fields(draw, n):
    """A field of `n` rows of any kind, with or without a mask."""
    dice = np.random.default_rng(draw(st.integers(0, 999)))

    def rows_of(of, least=1):
        pool = draw(st.lists(of, min_size=least, max_size=9))
        return [pool[place] for place in dice.integers(0, len(pool), n)]

    def typed(piece=b"", missing=None):
        type_ = draw(st.sampled_from(list(EVERY)))
        shape = draw(st.sampled_from(["plain", "repeated", "spread", "pieces", "coded"]))
        held = shaped(rows_of(EVERY[type_]), type_, shape, dice)
        return ColumnField(piece, held, missing, Key("k", type_), draw(st.sampled_from(FORMS)))

    missing = None if draw(st.booleans()) else dice.random(n) < draw(st.sampled_from([0, 0.3, 1]))
    piece = draw(st.sampled_from([b"", b"a=", b'"a name of any length":']))
    made = draw(st.sampled_from(["typed"] * 4 + ["words", "hexadecimal", "colons", "phrase", "piece", "time"]))
    if made == "typed":
        return typed(piece, missing)
    if made == "words":
        texts = draw(st.lists(st.binary(max_size=40).map(bytes.hex).map(str.encode), min_size=1, max_size=4))
        codes = dice.integers(0, len(texts), n).astype(draw(st.sampled_from("BHIq")))
        return Words(Choice(texts) if draw(st.booleans()) else texts, codes, missing)
    if made == "hexadecimal":
        values = np.array(rows_of(VALUES[types.UNSIGNED64]), np.uint64)
        return Hexadecimal(values >> np.uint64(draw(st.integers(0, 63))), missing, draw(st.integers(1, 16)))
    if made == "colons":
        return Colons(piece, Octets.of(rows_of(st.binary(max_size=20))), missing)
    if made == "phrase":
        return Phrase([b"(", typed(), b"-", typed(b"of ")] + [b")"] * draw(st.integers(0, 1)), missing)
    if made == "piece":
        return Field(piece, missing)
    seconds = np.array(rows_of(st.integers(1795392639, 1795392639 + draw(st.sampled_from([0, 3, 900])))), np.uint32)
    micro = np.array(rows_of(st.integers(0, 2_000_000)), np.uint32) if draw(st.booleans()) else None
    return Timestamp(piece, seconds, micro, missing)


@st.composite
def lines(draw):
    """Rows and their fields."""
    n = draw(st.sampled_from([0, 1, 2, 7, MANY]))
    return draw(st.lists(fields(n), max_size=6)), n, draw(st.sampled_from(FRAMES))


def joined(pieces, n):
    """The octets of all pieces, which have all rows."""
    pieces = list(pieces)
    assert sum(rows for _, rows in pieces) == n
    return b"".join(octets for octets, _ in pieces)


class RowsTests(SynchronousTestCase):
    """`Lines.compiled` beside `Lines.by_numpy`."""

    if kernels.lib is None:
        skip = SKIP

    @given(lines(), st.sampled_from([1, 700, 1 << 20]))
    def test_same_as_numpy(self, drawn, most):
        """Fields of every type and shape, with rows that lack them; in one piece or in many."""
        every, n, frame = drawn
        made = Lines(*frame)
        made._memory = Memory(most)
        self.assertEqual(joined(made.by_numpy(every, n), n), joined(made.compiled(every, n), n))

    @given(lines())
    def test_same_column(self, drawn):
        """Lines as a column of strings."""
        every, n, (lead, separator, end) = drawn
        found = Lines(lead, separator if separator != b"\n" else b" ", end)
        if n < 3:
            return
        expected = joined(found.by_numpy(every, n), n).split(b"\n")[:-1]
        self.assertEqual(expected, found.column(every, n).to_list())

    @given(st.lists(STRINGS, min_size=3, max_size=9))
    def test_strings(self, values):
        """Strings with any octets, against the decoder of Python, escaped by the rules of each format."""
        for form in (text.JSON, text.PLAIN):
            held = ColumnField(b"", Octets.of(values), None, Key("k", types.STRING), form)
            expected = [form.escape(value.rstrip(b"\0").decode("utf-8", "replace")) for value in values]
            found = joined(Lines(b"\n", b"", b"").compiled([held], len(values)), len(values)).decode().split("\n")[:-1]
            self.assertEqual([form.quote.decode() + value + form.quote.decode() for value in expected], found)

    def test_every_beginning(self):
        """Each first octet of a character with each second one, also where the string ends there."""
        values = [
            bytes([one, two]) + rest for one in range(256) for two in range(256) for rest in (b"", b"\x80a", b"x")
        ]
        held = ColumnField(b"", Octets.of(values), None, Key("k", types.STRING), text.PLAIN)
        found = joined(Lines(b"\n", b"", b"").compiled([held], len(values)), len(values))
        expected = [text.PLAIN.escape(value.rstrip(b"\0").decode("utf-8", "replace")) for value in values]
        self.assertEqual("".join(value + "\n" for value in expected).encode(), found)


class OutsideTests(SynchronousTestCase):
    """Cells that do not lie in their memory."""

    if kernels.lib is None:
        skip = RowsTests.skip

    def refused(self, fill, n=2):
        """The lines are not made."""
        cells = Cells(n, b"", b",")
        cells.field(b"a=", None)
        fill(cells)
        self.assertRaises(AssertionError, list, cells.lines(b"\n", Memory(100)))

    def test_outside(self):
        """Too few numbers, codes of no text, texts beyond their data, a mask for fewer rows."""
        one, data = np.array([1], np.uint32), np.zeros(4, np.uint8)
        self.refused(lambda cells: cells.numbers(UNSIGNED, one))
        self.refused(lambda cells: cells.choice(Choice([b"a", b"b"]), np.array([0, 2], np.uint8)))
        self.refused(lambda cells: cells.choice(Choice([b"a", b"b"]), np.array([0, -1], np.int64)))
        self.refused(lambda cells: cells.choice(Choice([b"a", b"b"]), np.array([0], np.uint8)))
        for starts in ([0, 2, 5], [0, 3, 2], [-1, 1, 2], [0, 1, 1 << 62]):
            self.refused(lambda cells, starts=starts: cells.strings(data, np.array(starts), None))
        for start, length in ((3, 2), (5, 0), (0, -1), (-1, 1), (1, 1 << 62)):
            places = np.array([0, start]), np.array([1, length])
            self.refused(lambda cells, places=places: cells.strings(data, *places, COLONS))

        def masked(cells):
            cells.field(b"b=", np.zeros(1, bool))
            cells.numbers(UNSIGNED, np.zeros(2, np.uint8))

        self.refused(masked)
