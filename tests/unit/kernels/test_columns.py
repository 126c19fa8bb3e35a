"""Octets of records to columns: what the kernel reads is what NumPy reads, to the bit."""

import numpy as np
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support import given
from tests.unit.ipfix.walk import shape, walk
from tests.unit.ipfix.wire import VARIABLE
from tests.unit.kernels import SKIP
from ulogd_tw import kernels
from ulogd_tw.core import columns as core
from ulogd_tw.core import types
from ulogd_tw.core.keys import Key
from ulogd_tw.ipfix import layout
from ulogd_tw.ipfix.values import held_type
from ulogd_tw.kernels import columns

TYPES = [t for t in types.TYPES.values() if t.kind not in ("address", "list")]


@st.composite
def runs(draw):
    """(type or None, length) of the fields of a run, and the octets of some records."""
    fields = draw(st.lists(st.tuples(st.sampled_from([*TYPES, None]), st.integers(0, 17)), min_size=1, max_size=8))
    size = sum(length for _, length in fields)
    octets = draw(st.binary(min_size=0, max_size=400))
    return fields, octets[: len(octets) // size * size if size else 0], draw(st.integers(0, 9))


def run_of(fields):
    """The compiled run of these fields."""
    found = layout.Run()
    for place, (type_, length) in enumerate(fields):
        found.add(length, Key(f"k{place}", held_type(type_, length)) if type_ else None)
    found.finish(whole=True)
    return found


def plain(found):
    """Columns and masks in a form that can be compared, with the octets of each number."""
    read, missing = found
    return (
        {name: c.to_list() if hasattr(c, "to_list") else (c.dtype, c.shape, c.tobytes()) for name, c in read.items()},
        {name: mask.tolist() for name, mask in missing.items()},
    )


class ProgramTests(SynchronousTestCase):
    """`Program` beside the NumPy of `Run`."""

    if kernels.lib is None:
        skip = SKIP

    @given(runs())
    def test_same_as_numpy(self, given_):
        """Records one after another, in one piece or in several, and each at a place of its own."""
        fields, octets, cut = given_
        size = sum(length for _, length in fields)
        if not size or all(type_ is None for type_, _ in fields):
            return
        n, run = len(octets) // size, run_of(fields)
        memory = np.frombuffer(b"\xa5" * 3 + octets, np.uint8)
        expected, one, several, placed = (({}, {}) for _ in range(4))
        view = np.frombuffer(octets, run.dtype) if run.dtype is not None else None
        run.columns(view, n, *expected)
        run.finished(run.program.fixed(memory, np.array([3]), np.array([n]), n), n, *one)
        first = min(cut, n)
        starts, counts = np.array([3, 3 + size * first]), np.array([first, n - first])
        run.finished(run.program.fixed(memory, starts, counts, n), n, *several)
        run.finished(run.program.located(memory, 3 + size * np.arange(n)), n, *placed)
        for found in (one, several, placed):
            self.assertEqual(plain(expected), plain(found))

    def test_outside(self):
        """Records that do not lie in their memory are not read."""
        run = run_of([(types.UNSIGNED32, 4)])
        memory = np.zeros(8, np.uint8)
        for start, count, n in ((5, 1, 1), (-1, 1, 1), (0, 3, 3), (0, 1, 2), (0, 2, 1), (1 << 62, 1, 1), (0, -1, 0)):
            with self.assertRaises(AssertionError, msg=(start, count, n)):
                run.program.fixed(memory, np.array([start]), np.array([count]), n)
        for base in (5, -1, 1 << 62):
            self.assertRaises(AssertionError, run.program.located, memory, np.array([base]))
        self.assertRaises(AssertionError, columns.strings, memory, np.array([6]), np.array([0, 3]))


@st.composite
def shapes(draw):
    """Lengths of fields, one of them variable at least."""
    fields = draw(st.lists(st.one_of(st.just(VARIABLE), st.integers(0, 5)), min_size=1, max_size=5))
    return fields if VARIABLE in fields else [*fields, VARIABLE]


class LocateTests(SynchronousTestCase):
    """`locate` beside a walk of one record after another."""

    if kernels.lib is None:
        skip = ProgramTests.skip

    @given(shapes(), st.lists(st.binary(max_size=60), min_size=1, max_size=5))
    def test_same_as_a_walk(self, fields, bodies):
        """Any octets: the records before a cut, and where their values are."""
        form, joined = shape(fields), b"".join(bodies)
        ends = np.cumsum([len(body) for body in bodies])
        starts = ends - [len(body) for body in bodies]
        memory = np.frombuffer(joined or b"\0", np.uint8)
        found = columns.locate(memory, starts, ends, form.segments, form.tail, form.least)
        expected = [walk(body, fields, 0) for body in bodies]
        self.assertEqual([cut for _, cut in expected], found[1].tolist())
        self.assertEqual([len(rows) for rows, _ in expected], found[0].tolist())
        rows = [
            [value + start if place % 2 or not place else value for place, value in enumerate(row)]
            for start, (rows, _) in zip(starts.tolist(), expected, strict=True)
            for row in rows
        ]
        self.assertEqual(rows, found[2].T.tolist())


class ScatterTests(SynchronousTestCase):
    """`core.columns.scatter` with the kernel and without."""

    if kernels.lib is None:
        skip = SKIP

    @given(st.lists(st.tuples(st.integers(0, 700), st.integers(0, 600), st.integers(0, 9)), max_size=20))
    def test_same_as_numpy(self, drawn):
        """Strings of any length from anywhere, with gaps between them where they are put."""
        memory = np.random.default_rng(1).integers(0, 256, 1300, np.uint8)
        starts, lengths, gaps = np.array(drawn, np.int64).reshape(-1, 3).T
        to = np.cumsum(lengths + gaps) - lengths
        found = []
        for lib in (kernels.lib, None):
            self.patch(core, "lib", lib)
            out = np.full(int((lengths + gaps).sum()), 7, np.uint8)
            core.scatter(out, to, memory, starts, lengths)
            found.append((out.tolist(), core.Octets.gathered(memory, starts, lengths).to_list()))
        self.assertEqual(found[1], found[0])

    def test_outside(self):
        """A string that does not lie in its memory, or has no room, is not copied."""
        memory, out = np.zeros(10, np.uint8), np.zeros(10, np.uint8)
        for start, length, to in ((-1, 2, 0), (9, 2, 0), (0, 2, 9), (0, 2, -1), (0, -1, 0), (1 << 62, 2, 0)):
            with self.assertRaises(AssertionError):
                columns.scatter(out, np.array([to]), memory, np.array([start]), np.array([length]))
