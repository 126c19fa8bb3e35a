"""How long rows of a table are kept, and the column by whose time they are old."""

from __future__ import annotations

import time
from collections.abc import Iterable

from ulogd_tw.core.keys import Key, known
from ulogd_tw.core.options import Option, seconds, text
from ulogd_tw.storing.columns import TableColumn, column_name

UPKEEP_S = 60.0
"""Seconds between two looks for rows that are old, while nothing is written."""

RETENTION = (
    Option("retain", seconds, 0.0, "How long rows are kept by the time in retain_by, such as 30d; older ones are "
           "removed. 0: for ever."),
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


class Expired:
    """Counts of what was removed: `rows` one by one, and whole `partitions`."""

    def __init__(self) -> None:
        self.rows = 0
        self.partitions = 0


def parts_of_a_second(key: Key) -> int:
    """The unit of the integers by which a database holds the times of a key: 1000 for milliseconds."""
    name = key.type.name.lower()
    units = (("milliseconds", 1000), ("microseconds", 10**6), ("nanoseconds", 10**9))
    return next((unit for word, unit in units if word in name), 1)


def parts_in(column: TableColumn, chosen: str = "") -> int:
    """The same for a column of a table that is there, by its name."""
    names = (name for name in (chosen, *ENDS) if name and column_name(name).lower() == column.name.lower())
    name = next(names, "")
    key = known(name.partition("@")[0])
    return parts_of_a_second(key) if key is not None else 1000 if name.endswith("_ms") else 1
