"""Selects rows of ended flows, which may be counted and exported once."""

from __future__ import annotations

import numpy as np

from ulogd_tw.core.batch import Batch
from ulogd_tw.core.columns import Coded, Column, strings
from ulogd_tw.core.counters import Counters
from ulogd_tw.core.flow_end import ACTIVE
from ulogd_tw.core.resolve import Find

KEYS = ("ct.event", "flowEndReason", "record_kind")
"""Keys for the `may_use` of a plugin that calls `only_ends`."""
_DESTROY = 4


def only_ends(counters: Counters, find: Find, batch: Batch) -> Batch:
    """The flow records of a batch, and of conntrack rows the ends of flows; the rest counts as filtered."""
    batch = ended(counters, find, batch)
    kind = find(batch, "record_kind")
    options = options_rows(kind.values) if kind is not None else None
    return batch if options is None else _kept(counters, batch, ~options)


def ended(counters: Counters, find: Find, batch: Batch) -> Batch:
    """Of conntrack rows the ends of flows and the reports of active flows; the rest counts as filtered.

    Reports stay because the counts of the end do not include theirs.
    """
    event = find(batch, "ct.event")
    if event is None:
        return batch
    keep = event.numbers == _DESTROY
    reason = find(batch, "flowEndReason")
    if reason is not None:
        keep |= reason.known(reason.numbers == ACTIVE)
    return _kept(counters, batch, keep)


def options_rows(kinds: Column) -> np.ndarray | None:
    """A mask of the options records, from the column ``record_kind``; None where there are none."""
    if isinstance(kinds, Coded):
        if b"options" not in kinds.values:
            return None
        found = np.array([value == b"options" for value in kinds.values])[kinds.codes]
    else:  # as they come back from a spool
        found = np.array([value == b"options" for value in strings(kinds).to_list()], bool)
    return found if found.any() else None


def _kept(counters: Counters, batch: Batch, keep: np.ndarray) -> Batch:
    if keep.all():
        return batch
    kept = batch.take(keep)
    counters.rows_filtered += batch.n - kept.n
    return kept
