"""Which rows are flows that have ended: what may be counted and exported once."""

from __future__ import annotations

import numpy as np

from ulogd_tw.core.batch import Batch
from ulogd_tw.core.plugin import Plugin

KEYS = ("ct.event", "record_kind")
"""Keys that a plugin must ask for, where they are, to use `only_ends`."""
_DESTROY = 4


def only_ends(plugin: Plugin, batch: Batch) -> Batch:
    """Only flow records, and of conntrack's only the ends of flows; the others count as filtered by the plugin."""
    keep = None
    event = plugin.find(batch, "ct.event")
    if event is not None:
        keep = event.values == _DESTROY
    kind = plugin.find(batch, "record_kind")
    if kind is not None and b"options" in kind.values.values:
        data = np.array([value != b"options" for value in kind.values.values])[kind.values.codes]
        keep = data if keep is None else keep & data
    if keep is None or keep.all():
        return batch
    kept = batch.take(keep)
    plugin.counters.rows_filtered += batch.n - kept.n
    return kept
