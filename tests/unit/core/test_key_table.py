"""Tests of ulogd_tw.core.key_table: a KeyTable numbers keys as a dict would."""

import itertools
import math
from random import Random

import numpy as np
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support import examples, given
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

    @examples(15)
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


def spans(bits, words, n):
    """n keys: every combination of these bits of all words, and no other bit."""
    rows, of = [np.zeros(n, np.uint64) for _ in range(words)], np.arange(n, dtype=np.uint64)
    for place, bit in enumerate(bits):
        rows[bit // 64] ^= ((of >> np.uint64(place)) & np.uint64(1)) << np.uint64(bit % 64)
    return rows


class MixingTests(SynchronousTestCase):
    """Nobody can choose keys that meet in few slots without knowing the secrets (the same in each run of the tests)."""

    def setUp(self):
        self.patch(key_table.secrets, "randbits", Random(15).getrandbits)

    N = 4096
    BY_CHANCE = 8192 * (1 - math.exp(-4096 / 8192))
    """Slots of 8192 that are used by so many keys at random."""

    def worst(self, words, tables=3):
        """The least share of these slots, and of that many tags, that keys use in some tables of random secrets."""
        found = 9.0
        for _ in range(tables):
            hashed = KeyTable(len(words), 1)._hash(words)
            used = (len(np.unique(part)) for part in (hashed & np.uint64(8191), hashed >> np.uint64(51)))
            found = min(found, *(n / self.BY_CHANCE for n in used))
        return found

    def test_steps(self):
        """Keys that count upwards or downwards, from any bit of a word on, and in two words at once."""
        up = np.arange(self.N, dtype=np.uint64)
        down, low, high = up[::-1].copy(), up & np.uint64(63), up >> np.uint64(6)
        for at in range(53):
            for words in (1, 2, 3):
                for place in range(words):
                    rows = [np.zeros(self.N, np.uint64) for _ in range(words)]
                    rows[place] = up << np.uint64(at)
                    self.assertGreater(self.worst(rows), 0.6, (at, words, place))
        for at, other in itertools.product(range(0, 53, 5), repeat=2):
            for one, two in ((up, up), (up, down), (low, high), (high, low)):
                rows = [one << np.uint64(at), two << np.uint64(other)]
                self.assertGreater(self.worst(rows), 0.6, (at, other))

    def test_search(self):
        """A search for the worst bits: one of 12 chosen bits is changed as long as fewer slots are used."""
        random = np.random.default_rng(15)
        for words in (1, 2, 3, 5):
            for _ in range(3):
                bits = random.choice(64 * words, 12, replace=False)
                least = self.worst(spans(bits, words, self.N), 2)
                for _ in range(40):
                    other = bits.copy()
                    other[random.integers(12)] = random.integers(64 * words)
                    found = self.worst(spans(other, words, self.N), 2) if len(set(other)) == 12 else 9.0
                    if found <= least:
                        bits, least = other, found
                self.assertGreater(least, 0.6, (words, bits))

    def test_the_attack(self):
        """IPv4 flows of one source with destinations that differ in their upper bits: the case that cost 8 s."""
        up = np.arange(1 << 17, dtype=np.uint64)
        for place in (14, 46):
            keys = KeyTable(2, 1 << 20)
            keys.entries([up << np.uint64(place) | np.uint64(0x0A000001) << np.uint64(32 if place == 14 else 0),
                          np.full(len(up), 6, np.uint64)])  # fmt: skip
            self.assertEqual((len(up), 0), (keys.n, keys.reseeded))
            self.assertLess(self.farthest(keys), 100)

    def farthest(self, keys):
        """Slots between the entry that is farthest away and its own slot."""
        while keys._old is not None:
            keys._move()
        slots = np.flatnonzero(keys._index)
        entries = (keys._index[slots] & keys._low).astype(np.int64)
        words = [keys.flat[entries * keys.stride + place] for place in range(keys.key_words)]
        home = keys._hash(words) & np.uint64(len(keys._index) - 1)
        return int(((slots - home.astype(np.int64)) % len(keys._index)).max())


class CrowdedTests(SynchronousTestCase):
    """Too many keys meet in one slot; for the kernel see tests/unit/kernels."""

    def setUp(self):
        self.patch(key_table, "lib", None)

    def check(self, batches=40, rows=200):
        """A table numbers these keys as a dict would, also those that come again."""
        self.patch(key_table, "FIRST_ENTRIES", 1024)
        self.patch(key_table, "_MOVED_AT_ONCE", 100)
        keys, numbers, random = KeyTable(2, 100_000), {}, np.random.default_rng(3)
        for _ in range(batches):
            values = random.integers(0, 6000, rows).astype(np.uint64)
            got = keys.entries([values, values << np.uint64(7)])
            for value, number in zip(values.tolist(), got.tolist(), strict=True):
                self.assertEqual(numbers.setdefault(value, number), number)
        self.assertEqual(sorted(numbers.values()), list(range(1, keys.n + 1)))
        return keys

    def test_other_secrets_help(self):
        """Keys that meet under the first secrets: the table takes others, once, and no search is long from then on."""
        real = KeyTable._hash

        def bad(keys, words):
            return real(keys, words) if keys.reseeded else words[0] & np.uint64(3)

        self.patch(KeyTable, "_hash", bad)
        keys = self.check()
        self.assertEqual((1, key_table._MOST_PROBES), (keys.reseeded, keys._reach))
        self.assertLess(MixingTests().farthest(keys), 100)

    def test_no_secret_helps(self):
        """What is numbered stays right, however slow."""
        self.patch(KeyTable, "_hash", lambda keys, words: words[0] & np.uint64(3))
        keys = self.check(batches=8)
        self.assertEqual(key_table._RESEEDS + 1, keys.reseeded)

    def test_a_limit(self):
        """A full table is not a crowded one."""
        keys = KeyTable(1, 10)
        self.assertEqual(10, int((keys.entries([np.arange(5000, dtype=np.uint64)]) > 0).sum()))
        self.assertEqual(0, keys.reseeded)
