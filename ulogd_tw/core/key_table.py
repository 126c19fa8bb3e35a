"""A hash table for whole columns of keys: open addressing in plain NumPy.

Keys are rows of 64-bit words. Each distinct key gets the next entry number. Its words and its values lie together in
one row of a flat array: a key then costs one cache line instead of one for each column. All rows of a batch are looked
up at once; only collisions and new keys take further rounds.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence

import numpy as np

from ulogd_tw.kernels import lib
from ulogd_tw.kernels.table import GROW, Entries

_32 = np.uint64(32)
_LINE, _PAGE = 64, 4096
"""Octets of a cache line, and of a page of memory."""
_NARROW = 26
"""Largest width of an entry's number, in bits, for slots of 32 bits. The remaining bits hold a tag, which avoids 63 of
64 comparisons with other keys."""
FIRST_ENTRIES = 65536
"""Entries before the index grows for the first time; 512 KB of index."""
_GROWTH = 4
_LARGE = 1 << 19
"""Number of slots from which an index only doubles when it grows, to save memory."""
_MOST_EXPECTED = 1 << 20
"""Most entries with room from the beginning; memory for more would take too long at the first batch."""
_AHEAD = np.arange(1, 9)
"""Slots compared in one go after a slot with another key."""
_FEW = 4096
"""Number of rows below which the cost of calls outweighs the work."""
_MOVED_AT_ONCE = 16384
"""Entries moved to a larger index with each batch (or twice its rows, if that is more): the move then ends before the
next index needs memory. Growing in one go would stop the process for 0.1 s and more."""

_BETWEEN, _FINISH = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD6E8FEB86659FD93)
"""Multipliers between the words and at the end of the hash. Two shifts without one between them would cancel each
other for keys that differ in high bits, whatever the secret factors are; without the last one, one in a hundred random
odd factors leaves half of the slots empty for keys differing in few bits."""
_MOST_PROBES = 256
"""Slots between a key's own one and its entry. With half of the slots used at random, one key in 10**21 is farther."""
_RESEEDS = 3
"""Secrets tried before longer distances of keys from their slots are accepted."""


class KeyTable:
    """Entries for keys of `words` 64-bit words, each with `values` further words, at most `capacity` of them.

    Entries are numbered from 1; 0 means none. Entry e is ``flat[e * stride:(e + 1) * stride]``: its words, then its
    values. The caller sets and changes the values; entries after the former `n` are new.

    A slot of the index holds the number of an entry and above it a tag: high bits of the hash, as many as fit into 32
    bits (64 bits from 2**26 entries on). At most half of them are used. The hash is seeded anew for each table, so that
    a peer cannot choose keys that collide; where too many keys meet all the same, the table takes other secrets
    (`reseeded`). Memory is reserved for the whole capacity, but used only as far as entries
    reach; the index has room for the `expected` entries at once, up to a million. `memory` is the memory of an earlier
    table of the same stride and capacity; with it, the kernel need not hand out pages.
    """

    def __init__(
        self, words: int, capacity: int, expected: int = 0, values: int = 0, memory: np.ndarray | None = None
    ) -> None:
        self.n = 0
        self.capacity = capacity
        self.key_words = words
        self.stride = words + values
        if memory is None:
            whole = np.empty((capacity + 1) * self.stride + _LINE // 8, np.uint64)
            skip = -whole.ctypes.data % _LINE // 8
            memory = whole[skip : skip + (capacity + 1) * self.stride]
        self.flat = memory
        bits = capacity.bit_length()
        self._slot: type = np.uint32 if bits <= _NARROW else np.uint64
        self._low = self._slot((1 << bits) - 1)
        """The bits of an entry's number."""
        entries = FIRST_ENTRIES
        while entries < min(expected, capacity, _MOST_EXPECTED):
            entries *= 2
        self._index = np.zeros(2 * entries, self._slot)
        self._next: np.ndarray | None = None
        """The next, larger index; `_touched` of its slots have memory so far, since all at once would take 0.1 s and
        more."""
        self._touched = 0
        self._old: np.ndarray | None = None
        self._moved = self._to_move = 0
        self._reach = _MOST_PROBES
        self._kernel = Entries(self.flat, self.stride, capacity, int(self._low)) if lib is not None else None
        self._crowded = False
        """Whether some key found no slot within reach."""
        self.reseeded = 0
        """How often other secrets were needed."""
        self._draw_secrets()

    def _draw_secrets(self) -> None:
        self._factors = [np.uint64(secrets.randbits(64) | 1) for _ in range(self.key_words)]
        self._seed = np.uint64(secrets.randbits(64))
        self._tell_kernel()

    def _tell_kernel(self) -> None:
        if self._kernel is not None:
            self._kernel.hash_by(int(self._seed), [int(factor) for factor in self._factors], self._reach)

    @property
    def nbytes(self) -> int:
        """Octets in use: the index, and the rows up to the last entry."""
        touched = 0 if self._next is None else self._next.itemsize * self._touched
        return self._index.nbytes + touched + 8 * self.stride * self.n

    def column(self, place: int, first: int = 1) -> np.ndarray:
        """A view of word `place` of the entries from `first` to the last one; values follow the key's words."""
        return self.flat[first * self.stride + place : (self.n + 1) * self.stride : self.stride]

    def _hash(self, words: Sequence[np.ndarray]) -> np.ndarray:
        hashed = words[0] ^ self._seed
        hashed *= self._factors[0]
        for word, factor in zip(words[1:], self._factors[1:], strict=True):
            hashed ^= hashed >> _32
            hashed *= _BETWEEN
            hashed += word * factor
        hashed ^= hashed >> _32
        hashed *= _FINISH
        hashed ^= hashed >> _32
        return hashed

    def _tags(self, hashed: np.ndarray) -> np.ndarray:
        """The tags for slots, from hashes."""
        tags = (hashed >> _32).astype(np.uint32) if self._slot is np.uint32 else hashed.copy()
        tags &= ~self._low
        return tags

    def entries(self, words: Sequence[np.ndarray], limit: int | None = None) -> np.ndarray:
        """The entry of each row (int64); a new key gets a new entry while there are fewer than `limit`, else 0.

        `limit` defaults to the capacity. Equal new keys in one call get one entry.
        """
        limit = self.capacity if limit is None else min(limit, self.capacity)
        if self._old is not None:
            self._move(len(words[0]))
        elif 8 * self.n > 3 * len(self._index) and 2 * limit > len(self._index):
            self._prepare()
        if self._kernel is not None:
            return self._by_kernel(self._kernel, words, limit)
        hashed = self._hash(words)
        tags = self._tags(hashed)
        found, slots = self._find(self._index, words, tags, hashed)
        if found.all():
            return found
        rows = np.flatnonzero(found == 0)
        if self._old is not None:
            part = [w[rows] for w in words]
            found[rows] = self._find(self._old, part, tags[rows], hashed[rows])[0]
            rows = rows[found[rows] == 0]
        if len(rows):
            part = [w[rows] for w in words]
            found[rows] = self._insert(part, tags[rows], hashed[rows], slots[rows], limit)
            if self._crowded:
                self._reseed()
                rows = rows[found[rows] == 0]
                found[rows] = self.entries([w[rows] for w in words], limit)
        return found

    def _by_kernel(self, kernel: Entries, words: Sequence[np.ndarray], limit: int) -> np.ndarray:
        """As `entries`; the kernel stops where the index has to change."""
        words = [np.ascontiguousarray(word) for word in words]
        found, row, crowded = np.empty(len(words[0]), np.int64), 0, -1
        while row < len(found):
            kernel.use(self._index, self._old)
            row, stopped, self.n = kernel.find(words, row, self.n, limit, found)
            if stopped == GROW:
                self._grow(min(self.n + 1, limit))
            elif stopped and row == crowded:  # other secrets have not helped
                self._reach = len(self._index)
                self._tell_kernel()
            elif stopped:
                crowded = row
                self._reseed()
        return found

    def _find(
        self, index: np.ndarray, words: Sequence[np.ndarray], tags: np.ndarray, hashed: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Entries of the keys found in `index`, 0 for the others; and the slots of the keys, or their future slots.

        For the last rows several slots are compared in one go, which saves most of the rounds.
        """
        mask = np.int64(len(index) - 1)
        slots = hashed.view(np.int64) & mask
        held = index.take(slots)
        found, differs = self._compare(held, words, tags)
        if not differs.any():
            return found, slots
        rows = np.flatnonzero(differs)
        found[rows] = 0
        rows = rows[held.take(rows) != 0]
        for _ in range(self._reach):  # the slot holds another key: look at the next ones
            if not len(rows):
                break
            tag = tags.take(rows)
            steps = _AHEAD if len(rows) < _FEW else _AHEAD[:1]
            ahead = slots.take(rows)[:, None] + steps
            ahead &= mask
            held = index.take(ahead)
            ends = (held ^ tag[:, None]) <= self._low
            ends |= held == 0
            ends[:, -1] = True
            nearest = ends.argmax(axis=1)
            nearest += np.arange(0, ends.size, len(steps))
            held = held.ravel().take(nearest)
            slots[rows] = ahead.ravel().take(nearest)
            entry, differs = self._compare(held, [w.take(rows) for w in words], tag)
            entry[differs] = 0
            found[rows] = entry
            rows = rows[differs & (held != 0)]
        return found, slots

    def _compare(
        self, held: np.ndarray, words: Sequence[np.ndarray], tags: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The entries in slots, and a mask of those with other keys. Entry 0 never has another key."""
        entry = (held & self._low).astype(np.int64)
        differs = (held ^ tags) > self._low
        differs |= entry == 0
        place = entry * self.stride
        for word in words:
            differs |= self.flat.take(place) != word
            place += 1
        return entry, differs

    def _insert(
        self, words: list[np.ndarray], tags: np.ndarray, hashed: np.ndarray, slots: np.ndarray, limit: int
    ) -> np.ndarray:
        """Entries for keys outside every index, searched from their slots on; equal keys among them share an entry."""
        if 2 * min(self.n + len(tags), limit) > len(self._index):
            self._grow(min(self.n + len(tags), limit))
            slots = (hashed & np.uint64(len(self._index) - 1)).view(np.int64)
        index, mask = self._index, np.int64(len(self._index) - 1)
        found = np.zeros(len(tags), np.int64)
        rows = np.arange(len(tags))
        while len(rows):
            empty = np.flatnonzero(index.take(slots) == 0)
            if len(empty):
                self._claim(index, slots[empty], rows[empty], words, tags, limit)
            held = index.take(slots)
            entry, differs = self._compare(held, [w[rows] for w in words], tags[rows])
            found[rows] = np.where(differs, 0, entry)
            again = differs & (held != 0)  # a slot that is still empty: the limit is reached
            rows, slots = rows[again], (slots[again] + 1) & mask
            near = (slots - hashed[rows].view(np.int64) & mask) < self._reach
            if not near.all():
                self._crowded = True
                rows, slots = rows[near], slots[near]
        return found

    def _claim(
        self,
        index: np.ndarray,
        slots: np.ndarray,
        rows: np.ndarray,
        words: list[np.ndarray],
        tags: np.ndarray,
        limit: int,
    ) -> None:
        """Give new entries to rows with an empty slot. Where rows meet in a slot, the row written last wins."""
        marks = rows.astype(self._slot) + self._slot(1)
        index[slots] = marks
        won = index.take(slots) == marks
        winners, places = rows[won], slots[won]
        fresh = max(min(len(winners), limit - self.n), 0)
        if fresh < len(winners):
            index[places[fresh:]] = 0
            winners, places = winners[:fresh], places[:fresh]
        first = self.n + 1
        self.n += fresh
        for place, word in enumerate(words):
            self.column(place, first)[:] = word[winners]
        index[places] = tags[winners] | np.arange(first, first + fresh, dtype=self._slot)

    def _grow(self, entries: int) -> None:
        """A larger index; the entries follow in slices with the next batches."""
        while self._old is not None:
            self._move()
        size = self._larger(2 * entries)
        if self._next is None or len(self._next) < size:
            self._next = np.zeros(size, self._slot)
        self._old, self._index, self._next = self._index, self._next, None
        self._moved, self._to_move = 0, self.n
        if not self._to_move:
            self._old = None

    def _larger(self, slots: int) -> int:
        """The size of the next index, with at least so many slots."""
        size = len(self._index)
        while size < slots:
            size *= _GROWTH if size < _LARGE else 2
        return size

    def _prepare(self) -> None:
        """Get memory for the next index while the last quarter of this one's entries is filled."""
        if self._next is None:
            self._next, self._touched = np.zeros(self._larger(len(self._index) + 1), self._slot), 0
        until = len(self._next) * (8 * self.n - 3 * len(self._index)) // len(self._index)
        if self._touched < until:
            self._next[self._touched : until : _PAGE // self._next.itemsize] = 0
            self._touched = min(until, len(self._next))

    def _move(self, rows: int = 0) -> None:
        """Put the next slice of entries into the new index, which does not contain them yet."""
        end = min(self._moved + max(_MOVED_AT_ONCE, 2 * rows), self._to_move)
        if not self._place(self._moved + 1, end):
            self._reseed()
            return
        self._moved = end
        if end == self._to_move:
            self._old = None

    def _place(self, first: int, last: int) -> bool:
        """Put the entries from `first` to `last` into the index; False where one is too far from its own slot."""
        words = [self.column(place, first)[: last + 1 - first] for place in range(self.key_words)]
        hashed = self._hash(words)
        values = self._tags(hashed) | np.arange(first, last + 1, dtype=self._slot)
        index, mask = self._index, np.int64(len(self._index) - 1)
        slots = (hashed & np.uint64(mask)).view(np.int64)
        for _ in range(self._reach):
            empty = index.take(slots) == 0
            index[slots[empty]] = values[empty]
            again = index.take(slots) != values
            slots, values = (slots[again] + 1) & mask, values[again]
            if not len(slots):
                return True
        return False

    def _reseed(self) -> None:
        """Take other secrets and make the index anew: 0.1 s for a million entries, but no peer can call for it."""
        self._crowded = False
        self._old = None
        self._moved = self._to_move = 0
        for attempt in range(_RESEEDS + 1):
            self.reseeded += 1
            self._draw_secrets()
            self._index = np.zeros(len(self._index), self._slot)
            if attempt == _RESEEDS:
                self._reach = len(self._index)  # no secret helps: slow, but right
                self._tell_kernel()
            if all(self._place(at, min(at + _MOVED_AT_ONCE, self.n + 1) - 1)
                   for at in range(1, self.n + 1, _MOVED_AT_ONCE)):  # fmt: skip
                return
