"""Rows to Data Records in the way that the option `fields` says: what the outputs IPFIX and IPFIXFILE share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ulogd_tw.core.batch import Batch, Schema
from ulogd_tw.core.bounded import Bounded
from ulogd_tw.core.columns import Column, numbers
from ulogd_tw.core.counters import Counters
from ulogd_tw.core.flow_rows import KEYS as ENDS
from ulogd_tw.core.flow_rows import ended, only_ends, options_rows
from ulogd_tw.core.keys import Key, known, nearest, registry
from ulogd_tw.core.plugin import ALL
from ulogd_tw.core.resolve import Find, Found, Provided, Sources
from ulogd_tw.exporting import netflow5
from ulogd_tw.exporting.biflow import biflows
from ulogd_tw.exporting.directions import KEYS, REVERSE_KEYS, Direction, directions
from ulogd_tw.exporting.reverse_half import halves
from ulogd_tw.exporting.rules import EXPORT_TO, MARKS
from ulogd_tw.ipfix import uniflow
from ulogd_tw.ipfix.encoder import Encoder, Records
from ulogd_tw.ipfix.fields import field_of
from ulogd_tw.ipfix.received import ReceivedBatch
from ulogd_tw.ipfix.record_encoder import RecordEncoder
from ulogd_tw.ipfix.template import Field, Template
from ulogd_tw.ipfix.wire_format import IPFIX, NetFlow5, NetFlow9, WireFormat

MEANING = (
    "Fields of the records. auto: a connection becomes one record for each direction, and other rows keep all their "
    "keys; uniflow: every row becomes one record with the fields of such a direction; biflow: one record a connection, "
    "with the reply in reverse elements (RFC 5103); all: every key as it is; or a list of keys, each with an optional "
    "length in octets, such as sourceAddress,octetDeltaCount:4"
)
"""Of the option `fields`."""
AUTO, EVERY, UNIFLOW, BIFLOW = "auto", "all", "uniflow", "biflow"
_WAYS = (AUTO, EVERY, UNIFLOW, BIFLOW)
_ADDRESSES = ("orig.ip.saddr", "orig.ip.daddr")
_REPLY = "reply.ip.saddr"
"""A schema with this key is of connections: both directions in one row."""
_TIMES = ("flowStartMilliseconds", "flowEndMilliseconds")
_RELATIVE = {
    "flowStartMilliseconds": frozenset(("flow.start.sec", "flow.start.usec", "flowStartDeltaMicroseconds",
                                        "flowStartSysUpTime", "first")),
    "flowEndMilliseconds": frozenset(("flow.end.sec", "flow.end.usec", "flowEndDeltaMicroseconds",
                                      "flowEndSysUpTime", "last")),
}  # fmt: skip
"""Forms of a time without element, or relative to the header of their Message."""
_UPTIMES = {name: registry.element(0, uniflow.UPTIMES[edge].ident)
            for name, edge in zip(_TIMES, ("start", "end"), strict=True)}  # fmt: skip
MOST_SCHEMAS = 1024
LEFT_OUT = "{instance}: {names} have no Information Element and are left out"
"""Log line of `FlowRecords.newly_left_out`."""


@dataclass(frozen=True)
class Fields:
    """The option `fields`: a way, or the `names` of keys, and the octets that some of them shall have."""

    way: str = ""
    names: tuple[str, ...] = ()
    lengths: dict[str, int] = field(default_factory=dict)


def parse(text: str) -> Fields:
    """The meaning of the option. ValueError with the reason for a wrong value."""
    words = text.replace(",", " ").split()
    if len(words) == 1 and words[0] in _WAYS:
        return Fields(words[0])
    if not words:
        raise ValueError(f"is empty; it is one of {', '.join(_WAYS)}, or names of keys")
    lengths = {}
    for word in words:
        name, colon, octets = word.partition(":")
        key = known(name)
        if key is None:
            near = nearest(name, (*registry.names(), *_WAYS))
            raise ValueError(f"there is no key {name}" + (f"; did you mean {near}?" if near else ""))
        if not key.elements:
            raise ValueError(f"{name} has no Information Element")
        if colon:
            lengths[name] = _length(name, key, octets)
    return Fields("", tuple(dict.fromkeys(word.partition(":")[0] for word in words)), lengths)


def _length(name: str, key: Key, octets: str) -> int:
    if not octets.isdecimal():
        raise ValueError(f"{name}:{octets}: {octets!r} is not a number of octets")
    if key.type.kind not in ("unsigned", "signed", "float"):
        raise ValueError(f"{name}:{octets}: only numbers can be shortened")
    pen, ident = key.elements[0]
    try:
        Encoder(Template(256, (Field(pen, ident, int(octets)),)))
    except ValueError as error:
        raise ValueError(f"{name}:{octets}: {error}") from None
    return int(octets)


class FlowRecords:
    """Makes the records of rows. `outgoing` has the templates.

    `find` gives a requested key of a batch, as `Plugin.find` does; what is left out counts in `counters`.
    """

    def __init__(self, counters: Counters, find: Find, fields: Fields, form: WireFormat = IPFIX) -> None:
        self.counters = counters
        self.fields = fields
        self.form = form
        self.outgoing = RecordEncoder(counters, fields.lengths, form.version)
        self._found: Bounded[Schema, Sources] = Bounded(MOST_SCHEMAS)
        self._said = 0
        self._find = find
        counters.figures["keys_left_out"] = lambda: len(self.outgoing.left_out)

    # keys

    def requests(self, above: frozenset[str] | None) -> Any:
        """The keys to request from a stack with the keys `above`; None: any key may come."""
        if self.fields.names:
            return dict.fromkeys(self.fields.names, True) | dict.fromkeys(ENDS, False)
        connections = above is not None and _REPLY in above
        if self.fields.way == UNIFLOW or connections and self.fields.way != EVERY or self.form.version == 5:
            more = netflow5.EXTRA.values() if self.form.version == 5 else ()
            return dict.fromkeys(_ADDRESSES, True) | dict.fromkeys((*KEYS, *REVERSE_KEYS, *more), False)
        return ALL

    def find(self, batch: Batch, name: str) -> Found | None:
        """As `Plugin.find`; where all keys were asked for, in whatever form the batch has them."""
        if self.fields.names or self.fields.way == UNIFLOW or self.form.version == 5:
            return self._find(batch, name)
        sources = self._found.get(batch.schema)
        if sources is None:
            sources = self._found[batch.schema] = Sources()
            provided = Provided(batch.schema.values())
            for key in (*_ADDRESSES, *KEYS, *REVERSE_KEYS, EXPORT_TO, *MARKS):
                sources.add(key, provided.recipes(key))
        return sources.find(batch, name)

    @property
    def copies(self) -> bool:
        """Whether received records can be copied as they came."""
        return self.form is IPFIX and self.fields.way in (AUTO, EVERY, BIFLOW)

    # records

    def records(self, batch: Batch) -> Iterator[Records]:
        """The records of all rows, by template."""
        way = self.fields.way
        connections = _REPLY in batch.schema
        if isinstance(self.form, NetFlow5):
            batch = only_ends(self.counters, self.find, batch)
            yield from netflow5.records(self.find, batch, self.form, self.counters) if batch.n else ()
        elif self.fields.names:
            yield from self._chosen(only_ends(self.counters, self.find, batch))
        elif way == UNIFLOW or way == AUTO and connections:
            yield from self._uniflow(only_ends(self.counters, self.find, batch))
        elif way == BIFLOW and connections:
            batch = only_ends(self.counters, self.find, batch)
            if batch.n:
                yield from self.outgoing.records(biflows(self.find, batch))
        elif isinstance(self.form, NetFlow9):
            batch = self._with_times(only_ends(self.counters, self.find, batch))
            for half in halves(batch):
                if half is not None:
                    yield from self._every(_with_uptimes(self.form, half))
        else:
            yield from self._every(self._with_times(ended(self.counters, self.find, batch)))

    def newly_left_out(self) -> list[str]:
        """All keys that no Information Element can hold, where there are more than at the last call; else none."""
        if len(self.outgoing.left_out) <= self._said:
            return []
        self._said = len(self.outgoing.left_out)
        return sorted(self.outgoing.left_out)

    def _uniflow(self, batch: Batch) -> Iterator[Records]:
        """`ulogd_tw.ipfix.uniflow` has the fields."""
        for direction in directions(self.find, batch) if batch.n else ():
            self.counters.figures["replies_without_packets"] += direction.left_out
            uptimes = isinstance(self.form, NetFlow9) and _made_uptimes(self.form, direction)
            for variant, columns, n in direction.parts():
                if not columns:
                    self.counters.dropped["no_fields"] += n
                    continue
                template = uniflow.template(variant, uptimes)
                fixed = variant < uniflow.VARIANTS and (uptimes or self.form.version != 9)
                encoder = self.outgoing.fixed(template) if fixed else self.outgoing.encoder(template.fields)
                yield encoder.encode(columns, n)

    def _chosen(self, batch: Batch) -> Iterator[Records]:
        keys: dict[Key, Column] = {}
        missing = {}
        for name in self.fields.names:
            found = self.find(batch, name)
            if found is not None and field_of(found.key) is not None:
                keys[found.key.named(name)] = found.values
                if found.missing is not None:
                    missing[name] = found.missing
        if not keys:
            self.counters.dropped["no_fields"] += batch.n
            return
        columns = {key.name: column for key, column in keys.items()}
        yield from self.outgoing.records(Batch(Schema(list(keys)), columns, missing, n=batch.n, now=batch.now))

    def _every(self, batch: Batch) -> Iterator[Records]:
        told = "record_kind" in batch.schema and not isinstance(batch, ReceivedBatch)
        options = options_rows(batch.columns["record_kind"]) if told else None
        if options is None:
            yield from self.outgoing.records(batch)
        elif options.all():
            yield from self.outgoing.records(batch, options=True)
        else:
            yield from self.outgoing.records(batch.take(~options))
            yield from self.outgoing.records(batch.take(options), options=True)

    def _with_times(self, batch: Batch) -> Batch:
        """The batch with absolute times in place of relative ones."""
        columns: dict[Any, Column] = {}
        missing: dict[str, np.ndarray] = {}
        gone: set[str] = set()
        for name in _TIMES:
            others = _RELATIVE[name].intersection(batch.schema)
            found = self.find(batch, name) if others else None
            if found is not None:
                gone |= others
                columns[known(name)] = found.values
                if found.missing is not None:
                    missing[name] = found.missing
        if not gone:
            return batch
        kept = batch.select([name for name in batch.schema if name not in gone])
        return kept.with_columns(columns, missing)


def _made_uptimes(form: NetFlow9, direction: Direction) -> bool:
    """Whether all times fit NetFlow v9's uptime; then they are uptimes. Other times stay absolute."""
    times = {name: direction.values[name] for name in uniflow.UPTIMES if name in direction.values}
    if not all(_told(form, ms, missing) for ms, missing in times.values()):
        return False
    direction.values |= {name: (form.uptime(ms), missing) for name, (ms, missing) in times.items()}
    return True


def _with_uptimes(form: NetFlow9, batch: Batch) -> Batch:
    """The batch with NetFlow v9's times, where they fit."""
    columns: dict[Key, Column] = {}
    missing = {}
    times = {name: numbers(batch.columns[name]) for name in _TIMES if name in batch.schema}
    if not times or not all(_told(form, ms, batch.missing.get(name)) for name, ms in times.items()):
        return batch
    for name, ms in times.items():
        uptime = _UPTIMES[name]
        columns[uptime] = form.uptime(ms)
        if name in batch.missing:
            missing[uptime.name] = batch.missing[name]
    return batch.select([name for name in batch.schema if name not in times]).with_columns(columns, missing)


def _told(form: NetFlow9, ms: np.ndarray, missing: np.ndarray | None) -> bool:
    told = form.tells(ms)
    return bool((told if missing is None else told | missing).all())
