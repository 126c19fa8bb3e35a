"""NACCT: one line a flow, separated by tabs, in the format of ulogd2's accounting."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ulogd_tw.core import columns, types
from ulogd_tw.core.amounts import amount
from ulogd_tw.core.batch import Batch
from ulogd_tw.core.columns import Column
from ulogd_tw.core.flow_rows import KEYS as ENDS
from ulogd_tw.core.flow_rows import only_ends
from ulogd_tw.core.keys import Key
from ulogd_tw.core.lines import Field, Lines
from ulogd_tw.core.phrases import value
from ulogd_tw.core.plugin import FLOW, PACKET, Wanted
from ulogd_tw.core.quantities import OCTETS, PACKETS, REPLY_OCTETS, REPLY_PACKETS, Counter
from ulogd_tw.core.resolve import Found
from ulogd_tw.writing.text import SYNC, TextOutput, file_option

_ICMP, _ICMPV6 = 1, 58
_PLAIN = ("orig.ip.saddr", "orig.ip.daddr")
_NUMBERS = ("flow.end.sec", "orig.ip.protocol", "orig.l4.sport", "orig.l4.dport", "icmp.type", "icmp.code",
            "icmpv6.type", "icmpv6.code")  # fmt: skip

_COUNTS = {
    "reply.raw.pktcount": (*REPLY_PACKETS.counters, *PACKETS.counters),
    "reply.raw.pktlen": (*REPLY_OCTETS.counters, *OCTETS.counters),
}
"""The counters behind these keys of ulogd2, in order: those of the reply, else those of a flow of one direction."""
_COUNTERS = tuple(counter.name for counters in _COUNTS.values() for counter in counters)


class NACCT(TextOutput):
    """Writes ``end, protocol, source, port, destination, port, packets, octets`` of each flow, separated by tabs.

    ICMP flows have type and code in place of ports. Packets and octets are the reply's, as in ulogd2, or the
    flow's own if it has no reply. A missing value is 0, because the format has no other way.
    """

    name = "NACCT"
    itype = PACKET | FLOW
    options = (file_option("/var/log/ulogd_nacct.log"), SYNC)
    uses = _PLAIN
    may_use = (*_NUMBERS, *_COUNTS, *_COUNTERS, *ENDS)
    seldom = frozenset(_COUNTERS)

    def __init__(self, *arguments, **keywords) -> None:
        super().__init__(*arguments, **keywords)
        self._lines = Lines(b"\n", b"\t", b"")

    def requests(self, wanted: Wanted) -> dict[str, bool]:
        return dict.fromkeys(self.uses, True) | dict.fromkeys(self.may_use, False)

    def texts(self, batch: Batch) -> Iterator[tuple[bytes, int]]:
        batch = only_ends(self.counters, self.find, batch)
        numbers = {name: self._number(batch, name) for name in _NUMBERS}
        protocol = numbers["orig.ip.protocol"]
        ports = []
        for port, what in (("orig.l4.sport", "type"), ("orig.l4.dport", "code")):
            column = np.where(protocol == _ICMP, numbers[f"icmp.{what}"], numbers[port])
            ports.append(np.where(protocol == _ICMPV6, numbers[f"icmpv6.{what}"], column))
        source, destination = (self.find(batch, name) for name in _PLAIN)
        fields = [
            _field(numbers["flow.end.sec"]), _field(protocol), _address(source, batch.n), _field(ports[0]),
            _address(destination, batch.n), _field(ports[1]), _field(self._amount(batch, "reply.raw.pktcount")),
            _field(self._amount(batch, "reply.raw.pktlen")),
        ]  # fmt: skip
        return self._lines.render(fields, batch.n)

    def _amount(self, batch: Batch, name: str) -> np.ndarray:
        """The value of this key of ulogd2, or of another counter of the same quantity; 0 if missing."""
        found = amount(self.find, batch, (Counter(name, True), *_COUNTS[name]))
        if found is None:
            return np.zeros(batch.n, np.uint64)
        return found.values if found.missing is None else np.where(found.missing, np.uint64(0), found.values)

    def _number(self, batch: Batch, name: str) -> np.ndarray:
        """A column, 0 where there is no value."""
        found = self.find(batch, name)
        if found is None:
            return np.zeros(batch.n, np.uint64)
        return found.filled(0).astype(np.uint64)


def _field(column: Column) -> Field:
    return value(Found(column, None, Key("", types.UNSIGNED64)))


def _address(found: Found | None, n: int) -> Field:
    if found is None:
        return value(Found(columns.repeated(0, n, types.IPV4.dtype), None, Key("", types.IPV4)))
    return value(Found(found.filled(0), None, found.key))
