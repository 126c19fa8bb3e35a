"""Rules for the flows of a collector: networks, marks, and the key ``export.to`` set by a filter above."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ulogd_tw.core import types
from ulogd_tw.core.batch import Batch
from ulogd_tw.core.columns import Coded, strings
from ulogd_tw.core.networks import Network
from ulogd_tw.core.options import number
from ulogd_tw.core.resolve import Find, Found

EXPORT_TO = "export.to"
"""The key that a filter sets: names or URLs of collectors, with blanks between; rows without it are not bound by it."""
MARKS = ("ct.mark", "oob.mark")
ADDRESSES = ("orig.ip.saddr", "orig.ip.daddr", "reply.ip.saddr", "reply.ip.daddr")

Mark = tuple[int, int]
"""Value and mask."""
_WORD = (1 << 64) - 1


def marks(text: str) -> tuple[Mark, ...]:
    """Marks ``VALUE`` or ``VALUE/MASK``. ValueError for what is none, and for bits beyond the mask."""
    found = []
    for word in text.replace(",", " ").split():
        value, slash, mask = word.partition("/")
        try:
            pair = number(value), number(mask) if slash else 0xFFFFFFFF
        except ValueError:
            pair = (-1, 0)
        if not all(0 <= n <= 0xFFFFFFFF for n in pair) or pair[0] & ~pair[1]:
            raise ValueError(f"{word!r} is not a mark: VALUE or VALUE/MASK, of 32 bits each, such as 0x10/0xf0")
        found.append(pair)
    return tuple(found)


@dataclass(frozen=True)
class Rule:
    """The flows of one collector: those with an address in `networks`, and with one of `marks`; empty: any.

    `names` are its names in ``export.to``.
    """

    names: frozenset[str]
    networks: tuple[Network, ...] = ()
    marks: tuple[Mark, ...] = ()

    def takes(self, find: Find, batch: Batch) -> np.ndarray | None:
        """The rows that it gets; None for all of them."""
        wanted = None
        if self.networks:
            wanted = _any(_inside(find(batch, name), self.networks, batch.n) for name in ADDRESSES)
        if self.marks:
            marked = _any(_marked(find(batch, name), self.marks, batch.n) for name in MARKS)
            wanted = marked if wanted is None else wanted & marked
        return wanted


def _any(masks: Iterable[np.ndarray]) -> np.ndarray:
    return np.logical_or.reduce(list(masks))


def _inside(found: Found | None, nets: tuple[Network, ...], n: int) -> np.ndarray:
    """The rows whose address is in one of the networks."""
    inside = np.zeros(n, bool)
    if found is None or found.key.type not in (types.IPV4, types.IPV6):
        return inside
    version = 6 if found.key.type is types.IPV6 else 4
    for net in nets:
        if net.version == version:
            inside |= _in_ipv6(found.numbers, net) if version == 6 else _in_ipv4(found.numbers, net)
    return found.known(inside)


def _in_ipv4(column: np.ndarray, net: Network) -> np.ndarray:
    return (column & np.uint32(int(net.netmask))) == np.uint32(int(net.network_address))


def _in_ipv6(column: np.ndarray, net: Network) -> np.ndarray:
    mask, address = int(net.netmask), int(net.network_address)
    halves = [(column[:, place] & np.uint64(mask >> shift & _WORD)) == np.uint64(address >> shift & _WORD)
              for place, shift in ((0, 64), (1, 0))]  # fmt: skip
    return halves[0] & halves[1]


def _marked(found: Found | None, wanted: tuple[Mark, ...], n: int) -> np.ndarray:
    if found is None:
        return np.zeros(n, bool)
    marked = _any((found.numbers & np.uint32(mask)) == np.uint32(value) for value, mask in wanted)
    return found.known(marked)


def told(found: Found | None, rules: list[Rule]) -> list[np.ndarray] | None:
    """For each rule the rows that ``export.to`` gives it; None where the key is not there."""
    if found is None:
        return None
    column = strings(found.values)
    if not isinstance(column, Coded):
        values = column.to_list()
        kinds = {value: place for place, value in enumerate(dict.fromkeys(values))}
        column = Coded(np.array([kinds[value] for value in values], np.int64), list(kinds))
    words = [frozenset(value.decode("utf-8", "replace").split()) for value in column.values]
    masks = []
    for rule in rules:
        mask = np.array([bool(said & rule.names) for said in words], bool)[column.codes]
        masks.append(mask if found.missing is None else mask | found.missing)
    return masks
