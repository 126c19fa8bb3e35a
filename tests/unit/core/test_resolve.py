"""Columns that were found."""

import numpy as np
from twisted.trial.unittest import SynchronousTestCase

from ulogd_tw.core import types
from ulogd_tw.core.batch import Batch, Schema
from ulogd_tw.core.columns import Octets
from ulogd_tw.core.keys import Key
from ulogd_tw.core.resolve import Found, Provided, Sources


def found(values, missing=None):
    """A column of numbers."""
    mask = None if missing is None else np.array(missing)
    return Found(values, mask, Key("k", types.UNSIGNED64))


class FoundTests(SynchronousTestCase):
    """Rows without a value."""

    def test_filled(self):
        """They get the value, in the column's own type: beyond 53 bits, and for rows of two words."""
        most = np.array([2**64 - 1, 7], np.uint64)
        filled = found(most, [False, True]).filled(0)
        self.assertEqual(([2**64 - 1, 0], np.uint64), (filled.tolist(), filled.dtype.type))
        self.assertEqual([2**64 - 1, 7], most.tolist())  # others share the column
        wide = found(np.array([[1, 2], [3, 4]], np.uint64), [True, False]).filled(0)
        self.assertEqual([[0, 0], [3, 4]], wide.tolist())

    def test_filled_by_row(self):
        """An array gives each of these rows its own value."""
        times = np.array([10, 20, 30], np.uint64)
        self.assertEqual([1, 20, 3], found(np.array([1, 2, 3], np.uint64), [False, True, False]).filled(times).tolist())

    def test_all_there(self):
        """A column without gaps is given as it is."""
        values = np.array([1, 2], np.uint8)
        self.assertIs(values, found(values).filled(9))
        self.assertRaises(TypeError, found(Octets.of([b"a"])).filled, 0)

    def test_known(self):
        """A row without a value meets no condition."""
        rows = np.array([True, True, False])
        self.assertEqual([False, True, False], found(rows, [True, False, False]).known(rows).tolist())
        self.assertIs(rows, found(rows).known(rows))


class SourcesTests(SynchronousTestCase):
    """Columns of batches with schemas in turn."""

    def test_schemas_in_turn(self):
        """Each batch gives its own column, also one whose schema is equal and not the same, and after a new way."""
        keys = {name: Key(name, types.UNSIGNED32) for name in "abc"}

        def batch(name, value):
            return Batch(Schema([keys[name]]), {name: np.array([value], np.uint32)}, n=1, now=0.0)

        sources = Sources()
        sources.add("a", Provided([keys["a"]]).recipes("a"))
        for _ in range(2):
            for value, name in enumerate("aabba"):
                found = sources.find(batch(name, value), "a")
                self.assertEqual(None if found is None else found.values.tolist(), [value] if name == "a" else None)
        last = batch("b", 5)
        self.assertIsNone(sources.find(last, "b"))
        sources.add("b", Provided([keys["b"]]).recipes("b"))
        self.assertEqual(sources.find(last, "b").values.tolist(), [5])
