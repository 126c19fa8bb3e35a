"""Columns that are made of what an exporter has told: sampling factor, scaled counts, names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby

import numpy as np

from ulogd_tw.core import types
from ulogd_tw.core.columns import Coded, Column, Octets, joined, repeated
from ulogd_tw.core.keys import TOLD, Key, registry
from ulogd_tw.core.plugin import ALL, Wanted
from ulogd_tw.ipfix.context import Source
from ulogd_tw.ipfix.exporter_info import ExporterInfo
from ulogd_tw.ipfix.layout import Columns, Found, Made
from ulogd_tw.ipfix.options_records import SAMPLERS, info_of
from ulogd_tw.ipfix.template import Field

FACTOR, INGRESS, EGRESS = TOLD
APPLICATION = registry.element(0, 96)

_NAMES: tuple[tuple[Key, str, Callable[[ExporterInfo], dict]], ...] = (
    (INGRESS, "ingressInterface", lambda told: told.interfaces),
    (EGRESS, "egressInterface", lambda told: told.interfaces),
    (APPLICATION, "applicationId", lambda told: told.applications),
)
_PAIRS = (
    ("samplingPacketInterval", "samplingPacketSpace", lambda interval, space: (interval + space) / interval),
    ("samplingSize", "samplingPopulation", lambda size, population: population / size),
)
_SINGLE = ("samplingInterval", "samplerRandomInterval")


def made(fields: tuple[Field, ...], wanted: Wanted, scale: bool, name: bool) -> list[Made]:
    """What can be made for Data Records with these fields.

    Where everything is wanted, the factor is given only where counts are to `scale`, and names only if `name` says so.
    """
    names = {_name(field) for field in fields}
    found: list[Made] = []
    if scale or (wanted is not ALL and FACTOR.name in wanted):
        found.append(Factor(names, scale))
    for key, column, table in _NAMES:
        asked = name if wanted is ALL else key.name in wanted
        if asked and column in names and key.name not in names:
            found.append(Names(key, column, table, wanted is ALL))
    return found


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


def _name(field: Field) -> str:
    key = registry.element(field.pen, field.ident)
    if key.elements and key.elements[0] in _CLASSIC:
        return _CLASSIC[key.elements[0]]
    return key.name


_CLASSIC = {(0, 10): "ingressInterface", (0, 14): "egressInterface"}
"""NetFlow v5 calls them input and output."""


class Factor:
    """sampling_factor: how many packets stand behind each that was metered; and the counts times that."""

    def __init__(self, names: set[str], scale: bool) -> None:
        self._scale = scale
        self._pair = next((pair for pair in _PAIRS if pair[0] in names and pair[1] in names), None)
        self._single = next((name for name in _SINGLE if name in names), None)
        self._probability = "samplingProbability" in names
        self._sampler = next((name for name in SAMPLERS if name in names), None)

    def needed(self, wanted: Wanted) -> Wanted:
        inline = [*(self._pair or ())[:2], self._single, self._sampler, "samplingProbability"]
        return wanted if wanted is ALL else wanted | {name for name in inline if name}

    def add(self, found: Found, sources: Sequence[Source], counts: np.ndarray) -> Sequence[Key]:
        columns, missing = found
        factor = self._inline(columns)
        told = self._told(columns, sources, counts)
        if factor is None:
            factor = told
        else:
            factor = np.where(factor >= 1, factor, told)
        columns[FACTOR.name] = factor
        if self._scale:
            one = factor.strides == (0,) and factor[0] == 1
            self._multiply(columns, None if one else factor)
        return (FACTOR,)

    def _inline(self, columns: dict[str, Column]) -> np.ndarray | None:
        """What the records say themselves; below 1 where they do not."""
        with np.errstate(divide="ignore", invalid="ignore"):
            if self._pair is not None:
                *names, rate = self._pair
                pair = [columns[name] for name in names]
                if not all(isinstance(column, np.ndarray) for column in pair):  # of an impossible length
                    return None
                values = rate(*(column.astype(np.float64) for column in pair))
                return np.where(np.isfinite(values), values, 0.0)
            if self._probability and isinstance(columns["samplingProbability"], np.ndarray):
                values = 1 / columns["samplingProbability"].astype(np.float64)
                return np.where(np.isfinite(values), values, 0.0)
        if self._single is not None and isinstance(columns[self._single], np.ndarray):
            return columns[self._single].astype(np.float64)
        return None

    def _told(self, columns: dict[str, Column], sources: Sequence[Source], counts: np.ndarray) -> np.ndarray:
        """What the exporters' options say, or the header of NetFlow v5."""
        n = int(np.sum(counts))
        ids = columns.get(self._sampler) if self._sampler else None
        parts = []
        for told, start, end in _by_exporter(sources, counts):
            if told is None:
                parts.append((1.0, end - start))
            elif ids is None or not isinstance(ids, np.ndarray):
                parts.append((told.factor, end - start))
            else:
                different, which = np.unique(ids[start:end], return_inverse=True)
                factors = np.array([told.samplers.get(i, told.factor) for i in different.tolist()])
                parts.append((factors[which], end - start))
        if all(isinstance(value, float) and value == parts[0][0] for value, _ in parts):
            return repeated(parts[0][0], n, np.dtype("d"))
        return np.concatenate(
            [np.full(length, value) if isinstance(value, float) else value for value, length in parts]
        )

    def _multiply(self, columns: dict[str, Column], factor: np.ndarray | None) -> None:
        whole = factor is not None and bool((factor == np.rint(factor)).all())
        for name, column in columns.items():
            key = registry.key(name)
            if key is None or not _counts(key) or not isinstance(column, np.ndarray):
                continue
            wide = column.astype(np.uint64)
            if whole:
                wide *= factor.astype(np.uint64)
            elif factor is not None:
                wide = np.rint(column * factor).astype(np.uint64)
            columns[name] = wide


class Names:
    """The name of an interface or application by its number, as options records told it."""

    def __init__(self, key: Key, column: str, table: Callable[[ExporterInfo], dict], seldom: bool) -> None:
        self._key = key
        self._column = column
        self._table = table
        self._seldom = seldom

    def needed(self, wanted: Wanted) -> Wanted:
        return wanted if wanted is ALL else wanted | {self._column, *_V5.get(self._column, ())}

    def add(self, found: Found, sources: Sequence[Source], counts: np.ndarray) -> Sequence[Key]:
        columns, missing = found
        column = columns.get(self._column)
        if column is None:
            column = next((columns[name] for name in _V5.get(self._column, ()) if name in columns), None)
        if column is None:
            return ()
        parts, known = [], []
        for told, start, end in _by_exporter(sources, counts):
            names, there = self._of(self._table(told) if told is not None else {}, _cut(column, start, end))
            parts.append(names)
            known.append(there)
        there = np.concatenate(known)
        if self._seldom and not there.any():
            return ()
        columns[self._key.name] = joined(parts)
        if not there.all():
            missing[self._key.name] = ~there
        return (self._key,)

    def _of(self, table: dict, column: Column) -> tuple[Coded, np.ndarray]:
        n = len(column)
        if not table:
            return Coded(np.zeros(n, np.int32), (b"",)), np.zeros(n, bool)
        if isinstance(column, np.ndarray):
            different, which = np.unique(column, return_inverse=True)
            different = different.tolist()
        else:
            different, which = _different(column.plain())
        there = np.array([value in table for value in different], bool)
        return Coded(which.astype(np.int32), tuple(table.get(value, b"") for value in different)), there[which]


def _different(column: Octets) -> tuple[list[bytes], np.ndarray]:
    """The different values of a column of identifiers, and which of them each row has."""
    lengths = column.lengths
    size = int(lengths.max())
    if size > 8 or (lengths != size).any():  # applicationId has 4 octets nearly always; else 0.2 us a row
        values = column.to_list()
        places = {value: place for place, value in enumerate(dict.fromkeys(values))}
        return list(places), np.array([places[value] for value in values], np.int64)
    wide = np.zeros((len(column), 8), np.uint8)
    wide[:, :size] = column.data[column.offsets[0] : column.offsets[-1]].reshape(-1, size)
    _, first, which = np.unique(wide.view(np.uint64)[:, 0], return_index=True, return_inverse=True)
    return [wide[place, :size].tobytes() for place in first.tolist()], which


_V5 = {"ingressInterface": ("input",), "egressInterface": ("output",)}


def _cut(column: Column, start: int, end: int) -> Column:
    return column[start:end] if isinstance(column, np.ndarray) else column.take(slice(start, end))


def _by_exporter(sources: Sequence[Source], counts: np.ndarray) -> list[tuple[ExporterInfo | None, int, int]]:
    """Neighbouring rows of which the same is known: what, the first, one after the last."""
    found, at = [], 0
    pairs = zip((source[0] for source in sources), np.asarray(counts).tolist(), strict=True)
    for _, group in groupby(pairs, key=lambda pair: id(pair[0].domain)):
        same = list(group)
        end = at + sum(count for _, count in same)
        found.append((info_of(same[0][0]), at, end))
        at = end
    return found
