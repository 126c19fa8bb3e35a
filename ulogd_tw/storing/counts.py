"""The counters of outputs that gather. The reasons of errors are those of `refused.Fault`: rows wait meanwhile."""

from __future__ import annotations

from ulogd_tw.core.counters import Count, Dropped, Fault

GATHERING = (
    Dropped("refused", "rows", "Rows that the destination does not take, each with an error of its own."),
    Count("dead_letters", "rows", "Refused rows kept in the directory of dead_letters.", rare=True),
    Count("dead_letters_removed", "files", "Old files of dead letters removed at dead_letters_size.", rare=True),
    Fault("dead_letters", "occasions", "Dead letters could not be written; their rows are counted as refused."),
)
"""Of every output that gathers."""

DISK = (
    Fault("full", "attempts", "There is no room on the disk."),
    Fault("disk", "attempts", "The disk fails, or a file or directory cannot be used."),
)
"""Of outputs to files, beside `GATHERING`."""

STORING = (
    *GATHERING,
    Count(
        "maybe_twice",
        "rows",
        "Rows that may be stored twice: the answer to their commit was lost, and the database "
        "has no batch numbers, or the table no transactions.",
        rare=True,
    ),
    Count("rows_expired", "rows", "Rows deleted because they are older than retain.", rare=True),
    Count("partitions_dropped", "partitions", "Partitions dropped because they are older than retain.", rare=True),
    Fault("table", "attempts", "The table does not exist, or does not fit the keys."),
    Fault("permission", "attempts", "The user of the service may not write."),
    Fault("full", "attempts", "There is no room on the disk."),
    Fault("locked", "attempts", "Another program has locked the table or the file."),
    Fault("read_only", "attempts", "The server is read-only."),
    Fault("procedure", "attempts", "The stored procedure does not exist."),
    Fault("away", "attempts", "The server cannot be reached, or broke the connection off."),
    Fault("disk", "attempts", "The disk fails, or the file is damaged."),
    Fault("stopped", "attempts", "A statement was broken off at a stop."),
    Fault("refused", "attempts", "The database refuses the statement for another reason."),
    Fault("server", "attempts", "The server reports another error."),
)
"""Of databases."""
