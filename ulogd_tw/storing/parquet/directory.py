"""The files of a flow store by their names: ``DIR/date=YYYY-MM-DD/hour=HH/START-LEVEL-ROWS.RUN.NUMBER.PLACE.parquet``.

The hour is that of the rows in UTC; START the earliest start of them in seconds since 1970, so that a listing alone
shows which files can hold flows of a time. LEVEL is 0 for a file as it was written, and one more after each merge. RUN
and NUMBER name the write; the files of one write differ by PLACE. A name with a dot before it is not complete.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

HOUR_S = 3600
SUFFIX = ".parquet"
_PART = ".part"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DATE, _HOUR = re.compile(r"date=(\d{4})-(\d\d)-(\d\d)$"), re.compile(r"hour=(\d\d)$")
_NAME = re.compile(r"(\d+)-(\d+)-(?:(\d+)\.([0-9a-f]+)\.(\d+)\.(\d+)|.+)\.parquet$", re.ASCII)


class StoredFile(NamedTuple):
    """A file of a store: its hour since 1970, and what its name says. `rows` is -1 in names of other programs."""

    path: Path
    hour: int
    start: int
    level: int
    rows: int
    run: str
    number: int
    place: int

    @property
    def octets(self) -> int:
        """Its size; 0 if it is gone."""
        return octets_of(self.path)

    def overlaps(self, since: float | None, until: float | None) -> bool:
        """Whether it can hold flows of the half-open time from `since` to `until`, in seconds; None is open."""
        after = since is None or (self.hour + 1) * HOUR_S > since
        return after and (until is None or self.start < until)


def octets_of(path: Path) -> int:
    """The size of a file; 0 if it is gone."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def hour_directory(directory: Path, hour: int) -> Path:
    """The directory of an hour since 1970."""
    at = _EPOCH + timedelta(hours=hour)
    return directory / f"date={at:%Y-%m-%d}" / f"hour={at:%H}"


def name_of(start: int, level: int, rows: int, run: str, number: int, place: int) -> str:
    """The name of a complete file."""
    return f"{start}-{level}-{rows}.{run}.{number}.{place}{SUFFIX}"


def part_of(path: Path) -> Path:
    """The path of a file while it is written."""
    return path.with_name(f".{path.name}{_PART}")


def whole_of(part: Path) -> Path | None:
    """The path that an incomplete file was to have; None for other files."""
    name = part.name
    if not (name.startswith(".") and name.endswith(SUFFIX + _PART)):
        return None
    return part.with_name(name[1 : -len(_PART)])


def stored_file(path: Path, hour: int) -> StoredFile | None:
    """The file of this path by its name; None for what is no complete file of a store."""
    found = _NAME.match(path.name)
    if found is None:
        return None
    start, level, rows, run, number, place = found.groups()
    return StoredFile(
        path, hour, int(start), int(level), int(rows or -1), run or "", int(number or 0), int(place or 0)
    )  # fmt: skip


def hours(directory: Path) -> list[int]:
    """The hours with a directory, the oldest first. Raises OSError if the store itself cannot be listed."""
    found = []
    for date in _entries(directory):
        day = _day(date.name)
        if day is None:
            continue
        try:
            found += [day + int(match[1]) for hour in _entries(date) if (match := _HOUR.match(hour.name))]
        except FileNotFoundError:  # removed meanwhile
            continue
    return sorted(found)


def files_of_hour(directory: Path, hour: int) -> list[StoredFile]:
    """The complete files of an hour, in the order of their names; none if it is gone."""
    place = hour_directory(directory, hour)
    try:
        names = _names_at_one_moment(place)
    except FileNotFoundError:
        return []
    return [found for name in names if (found := stored_file(place / name, hour)) is not None]


def _names_at_one_moment(place: Path) -> list[str]:
    """The names in a directory; listed again where another one took its place meanwhile, as it is emptied then."""
    while True:
        opened = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            names = sorted(os.listdir(opened))
            if os.path.samestat(os.fstat(opened), os.stat(place)):
                return names
        finally:
            os.close(opened)


def files(directory: Path, since: float | None = None, until: float | None = None) -> list[StoredFile]:
    """The files that can hold flows of the half-open time from `since` to `until` (seconds since 1970), oldest first.

    Merges and retention remove files at any time: a reader that does not find one any more lists again, and begins
    anew. The files of one hour are always listed as they were at one moment, each row once. Raises OSError.
    """
    found = []
    for hour in hours(directory):
        if since is None or (hour + 1) * HOUR_S > since:
            found += [file for file in files_of_hour(directory, hour) if file.overlaps(since, until)]
    return found


def parts(directory: Path) -> Iterator[tuple[Path, StoredFile]]:
    """The incomplete files, each with the file that it was to be."""
    for hour in hours(directory):
        for path in _entries(hour_directory(directory, hour)):
            whole = whole_of(path)
            file = stored_file(whole, hour) if whole is not None else None
            if file is not None:
                yield path, file


def _entries(directory: Path) -> list[Path]:
    return [directory / name for name in sorted(os.listdir(directory))]


def _day(name: str) -> int | None:
    """Hours since 1970 of the beginning of a date; None for another name."""
    found = _DATE.match(name)
    if found is None:
        return None
    try:
        year, month, day = map(int, found.groups())
        at = datetime(year, month, day, tzinfo=UTC)
    except ValueError:
        return None
    return (at - _EPOCH).days * 24
