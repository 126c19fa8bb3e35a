"""How long rows of a table are kept, and the column by whose time they are old."""

from __future__ import annotations

import time
from collections.abc import Iterable

from ulogd_tw.core.keys import Key
from ulogd_tw.core.options import Option, seconds, text
from ulogd_tw.storing.columns import TableColumn, column_name

UPKEEP_S = 60.0
"""Seconds between two looks for rows that are old, while nothing is written."""

RETENTION = (
    Option("retain", seconds, 0.0, "How long rows are kept by the time in retain_by, such as 30d; older ones are "
           "removed by the day. 0: for ever."),
    Option("retain_by", text, "", "Key of the time by which rows are old, with a column in the table. Empty: the first "
           "of the end, the interval, the start and the arrival of a flow that the table has."),
)  # fmt: skip

ENDS = (
    "flowEndMilliseconds", "flowEndMicroseconds", "flowEndNanoseconds", "flowEndSeconds", "last_ms", "flow.end.sec",
    "interval_start", "flowStartMilliseconds", "flowStartMicroseconds", "flowStartNanoseconds", "flowStartSeconds",
    "first_ms", "flow.start.sec", "observationTimeMilliseconds", "observationTimeMicroseconds",
    "observationTimeSeconds", "oob.time.sec", "received_ms",
)  # fmt: skip
"""Keys with the time of a row, the best one first."""


def time_key(keys: Iterable[Key], chosen: str = "") -> Key | None:
    """The key with the time of a row among those of a new table."""
    named = {key.name.partition("@")[0]: key for key in keys}
    return next((named[name] for name in ((chosen,) if chosen else ENDS) if name in named), None)


def time_column(columns: Iterable[TableColumn], chosen: str = "") -> TableColumn | None:
    """The column with the time of a row in a table that is there."""
    named = {column.name.lower(): column for column in columns}
    wanted = (column_name(name).lower() for name in ((chosen,) if chosen else ENDS))
    return next((named[name] for name in wanted if name in named), None)


def before(retain: float, now: float | None = None) -> float:
    """The time, in seconds since 1970, before which rows are old."""
    return (time.time() if now is None else now) - retain
