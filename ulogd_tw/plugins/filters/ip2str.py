"""IP2STR: addresses as text, under ulogd2's names."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from ulogd_tw.core import columns, phrases
from ulogd_tw.core.batch import Batch
from ulogd_tw.core.columns import Column
from ulogd_tw.core.keys import Key, known, ulogd_keys
from ulogd_tw.core.lines import ColumnField
from ulogd_tw.core.plugin import FLOW, PACKET, Filter, Wanted
from ulogd_tw.core.resolve import Found
from ulogd_tw.core.text import PLAIN, one_value, token

ADDRESSES = (
    "ip.saddr",
    "ip.daddr",
    "orig.ip.saddr",
    "orig.ip.daddr",
    "reply.ip.saddr",
    "reply.ip.daddr",
    "arp.saddr",
    "arp.daddr",
)


class IP2STR(Filter):
    """Gives addresses as text, for outputs configured with ulogd2's names such as ip.saddr.str.

    Printing outputs show addresses as text without it. Only keys wanted by plugins below it are made.
    """

    name = "IP2STR"
    itype = otype = PACKET | FLOW
    provides = ulogd_keys(*(f"{name}.str" for name in ADDRESSES))
    may_use = ADDRESSES

    def requests(self, wanted: Wanted) -> dict[str, bool]:
        return {name: False for name in ADDRESSES if f"{name}.str" in wanted}

    @cached_property
    def _made(self) -> list[tuple[str, Key]]:
        """(address, key of its text) for each wanted key; computed when rows flow: requests are settled by then."""
        return [(name, known(f"{name}.str")) for name in ADDRESSES if f"{name}.str" in self.wanted]

    def process(self, batch: Batch) -> Batch:
        added: dict[Key, Column] = {}
        missing: dict[str, np.ndarray] = {}
        for name, key in self._made:
            found = self.find(batch, name)
            if found is not None:
                added[key] = address_texts(found)
                if found.missing is not None:
                    missing[key.name] = found.missing
        return batch.with_columns(added, missing) if added else batch


def address_texts(found: Found) -> Column:
    """A column of addresses as a column of strings: 0.1 us an IPv4, 0.3 us an IPv6 address."""
    n = len(found.values)
    if n and one_value(found.values):
        return columns.repeated(token(found.values, found.key, PLAIN), n)
    return phrases.strings([ColumnField(b"", found.values, None, found.key, PLAIN)], n)
