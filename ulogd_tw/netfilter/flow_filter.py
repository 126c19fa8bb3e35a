"""Selects flows by source network, destination network and protocol."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence

import numpy as np

from ulogd_tw.core import types
from ulogd_tw.core.batch import Batch
from ulogd_tw.core.networks import Network

_ALL_ONES = (1 << 64) - 1


class Accept:
    """Selects rows by networks and protocols; an empty list keeps all.

    If no network of a family is listed, no address of this family matches. (ulogd2 2.0.8 filters the other family by
    uninitialised memory.)
    """

    def __init__(
        self, sources: Sequence[Network] = (), destinations: Sequence[Network] = (), protocols: Sequence[int] = ()
    ) -> None:
        self.sides = [
            (name, listed) for name, listed in (("orig.ip.saddr", sources), ("orig.ip.daddr", destinations)) if listed
        ]
        """Key of the address, and the networks of which one must contain it."""
        self.protocols = tuple(sorted(set(protocols)))
        self.keys = frozenset(name for name, _ in self.sides) | ({"orig.ip.protocol"} if protocols else set())

    def rows(self, batch: Batch) -> np.ndarray:
        """The mask of the rows to keep."""
        kept = np.ones(batch.n, bool)
        for name, listed in self.sides:
            kept &= _within(batch, name, listed)
        if self.protocols:
            kept &= np.isin(batch.columns["orig.ip.protocol"], np.array(self.protocols, np.uint8))
        for name in self.keys & batch.missing.keys():
            kept &= ~batch.missing[name]
        return kept


def _within(batch: Batch, name: str, listed: Sequence[Network]) -> np.ndarray:
    column = batch.columns[name]
    found = np.zeros(batch.n, bool)
    version = 4 if batch.schema[name].type is types.IPV4 else 6
    for network in listed:
        if network.version != version:
            continue
        address, mask = int(network.network_address), int(network.netmask)
        if version == 4:
            found |= column & np.uint32(mask) == np.uint32(address)
        else:
            high = column[:, 0] & np.uint64(mask >> 64) == np.uint64(address >> 64)
            low = column[:, 1] & np.uint64(mask & _ALL_ONES) == np.uint64(address & _ALL_ONES)
            found |= high & low
    return found


FIVE_TUPLE = ("orig.ip.protocol", "orig.ip.saddr", "orig.l4.sport", "orig.ip.daddr", "orig.l4.dport")
"""Keys by which `among` knows a flow, in the order of its tuples."""


def among(batch: Batch, flows: Iterable[tuple[int, str, int, str, int]]) -> np.ndarray:
    """The mask of the rows that are one of these flows, given as in `FIVE_TUPLE`; the unspecified address is any."""
    found = np.zeros(batch.n, bool)
    for protocol, source, source_port, destination, destination_port in flows:
        rows = batch.columns["orig.ip.protocol"] == protocol
        rows &= batch.columns["orig.l4.sport"] == source_port
        rows &= batch.columns["orig.l4.dport"] == destination_port
        if not rows.any():
            continue
        for name, text in (("orig.ip.saddr", source), ("orig.ip.daddr", destination)):
            address = ipaddress.ip_address(text)
            if not address.is_unspecified:
                rows &= _within(batch, name, (ipaddress.ip_network(address),))
        found |= rows
    for name in set(FIVE_TUPLE) & batch.missing.keys():
        found &= ~batch.missing[name]
    return found
