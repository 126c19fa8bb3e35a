"""MARK: rows by the mark that the firewall gave them."""

from __future__ import annotations

import numpy as np

from ulogd_tw.core.batch import Batch
from ulogd_tw.core.options import Option, number
from ulogd_tw.core.plugin import FLOW, PACKET, Filter

_BITS = 0xFFFFFFFF


class MARK(Filter):
    """Keep the rows whose mark, under the mask, equals the configured one.

    The conntrack mark goes before the packet mark. Rows that have neither are kept.
    """

    name = "MARK"
    itype = otype = PACKET | FLOW
    options = (
        Option("mark", number, 0, "mark to keep"),
        Option("mask", number, _BITS, "bits of the mark that count"),
    )
    may_use = ("ct.mark", "oob.mark")

    def process(self, batch: Batch) -> Batch:
        keep, left = np.ones(batch.n, bool), np.ones(batch.n, bool)
        mark, mask = np.uint32(self.config.mark & _BITS), np.uint32(self.config.mask & _BITS)
        for name in self.may_use:
            found = self.find(batch, name)
            if found is None:
                continue
            here = left if found.missing is None else left & ~found.missing
            keep &= ~here | (found.values & mask == mark)
            left = left & ~here
        return batch if keep.all() else batch.take(keep)
