"""What the errors of a write into a store mean."""

from __future__ import annotations

import errno

from ulogd_tw.core.counters import Fault as Declared
from ulogd_tw.storing.parquet.errors import StoreError, StoreFull
from ulogd_tw.storing.refused import Fault

COUNTS = (
    Declared("full", "attempts", "There is no room on the disk, or less than min_free; rows wait."),
    Declared("disk", "attempts", "The disk fails, or a file or directory cannot be used; rows wait."),
    Declared("gone", "attempts", "The directory is not there any more, or it is another store; rows wait."),
    Declared("locked", "attempts", "Another output writes to the directory; rows wait."),
    Declared("strange", "attempts", "The file store.json is damaged, or of a newer release; rows wait."),
    Declared("memory", "attempts", "DuckDB found no memory; rows wait."),
    Declared("stopped", "attempts", "A write was broken off at a stop."),
    Declared("refused", "attempts", "DuckDB did not take some rows."),
    Declared("merge", "occasions", "Files could not be merged or deleted; all rows are still there."),
    Declared("coverage", "occasions", "The record of the store's coverage could not be written; it has a gap then."),
)
"""The reasons of `meaning`, and failures of the upkeep."""
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_FULL = Fault("full", StoreFull.remedy)
_DISK = Fault("disk", "look at the disk, and at owner and mode of the directory")
_MEMORY = Fault("memory", "give the service more memory, or lower queue_rows", transient=True)


def meaning(error: Exception) -> Fault | None:
    """The meaning of an error of a write; None for a fault of the program."""
    if isinstance(error, StoreError):
        return Fault(error.reason, error.remedy, transient=True)
    if isinstance(error, OSError):
        return _FULL if error.errno in _NO_ROOM else _DISK
    return _of_duckdb(error)


def _of_duckdb(error: Exception) -> Fault | None:
    import duckdb

    if isinstance(error, duckdb.InterruptException):
        return Fault("stopped", transient=True)
    if isinstance(error, duckdb.OutOfMemoryException):
        return _MEMORY
    if isinstance(error, duckdb.IOException):
        return _FULL if "No space left" in str(error) or "quota" in str(error) else _DISK
    return Fault("refused") if isinstance(error, duckdb.Error) else None


def rows_to_blame(error: Exception) -> bool:
    """Whether other rows might be taken."""
    found = meaning(error)
    return found is not None and found.of_rows
