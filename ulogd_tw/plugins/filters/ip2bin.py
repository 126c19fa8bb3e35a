"""IP2BIN: addresses as 16 octets, for columns of type BINARY(16)."""

from __future__ import annotations

import numpy as np

from ulogd_tw.core.batch import Batch
from ulogd_tw.core.columns import Column, Octets
from ulogd_tw.core.keys import Key, known, ulogd_keys
from ulogd_tw.core.plugin import FLOW, PACKET, Filter, Wanted
from ulogd_tw.plugins.filters.ip2str import ADDRESSES

OF_IP = ADDRESSES[:6]
_MAPPED = 0xFFFF << 32
"""The second half of ::ffff:0:0, the prefix of IPv4-mapped addresses (RFC 4291 section 2.5.5.2)."""


class IP2BIN(Filter):
    """Gives addresses as 16 octets; IPv4 addresses are mapped into IPv6 (::ffff:192.0.2.1).

    All keys are filled, also reply.ip.daddr.bin, which stayed empty in ulogd2.
    """

    name = "IP2BIN"
    itype = otype = PACKET | FLOW
    provides = ulogd_keys(*(f"{name}.bin" for name in OF_IP))
    may_use = OF_IP

    def requests(self, wanted: Wanted) -> dict[str, bool]:
        return {name: False for name in OF_IP if f"{name}.bin" in wanted}

    def process(self, batch: Batch) -> Batch:
        added: dict[Key, Column] = {}
        missing: dict[str, np.ndarray] = {}
        for name in OF_IP:
            if f"{name}.bin" in self.wanted and (found := self.find(batch, name)) is not None:
                added[known(f"{name}.bin")] = _octets(found.values)
                if found.missing is not None:
                    missing[f"{name}.bin"] = found.missing
        return batch.with_columns(added, missing) if added else batch


def _octets(addresses: np.ndarray) -> Octets:
    halves = np.zeros((len(addresses), 2), ">u8")
    if addresses.ndim == 2:
        halves[:] = addresses
    else:
        halves[:, 1] = addresses.astype(np.uint64) | np.uint64(_MAPPED)
    return Octets(np.arange(len(addresses) + 1, dtype=np.int64) * 16, halves.view(np.uint8).reshape(-1))
