"""Layouts: messages with the same attributes at the same places, recognised for many messages at once.

The kernel builds the events of similar flows alike, so a handful of layouts covers a whole system. A layout is the
message length, type, flags and family and every attribute header at its place; messages of one layout differ only in
values. A message of an unknown layout is walked once, and its layout is learnt. The number of layouts is bounded;
messages beyond it are walked each time.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from ulogd_tw.core.columns import taken
from ulogd_tw.core.errors import MessageError
from ulogd_tw.kernels import lib
from ulogd_tw.kernels.netlink import Tables
from ulogd_tw.netfilter.grammar import HEADERS, Field, Grammar, Walked

MOST_OF_A_HEAD = 32
"""Maximum number of layouts with one key of the grammar."""
LONGEST = 512
"""Octets of the longest message matched by NumPy; longer messages (none seen) are matched one by one."""

FEW = 16
"""Up to this many messages are matched one by one, 1.5 us each: NumPy's fixed cost is 25 us."""

LEAST_COMPARED = 64
"""Octets of each message that the kernel may read at least: the words that a hash takes are among them."""
_BUCKETS = 4096


class _Layout:
    __slots__ = ("ident", "mask", "expected", "length", "open_at")

    def __init__(self, ident: int, octets: bytes, walked: Walked, fixed: tuple[tuple[int, int], ...]) -> None:
        self.open_at = walked.open_at
        self.length = walked.open_at + 4 if walked.open_at else len(octets)
        """Octets compared in a message."""
        mask = bytearray(len(octets))
        same = (walked.fields[name] for name in walked.same)
        for at, size in (*fixed, *((head, 4) for head in walked.heads), *same):
            mask[at : at + size] = b"\xff" * size
        if walked.open_at:
            mask[walked.open_at : walked.open_at + 2] = bytes(2)
        else:
            mask[:4] = b"\xff" * 4
        self.ident = ident
        self.mask = int.from_bytes(mask, "little")
        self.expected = self.mask & int.from_bytes(octets, "little")

    def fits(self, octets: bytes) -> bool:
        """Whether the length of a message agrees with its headers; they must be those of the layout."""
        if not self.open_at:
            return len(octets) == self.length
        if int.from_bytes(octets[:4], sys.byteorder) != len(octets):
            return False
        size = int.from_bytes(octets[self.open_at : self.open_at + 2], sys.byteorder)
        return size >= 4 and _padded(self.open_at + size) == _padded(len(octets)) and self.open_at + size <= len(octets)


def _padded(length):
    return (length + 3) & ~3


class Places:
    """The places of some fields' values, a column for each layout number. Messages of one family share it.

    words    (w, layouts): numbers of 32-bit words, counted from the start of the message, 0 for an absent field. First
             the words with values of 32, 16 and 8 bits, then the high, then the low words of 64 bits.
    block    octets of a value -> the rows of `words` with such values (8: the high words, -8: the low ones)
    place    field -> its row within the block of its size; an IPv6 address is two values of 64 bits
    spans    (2, f, layouts): start and length of each field of variable size, in the order of `variable`
    absent   (fields, layouts): whether the field is absent, in the order of `row`
    event    (layouts)
    same     for each layout the fields with one value: name -> value
    """

    def __init__(self, fields: Iterable[str], known: Mapping[str, Field]) -> None:
        names = tuple(fields)
        self.known = known
        self.same: dict[int, dict[str, bytes]] = {}
        self.row = {name: place for place, name in enumerate(names)}
        self.variable = {name: place for place, name in enumerate(n for n in names if not known[n].octets)}
        self.place: dict[str, int] = {}
        self.block: dict[int, slice] = {}
        end = 0
        for octets in (4, 2, 1, 8):
            start = end
            for name in names:
                if known[name].octets in (octets, 2 * octets if octets == 8 else octets):
                    self.place[name] = end - start
                    end += max(1, known[name].octets // 8)
            self.block[octets] = slice(start, end)
        self._low = end - start
        self.block[-8] = slice(end, end + self._low)
        self.words = np.zeros((end + self._low, 16), np.intp)
        self.spans = np.zeros((2, len(self.variable), 16), np.int64)
        self.absent = np.ones((len(names), 16), bool)
        self.event = np.zeros(16, np.uint8)

    def enter(self, ident: int, walked: Walked) -> None:
        """Store the places of one layout under its number."""
        if ident >= len(self.event):
            for name in ("words", "spans", "absent", "event"):
                setattr(self, name, _wider(getattr(self, name), ident))
        self.event[ident] = walked.event
        self.same[ident] = walked.same
        self.words[:, ident] = 0
        for name, row in self.row.items():
            there = name in walked.fields
            self.absent[row, ident] = not there
            at, length = walked.fields.get(name, (0, 0))
            if name in self.variable:
                self.spans[:, self.variable[name], ident] = at, length
            elif there:
                self._enter_words(name, ident, at // 4)

    def _enter_words(self, name: str, ident: int, word: int) -> None:
        octets = self.known[name].octets
        first = self.block[min(octets, 8)].start + self.place[name]
        self.words[first, ident] = word
        for value in range(octets // 8):
            self.words[first + value, ident] = word + 2 * value
            self.words[first + value + self._low, ident] = word + 2 * value + 1


def _wider(table: np.ndarray, ident: int) -> np.ndarray:
    """The same table with room for twice as many layouts, or at least for number `ident`."""
    grown = np.zeros((*table.shape[:-1], 2 * ident), table.dtype)
    grown[..., : table.shape[-1]] = table
    return grown


class Layouts:
    """The layouts learnt so far, numbered from 1. `places`: family -> tables of the places of values."""

    def __init__(self, grammar: Grammar, places: Mapping[int, Sequence[Places]]) -> None:
        self.grammar = grammar
        self.places = places
        self.learnt = 0
        self.count = 1
        self.family = np.zeros(16, np.uint8)
        self._open_at = np.zeros(16, np.intp)
        self._by_head: dict[bytes, list[_Layout]] = {}
        self._first = np.zeros(_BUCKETS, np.intp)
        self._allocate_match(16, grammar.octets // 8)

    @property
    def octets(self) -> int:
        """Octets of each message needed by `match`, if the message is that long."""
        return 8 * self._expected.shape[1]

    def _allocate_match(self, room: int, wide: int) -> None:
        self._expected = np.zeros((room, wide), np.uint64)
        # Number 0 is no layout: all ones against a message, whose length is never 0, always differ.
        self._mask = np.full((room, wide), 0xFFFFFFFFFFFFFFFF, np.uint64)
        self._next = np.zeros(room, np.intp)

    def _enter(self, walked: Walked) -> int:
        """A new number, and its places."""
        ident = self.count
        if ident >= len(self.family):
            self.family, self._open_at = _wider(self.family, ident), _wider(self._open_at, ident)
        self.family[ident], self._open_at[ident] = walked.family, walked.open_at
        for places in self.places[walked.family]:
            places.enter(ident, walked)
        self.count += 1
        return ident

    def forget_unlearnt(self) -> None:
        """Free the numbers of layouts entered for one batch only."""
        self.count = self.learnt + 1

    # --- one message ------------------------------------------------------------------------------------------------

    def identify(self, octets: bytes) -> int:
        """The number of this message's layout; a new layout is learnt. Raises `MessageError`."""
        key = self.grammar.key(octets)
        number = int.from_bytes(octets, "little")
        for layout in self._by_head.get(key, ()):
            # The length in the head is what the message says of itself.
            if number & layout.mask == layout.expected and layout.fits(octets):
                return layout.ident
        return self._learn(key, octets)

    def _learn(self, key: bytes, octets: bytes) -> int:
        walked = self.grammar.walk(octets)
        ident = self._enter(walked)
        alike = self._by_head.setdefault(key, [])
        # A number above the learnt ones is in use in this batch: then this layout has to wait for the next one.
        if len(alike) < MOST_OF_A_HEAD and self.learnt < self.grammar.layouts and ident == self.learnt + 1:
            self.learnt = ident
            layout = _Layout(ident, octets, walked, self.grammar.fixed)
            alike.append(layout)
            if layout.length <= LONGEST:
                self._enter_match(layout)
        elif not alike:
            del self._by_head[key]
        return ident

    # --- many messages ----------------------------------------------------------------------------------------------

    def _enter_match(self, layout: _Layout) -> None:
        room, wide = self._expected.shape
        need = -(-layout.length // 8)
        if layout.ident >= room or need > wide:
            old = self._expected, self._mask, self._next
            self._allocate_match(max(room, 2 * layout.ident), max(wide, need))
            self._expected[:room, :wide], self._next[:room] = old[0], old[2]
            self._mask[1:room, wide:] = 0
            self._mask[1:room, :wide] = old[1][1:]
        wide = self._expected.shape[1]
        for table, number in ((self._expected, layout.expected), (self._mask, layout.mask)):
            table[layout.ident] = np.frombuffer(number.to_bytes(8 * wide, "little"), np.uint64)
        head = self._expected[layout.ident : layout.ident + 1].view(np.uint32)
        bucket = int(self._buckets(head)[0])
        self._next[layout.ident] = self._first[bucket]
        self._first[bucket] = layout.ident

    def match(self, rows: np.ndarray, lengths: np.ndarray, refused: Counter[str]) -> np.ndarray:
        """The layout number of each message, 0 for refused messages; they are counted by reason.

        `rows` is uint8 of shape (n, stride), C-contiguous, stride a multiple of 8; row i begins with a netlink message
        of `lengths[i]` octets, and what is behind it is arbitrary.
        """
        n, stride = rows.shape
        if n <= FEW or stride < HEADERS:
            ids, unknown = np.zeros(n, np.intp), range(n)
        elif lib is not None and stride >= LEAST_COMPARED:
            ids, unknown = self._compiled(rows.reshape(-1), np.arange(0, rows.size, stride, np.int64), lengths, stride)
        else:
            ids, unknown = self._match(rows, lengths)
        return self._identified(ids, unknown, refused, lambda i: rows[i].tobytes()[: lengths[i]])

    def match_at(
        self, octets: np.ndarray, starts: np.ndarray, lengths: np.ndarray, refused: Counter[str]
    ) -> np.ndarray:
        """As `match` of messages that begin at `starts` in `octets`; behind each place there are `self.octets`."""
        if len(starts) <= FEW:
            ids, unknown = np.zeros(len(starts), np.intp), range(len(starts))
        elif lib is not None:
            ids, unknown = self._compiled(octets, starts, lengths, self.octets)
        else:
            ids, unknown = self._match(taken(octets, starts, self.octets).reshape(-1, self.octets), lengths)

        def whole(i: int) -> bytes:
            return octets[starts[i] : starts[i] + lengths[i]].tobytes()

        return self._identified(ids, unknown, refused, whole)

    def _identified(
        self, ids: np.ndarray, unknown: Iterable[int], refused: Counter[str], whole: Callable[[int], bytes]
    ) -> np.ndarray:
        """Enter the layouts of the unknown messages; one Python step a message, only for few or new ones."""
        for i in unknown:
            try:
                ids[i] = self.identify(whole(i))
            except MessageError as error:
                refused[error.reason] += 1
        return ids

    def _compiled(
        self, octets: np.ndarray, starts: np.ndarray, lengths: np.ndarray, there: int
    ) -> tuple[np.ndarray, list[int]]:
        """As `_match` with the kernel; `there` octets of each message can be read."""
        hashed = self.grammar.hashed
        tables = Tables(self._expected, self._mask, self._first, self._next, self._open_at, hashed.plan(), hashed.text)
        ids, unknown = tables.match(octets, starts, lengths, there)
        return ids, (ids == 0).nonzero()[0].tolist() if unknown else []

    def _match(self, rows: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, list[int]]:
        words = rows.view(np.uint32)
        ids = self._first.take(self._buckets(words))
        # The length in the header must be the length received; identify() refuses other messages with the reason.
        wrong = words[:, 0] != lengths
        if wrong.any():
            ids[wrong] = 0
        pairs = rows.view(np.uint64)
        todo = self._differ(pairs, ids).nonzero()[0]
        unknown = []
        while len(todo):
            tried = self._next.take(ids[todo])
            ids[todo] = tried
            some = tried != 0
            unknown.append(todo[~some])
            todo = todo[some]
            if len(todo):
                todo = todo[self._differ(pairs[todo], ids[todo])]
        misfits = self._misfits(rows, lengths, ids)
        ids[misfits] = 0
        unknown.append(misfits)
        return ids, np.concatenate(unknown).tolist()

    def _misfits(self, rows: np.ndarray, lengths: np.ndarray, ids: np.ndarray) -> np.ndarray:
        """A mask of the messages in layouts with an open end whose last attribute does not end with the message."""
        open_at = self._open_at.take(ids)
        ours = open_at.nonzero()[0]
        if not len(ours):
            return ours
        at = open_at[ours]
        sizes = rows.view(np.uint16)[ours, at >> 1].astype(np.int64)
        ends, lengths = at + sizes, lengths[ours]
        return ours[(sizes < 4) | (_padded(ends) != _padded(lengths)) | (ends > lengths)]

    def _buckets(self, words: np.ndarray) -> np.ndarray:
        """A hash of the octets that choose the layouts to try, as an index."""
        return self.grammar.hashed(words) >> np.uint32(20)

    def _differ(self, pairs: np.ndarray, ids: np.ndarray) -> np.ndarray:
        """Whether each message differs from the layout of this number in more than values."""
        wide = min(self._expected.shape[1], pairs.shape[1])
        expected, mask = self._expected, self._mask
        if wide < expected.shape[1]:
            expected, mask = expected[:, :wide], mask[:, :wide]
        found = expected.take(ids, axis=0)
        found ^= pairs[:, :wide]
        found &= mask.take(ids, axis=0)
        return np.bitwise_or.reduce(found, axis=1) != 0
