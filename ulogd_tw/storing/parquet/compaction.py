"""Which files of a store to merge: many small ones soon, and each hour that is over into few large sorted ones.

Files are merged when there are `MANY` of a level, so that each row is written again a few times only: a thousand files
become one in two steps. A file with half of `MOST_ROWS` is never merged again. Once an hour is over and nothing has
come for it for a while, all its smaller files become one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ulogd_tw.storing.parquet.directory import HOUR_S, StoredFile, files_of_hour, name_of

MOST_ROWS = 4_000_000
"""Rows of a merged file: some 60 MB, and less than 1 GB of memory while it is sorted."""
MANY = 24
"""Files of a level that are merged while rows still come."""
QUIET_S = 60.0
"""An hour is over for merges when so long nothing has come for it."""
_UNEVEN = 8
"""A file is merged with others at the end of its hour if these have at least so much less of its rows together."""


@dataclass(frozen=True)
class Merge:
    """Files of one hour to merge; `final`: their hour is over."""

    files: tuple[StoredFile, ...]
    final: bool

    @property
    def rows(self) -> int:
        return sum(file.rows for file in self.files)

    def result(self, run: str, number: int) -> StoredFile:
        """The new file."""
        first = self.files[0]
        start, level = min(file.start for file in self.files), max(file.level for file in self.files) + 1
        path = first.path.with_name(name_of(start, level, self.rows, run, number, 0))
        return StoredFile(path, first.hour, start, level, self.rows, run, number, 0)


def settled(hour: int, files: Sequence[StoredFile], now: float) -> bool:
    """Whether an hour is over, and nothing is left to merge until another file comes."""
    return (hour + 1) * HOUR_S + QUIET_S < now and next_merge(hour, files, now, now) is None


def next_merge(hour: int, files: Sequence[StoredFile], last_change: float, now: float) -> Merge | None:
    """The next merge of an hour; None where none is due. `files` without those that must stay."""
    small = [file for file in files if 0 <= file.rows < MOST_ROWS // 2 or file.level == 0 and file.rows >= 0]
    over = now > max((hour + 1) * HOUR_S, last_change) + QUIET_S
    if over:
        chosen = _even(small)
        worth = len(chosen) > 1 or any(file.level == 0 for file in chosen)
        return Merge(tuple(chosen), True) if worth else None
    for level in sorted({file.level for file in small}):
        same = [file for file in small if file.level == level]
        if len(same) >= MANY or sum(file.rows for file in same) >= MOST_ROWS and len(same) > 1:
            return Merge(tuple(_first(sorted(same, key=_age))), False)
    return None


def _even(files: Iterable[StoredFile]) -> list[StoredFile]:
    """The smallest files, as long as none of them is far larger than all before together."""
    chosen: list[StoredFile] = []
    rows = 0
    for file in sorted(files, key=lambda file: file.rows):
        if chosen and (rows + file.rows > MOST_ROWS or file.rows > _UNEVEN * rows and file.level):
            break
        chosen.append(file)
        rows += file.rows
    return chosen


def _first(files: Sequence[StoredFile]) -> list[StoredFile]:
    """The first files with as many rows together as a file may have; two at least."""
    chosen: list[StoredFile] = []
    rows = 0
    for file in files:
        if len(chosen) > 1 and rows + file.rows > MOST_ROWS:
            break
        chosen.append(file)
        rows += file.rows
    return chosen


def _age(file: StoredFile) -> tuple[int, str, int, int]:
    return file.start, file.run, file.number, file.place


def mergeable(directory: Path, hour: int, run: str, last: int) -> list[StoredFile]:
    """The files of an hour but those of the last write of this run, which the journal may still ask for."""
    return [
        file for file in files_of_hour(directory, hour) if file.level or (file.run, file.number) != (run, last)
    ]  # fmt: skip
