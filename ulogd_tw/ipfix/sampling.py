"""How many packets stand behind each that was metered: sampling_factor, and counts times that."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ulogd_tw.core import types
from ulogd_tw.core.columns import Column, numbers
from ulogd_tw.core.keys import TOLD, Key, registry
from ulogd_tw.core.plugin import ALL, Wanted
from ulogd_tw.ipfix import scopes
from ulogd_tw.ipfix.context import Source
from ulogd_tw.ipfix.exporter_lookup import Rates, rates_of
from ulogd_tw.ipfix.layout import Columns, Found
from ulogd_tw.ipfix.options_records import Options
from ulogd_tw.ipfix.runs import by_template
from ulogd_tw.ipfix.session import KnownTemplate

FACTOR = TOLD[0]


def _and_passed(interval: np.ndarray, space: np.ndarray) -> np.ndarray:
    return (interval + space) / interval


_RATES: tuple[tuple[tuple[str, ...], Callable[..., np.ndarray]], ...] = (
    *((pair, _and_passed) for pair in scopes.PAIRS),
    (("samplingSize", "samplingPopulation"), lambda size, population: population / size),
    (("samplingProbability",), lambda probability: 1 / probability),
    *(((name,), lambda interval: interval) for name in scopes.SINGLE),
)
"""Fields of a record with its own rate, and the rate by them, in the order of `scopes.packets_behind`."""
_ALWAYS = {"sampler", "sequence"}
"""Identities of records that are read although no rate was told by them: records with them are not nameless."""
_LARGEST, _SAFE = np.uint64(2**64 - 1), 2.0**63
_UNKNOWN, _AMBIGUOUS = 0.0, -1.0
"""In the place of a factor."""


def scaled(columns: Columns) -> None:
    """Make room in the types of the keys for counts that are multiplied."""
    for place, key in enumerate(columns.keys):
        if _counts(key):
            columns.keys[place] = key.typed(types.UNSIGNED64)


def _counts(key: Key) -> bool:
    """Whether it counts octets or packets of the flow."""
    if key.unit not in ("octets", "packets") or not key.type.integer:
        return False
    return key.semantics in ("deltaCounter", "totalCounter") or key.name in ("dPkts", "dOctets")


class Factor:
    """Makes sampling_factor for records with fields of these `names`, and multiplies their counts with `scale`.

    A rate in the record itself takes precedence over the exporter's options data.
    """

    def __init__(self, names: set[str], scale: bool, options: Options) -> None:
        self._scale = scale
        self._options = options
        self._own = [(fields, rate) for fields, rate in _RATES if names.issuperset(fields)]
        asked = options.identities | _ALWAYS | ({"direction"} if "interface" in options.identities else set())
        groups = {name: [next((c for c in group if c in names), None) for group in groups]
                  for name, groups in scopes.COLUMNS.items() if name in asked}  # fmt: skip
        self._identities = {name: [c for c in found if c] for name, found in groups.items() if any(found)}
        """The columns with an identity, one for each group."""

    def needed(self, wanted: Wanted) -> Wanted:
        own = (name for fields, _ in self._own for name in fields)
        told = (name for group in self._identities.values() for name in group)
        return wanted if wanted is ALL else wanted | {*own, *told}

    def add(self, found: Found, sources: Sequence[Source], counts: np.ndarray) -> Sequence[Key]:
        columns, missing = found
        inline = self._inline(columns)
        factor = self._told(found, sources, counts, inline)
        if inline is not None:
            factor = np.where(inline >= 1, inline, factor)
        columns[FACTOR.name] = factor
        if self._scale:
            one = factor.strides == (0,) and factor[0] == 1
            self._options.stopped(_multiply(columns, None if one else factor))
        return (FACTOR,)

    def _inline(self, columns: Mapping[str, Column]) -> np.ndarray | None:
        """The factors in the records themselves; below 1 for none."""
        found: np.ndarray | None = None
        for fields, rate in self._own:
            own = [columns[name] for name in fields]
            if not all(isinstance(column, np.ndarray) for column in own):  # of an impossible length
                continue
            with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                values = rate(*(numbers(column).astype(np.float64) for column in own))
            values = np.where(np.isfinite(values), values, 0.0)
            found = values if found is None else np.where(found >= 1, found, values)
        return found

    def _told(
        self, found: Found, sources: Sequence[Source], counts: np.ndarray, inline: np.ndarray | None
    ) -> np.ndarray:
        """The factors from options data, or from the header of NetFlow v5; 1 where they are not clear."""
        rates = {known: rates_of(known) for known in {source[0] for source in sources}}
        same = {self._of_all(one) for one in rates.values()}
        if len(same) == 1 and None not in same:
            return np.broadcast_to(same.pop() or 1.0, int(np.sum(counts)))
        parts = []
        for known, start, end in by_template(sources, counts):
            factor = self._looked_up(rates[known], found, start, end)
            if rates[known].told:
                self._count(known, factor, inline[start:end] < 1 if inline is not None else None, end - start)
            parts.append(np.broadcast_to(np.maximum(factor, 1.0), end - start))
        return np.concatenate(parts)

    def _of_all(self, rates: Rates) -> float | None:
        """The factor of all records of a template, 0 for none; None if it takes a look-up or counting."""
        for step in rates.steps:
            if not step.without.isdisjoint(self._identities):
                continue
            if not step.identities:
                return step.rates[()]
            if self._choices(step.identities):
                return None
        return None if rates.told else 0.0

    def _count(self, known: KnownTemplate, factor: float | np.ndarray, asked: np.ndarray | None, n: int) -> None:
        """Count the rows without a rate found, among those that need one."""
        unknown, unclear = (_rows(factor, value, asked, n) for value in (_UNKNOWN, _AMBIGUOUS))
        if unknown or unclear:
            self._options.unscaled(known, unknown, unclear)

    def _looked_up(self, rates: Rates, found: Found, start: int, end: int) -> float | np.ndarray:
        """The factor of some rows, one for all or an array; _UNKNOWN or _AMBIGUOUS where there is none."""
        factor: np.ndarray | None = None
        for step in rates.steps:
            if not step.without.isdisjoint(self._identities):
                continue
            for names in self._choices(step.identities):
                if not names:
                    value = _AMBIGUOUS if step.rates[()] is None else step.rates[()]
                    return value if factor is None else np.where(factor == _UNKNOWN, value, factor)
                values = _values(step.rates, [(found[0][name], found[1].get(name)) for name in names], start, end)
                self._of_side(values, names, found, start, end)
                factor = values if factor is None else np.where(factor == _UNKNOWN, values, factor)
        return _UNKNOWN if factor is None else factor

    def _of_side(self, values: np.ndarray, names: Sequence[str], found: Found, start: int, end: int) -> None:
        """A flow seen on its way in has no rate of the interface by which it leaves, and the other way round."""
        columns, directions = self._identities.get("interface", []), self._identities.get("direction", [])
        if len(columns) < 2 or not directions or not isinstance(found[0][directions[0]], np.ndarray):
            return
        direction, missing = numbers(found[0][directions[0]])[start:end], found[1].get(directions[0])
        for name in names:
            if name in columns:
                other = direction == 1 - scopes.SIDES[name]
                values[other if missing is None else other & ~missing[start:end]] = _UNKNOWN

    def _choices(self, identities: Sequence[str]) -> list[tuple[str, ...]]:
        """The columns with these identities, one choice after another; none where the rows have them not."""
        if any(name not in self._identities for name in identities):
            return []
        groups = [self._identities[name] for name in identities]
        return [tuple(group[min(place, len(group) - 1)] for group in groups)
                for place in range(max(map(len, groups), default=1))]  # fmt: skip


def _values(
    rates: Mapping[tuple[int, ...], float | None], columns: Sequence[tuple[Column, np.ndarray | None]], start: int,
    end: int,
) -> np.ndarray:  # fmt: skip
    """The rate of each row by its values; rows in which one is missing have none."""
    if not all(isinstance(column, np.ndarray) for column, _ in columns):  # of an impossible length
        return np.full(end - start, _UNKNOWN)
    if len(columns) == 1:
        different, which = np.unique(numbers(columns[0][0])[start:end], return_inverse=True)
        keys = [(value,) for value in different.tolist()]
    else:
        stacked = np.stack([numbers(column)[start:end].astype(np.uint64) for column, _ in columns], axis=1)
        different, which = np.unique(stacked, axis=0, return_inverse=True)
        keys = list(map(tuple, different.tolist()))
    found = (rates.get(key, _UNKNOWN) for key in keys)
    values = np.array([_AMBIGUOUS if rate is None else rate for rate in found])[which.reshape(-1)]
    for _, missing in columns:
        if missing is not None:
            values[missing[start:end]] = _UNKNOWN
    return values


def _rows(factor: float | np.ndarray, value: float, asked: np.ndarray | None, n: int) -> int:
    """How many of the rows that have to ask got this value."""
    if isinstance(factor, np.ndarray):
        mask = factor == value
        return int(np.count_nonzero(mask if asked is None else mask & asked))
    if factor != value:
        return 0
    return n if asked is None else int(np.count_nonzero(asked))


def _multiply(columns: dict[str, Column], factor: np.ndarray | None) -> int:
    """Multiply all counts; how many stopped at their limit."""
    stopped = 0
    whole = factor is not None and bool((factor == np.rint(factor)).all())
    for name, column in columns.items():
        key = registry.key(name)
        if key is None or not _counts(key) or not isinstance(column, np.ndarray):
            continue
        columns[name] = wide = column.astype(np.uint64)
        if factor is not None:
            columns[name], beyond = _times(wide, factor, whole)
            stopped += beyond
    return stopped


def _times(counts: np.ndarray, factor: np.ndarray, whole: bool) -> tuple[np.ndarray, int]:
    """Counts times a factor, `whole` or not; how many are beyond 64 bits: they are the largest number."""
    factors = np.minimum(factor, _SAFE).astype(np.uint64) if whole else factor
    if int(counts.max(initial=0)) * float(factor.max(initial=0.0)) < _SAFE:
        return counts * factors if whole else np.rint(counts * factor).astype(np.uint64), 0
    beyond = counts > _LARGEST // factors if whole else np.rint(counts * factor) >= float(_LARGEST)
    with np.errstate(invalid="ignore"):
        times = counts * factors if whole else np.rint(counts * factor).astype(np.uint64)
    return np.where(beyond, _LARGEST, times), int(np.count_nonzero(beyond))
