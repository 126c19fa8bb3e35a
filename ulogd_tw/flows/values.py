"""The columns of an answer, and their values as JSON has them: addresses and MACs as text, octets in hexadecimal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address
from typing import Any

from ulogd_tw.core.keys import Key
from ulogd_tw.core.readable import type_of
from ulogd_tw.core.text import ipv6_text
from ulogd_tw.flows.errors import QuestionError
from ulogd_tw.flows.questions import SUM_WORDS, SUMS, key_name
from ulogd_tw.flows.stores import Store

TIME, COUNT, PLAIN = "time", "count", "plain"
"""What a column is for people: a time in milliseconds, an amount, anything else."""
REST = "rest"
"""The column that is true for the group of all others."""
SHORT = "short"
"""Stands for the columns that people look at."""
_SHORT = (
    "protocolIdentifier", "sourceAddress", "sourceTransportPort", "destinationAddress", "destinationTransportPort",
    "postNATSourceAddress", "postNAPTSourceTransportPort", "tcpControlBits", "packets", "octets",
)  # fmt: skip
_TYPES = {"ipv4": "address", "ipv6": "address", "address": "address", "mac": "mac", "octets": "octets"}
_ADDRESSES = 1 << 16


@dataclass(frozen=True)
class Column:
    """A column: its name, its kind for people, its type (a kind of number, address, mac, octets, text)."""

    name: str
    kind: str = PLAIN
    type: str = "text"

    def described(self) -> list[str]:
        """The column in an event."""
        return [self.name, self.kind, self.type]


class _Shape:
    """The columns of answers."""

    @staticmethod
    def grouped(
        keys: Iterable[tuple[str, Key | None]], sums: Iterable[str], stepped: bool, rest: bool = False
    ) -> list[Column]:
        """Those of groups: the begin of the step, keys, sums, whether it is the rest."""
        step = [Column("time", TIME, "unsigned")] if stepped else []
        named = [Column(name, PLAIN, kind_of(key)) for name, key in keys]
        last = [Column(REST, PLAIN, "boolean")] if rest else []
        return [*step, *named, *(Column(name, COUNT, "unsigned") for name in sums), *last]

    @staticmethod
    def listed(store: Store, names: Sequence[str]) -> list[Column]:
        """Those of flows: start, end, then all columns of the store, or the named ones. Raises `QuestionError`."""
        times = [Column("start", TIME, "unsigned"), Column("end", TIME, "unsigned")]
        if not names:
            return [*times, *(Column(name, PLAIN, kind_of(key)) for name, key in store.keys.items())]
        names = [name for name in names if name not in ("start", "end")]
        if tuple(names) == (SHORT,):
            names = [name for name in _SHORT if name in SUMS or store.find(name)]
        return [*times, *(_column(store, name) for name in names)]


shape = _Shape()


def _column(store: Store, name: str) -> Column:
    if name in store.keys:
        return Column(name, PLAIN, kind_of(store.keys[name]))
    if SUM_WORDS.get(name, name) in SUMS:
        return Column(SUM_WORDS.get(name, name), COUNT, "unsigned")
    asked = key_name(name)
    columns = store.find(asked)
    if not columns:
        raise QuestionError(f"the store {store.name} has no key {asked}; it has {', '.join(store.keys)}")
    return Column(asked, PLAIN, kind_of(store.keys[columns[0]]))


def kind_of(key: Key | None) -> str:
    """The type of a column with the values of a key."""
    if key is None:
        return "text"
    held = type_of(key.type)
    if held.kind in _TYPES:
        return _TYPES[held.kind]
    if held.variable:
        return "text"
    return held.kind if held.kind in ("float", "boolean", "signed") else "unsigned"


def plain(rows: Sequence[tuple], columns: Sequence[Column]) -> list[list[Any]]:
    """The values of rows as JSON has them. 500,000 values a second."""
    converted = {at: _CONVERTED[column.type] for at, column in enumerate(columns) if column.type in _CONVERTED}
    found = [list(row) for row in rows]
    for at, convert in converted.items():
        for row in found:
            if row[at] is not None:
                row[at] = convert(row[at])
    return found


@lru_cache(_ADDRESSES)
def _address(value: Any) -> str:
    """The text of an address from a UUID, or from the text of one."""
    number = int(value.replace("-", ""), 16) if isinstance(value, str) else value.int
    return str(IPv4Address(number & 0xFFFFFFFF)) if number >> 32 == 0xFFFF else ipv6_text(number)


def _mac(value: int) -> str:
    return ":".join(f"{octet:02x}" for octet in value.to_bytes(6, "big"))


def _hexadecimal(value: Any) -> str:
    return bytes(value).hex()


_CONVERTED: dict[str, Callable[[Any], Any]] = {"address": _address, "mac": _mac, "octets": _hexadecimal}
