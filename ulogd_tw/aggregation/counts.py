"""The counters of an aggregation."""

from __future__ import annotations

from ulogd_tw.core.counters import Count, Dropped, Fault, Gauge, Lost

AGGREGATION = (
    Gauge("keys", "groups", "Groups in the tables now."),
    Gauge("memory_octets", "octets", "Memory of the group tables."),
    Count("rows_late", "rows", "With time=flow: rows of a closed interval; they make a further row of this interval."),
    Count("rows_joined", "rows", "With totals=difference: first records of flows that were already active.", True),
    Count("totals_assumed", "rows", "With totals=auto: records assumed to repeat the totals of a flow, although "
                                    "they have neither a flow start nor a flow id.", True),
    Count("rows_without_octets", "rows", "Rows without a counter of octets; the log names their templates.", True),
    Count("sums_saturated", "occasions", "Sums that stopped at the limit of 64 bits.", True),
    Count("states_written", "occasions", "With state_file: how often the state was written.", True),
    Count("groups_restored", "groups", "With state_file: groups that were read at the start.", True),
    Count("groups_saved", "groups", "With state_file: groups that were written at the stop.", True),
    Count("rows_other", "rows", "With overflow=other and fold: rows counted under NULL keys.", True),
    Count("groups_folded", "groups", "With overflow=fold: groups merged into the row with NULL keys.", True),
    Dropped("max_keys", "rows", "With overflow=refuse: rows of groups beyond max_keys."),
    Lost("worker", "rows", "Rows in the tables of a worker process that died; see workers of COLLECTOR."),
    Dropped("key_range", "rows", "Rows with a value that is too wide for its key."),
    Fault("state_file", "occasions", "The state file could not be read or written; the log says why."),
)  # fmt: skip
