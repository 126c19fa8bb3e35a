"""Tests of ulogd_tw.core.batch and columns: choosing and joining rows is what it is for lists."""

import io

import numpy as np
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support import given
from ulogd_tw.core import types
from ulogd_tw.core.batch import Batch, Schema
from ulogd_tw.core.columns import Coded, Octets, joined, repeated
from ulogd_tw.core.keys import Key, known

SCHEMA = Schema(
    [
        known("sourceIPv6Address"),
        known("octetDeltaCount"),
        known("interfaceName"),
        Key("coded", types.STRING),
        Key("constant", types.UNSIGNED16),
    ]
)

row = st.tuples(
    st.integers(0, 2**128 - 1), st.integers(0, 2**64 - 1), st.binary(max_size=5), st.integers(0, 1), st.booleans()
)


def made(rows, constant=7):
    """A batch of every form of column; octetDeltaCount is missing where the last value of a row is true."""
    addresses = np.array([[a >> 64, a & 2**64 - 1] for a, *_ in rows], np.uint64).reshape(-1, 2)
    columns = {
        "sourceIPv6Address": addresses,
        "octetDeltaCount": np.array([o for _, o, *_ in rows], np.uint64),
        "interfaceName": Octets.of([s for *_, s, _, _ in rows]),
        "coded": Coded(np.array([c for *_, c, _ in rows], np.int64), (b"no", b"yes")),
        "constant": repeated(constant, len(rows), np.dtype("H")),
    }
    missing = np.array([m for *_, m in rows], bool)
    return Batch(SCHEMA, columns, {"octetDeltaCount": missing} if missing.any() else {}, n=len(rows), now=1.5)


def plain(rows, constant=7):
    """What `Batch.rows` gives for them, written out."""
    found = []
    for address, octets, text, coded, missing in rows:
        values = {"sourceIPv6Address": address, "octetDeltaCount": octets, "interfaceName": text}
        values |= {"coded": (b"no", b"yes")[coded], "constant": constant}
        if missing:
            del values["octetDeltaCount"]
        found.append(values)
    return found


def mixed_batch():
    """A small batch with all forms of columns."""
    return made([(2**100 + 5, 9, b"eth0", 0, False), (1, 2**63, b"", 1, True), (0, 0, b"lo", 1, False)])


class BatchTests(SynchronousTestCase):
    """Rows of batches against rows of lists."""

    @given(st.lists(row, max_size=12), st.data())
    def test_take(self, rows, data):
        """By mask, by indices in any order, by slice."""
        batch = made(rows)
        self.assertEqual(list(batch.rows()), plain(rows))
        mask = data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows)))
        self.assertEqual(
            list(batch.take(np.array(mask, bool)).rows()), plain([r for r, m in zip(rows, mask, strict=True) if m])
        )
        indices = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=9)) if rows else []
        self.assertEqual(list(batch.take(np.array(indices, np.int64)).rows()), plain([rows[i] for i in indices]))
        cut = data.draw(st.slices(len(rows)))
        if cut.step is None or cut.step > 0:
            self.assertEqual(list(batch.take(cut).rows()), plain(rows[cut]))

    @given(st.lists(st.lists(row, max_size=5), min_size=1, max_size=4))
    def test_joined(self, parts):
        """Batches after each other are their rows after each other, also after slicing."""
        batch = Batch.joined([made(part, i) for i, part in enumerate(parts)])
        expected = [r for i, part in enumerate(parts) for r in plain(part, i)]
        self.assertEqual(list(batch.rows()), expected)
        tails = Batch.joined([made(part, i).take(slice(1, None)) for i, part in enumerate(parts)])
        self.assertEqual(list(tails.rows()), [r for i, part in enumerate(parts) for r in plain(part, i)[1:]])

    @given(st.lists(row, max_size=6))
    def test_saved_and_loaded(self, rows):
        file = io.BytesIO()
        made(rows).save(file)
        file.seek(0)
        loaded = Batch.load(file)
        self.assertEqual(list(loaded.rows()), plain(rows))
        self.assertEqual((loaded.schema, loaded.now), (SCHEMA, 1.5))

    def test_with_columns_leaves_the_old_batch_alone(self):
        """Stacks share batches."""
        batch = mixed_batch()
        before = list(batch.rows())
        more = batch.with_columns({Key("constant", types.UNSIGNED8): np.arange(3, dtype=np.uint8)})
        self.assertEqual(list(batch.rows()), before)
        self.assertEqual([r["constant"] for r in more.rows()], [0, 1, 2])
        self.assertEqual(list(more.schema)[-1], "constant")

    def test_equal_schemas_are_one(self):
        """Compared by value, so that batches of two templates with equal fields are joined."""
        self.assertEqual(Schema([known("octetDeltaCount")]), Schema([known("octetDeltaCount")]))
        self.assertNotEqual(
            Schema([known("octetDeltaCount")]), Schema([known("octetDeltaCount").typed(types.UNSIGNED32)])
        )

    def test_a_repeated_value_costs_nothing(self):
        """However many rows."""
        column = repeated(5, 1_000_000, np.dtype("Q"))
        self.assertEqual(column.strides, (0,))
        batch = Batch(Schema([Key("x", types.UNSIGNED64)]), {"x": column}, n=1_000_000, now=0)
        self.assertLess(batch.nbytes, 100)

    def test_coded_columns_with_the_same_values_stay_coded(self):
        one = Coded(np.array([0, 1]), (b"a", b"b"))
        self.assertIsInstance(joined([one, one]), Coded)
        self.assertEqual(joined([one, Coded(np.array([0]), (b"c",))]).to_list(), [b"a", b"b", b"c"])
