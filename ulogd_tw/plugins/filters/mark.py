"""MARK: keeps rows by their firewall mark."""

from __future__ import annotations

import numpy as np

from ulogd_tw.core.batch import Batch
from ulogd_tw.core.options import Option, number
from ulogd_tw.core.plugin import FLOW, PACKET, RAW, Filter

_BITS = 0xFFFFFFFF


class MARK(Filter):
    """Keeps the rows whose mark equals the configured mark, in the bits of mask.

    The conntrack mark is compared, else the packet mark. Rows without any mark are kept.
    """

    name = "MARK"
    itype = otype = RAW | PACKET | FLOW
    options = (
        Option("mark", number, 0, "Mark of the rows to keep, such as 0x10."),
        Option("mask", number, _BITS, "Bits of the mark to compare, such as 0xf0. The default compares all."),
    )
    may_use = ("ct.mark", "oob.mark")

    def process(self, batch: Batch) -> Batch:
        keep, left = np.ones(batch.n, bool), np.ones(batch.n, bool)
        mark, mask = np.uint32(self.config.mark & _BITS), np.uint32(self.config.mask & _BITS)
        for name in self.may_use:
            found = self.find(batch, name)
            if found is None:
                continue
            here = found.known(left)
            keep &= ~here | (found.values & mask == mark)
            left = left & ~here
        return batch if keep.all() else batch.take(keep)
