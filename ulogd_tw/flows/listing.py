"""The files of stores, listed again and again: a directory that has not changed since is not read again."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from ulogd_tw.storing.parquet.directory import StoredFile, files_of_hour, hour_directory, hours

SETTLED_NS = 2_000_000_000
"""A directory that changed more recently may change again without a new time (its clock ticks every 4 ms)."""


class Listing:
    """What `parquet.directory.files` gives, from memory where it can. `clock` gives nanoseconds since 1970."""

    def __init__(self, clock: Callable[[], int] = time.time_ns) -> None:
        self._clock = clock
        self._hours: dict[str, dict[int, str]] = {}
        self._files: dict[str, tuple[int, list[StoredFile]]] = {}

    def files(self, directory: Path) -> list[StoredFile]:
        """All complete files of a store, the oldest first. Raises OSError."""
        now = self._clock()
        places = self._hours.setdefault(os.fspath(directory), {})
        there = hours(directory)
        for hour in there:
            if hour not in places:
                places[hour] = os.fspath(hour_directory(directory, hour))
        found: list[StoredFile] = []
        for hour in there:
            found += self._of_hour(directory, hour, places[hour], now)
        return found

    def _of_hour(self, directory: Path, hour: int, place: str, now: int) -> list[StoredFile]:
        try:
            changed = os.stat(place).st_mtime_ns
        except OSError:
            self._files.pop(place, None)
            return []
        kept = self._files.get(place)
        if kept is not None and kept[0] == changed:
            return kept[1]
        found = files_of_hour(directory, hour)
        if changed + SETTLED_NS < now:
            self._files[place] = changed, found
        return found
