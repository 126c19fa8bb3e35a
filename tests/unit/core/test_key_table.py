"""Tests of ulogd_tw.core.key_table: a KeyTable numbers keys as a dict would."""

import numpy as np
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support import given, settings
from ulogd_tw.core import key_table
from ulogd_tw.core.key_table import KeyTable

few = st.integers(0, 40)


class KeyTableTests(SynchronousTestCase):
    """A KeyTable against a dict."""

    @given(st.integers(1, 5), st.lists(st.lists(few, max_size=60), max_size=8), st.integers(1, 60))
    def test_like_a_dict(self, words, batches, capacity):
        """Equal keys get one number, others another, no more than there is capacity for; 0 for the rest."""
        keys = KeyTable(words, capacity, values=capacity % 3)
        numbers = {}
        for batch in batches:
            rows = [np.array([(value * (w + 1)) << (7 * w) for value in batch], np.uint64) for w in range(words)]
            got = keys.entries(rows)
            for value, number in zip(batch, got.tolist(), strict=True):
                if number:
                    self.assertEqual(numbers.setdefault(value, number), number)
                else:
                    self.assertNotIn(value, numbers)
        self.assertEqual(len(set(numbers.values())), len(numbers))
        self.assertEqual(keys.n, len(numbers))
        distinct = len({value for batch in batches for value in batch})
        self.assertEqual(keys.n, min(distinct, capacity))
        for value, number in numbers.items():
            row = keys.flat[number * keys.stride : number * keys.stride + words].tolist()
            self.assertEqual(row, [(value * (i + 1)) << (7 * i) for i in range(words)])

    @settings(max_examples=20)
    @given(
        st.integers(0, 2**32), st.sampled_from([2, 8, 64]), st.integers(1, 40), st.sampled_from([1, 64, 4096]),
        st.sampled_from([0, 30, 4096]), st.sampled_from([0, 26]),
        st.sampled_from([5000, (1 << 26) - 1]),
    )  # fmt: skip
    def test_growing_changes_nothing(self, seed, first, slice_, large, few_rows, narrow, capacity):
        """Whatever the first size, the size of the slices in which entries move, how far it grows at once, which rows
        are looked up with several slots together, and how many bits slots and their tags have.
        """
        self.patch(key_table, "_NARROW", narrow)
        self.patch(key_table, "_FEW", few_rows)
        self.patch(key_table, "FIRST_ENTRIES", first)
        self.patch(key_table, "_LARGE", large)
        self.patch(key_table, "_MOVED_AT_ONCE", slice_)
        random = np.random.default_rng(seed)
        keys, numbers = KeyTable(2, capacity), {}
        for _ in range(30):
            values = random.integers(0, 3000, random.integers(0, 200)).astype(np.uint64)
            for value, number in zip(
                values.tolist(), keys.entries([values, values >> np.uint64(3)]).tolist(), strict=True
            ):
                self.assertEqual(numbers.setdefault(value, number), number)
        self.assertEqual(keys.n, len(numbers))
        self.assertEqual(sorted(numbers.values()), list(range(1, keys.n + 1)))

    def test_a_larger_index_is_ready_in_time(self):
        """When it is needed it has its memory, and nothing is left to be moved, however many keys come at once."""
        self.patch(key_table, "FIRST_ENTRIES", 4096)
        self.patch(key_table, "_MOVED_AT_ONCE", 16)
        self.patch(key_table, "_LARGE", 1)
        grow, ready = KeyTable._grow, []

        def grown(keys, entries):
            ready.append((keys._old is None, 0 if keys._next is None else keys._touched / len(keys._next)))
            grow(keys, entries)

        self.patch(KeyTable, "_grow", grown)
        for rows in (50, 333, 700):
            keys, ready[:] = KeyTable(1, 1 << 20), []
            for first in range(0, 200_000, rows):
                keys.entries([np.arange(first, first + rows, dtype=np.uint64)])
            self.assertEqual(6, len(ready))
            for moved, touched in ready:
                self.assertTrue(moved)
                self.assertGreater(touched, 0.2)
            self.assertGreater(ready[-1][1], 0.9)

    def test_a_limit_holds_within_a_batch(self):
        """New keys beyond it get 0, known ones still their number."""
        keys = KeyTable(1, 1000)
        keys.entries([np.arange(5, dtype=np.uint64)])
        got = keys.entries([np.arange(10, dtype=np.uint64)], limit=8)
        self.assertEqual(keys.n, 8)
        self.assertEqual(got[:5].tolist(), [int(x) for x in keys.entries([np.arange(5, dtype=np.uint64)])])
        self.assertEqual(int((got == 0).sum()), 2)

    def test_the_hash_is_seeded(self):
        """Two tables put the same keys at different places, so nobody can prepare keys that collide."""
        keys = [np.arange(1000, dtype=np.uint64)]
        one, two = KeyTable(1, 10), KeyTable(1, 10)
        self.assertFalse(np.array_equal(one._hash(keys), two._hash(keys)))
        low = one._hash(keys) & np.uint64(0xFFF)
        self.assertGreater(len(np.unique(low)), 700)  # 1000 keys into 4096 places: about 885 differ by chance

    def test_keys_with_equal_low_halves_spread(self):
        """The index uses the low bits of the hash; keys that differ only in high bits must not share them."""
        keys = [np.arange(1000, dtype=np.uint64) << np.uint64(52)]
        self.assertGreater(len(np.unique(KeyTable(1, 10)._hash(keys) & np.uint64(0xFFF))), 700)
