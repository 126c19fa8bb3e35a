"""Which hours of a store to delete: older than they are kept, or the oldest ones where all take too much room."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ulogd_tw.storing.parquet.directory import HOUR_S, files_of_hour, hours


class Sizes:
    """The hours of a store with their octets. Only hours that were touched are read again."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._octets: dict[int, int] = {}
        self._touched: set[int] = set()

    def touch(self, hour: int) -> None:
        """Files of this hour have changed."""
        self._touched.add(hour)

    def read(self) -> dict[int, int]:
        """Octets by hour, the oldest first. Raises OSError."""
        found = {}
        for hour in hours(self._directory):
            if hour in self._touched or hour not in self._octets:
                found[hour] = sum(file.octets for file in files_of_hour(self._directory, hour))
            else:
                found[hour] = self._octets[hour]
        self._octets = found
        self._touched.clear()
        return dict(found)


def expired(sizes: dict[int, int], retain: float | None, max_size: int | None, now: float) -> Iterator[int]:
    """The hours to delete, the oldest first; never that of now, nor a later one."""
    total = sum(sizes.values())
    for hour, octets in sorted(sizes.items()):
        end = (hour + 1) * HOUR_S
        if end > now:
            return
        if not (retain is not None and end <= now - retain or max_size is not None and total > max_size):
            return
        total -= octets
        yield hour
