"""The counters of an output to a file or a socket."""

from __future__ import annotations

from ulogd_tw.core.counters import Dropped, Fault

FILES = (
    Dropped("write", "rows", "Rows of a write that was unfinished at the stop."),
    Fault("write", "attempts", "Writes that failed; rows wait and are tried again."),
)

LINES = (
    *FILES,
    Dropped("too_long", "rows", "Lines longer than a datagram."),
    Fault("reopen", "attempts", "The file could not be reopened at SIGHUP; the output keeps writing to the old one."),
    Fault(
        "cut", "files", "Files with an incomplete record at the end, after a kill or a crash; the record is removed."
    ),
    Fault("sync", "attempts", "The disk did not confirm what was written."),
    Fault("connect", "attempts", "The peer is unreachable."),
    Fault("connection", "occasions", "The connection was lost, or no program listens."),
    Fault("too_long", "rows", "Lines longer than a datagram."),
)
