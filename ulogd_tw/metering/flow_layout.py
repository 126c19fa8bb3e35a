"""Packets as words of FLOWCACHE's table, and its rows as flow records: one layout for each family."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ulogd_tw.core import types
from ulogd_tw.core.batch import Batch, Schema
from ulogd_tw.core.biflow_names import other_end, reverse
from ulogd_tw.core.columns import Coded, Column, repeated, unpadded
from ulogd_tw.core.icmp import ICMP_PAIRS
from ulogd_tw.core.keys import Key, known
from ulogd_tw.core.packing import Dictionary, Packing, packed_type
from ulogd_tw.core.resolve import Found
from ulogd_tw.metering import flow_table as table
from ulogd_tw.metering.flow_ends import CONTROL, REVERSE
from ulogd_tw.metering.flow_table import Ended, FlowTable, Rows

Find = Callable[[str], Found | None]
"""The column of a key in the batch at hand."""

_TCP = 6
_PRESENT = Key("present", types.UNSIGNED64)
_ICMP_KEYS = {4: "icmpTypeCodeIPv4", 6: "icmpTypeCodeIPv6"}

BOUNDS = (
    ("ipTTL", "minimumTTL", "maximumTTL"),
    ("ipTotalLength", "minimumIpTotalLength", "maximumIpTotalLength"),
)
"""Measured keys, each with the names of its least and its greatest value in a flow."""


class Words:
    """Keys as words, with a bit for each key that has a value: missing values equal only each other."""

    def __init__(self, keys: Sequence[Key], most: int) -> None:
        self.keys = tuple(keys)
        self._dictionaries = {key.name: Dictionary(most) for key in keys if key.type.variable}
        packed = [Key(key.name, types.UNSIGNED32) if key.type.variable else key for key in keys]
        wide = next(t for t in (types.UNSIGNED8, types.UNSIGNED16, types.UNSIGNED32, types.UNSIGNED64)
                    if 8 * t.octets >= len(keys))  # fmt: skip
        self.packing = Packing([*packed, Key(_PRESENT.name, wide)], {}) if keys else None
        self.n = self.packing.words if keys else 0

    def columns(self, find: Find, n: int) -> dict[str, tuple[np.ndarray, np.ndarray | None]]:
        """Each key's values, 0 for missing ones, and the mask of the rows with a value (None: all)."""
        found = {}
        for key in self.keys:
            here = find(key.name)
            if here is None or here.key.type.variable != key.type.variable:
                shape = (n, 2) if key.type is types.IPV6 else n
                found[key.name] = (np.zeros(shape, key.type.dtype or np.uint32), np.zeros(n, bool))
                continue
            values = here.values
            if key.type.variable:
                values = self._dictionaries[key.name].codes(unpadded(values) if key.type.text else values)
            if here.missing is None:
                found[key.name] = (values, None)
            else:
                mask = here.missing[:, None] if values.ndim == 2 else here.missing
                found[key.name] = (np.where(mask, values.dtype.type(0), values), ~here.missing)
        return found

    def pack(
        self, columns: dict[str, tuple[np.ndarray, np.ndarray | None]], n: int
    ) -> tuple[list[np.ndarray], np.ndarray | None]:
        """The words of each row, and a mask of the rows that fit (None: all)."""
        if self.packing is None:
            return [], None
        always, some = 0, None
        for place, key in enumerate(self.keys):
            there = columns[key.name][1]
            if there is None:
                always |= 1 << place
            elif there.any():
                bit = there.astype(np.uint64) << np.uint64(place)
                some = bit if some is None else some | bit
        present = np.full(n, always, np.uint64)
        if some is not None:
            present |= some
        values = {name: column for name, (column, _) in columns.items()}
        words, fits = self.packing.pack(values | {_PRESENT.name: present}, n)
        for name in self._dictionaries:
            good = columns[name][0] != np.uint32(0xFFFFFFFF)
            if not good.all():
                fits = good if fits is None else fits & good
        return words, fits

    def unpack(self, words: np.ndarray) -> dict[str, tuple[Column, np.ndarray | None]]:
        """The columns of rows of words, and the masks of missing values; keys without any value are left out."""
        if self.packing is None:
            return {}
        columns = {key.name: column for key, column in self.packing.unpack(list(words.T)).items()}
        present = columns[_PRESENT.name].astype(np.uint64)
        found: dict[str, tuple[Column, np.ndarray | None]] = {}
        for place, key in enumerate(self.keys):
            missing = (present & np.uint64(1 << place)) == 0
            if missing.all():
                continue
            column = columns[key.name]
            if key.type.variable:
                column = Coded(column.astype(np.int64), self._dictionaries[key.name].values)
            found[key.name] = (column, missing if missing.any() else None)
        return found


@dataclass(frozen=True, slots=True)
class Wish:
    """The settings common to all layouts of an instance."""

    key_names: tuple[str, ...]
    first_names: tuple[str, ...]
    both: bool
    wanted: object
    most_flows: int
    scale: int
    constants: dict[str, int]


class Layout:
    """The flows of one family (4, 6, or 0 for keys without address), and the form of their rows."""

    def __init__(self, wish: Wish, family: int, rules: object) -> None:
        self.wish, self.family = wish, family
        self.clock = 0
        """The time of its latest packet, microseconds since 1970."""
        self.key = Words([_typed(name, family) for name in wish.key_names if _of(name, family)], wish.most_flows)
        self.first = Words([_typed(name, family) for name in wish.first_names], wish.most_flows)
        self._bounds = [b for b in BOUNDS if b[1] in wish.wanted or b[2] in wish.wanted]
        bounds = len(self._bounds)
        self.table = FlowTable(rules, self.key.n, bounds, bounds, self.first.n, wish.most_flows)
        names = {key.name for key in self.key.keys}
        self._pairs = [(n, other_end(n)) for n in names if wish.both and other_end(n) in names]
        self._pairs.sort(key=lambda pair: wish.key_names.index(pair[0]))
        self._icmp = _ICMP_KEYS.get(family) if wish.both and _ICMP_KEYS.get(family) in names else None
        pairs = ICMP_PAIRS.get(family, ())
        self._query = _table({answer: query for query, answer in pairs})
        self._answer = _table(dict(pairs))

    # packets

    def rows(self, find: Find, times: np.ndarray, n: int) -> tuple[Rows, np.ndarray | None]:
        """Packets as words, and a mask of the packets whose key fits (None: all)."""
        columns = self.key.columns(find, n)
        turned = marks = None
        if self.wish.both:
            marks = self._query_of(columns)
            turned = self._turn(columns, n)
        words, fits = self.key.pack(columns, n)
        firsts = self.first.pack(self.first.columns(find, n), n)[0]
        flags = _control_bits(find, n)
        if turned is not None:
            flags <<= turned * np.uint64(REVERSE)
        bounds = [_or_zero(find(name), n) for name, _, _ in self._bounds]
        return Rows(words, times, _octets(find, n), flags, turned, marks, bounds, bounds, firsts), fits

    def _turn(self, columns: dict[str, tuple[np.ndarray, np.ndarray | None]], n: int) -> np.ndarray:
        """Put the smaller end first, so that both directions have one key; 1 for turned packets."""
        greater, equal = np.zeros(n, bool), np.ones(n, bool)
        for one, two in self._pairs:
            a, b = columns[one][0], columns[two][0]
            for left, right in [(a[:, 0], b[:, 0]), (a[:, 1], b[:, 1])] if a.ndim == 2 else [(a, b)]:
                greater |= equal & (left > right)
                equal &= left == right
        if greater.any():
            for one, two in self._pairs:
                (a, in_a), (b, in_b) = columns[one], columns[two]
                columns[one] = (_swapped(greater, a, b), _mask_swapped(greater, in_a, in_b, True))
                columns[two] = (_swapped(greater, b, a), _mask_swapped(greater, in_b, in_a, True))
        return greater.astype(np.uint64)

    def _query_of(self, columns: dict[str, tuple[np.ndarray, np.ndarray | None]]) -> np.ndarray | None:
        """Give ICMP answers the type of their query; returns the marks of answers."""
        if self._icmp is None:
            return None
        values, there = columns[self._icmp]
        kind, code = values >> 8, values & 0xFF
        query = self._query[kind]
        answers = query != kind
        if there is not None:
            answers &= there
        columns[self._icmp] = (np.where(answers, query << 8 | code, values), there)
        return answers.astype(np.uint64) * np.uint64(table.ANSWERED)

    # flows

    def batch(self, ended: Ended, now: float, held: bool) -> Batch:
        """Flow records of ended flows."""
        wish, k = self.wish, self.key.n
        rows = ended.rows
        state = {place: rows[:, k + place] for place in range(7 if wish.both else 5)}
        turned = (state[table.FLAGS] & np.uint64(table.TURNED)) != 0 if wish.both else None
        keys = self.key.unpack(rows[:, :k])
        if wish.both:
            self._turn_back(keys, state[table.FLAGS], turned)
        given = _Record(len(rows), wish.wanted)
        for key in self.key.keys:
            if key.name in keys:
                given.put(key, *keys[key.name], always=True)
        self._counts(given, state, turned)
        self._control(given, keys, state[table.FLAGS], turned)
        given.put(known("flowStartMilliseconds"), state[table.START] // np.uint64(1000))
        given.put(known("flowEndMilliseconds"), state[table.LAST] // np.uint64(1000))
        given.put(known("flowEndReason"), ended.reasons)
        for place, (_, least, most) in enumerate(self._bounds):
            unknown = rows[:, self.table.most + place] == 0
            for name, at in ((least, self.table.least), (most, self.table.most)):
                if not unknown.all():
                    mask = unknown if unknown.any() else None
                    given.put(known(name), rows[:, at + place].astype(known(name).type.dtype), mask)
        firsts = self.first.unpack(rows[:, self.table.first :])
        for key in self.first.keys:
            if key.name in firsts:
                given.put(key, *firsts[key.name])
        for name, value in wish.constants.items():
            given.put(known(name), repeated(value, len(rows), known(name).type.dtype))
        return Batch(Schema(given.keys), given.columns, given.missing, n=len(rows), now=now, held=held)

    def _turn_back(self, keys: dict, flags: np.ndarray, turned: np.ndarray) -> None:
        """Make the sender of the first packet the source, and its ICMP type the flow's."""
        for one, two in self._pairs:
            if one in keys and two in keys and turned.any():
                (a, no_a), (b, no_b) = keys[one], keys[two]
                keys[one] = (_swapped(turned, a, b), _mask_swapped(turned, no_a, no_b, False))
                keys[two] = (_swapped(turned, b, a), _mask_swapped(turned, no_b, no_a, False))
        if self._icmp in keys:
            values, missing = keys[self._icmp]
            answered = (flags & np.uint64(table.ANSWERED)) != 0
            answer = self._answer[values >> 8] << 8 | values & 0xFF
            keys[self._icmp] = (np.where(answered, answer, values), missing)

    def _counts(self, given: _Record, state: dict[int, np.ndarray], turned: np.ndarray | None) -> None:
        scale = np.uint64(self.wish.scale)
        for name, one, two in (
            ("packetDeltaCount", table.PACKETS, table.REVERSE_PACKETS),
            ("octetDeltaCount", table.OCTETS, table.REVERSE_OCTETS),
        ):
            forward = state[one]
            if turned is not None:
                back = _swapped(turned, state[two], forward)
                forward = _swapped(turned, forward, state[two])
                given.put(known(reverse(name)), back * scale)
            given.put(known(name), forward * scale)

    def _control(self, given: _Record, keys: dict, flags: np.ndarray, turned: np.ndarray | None) -> None:
        """Control bits of TCP; missing for other protocols, or without any flags."""
        ways = [flags & np.uint64(CONTROL), flags >> np.uint64(REVERSE) & np.uint64(CONTROL)]
        if turned is not None:
            ways = [_swapped(turned, ways[0], ways[1]), _swapped(turned, ways[1], ways[0])]
        protocol = keys.get("protocolIdentifier")
        missing = (ways[0] | ways[1]) == 0 if protocol is None else protocol[0] != _TCP
        if not missing.all():
            missing = missing if missing.any() else None
            given.put(known("tcpControlBits"), ways[0].astype(np.uint16), missing)
            if turned is not None:
                given.put(known(reverse("tcpControlBits")), ways[1].astype(np.uint16), missing)


class _Record:
    """Wanted columns under construction."""

    def __init__(self, n: int, wanted: object) -> None:
        self.n, self._wanted = n, wanted
        self.keys: list[Key] = []
        self.columns: dict[str, Column] = {}
        self.missing: dict[str, np.ndarray] = {}

    def put(self, key: Key, column: Column, missing: np.ndarray | None = None, always: bool = False) -> None:
        if always or key.name in self._wanted:
            self.keys.append(key)
            self.columns[key.name] = np.ascontiguousarray(column) if isinstance(column, np.ndarray) and (
                0 not in column.strides) else column  # fmt: skip
            if missing is not None:
                self.missing[key.name] = missing


def _of(name: str, family: int) -> bool:
    """Whether packets of this family can have the key."""
    return {4: "IPv6", 6: "IPv4"}.get(family, "?") not in name


def _typed(name: str, family: int) -> Key:
    """The key with its type in rows: an address has a family, other keys their declared type."""
    key = known(name.partition("@")[0]).named(name)
    if key.type is types.ADDRESS:
        return key.typed(types.IPV6 if family == 6 else types.IPV4)
    return key.typed(packed_type(key.name, key))


def _table(pairs: dict[int, int]) -> np.ndarray:
    found = np.arange(256, dtype=np.uint16)
    found[list(pairs)] = list(pairs.values())
    return found


def _swapped(where: np.ndarray, one: Column, two: Column) -> Column:
    """`two` in these rows, else `one`."""
    if isinstance(one, Coded):
        return one if not where.any() else Coded(np.where(where, two.codes + len(one.values), one.codes),
                                                 (*one.values, *two.values))  # fmt: skip
    return np.where(where[:, None] if one.ndim == 2 else where, two, one)


def _mask_swapped(
    where: np.ndarray, one: np.ndarray | None, two: np.ndarray | None, default: bool
) -> np.ndarray | None:
    """The same for masks; None stands for one of `default` in every row."""
    if one is None and two is None:
        return None
    fill = np.full(len(where), default)
    return np.where(where, fill if two is None else two, fill if one is None else one)


def _or_zero(found: Found | None, n: int) -> np.ndarray:
    if found is None:
        return np.zeros(n, np.uint64)
    return found.filled(0).astype(np.uint64)


def _control_bits(find: Find, n: int) -> np.ndarray:
    return _or_zero(find("tcpControlBits"), n) & np.uint64(CONTROL)


def _octets(find: Find, n: int) -> np.ndarray:
    """The length of the IP packet; the length of the frame if that is 0 (network cards join packets) or unknown."""
    octets = _or_zero(find("ipTotalLength"), n)
    frame = find("raw.pktlen")
    if frame is not None and not octets.all():
        octets = np.where(octets == 0, _or_zero(frame, n), octets)
    return octets
