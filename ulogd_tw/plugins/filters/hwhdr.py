"""HWHDR: hardware addresses and link headers of packets as text."""

from __future__ import annotations

import numpy as np

from ulogd_tw.core import columns
from ulogd_tw.core.batch import Batch
from ulogd_tw.core.columns import Column, Octets
from ulogd_tw.core.keys import Key, known, ulogd_keys
from ulogd_tw.core.phrases import Colons, strings
from ulogd_tw.core.plugin import PACKET, Filter, Wanted
from ulogd_tw.core.resolve import Found

ARPHRD_ETHER, ARPHRD_VOID = 1, 0xFFFF
_ADDRESS, _HEADER = 6, 14
_TEXTS = ("mac.saddr.str", "mac.daddr.str", "mac.str")


class HWHDR(Filter):
    """Gives Ethernet addresses (mac.saddr.str, mac.daddr.str) and the whole link header (mac.str) as text.

    The source address is raw.mac.saddr where the input gives it, else the address in the header. raw.type comes from
    the input; without it a header of 14 octets is Ethernet.
    """

    name = "HWHDR"
    itype = otype = PACKET
    provides = ulogd_keys("raw.type", "oob.protocol", *_TEXTS)
    may_use = ("raw.type", "oob.protocol", "raw.mac", "raw.mac_len", "raw.mac.saddr", "raw.mac.addrlen")

    def requests(self, wanted: Wanted) -> dict[str, bool]:
        return super().requests(wanted) if any(key.name in wanted for key in self.provides) else {}

    def process(self, batch: Batch) -> Batch:
        header, sender = self._octets(batch, "raw.mac", "raw.mac_len"), self._octets(batch, "raw.mac.saddr",
                                                                                     "raw.mac.addrlen")  # fmt: skip
        type_, gone = self._type(batch, header)
        added: dict[Key, Column] = {}
        missing: dict[str, np.ndarray] = {}
        if type_ is not None:
            _put(added, missing, "raw.type", type_, gone)
        framed = np.zeros(batch.n, bool)
        if header is not None and type_ is not None:
            framed = (type_ == ARPHRD_ETHER) & ~gone & (header.lengths >= _HEADER)
        for name, column in self._texts(batch.n, header, sender, framed).items():
            if name in self.wanted and column.lengths.any():
                _put(added, missing, name, strings([Colons(b"", column)], batch.n), column.lengths == 0)
        if "oob.protocol" in self.wanted and framed.any():
            self._protocol(batch, header, framed, added, missing)
        return batch.with_columns(added, missing)

    def _octets(self, batch: Batch, name: str, size: str) -> Octets | None:
        """A column of octets, cut to `size` where it is given; empty for missing ones."""
        found, length = self.find(batch, name), self.find(batch, size)
        if found is None or isinstance(found.values, np.ndarray):
            return None
        octets = found.values.plain()
        lengths = octets.lengths
        if length is not None:
            lengths = np.minimum(lengths, length.filled(lengths).astype(np.int64))
        if found.missing is not None:
            lengths = np.where(found.missing, 0, lengths)
        return Octets.gathered(octets.data, octets.offsets[:-1], lengths)

    def _type(self, batch: Batch, header: Octets | None) -> tuple[np.ndarray | None, np.ndarray]:
        """raw.type, and the rows without it."""
        found: Found | None = self.find(batch, "raw.type")
        if found is not None:
            return found.values, np.zeros(batch.n, bool) if found.missing is None else found.missing
        if header is None:
            return None, np.ones(batch.n, bool)
        lengths = header.lengths
        return np.where(lengths == _HEADER, ARPHRD_ETHER, ARPHRD_VOID).astype(np.uint16), lengths == 0

    def _texts(self, n: int, header: Octets | None, sender: Octets | None, framed: np.ndarray) -> dict[str, Octets]:
        """The octets for each text, empty without header."""
        none = columns.Octets(np.zeros(n + 1, np.int64), np.zeros(0, np.uint8))
        found = dict.fromkeys(_TEXTS, none)
        size = np.where(framed, _ADDRESS, 0)
        if header is not None:
            at = header.offsets[:-1]
            found["mac.str"] = header
            found["mac.daddr.str"] = Octets.gathered(header.data, at, size)
            found["mac.saddr.str"] = Octets.gathered(header.data, at + _ADDRESS, size)
        if sender is not None:
            found["mac.saddr.str"] = _first(sender, found["mac.saddr.str"])
        return found

    def _protocol(
        self, batch: Batch, header: Octets, framed: np.ndarray, added: dict[Key, Column], missing: dict[str, np.ndarray]
    ) -> None:
        """The EtherType in the header, for the rows without oob.protocol."""
        known_ = self.find(batch, "oob.protocol")
        if known_ is not None and known_.missing is None:
            return
        values = np.zeros(batch.n, np.uint16) if known_ is None else known_.values.copy()
        rows = np.flatnonzero(framed if known_ is None else framed & known_.missing)
        values[rows] = columns.taken(header.data, header.offsets[rows] + 12, 2).view(">u2")
        gone = np.ones(batch.n, bool) if known_ is None else known_.missing.copy()
        gone[rows] = False
        _put(added, missing, "oob.protocol", values, gone)


def _put(added: dict[Key, Column], missing: dict[str, np.ndarray], name: str, column: Column, gone: np.ndarray) -> None:
    added[known(name)] = column
    if gone.any():
        missing[name] = gone


def _first(one: Octets, other: Octets) -> Octets:
    """The strings of one column, and of the other where they are empty."""
    empty = one.lengths == 0
    data = np.concatenate([one.data, other.data])
    starts = np.where(empty, other.offsets[:-1] + len(one.data), one.offsets[:-1])
    return Octets.gathered(data, starts, np.where(empty, other.lengths, one.lengths))
