"""The flows of one kind (such as IPv4) kept by FLOWCACHE: packets are added, ended flows are found and given out.

A row of the table has the words of the key, the state of the flow, and the first packet's words. An ended flow leaves
its row empty and reuses it when it comes back. If more than half of the rows are empty, the table is renewed. For a
while there are then two tables, and a flow moves to the new one with its next packet, or with its slice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ulogd_tw.core.flow_end import ENDED, FORCED
from ulogd_tw.core.key_table import FIRST_ENTRIES, KeyTable
from ulogd_tw.metering.flow_ends import Known, Packets, Rules, first_packets

MOST_PACKETS = 65536
"""Packets added in one step, to limit memory and time."""
SLICE = 32768
"""Rows checked or moved in one step: about 2 ms."""

START, LAST, FLAGS, PACKETS, OCTETS = range(5)
"""Places in the state of a flow. Times in microseconds; FLAGS 0: no flow is here."""
REVERSE_PACKETS, REVERSE_OCTETS = 5, 6
ALIVE = 1 << 63
TURNED = 1 << 32
"""Bit of FLAGS: the first packet went in the second direction."""
ANSWERED = 1 << 33
"""Bit of FLAGS: the first packet was the answer of an ICMP query."""


@dataclass(slots=True)
class Rows:
    """Packets as words, each word a column over all packets.

    `key`: the words of the key. `times` never go back. `flags`: control bits, those of the second direction shifted.
    `turned`: 1 for packets of the second direction, None without directions. `marks`: bits for FLAGS of a flow
    beginning with the packet. `least`, `most`: values with a minimum or maximum in the flow. `first`: words kept from
    the flow's first packet.
    """

    key: Sequence[np.ndarray]
    times: np.ndarray
    octets: np.ndarray
    flags: np.ndarray
    turned: np.ndarray | None
    marks: np.ndarray | None
    least: Sequence[np.ndarray]
    most: Sequence[np.ndarray]
    first: Sequence[np.ndarray]


@dataclass(slots=True)
class Ended:
    """Ended flows: whole rows of the table, one flow a row, and the reasons."""

    rows: np.ndarray
    reasons: np.ndarray


class FlowTable:
    """Active flows of one kind. `add`, `look`, `idlest` and `end_all` return the flows that ended.

    `n` flows are alive; `n` may exceed `most_flows` by one batch.
    """

    def __init__(self, rules: Rules, key_words: int, least: int, most: int, first: int, most_flows: int) -> None:
        self.rules = rules
        self.n = 0
        self.key_words = key_words
        state = 7 if rules.both else 5
        self.least = key_words + state
        self.most = self.least + least
        self.first = self.most + most
        self._values = state + least + most + first
        self._most_of = least, most, first
        # Room for live flows, as many ended ones, and new flows during a renewal.
        self._capacity = 2 * max(most_flows, FIRST_ENTRIES) + 4 * MOST_PACKETS
        self._table = self._new(0)
        self._old: KeyTable | None = None
        self._moved = 0
        self._looked = 0

    def packets(self, ended: Ended) -> int:
        """The packets that ended flows sum up, of both directions."""
        places = (PACKETS, REVERSE_PACKETS) if self.rules.both else (PACKETS,)
        return sum(int(ended.rows[:, self.key_words + place].sum()) for place in places)

    def _new(self, expected: int) -> KeyTable:
        return KeyTable(self.key_words, self._capacity, expected, self._values)

    @property
    def nbytes(self) -> int:
        """Octets of memory in use."""
        return self._table.nbytes + (self._old.nbytes if self._old is not None else 0)

    @property
    def size(self) -> int:
        """Rows of a complete pass of `look`."""
        return self._table.n

    def _rows(self, table: KeyTable) -> np.ndarray:
        """All rows as a view of two dimensions; row 0 is unused."""
        return table.flat.reshape(-1, table.stride)[: table.n + 1]

    # packets

    def add(self, rows: Rows) -> tuple[Ended | None, int]:
        """Add packets; returns the flows ended by them, and the number of packets without room."""
        self._renew(len(rows.times))
        entries = self._entries(rows.key)
        full = 0
        if not entries.all():
            keep = entries != 0
            full, entries, rows = len(keep) - int(keep.sum()), entries[keep], _taken(rows, keep)
            if not len(entries):
                return None, full
        order, starts, flows = _sorted(entries)
        return self._merge(rows, order, starts, flows), full

    def _entries(self, words: Sequence[np.ndarray]) -> np.ndarray:
        before = self._table.n
        entries = self._table.entries(words)
        if self._table.n > before:
            self._table.column(self.key_words + FLAGS, before + 1)[:] = 0
            if self._old is not None:
                self._fetch(before + 1)
        return entries

    def _merge(self, rows: Rows, order: np.ndarray, starts: np.ndarray, flows: np.ndarray) -> Ended | None:
        """Add the packets, sorted by `order`, to their flows: run i, from `starts[i]`, to row `flows[i]`."""
        rules, k = self.rules, self.key_words
        times, flags = rows.times[order], rows.flags[order]
        table = self._rows(self._table)
        state = table[flows, k : k + 3]
        known = Known(state[:, START].view(np.int64), state[:, LAST].view(np.int64), state[:, FLAGS])
        begins, goes_on = first_packets(rules, Packets(starts, times, flags), known)
        parts = self._summed(rows, order, begins, times, flags)
        runs = np.flatnonzero(goes_on)
        many = len(begins) > len(starts)
        heads = np.searchsorted(begins, starts) if many else np.arange(len(starts))
        self._continue(parts, heads[runs], table[flows[runs]])
        broken = (known.flags != 0) & ~goes_on
        self.n += int(np.count_nonzero(known.flags == 0))
        ended = [table[flows[broken]]] if broken.any() else []
        if many:  # all parts of a run but the last have ended
            tails = np.append(heads[1:], len(begins)) - 1
            over = np.ones(len(begins), bool)
            over[tails] = False
            owner = np.searchsorted(starts, begins[over], "right") - 1
            found = np.empty((len(owner), table.shape[1]), np.uint64)
            found[:, :k] = table[flows[owner], :k]
            found[:, k:] = parts[over]
            ended.append(found)
            parts = parts[tails]
        table[flows, k:] = parts
        return self._over(np.concatenate(ended)) if ended else None

    def _summed(
        self, rows: Rows, order: np.ndarray, begins: np.ndarray, times: np.ndarray, flags: np.ndarray
    ) -> np.ndarray:
        """The state of flows made of the packets from each of `begins` up to the next."""
        ends = np.append(begins[1:], len(order))
        found = np.empty((len(begins), self._values), np.uint64)
        found[:, START] = times[begins].view(np.uint64)
        found[:, LAST] = times[ends - 1].view(np.uint64)
        found[:, PACKETS] = ends - begins
        found[:, OCTETS] = _each(np.add, rows.octets[order], begins)
        found[:, FLAGS] = _each(np.bitwise_or, flags, begins) | np.uint64(ALIVE)
        if rows.turned is not None:
            turned = rows.turned[order]
            self._directions(found, turned, rows.octets[order], begins)
        head = order[begins]
        if rows.marks is not None:
            found[:, FLAGS] |= rows.marks[head]
        at = self.least - self.key_words
        for function, columns in ((np.minimum, rows.least), (np.maximum, rows.most)):
            for column in columns:
                found[:, at] = _each(function, column[order], begins)
                at += 1
        for column in rows.first:
            found[:, at] = column[head]
            at += 1
        return found

    def _directions(self, found: np.ndarray, turned: np.ndarray, octets: np.ndarray, begins: np.ndarray) -> None:
        found[:, REVERSE_PACKETS] = _each(np.add, turned, begins)
        found[:, REVERSE_OCTETS] = _each(np.add, turned * octets, begins)
        found[:, PACKETS] -= found[:, REVERSE_PACKETS]
        found[:, OCTETS] -= found[:, REVERSE_OCTETS]
        found[:, FLAGS] |= turned[begins] * np.uint64(TURNED)

    def _continue(self, parts: np.ndarray, heads: np.ndarray, before: np.ndarray) -> None:
        """Add the state `before` to the parts that continue a flow."""
        if not len(heads):
            return
        before = before[:, self.key_words :]
        part = parts[heads]
        part[:, START] = before[:, START]
        part[:, PACKETS] += before[:, PACKETS]
        part[:, OCTETS] += before[:, OCTETS]
        marks = np.uint64(TURNED | ANSWERED)
        part[:, FLAGS] = (part[:, FLAGS] & ~marks) | before[:, FLAGS]
        if self.rules.both:
            part[:, REVERSE_PACKETS] += before[:, REVERSE_PACKETS]
            part[:, REVERSE_OCTETS] += before[:, REVERSE_OCTETS]
        least, most, first = (slice(at - self.key_words, end - self.key_words) for at, end in self._spans())
        np.minimum(part[:, least], before[:, least], out=part[:, least])
        np.maximum(part[:, most], before[:, most], out=part[:, most])
        part[:, first] = before[:, first]
        parts[heads] = part

    def _spans(self) -> list[tuple[int, int]]:
        ats = (self.least, self.most, self.first)
        return [(at, at + size) for at, size in zip(ats, self._most_of, strict=True)]

    # flows that are over

    def _over(self, rows: np.ndarray, reason: int = 0) -> Ended:
        """Rows as ended flows, with this reason or the reason given by their times."""
        start, last, flags = self._state(rows)
        if not reason:
            return Ended(rows, self.rules.reasons(start, last, flags))
        return Ended(rows, np.where(self.rules.closed(flags), np.uint8(ENDED), np.uint8(reason)))

    def _state(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        k = self.key_words
        start, last, flags = (np.ascontiguousarray(rows[:, k + place]) for place in (START, LAST, FLAGS))
        return start.view(np.int64), last.view(np.int64), flags

    def look(self, clock: int) -> Ended | None:
        """The ended flows of the next slice. Sets `looked_over` at the end of the table."""
        first = self._looked + 1
        rows = self._rows(self._table)[first : first + SLICE]
        self._looked = 0 if first + SLICE > self._table.n else self._looked + SLICE
        start, last, flags = self._state(rows)
        over = np.flatnonzero((flags != 0) & (self.rules.over(start, last, flags) <= clock))
        return self._end(rows, over)

    @property
    def looked_over(self) -> bool:
        """Whether the next `look` begins a new pass."""
        return self._looked == 0

    def _end(self, rows: np.ndarray, places: np.ndarray, reason: int = 0) -> Ended | None:
        if not len(places):
            return None
        found = rows[places]
        rows[places, self.key_words + FLAGS] = 0
        self.n -= len(places)
        return self._over(found, reason)

    def idlest(self, before: int, reason: int) -> Ended | None:
        """End the flows without a packet since that time."""
        self._settle()
        rows = self._rows(self._table)
        _, last, flags = self._state(rows[1:])
        return self._end(rows[1:], np.flatnonzero((flags != 0) & (last < before)), reason)

    def last_times(self) -> np.ndarray:
        """The time of each flow's last packet."""
        self._settle()
        _, last, flags = self._state(self._rows(self._table)[1:])
        return last[flags != 0]

    def end_all(self, clock: int) -> Ended | None:
        """End every flow; expired flows keep their own reason."""
        self._settle()
        rows = self._rows(self._table)[1:]
        rows = rows[self._state(rows)[2] != 0]
        self._table, self._looked, self.n = self._new(0), 0, 0
        if not len(rows):
            return None
        found = self._over(rows)
        start, last, flags = self._state(rows)
        forced = (self.rules.over(start, last, flags) > clock) & (found.reasons != ENDED)
        found.reasons[forced] = FORCED
        return found

    # the two tables

    def _renew(self, packets: int) -> None:
        if self._old is not None:
            self._move(max(SLICE, 4 * packets))
        elif self._table.n - self.n > max(self.n, FIRST_ENTRIES):
            self._old, self._table = self._table, self._new(self.n)
            self._moved = self._looked = 0

    def _move(self, count: int) -> None:
        """Move the next slice of the old table to the new one."""
        rows = self._rows(self._old)[self._moved + 1 : self._moved + 1 + count]
        self._moved += count
        alive = np.flatnonzero(rows[:, self.key_words + FLAGS])
        done = self._moved >= self._old.n
        if len(alive):
            rows = rows[alive]
            entries = self._table.entries([np.ascontiguousarray(rows[:, i]) for i in range(self.key_words)])
            self._rows(self._table)[entries, self.key_words :] = rows[:, self.key_words :]
        if done:
            self._old = None

    def _fetch(self, first: int) -> None:
        """Rows of the new table from `first` on are new: copy the state of their flows from the old table."""
        new = self._rows(self._table)
        words = [np.ascontiguousarray(new[first:, i]) for i in range(self.key_words)]
        entries = self._old.entries(words, 0)
        old, flags = self._rows(self._old), self.key_words + FLAGS
        there = np.flatnonzero(entries)
        there = there[old[entries[there], flags] != 0]
        new[first + there, self.key_words :] = old[entries[there], self.key_words :]
        old[entries[there], flags] = 0

    def _settle(self) -> None:
        """Finish a renewal, for operations over all flows at once."""
        while self._old is not None:
            self._move(self._old.n)


def _each(function: np.ufunc, column: np.ndarray, begins: np.ndarray) -> np.ndarray:
    return function.reduceat(column, begins)


def _sorted(entries: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The order of packets by flow, the beginning of each flow in it, and the flows.

    Sorting numbers that hold both is five times as fast as a stable argsort.
    """
    n = len(entries)
    bits = max(n - 1, 1).bit_length()
    both = entries << bits | np.arange(n)
    both.sort()
    order = both & ((1 << bits) - 1)
    both >>= bits
    changes = np.empty(n, bool)
    changes[0] = True
    np.not_equal(both[1:], both[:-1], out=changes[1:])
    starts = np.flatnonzero(changes)
    return order, starts, both[starts]


def _taken(rows: Rows, keep: np.ndarray) -> Rows:
    def of(column: np.ndarray | None) -> np.ndarray | None:
        return None if column is None else column[keep]

    return Rows(
        [w[keep] for w in rows.key], rows.times[keep], rows.octets[keep], rows.flags[keep], of(rows.turned),
        of(rows.marks), *([c[keep] for c in columns] for columns in (rows.least, rows.most, rows.first)),
    )  # fmt: skip
