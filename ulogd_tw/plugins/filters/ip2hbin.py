"""IP2HBIN: IPv4 addresses as numbers."""

from __future__ import annotations

import numpy as np

from ulogd_tw.core.batch import Batch
from ulogd_tw.core.columns import Column
from ulogd_tw.core.keys import Key, known, ulogd_keys
from ulogd_tw.core.plugin import FLOW, PACKET, Filter, Wanted
from ulogd_tw.plugins.filters.ip2bin import OF_IP


def number_of(name: str) -> str:
    """The key of an address as a number: ip.saddr -> ip.hsaddr."""
    return name[:-5] + "h" + name[-5:]


class IP2HBIN(Filter):
    """Gives IPv4 addresses as numbers (192.0.2.1 is 3221225985), for columns of type INT UNSIGNED.

    IPv6 addresses get no value. All keys are filled, also reply.ip.hdaddr, which stayed empty in ulogd2.
    """

    name = "IP2HBIN"
    itype = otype = PACKET | FLOW
    provides = ulogd_keys(*map(number_of, OF_IP))
    may_use = OF_IP

    def requests(self, wanted: Wanted) -> dict[str, bool]:
        return {name: False for name in OF_IP if number_of(name) in wanted}

    def process(self, batch: Batch) -> Batch:
        added: dict[Key, Column] = {}
        missing: dict[str, np.ndarray] = {}
        for name in OF_IP:
            key = known(number_of(name))
            if key.name not in self.wanted:
                continue
            found = self.find(batch, name)
            if found is not None and found.values.ndim == 1:
                added[key] = found.values
                if found.missing is not None:
                    missing[key.name] = found.missing
        return batch.with_columns(added, missing) if added else batch
