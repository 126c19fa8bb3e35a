"""What an output to a file or a socket counts."""

from __future__ import annotations

from ulogd_tw.core.counters import Dropped, Fault

FILES = (
    Dropped("write", "rows", "Rows of a write that was not finished at the stop."),
    Fault("write", "attempts", "Writes that failed; rows wait and are tried again."),
)

LINES = (
    *FILES,
    Dropped("too_long", "rows", "Lines longer than a datagram."),
    Fault("reopen", "attempts", "The file could not be opened anew at SIGHUP; the one that was open is written on."),
    Fault("cut", "files", "Files that ended within a record, after a kill or a crash; that part is removed."),
    Fault("sync", "attempts", "The disk did not confirm what was written."),
    Fault("connect", "attempts", "The peer is not there."),
    Fault("connection", "occasions", "The connection was lost, or nobody listens."),
    Fault("too_long", "rows", "Lines longer than a datagram."),
)
