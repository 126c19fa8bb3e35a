"""Keeps the record of a store's coverage up to date with the life of its output."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ulogd_tw.storing.coverage import CoverageRecord

ON_THEIR_WAY_S = 1.0
"""Rows may be so long between the kernel and the queue before an output."""


class Covering:
    """The record in the directory of a store. Its methods may raise OSError; they run in the thread of the writes."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._record: CoverageRecord | None = None
        self._ended = False

    def begin(self, now: float, continues: bool) -> None:
        """The store is open, at first or in a directory made anew."""
        record = CoverageRecord(self._directory)
        record.begin(int(now * 1000), continues)
        self._record = record

    def covered(self, now: float, waited: float, losses: Mapping[str, int]) -> None:
        """Rows that came before the oldest row which still waits, `waited` seconds old, are in files."""
        if self._record is None and not self._ended:
            self.begin(now - waited, False)
        if self._record is not None:
            self._record.flushed(_until(now, waited), losses)

    def end(self, now: float, waited: float, losses: Mapping[str, int]) -> None:
        """The output stops: rows that still wait go to the spool, or are given up."""
        record, self._record, self._ended = self._record, None, True
        if record is not None:
            record.end(_until(now, waited) if waited else int(now * 1000), losses)

    def forget(self, before: float) -> None:
        """All files of before this time were deleted."""
        if self._record is not None:
            self._record.forget(int(before * 1000))


def _until(now: float, waited: float) -> int:
    return max(int((now - waited - ON_THEIR_WAY_S) * 1000), 0)
