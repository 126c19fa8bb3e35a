"""The Information Elements with the octets and packets of a flow: one table, in order of preference.

A row's quantity is that of the first counter with a value. A delta counter counts since the last record of its flow; a
total counter since the flow's beginning (RFC 5102 section 5.10).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cache

from ulogd_tw.core.keys import SUMS, Element, Key, known


@dataclass(frozen=True)
class Counter:
    """One counter: the name of its key, and whether it is a total."""

    name: str
    total: bool = False


@dataclass(frozen=True)
class Quantity:
    """A counted quantity: its key in sums, and the counters that carry it, in order of preference."""

    key: Key
    counters: tuple[Counter, ...]

    @property
    def name(self) -> str:
        """The name of the key."""
        return self.key.name

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the counters, in their order."""
        return tuple(counter.name for counter in self.counters)


def _counters(*names: str) -> tuple[Counter, ...]:
    return tuple(Counter(name, "TotalCount" in name) for name in names)


_PACKETS, _OCTETS, _REPLY_PACKETS, _REPLY_OCTETS = SUMS
OCTETS = Quantity(
    _OCTETS,
    _counters("octetDeltaCount", "octetTotalCount", "initiatorOctets", "postOctetDeltaCount", "postOctetTotalCount",
              "layer2OctetDeltaCount", "layer2OctetTotalCount", "postLayer2OctetDeltaCount",
              "postLayer2OctetTotalCount"),
)  # fmt: skip
"""`initiatorOctets` is what a Cisco ASA counts; the `post` counters are those of egress; layer 2 counts frames."""
PACKETS = Quantity(
    _PACKETS,
    _counters("packetDeltaCount", "packetTotalCount", "initiatorPackets", "postPacketDeltaCount",
              "postPacketTotalCount"),
)  # fmt: skip
REPLY_PACKETS = Quantity(
    _REPLY_PACKETS,
    _counters("reversePacketDeltaCount", "reversePacketTotalCount", "responderPackets", "reverseInitiatorPackets",
              "reversePostPacketDeltaCount", "reversePostPacketTotalCount"),
)  # fmt: skip
REPLY_OCTETS = Quantity(
    _REPLY_OCTETS,
    _counters("reverseOctetDeltaCount", "reverseOctetTotalCount", "responderOctets", "reverseInitiatorOctets",
              "reversePostOctetDeltaCount", "reversePostOctetTotalCount", "reverseLayer2OctetDeltaCount",
              "reverseLayer2OctetTotalCount", "reversePostLayer2OctetDeltaCount", "reversePostLayer2OctetTotalCount"),
)  # fmt: skip
QUANTITIES = (PACKETS, OCTETS, REPLY_PACKETS, REPLY_OCTETS)
"""In the order of `keys.SUMS`."""
NAMES = tuple(name for quantity in QUANTITIES for name in quantity.names)
"""The names of all counters."""


@cache
def _elements() -> dict[str, Element]:
    return {name: key.elements[0] for name in NAMES if (key := known(name)) is not None}


def needed(wanted: frozenset[str], seldom: frozenset[str], there: Collection[str]) -> frozenset[str]:
    """The part of the `wanted` columns to read from a record with the keys `there` (IANA's names).

    `seldom` columns are wanted in some records only: counters without a preferred delta counter, and all others if
    octets or packets are totals, or octets are missing.
    """
    behind = _behind(there)
    left_out = frozenset(name for name in seldom if _counter(name) in behind)
    return wanted - left_out if total_only(there) else wanted - left_out - identifying(seldom)


def identifying(columns: frozenset[str]) -> frozenset[str]:
    """The columns that are not counters."""
    return frozenset(name for name in columns if _counter(name) is None)


@cache
def _counter(column: str) -> str | None:
    """The counter that a column is by its name or by its element, such as dOctets of NetFlow v5."""
    key = known(column)
    elements = key.elements if key is not None else ()
    return next((name for name in NAMES if name == column or _elements()[name] in elements), None)


def total_only(names: Collection[str]) -> bool:
    """Whether a record with these keys may tell octets or packets as totals only, or octets not at all."""
    for quantity in (OCTETS, PACKETS):
        first = next((counter for counter in quantity.counters if counter.name in names), None)
        if first.total if first is not None else quantity is OCTETS:
            return True
    return False


def _behind(names: Collection[str]) -> frozenset[str]:
    """Of the counters with these names, those behind a delta counter of the same quantity."""
    found: set[str] = set()
    for quantity in QUANTITIES:
        there = [counter for counter in quantity.counters if counter.name in names]
        place = next((place for place, counter in enumerate(there) if not counter.total), len(there))
        found.update(counter.name for counter in there[place + 1 :])
    return frozenset(found)
