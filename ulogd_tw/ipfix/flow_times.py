"""Absolute times of flows: flowStartMilliseconds and flowEndMilliseconds of records that have them otherwise.

They are made of uptimes of the exporter (by the header of NetFlow, by systemInitTimeMilliseconds of the record or of an
options record), of NTP times, of times before the export, and of a duration beside the other end of the flow.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ulogd_tw.core import types
from ulogd_tw.core.columns import numbers
from ulogd_tw.core.conversions import LAST_MS, before_export, ntp_to_integer, ntp_to_ms, seconds_to_ms
from ulogd_tw.core.keys import NETFLOW5, NETFLOW9, Key, registry
from ulogd_tw.core.plugin import ALL, Wanted
from ulogd_tw.ipfix.context import Source
from ulogd_tw.ipfix.exporter_lookup import boot_of, boots_differ
from ulogd_tw.ipfix.layout import Found
from ulogd_tw.ipfix.options_records import Options
from ulogd_tw.ipfix.runs import by_template
from ulogd_tw.ipfix.session import Clock
from ulogd_tw.ipfix.template import Field
from ulogd_tw.ipfix.values import held_type

AHEAD = 3_600_000
"""A flow may be this much (ms) later than its export; anything later is from before the uptime's wrap."""
_WRAP = 1 << 32

Times = tuple[np.ndarray, np.ndarray | None]
"""Milliseconds since 1970 (int64), and the mask of the rows that have none."""


@dataclass(frozen=True, slots=True)
class _Edge:
    """Start or end of a flow: names of the columns that have it, and the sign of the duration from the other end."""

    key: Key
    uptimes: tuple[tuple[int, int], ...]
    ntp: tuple[int, ...]
    delta: int
    seconds: int
    sign: int


_START = _Edge(registry.element(0, 152), ((NETFLOW9, 22), (NETFLOW5, 7), (0, 22)), (156, 154), 158, 150, -1)
_END = _Edge(registry.element(0, 153), ((NETFLOW9, 21), (NETFLOW5, 8), (0, 21)), (157, 155), 159, 151, 1)
_DURATIONS = ((161, 1), (162, 1000))
"""flowDurationMilliseconds, flowDurationMicroseconds: their units in a millisecond."""

_Clocks = tuple[np.ndarray, np.ndarray, np.ndarray | None]
Make = Callable[[Found, Sequence[Source], np.ndarray], Times | None]


class FlowTimes:
    """The times that can be made for records with these fields."""

    def __init__(self, fields: tuple[Field, ...], wanted: Wanted, options: Options) -> None:
        self._options = options
        self._names: dict[tuple[int, int], str] = {}
        for field in reversed(fields):
            key = registry.element(field.pen, field.ident)
            if held_type(key.type, field.length).kind == key.type.kind:
                self._names[field.pen, field.ident] = key.name
            else:  # the first of several bears the name, and cannot be read
                self._names.pop((field.pen, field.ident), None)
        present = {registry.element(field.pen, field.ident).name for field in fields}
        self._netflow = any(field.pen >= NETFLOW9 for field in fields)
        self._last = next((self._names[place] for place in _END.uptimes[:2] if place in self._names), None)
        """The uptime at the end of flows of NetFlow."""
        self._read: set[str] = set()
        self._clock: _Clocks | None = None
        """Of the rows that are being made: both edges need it."""
        self._makes: list[tuple[Key, Make]] = []
        for edge, other in ((_START, _END), (_END, _START)):
            if edge.key.name in wanted and edge.key.name not in present:
                make = self._absolute(edge) or self._by_duration(edge, other)
                if make is not None:
                    self._makes.append((edge.key, make))

    def __bool__(self) -> bool:
        return bool(self._makes)

    def needed(self, wanted: Wanted) -> Wanted:
        """The fields needed from the records."""
        return wanted if wanted is ALL else wanted | self._read

    def add(self, found: Found, sources: Sequence[Source], counts: np.ndarray) -> Sequence[Key]:
        """Add the columns. A time before 1970 or beyond `LAST_MS` is missing; a column without any time is left out."""
        self._clock = None
        made = [(key, make(found, sources, counts)) for key, make in self._makes]
        keys = []
        for key, times in made:
            if times is None:
                continue
            values, missing = times
            if len(values) and (values.min() < 0 or values.max() > LAST_MS):
                values, missing = self._possible(values, missing)
            found[0][key.name] = values.astype(types.MILLISECONDS.dtype)
            if missing is not None and missing.any():
                found[1][key.name] = missing
            keys.append(key)
        return keys

    def _possible(self, values: np.ndarray, missing: np.ndarray | None) -> Times:
        """Times without those that cannot be, which are counted: of NetFlow's clocks also those before 1970."""
        wrong = (values < 0) | (values > LAST_MS)
        odd = wrong if self._netflow else values > LAST_MS
        self._options.odd_times(int(np.count_nonzero(odd if missing is None else odd & ~missing)))
        return np.where(wrong, 0, values), _either(missing, wrong)

    def _name(self, ident: int) -> str | None:
        """The name of a field of IANA's number, under NetFlow v9 or IPFIX."""
        return self._names.get((NETFLOW9, ident)) or self._names.get((0, ident))

    def _column(self, name: str, to_ms: Callable[..., np.ndarray]) -> Make:
        self._read.add(name)

        def make(found: Found, sources: Sequence[Source], counts: np.ndarray) -> Times:
            return to_ms(numbers(found[0][name])).astype(np.int64), found[1].get(name)

        return make

    # one edge by itself

    def _absolute(self, edge: _Edge) -> Make | None:
        """Absolute times from other forms, or from forms that need another field."""
        uptime = next((self._names[place] for place in edge.uptimes if place in self._names), None)
        if uptime is not None:
            return self._uptime(uptime)
        if name := next(filter(None, map(self._name, edge.ntp)), None):
            return self._ntp(name)
        if name := self._name(edge.delta):
            return self._delta(name)
        return None

    def _ntp(self, name: str, to_time: Callable[..., np.ndarray] = ntp_to_ms) -> Make:
        """NTP times, of which 0 stands for none."""
        self._read.add(name)

        def make(found: Found, sources: Sequence[Source], counts: np.ndarray) -> Times:
            times = numbers(found[0][name])
            return to_time(times).astype(np.int64), _either(found[1].get(name), times == 0)

        return make

    def _delta(self, name: str, to_time: Callable[..., np.ndarray] = before_export) -> Make:
        self._read.add(name)

        def make(found: Found, sources: Sequence[Source], counts: np.ndarray) -> Times:
            exported = np.repeat([source[1] for source in sources], counts)
            return to_time(numbers(found[0][name]), exported).astype(np.int64), found[1].get(name)

        return make

    def _uptime(self, name: str) -> Make:
        inline = self._name(160)
        self._read |= {name} | ({inline} if inline else set()) | ({self._last} if self._last else set())

        def make(found: Found, sources: Sequence[Source], counts: np.ndarray) -> Times | None:
            if self._clock is None:
                self._clock = self._clocks(found, numbers(found[0][inline]) if inline else None, sources, counts)
            exported, uptimes, unknown = self._clock
            if unknown is not None and unknown.all():
                return None
            ago = uptimes - (numbers(found[0][name]) & np.uint32(_WRAP - 1)).astype(np.int64)
            ago &= _WRAP - 1  # the uptime starts again every 49.7 days
            ago[ago > _WRAP - AHEAD] -= _WRAP
            return exported - ago, _either(found[1].get(name), unknown)

        return make

    def _clocks(self, found: Found, boot: np.ndarray | None, sources: Sequence[Source], counts: np.ndarray) -> _Clocks:
        """The export time of each record, the uptime then, and a mask of unknown ones."""
        if self._netflow:
            exported, uptimes, packets = _headers([clock for *_, clock in sources if clock is not None], counts)
            uptimes = self._with_uptimes(found, uptimes, packets)
            if len(packets) == 1:  # one for all rows
                return exported, uptimes, None
            return np.repeat(exported, packets), np.repeat(uptimes, packets), None
        exported = np.repeat(np.array([source[1] for source in sources], np.int64) * 1000, counts)
        boots = self._boots(sources, counts) if boot is None else boot.astype(np.int64)
        return exported, exported - boots, boots <= 0

    def _with_uptimes(self, found: Found, uptimes: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """Some exporters leave the uptime of the header 0: the latest of their flows ended when the packet was sent."""
        without = uptimes == 0
        if self._last is None or not without.any():
            return uptimes
        some = counts > 0
        latest = np.zeros(len(counts), np.int64)
        firsts = (np.cumsum(counts) - counts)[some]
        latest[some] = np.maximum.reduceat(numbers(found[0][self._last]).astype(np.int64), firsts)
        return np.where(without, latest, uptimes)

    def _boots(self, sources: Sequence[Source], counts: np.ndarray) -> np.ndarray:
        """When the exporter of each row started, as its options records say; 0 where that is not known."""
        found = []
        for known, start, end in by_template(sources, counts):
            boot = boot_of(known)
            if boot is None and boots_differ(known):
                self._options.undated(known, end - start)
            found.append(np.broadcast_to(np.int64(boot or 0), end - start))
        return np.concatenate(found)

    # one edge by the other

    def _by_duration(self, edge: _Edge, other: _Edge) -> Make | None:
        duration = next(((name, unit) for ident, unit in _DURATIONS if (name := self._name(ident))), None)
        if duration is None or any(map(self._name, (edge.seconds, *edge.ntp))):
            return None
        length, unit = duration
        finer = self._microseconds(other) if unit > 1 else None
        base, factor = finer or self._read_time(other) or self._absolute(other), unit if finer is None else 1
        if base is None:
            return None
        self._read.add(length)

        def make(found: Found, sources: Sequence[Source], counts: np.ndarray) -> Times | None:
            times = base(found, sources, counts)
            if times is None:
                return None
            lasted = edge.sign * numbers(found[0][length]).astype(np.int64)
            return (times[0] * factor + lasted) // unit, _either(times[1], found[1].get(length))

        return make

    def _microseconds(self, edge: _Edge) -> Make | None:
        """The edge in microseconds since 1970, where the record has it finer than milliseconds."""
        if name := next(filter(None, map(self._name, edge.ntp)), None):
            return self._ntp(name, lambda times: ntp_to_integer(times, 10**6))
        if name := self._name(edge.delta):
            return self._delta(name, lambda deltas, exported: np.int64(10**6) * exported - deltas.astype(np.int64))
        return None

    def _read_time(self, edge: _Edge) -> Make | None:
        """The edge where the record has it as milliseconds or seconds."""
        if name := self._name(edge.key.elements[0][1]):
            return self._column(name, lambda column: column)
        if name := self._name(edge.seconds):
            return self._column(name, seconds_to_ms)
        return None


def _either(first: np.ndarray | None, second: np.ndarray | None) -> np.ndarray | None:
    if first is None or second is None:
        return second if first is None else first
    return first | second


def _headers(clocks: Sequence[Clock], counts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """When each packet was exported, the uptime then, and the records of the packet."""
    if not any(isinstance(clock[0], np.ndarray) for clock in clocks):
        exported, uptimes = np.array([clock[:2] for clock in clocks], np.int64).T
        return exported, uptimes, np.asarray(counts, np.int64)
    parts: tuple[list[np.ndarray], ...] = ([], [], [])
    for clock, count in zip(clocks, np.asarray(counts).tolist(), strict=True):
        whole = clock if len(clock) == 3 else (*clock, count)
        for part, value in zip(parts, whole, strict=True):
            part.append(np.atleast_1d(np.asarray(value, np.int64)))
    exported, uptimes, packets = map(np.concatenate, parts)
    return exported, uptimes, packets
