"""The counters of a database output. The reasons of errors are those of `Fault` in database.py: rows wait meanwhile."""

from __future__ import annotations

from ulogd_tw.core.counters import Dropped, Fault

STORING = (
    Dropped("refused", "rows", "Rows that do not fit the table."),
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
