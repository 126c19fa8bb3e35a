"""Keys to entries, and sums: the kernel beside NumPy on the same rows."""

import numpy as np
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support import given
from tests.unit.kernels import SKIP
from ulogd_tw import kernels
from ulogd_tw.aggregation import group_table
from ulogd_tw.aggregation.group_table import FIRST, FLOWS, LAST, OCTETS, PACKETS, Group
from ulogd_tw.core import key_table, types
from ulogd_tw.core.key_table import KeyTable
from ulogd_tw.core.keys import Key
from ulogd_tw.kernels import table

WIDE = st.one_of(st.integers(0, 5), st.integers(0, 2**64 - 1))


def numbered(found):
    """The numbers of entries in the order in which they first come, so that only who shares one counts."""
    places = {0: 0}
    return [places.setdefault(entry, len(places)) for entry in found]


class EntriesTests(SynchronousTestCase):
    """KeyTable.entries."""

    if kernels.lib is None:
        skip = SKIP

    @given(st.integers(1, 3), st.lists(st.lists(st.tuples(WIDE, WIDE, WIDE), min_size=1, max_size=40), max_size=6))
    def test_same_as_numpy(self, words, batches):
        """The same rows share entries, and the same keys are there."""
        self.patch(key_table, "FIRST_ENTRIES", 4)
        found = []
        for lib in (kernels.lib, None):
            self.patch(key_table, "lib", lib)
            made = KeyTable(words, 1000, values=2)
            parts = [list(np.array(rows, np.uint64).T[:words]) for rows in batches]
            entries = [entry for part in parts for entry in made.entries(part).tolist()]
            held = {tuple(row) for row in zip(*(made.column(w).tolist() for w in range(words)), strict=True)}
            found.append((numbered(entries), made.n, held))
        self.assertEqual(found[1], found[0])

    @given(st.lists(st.tuples(st.lists(st.integers(0, 60), min_size=1, max_size=40), st.integers(0, 30)), max_size=6))
    def test_limits(self, batches):
        """New keys get entries as long as there are fewer than the limit; keys that are there are found beyond it."""
        self.patch(key_table, "FIRST_ENTRIES", 4)
        made, expected = KeyTable(1, 25), {}
        for keys, limit in batches:
            found = made.entries([np.array(keys, np.uint64)], limit).tolist()
            for key in keys:
                if key not in expected and len(expected) < min(limit, 25):
                    expected[key] = len(expected) + 1
            self.assertEqual([expected.get(key, 0) for key in keys], found)
            self.assertEqual(len(expected), made.n)

    def test_growth(self):
        """A hundred thousand keys in batches, found again while entries move to larger indexes."""
        random = np.random.default_rng(1)
        keys = random.integers(0, 2**64, 100_000, np.uint64)
        made, expected = KeyTable(1, 200_000, values=1), {}
        for at in range(0, len(keys), 3000):
            part = np.concatenate([keys[at : at + 3000], random.choice(keys[: at + 1], 500)])
            for key, entry in zip(part.tolist(), made.entries([part]).tolist(), strict=True):
                self.assertEqual(expected.setdefault(key, entry), entry)
        self.assertEqual(len(expected), made.n)
        self.assertEqual(sorted(expected.values()), list(range(1, made.n + 1)))

    def test_wide_slots(self):
        """Slots of 64 bits, where a table may have very many entries."""
        made = KeyTable(1, 1 << 27, values=1)
        keys = np.arange(70_000, dtype=np.uint64) << np.uint64(40)
        self.assertEqual(list(range(1, 70_001)), made.entries([keys]).tolist())
        self.assertEqual(list(range(1, 70_001)), made.entries([keys]).tolist())

    def test_no_secret_helps(self):
        """Keys that meet under any secrets are numbered right, however slow."""

        def same(made):
            made._seed, made._factors = np.uint64(0), [np.uint64(0)]
            made._tell_kernel()

        self.patch(key_table, "_MOST_PROBES", 4)
        self.patch(KeyTable, "_draw_secrets", same)
        made, keys = KeyTable(1, 1000), np.arange(300, dtype=np.uint64)
        for _ in range(2):
            self.assertEqual(list(range(1, 301)), made.entries([keys]).tolist())
        self.assertGreater(made.reseeded, 0)

    def test_crowded(self):
        """Keys that all want one slot make the table take other secrets."""
        self.patch(key_table, "_MOST_PROBES", 4)
        made = KeyTable(1, 1000)
        made._seed, made._factors = np.uint64(0), [np.uint64(0)]  # every key has the same hash
        made._tell_kernel()
        keys = np.arange(100, dtype=np.uint64)
        self.assertEqual(list(range(1, 101)), made.entries([keys]).tolist())
        self.assertGreater(made.reseeded, 0)


class SumTests(SynchronousTestCase):
    """Group.add."""

    if kernels.lib is None:
        skip = SKIP

    @given(
        st.lists(st.lists(st.tuples(st.integers(0, 3), WIDE, WIDE, WIDE, WIDE), min_size=1, max_size=20), max_size=4)
    )
    def test_same_as_numpy(self, batches):
        """Sums, the first and the last time, and how many sums have stopped at the limit."""
        found = []
        for lib in (kernels.lib, None):
            self.patch(key_table, "lib", lib)
            self.patch(group_table, "lib", lib)
            group, stopped = Group((Key("k", types.UNSIGNED64),), {}, 10, 0, (), 10, group_table.MemoryPool()), []
            group.report_saturated(stopped.append)
            for rows in batches:
                key, *values = np.array(rows, np.uint64).T
                entries = group.table.entries([key])
                group.begin()
                group.add(entries, dict(zip((PACKETS, OCTETS, FIRST, LAST), values, strict=True)) | {FLOWS: None})
            order = np.argsort(group.table.column(0))
            columns = [
                group.table.column(group.places[key])[order].tolist() for key in (FLOWS, PACKETS, OCTETS, FIRST, LAST)
            ]
            found.append((columns, sum(stopped)))
        self.assertEqual(found[1], found[0])

    def test_outside(self):
        """Nothing is written beyond the entries."""
        flat = np.zeros(20, np.uint64)
        for entries in ([0], [-1], [4], [1 << 60]):
            with self.assertRaises(AssertionError):
                table.add(flat, 5, 3, np.array(entries), [(0, table.ADD, None)], {})
        for place, n in ((5, 3), (-1, 3), (0, 4)):
            with self.assertRaises(AssertionError):
                table.add(flat, 5, n, np.array([1]), [(place, table.ADD, None)], {})
        self.assertFalse(flat.any())

    def test_near_the_limit(self):
        """Nothing is done where a sum might pass the limit."""
        flat, bounds = np.zeros(4, np.uint64), {}
        most, one = np.array([2**63 - 1], np.uint64), np.array([1])
        self.assertTrue(table.add(flat, 2, 1, one, [(0, table.ADD, most)], bounds))
        self.assertEqual({0: 2**63 - 1}, bounds)
        self.assertFalse(
            table.add(flat, 2, 1, one, [(1, table.ADD, None), (0, table.ADD, np.array([1], np.uint64))], bounds)
        )
        self.assertEqual([0, 0, 2**63 - 1, 0], flat.tolist())
