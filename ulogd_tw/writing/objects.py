"""Rows as JSON objects: the names of their members, and the values as fields of lines."""

from __future__ import annotations

import json
from collections.abc import Container, Iterator
from dataclasses import dataclass, replace

import numpy as np

from ulogd_tw.core import text, types
from ulogd_tw.core.batch import Batch, Schema
from ulogd_tw.core.bounded import Bounded
from ulogd_tw.core.columns import Coded, numbers
from ulogd_tw.core.keys import Key, known, registry
from ulogd_tw.core.lines import ColumnField, Field
from ulogd_tw.core.text import TextFormat

MOST_SCHEMAS = 1024
"""Maximum number of schemas (templates of exporters) with a stored plan."""


def printed(schema: Schema, raw: bool = False) -> list[Key]:
    """The keys of a schema to print. ulogd2's raw keys (``raw.pkt``) are left out, as in ulogd2, unless `raw`.

    Copies made by a stack for ``key@instance`` are not keys of their own.
    """
    left_out = () if raw else {k.name for k in registry.ulogd.values() if k.type.kind == "octets"}
    return [key for key in schema.values() if key.name not in left_out and "@" not in key.name]


RENAMED = {
    "ip.saddr.str": "src_ip", "ip.daddr.str": "dest_ip", "orig.ip.saddr.str": "src_ip", "orig.ip.daddr.str": "dest_ip",
    "tcp.sport": "src_port", "tcp.dport": "dest_port", "udp.sport": "src_port", "udp.dport": "dest_port",
    "sctp.sport": "src_port", "sctp.dport": "dest_port",
}  # fmt: skip
"""ulogd2's names for some keys."""


def name_of(key: Key, schema: Container[str] = ()) -> str:
    """The name of a key in an object of this schema.

    ulogd2 printed addresses only through IP2STR, as ``*.str``. Here addresses need no IP2STR, and have the same name.
    A name that goes on where another one ends has a low line there, ``src.net_site`` beside ``src.net``: Elasticsearch
    takes dots for objects within objects, and refuses what is both a value and an object.
    """
    name = key.name
    if name in registry.ulogd and registry.ulogd[name].type is types.ADDRESS and f"{name}.str" in registry.ulogd:
        name += ".str"
    if name in RENAMED or name in registry.ulogd or "." not in name:
        return RENAMED.get(name, name)
    written, *words = name.split(".")
    before = written
    for word in words:
        written += ("_" if _is_value(before, schema) else ".") + word
        before += "." + word
    return written


def _is_value(name: str, schema: Container[str]) -> bool:
    """Whether there is a key of this name that objects may have: it need not be in this one."""
    return name not in registry.ulogd and (name in schema or known(name) is not None)


@dataclass(frozen=True)
class Member:
    """One member of a schema's objects: ``"name":``, the key, the form of its values."""

    piece: bytes
    key: Key
    form: TextFormat
    name: str


@dataclass(frozen=True)
class Plan:
    """The members of the objects of one schema."""

    head: bool
    """Whether objects begin with a timestamp and the device, as with keys of ulogd2."""
    members: tuple[Member, ...]


def _piece(name: str) -> bytes:
    return json.dumps(name, ensure_ascii=False).encode() + b":"


def _plan(schema: Schema) -> Plan:
    members = []
    for key in printed(schema):
        form = text.JSON.with_numbers_for_truth() if key.name in registry.ulogd else text.JSON
        name = name_of(key, schema)
        members.append(Member(_piece(name), key, form, name))
    return Plan(any(name in registry.ulogd for name in schema), tuple(members))


class Objects:
    """The members of objects, for batches of any schemas."""

    def __init__(self, boolean_label: bool = False) -> None:
        """With `boolean_label`, raw.label is the member action."""
        self._boolean_label = boolean_label
        self._plans: Bounded[Schema, Plan] = Bounded(MOST_SCHEMAS)

    def plan(self, schema: Schema) -> Plan:
        """The members of objects of this schema."""
        found = self._plans.get(schema)
        if found is None:
            found = self._plans[schema] = _plan(schema)
        return found

    def members(self, batch: Batch) -> Iterator[Field]:
        """The columns; of several with the same name, each row has the first with a value."""
        taken: dict[str, np.ndarray | None] = {}
        for member in self.plan(batch.schema).members:
            name = member.key.name
            missing = batch.missing.get(name)
            if member.name in taken:
                gaps = taken[member.name]
                if gaps is None:
                    continue
                own = ~gaps if missing is None else missing | ~gaps
                taken[member.name] = None if missing is None else missing & gaps
                missing = own
            else:
                taken[member.name] = missing
            if name == "raw.label" and self._boolean_label:
                yield self._action(batch, member, missing)
            else:
                yield ColumnField(member.piece, batch.columns[name], missing, member.key, member.form)

    @staticmethod
    def _action(batch: Batch, member: Member, missing: np.ndarray | None) -> Field:
        codes = (numbers(batch.columns[member.key.name]) != 0).astype(np.intp)
        label = replace(member.key, type=types.STRING)
        return ColumnField(b'"action":', Coded(codes, (b"blocked", b"allowed")), missing, label, member.form)
