"""Keeps a store tidy beside the writes: deletes hours, merges files. Its steps run in the writer's thread.

`Upkeep.plan` looks for the next merge, whose process then works alone; `Upkeep.finish` puts its file in place.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from ulogd_tw.core.counters import Counters
from ulogd_tw.storing.parquet import merging, replacing
from ulogd_tw.storing.parquet.compaction import Merge, mergeable, next_merge, settled
from ulogd_tw.storing.parquet.directory import HOUR_S, StoredFile
from ulogd_tw.storing.parquet.retention import Sizes, expired
from ulogd_tw.storing.parquet.writer import Writer


class Job:
    """A merge under way: its files, the new one, and the process."""

    def __init__(self, merge: Merge, new: StoredFile, part: Path, process: subprocess.Popen[bytes]) -> None:
        self.merge = merge
        self.new = new
        self.part = part
        self.process = process


class Upkeep:
    """The upkeep of the store of a `Writer`. `retain` in seconds, `max_size` in octets; None: no such limit."""

    def __init__(
        self, writer: Writer, counters: Counters, retain: float | None, max_size: int | None, compression: str
    ) -> None:
        self._writer = writer
        self._counters = counters
        self._retain = retain
        self._max_size = max_size
        self._compression = compression
        self._sizes = Sizes(writer.directory)
        self._settled: set[int] = set()
        """Hours without anything to merge until a file comes."""
        self._changed: dict[int, float] = {}
        """When a file has come last, of the hours of this run."""
        self._number = 0
        self.deleted_until = 0
        """Nothing is kept of before this time, in seconds since 1970; 0 where nothing was deleted."""

    def wrote(self, hours: Sequence[int], now: float) -> None:
        """Files of these hours were written."""
        for hour in hours:
            self._sizes.touch(hour)
            self._settled.discard(hour)
            self._changed[hour] = now

    def plan(self, order: Sequence[str], now: float) -> Job | None:
        """Delete what is due, and begin the next merge; None where none is due. Raises OSError."""
        sizes = self._sizes.read()
        self.delete(sizes, now)
        for hour in sizes:
            if hour not in self._settled and (merge := self._merge_of(hour, now)) and self._has_room(merge):
                return self._begin(merge, order)
        self._changed = {hour: at for hour, at in self._changed.items() if hour not in self._settled}
        return None

    def delete(self, sizes: dict[int, int], now: float) -> int | None:
        """Delete the hours that are due; returns the end of the last in seconds, None for none."""
        end = None
        for hour in list(expired(sizes, self._retain, self._max_size, now)):
            rows, octets = replacing.remove_hour(self._writer.directory, hour)
            figures = self._counters.figures
            figures["hours_deleted"] += 1
            figures["rows_deleted"] += rows
            figures["octets_deleted"] += octets
            del sizes[hour]
            end = self.deleted_until = (hour + 1) * HOUR_S
        self._counters.figures["octets_stored"] = sum(sizes.values())
        return end

    def _merge_of(self, hour: int, now: float) -> Merge | None:
        files = mergeable(self._writer.directory, hour, self._writer.run, self._writer.last)
        changed = self._changed.get(hour, 0.0)
        merge = next_merge(hour, files, changed, now)
        if merge is None and changed + HOUR_S < now and settled(hour, files, now):
            self._settled.add(hour)
        return merge

    def _has_room(self, merge: Merge) -> bool:
        """Whether the new file has room beside the others."""
        return self._writer.room() > sum(file.octets for file in merge.files)

    def _begin(self, merge: Merge, order: Sequence[str]) -> Job:
        self._number += 1
        new = merge.result(self._writer.run, self._number)
        part = replacing.stage(self._writer.directory) / f"merge-{self._number}"
        sorting = order if merge.final else order[:1]  # an hour under way is merged again: half the time will do
        process = merging.start([file.path for file in merge.files], part, sorting, self._compression)
        return Job(merge, new, part, process)

    def abandon(self, job: Job) -> None:
        """Remove what a merge has left, and leave its hour alone until another file comes: others have their turn."""
        self._settled.add(job.new.hour)
        job.part.unlink(missing_ok=True)
        shutil.rmtree(job.part.parent / merging.TEMPORARY, ignore_errors=True)

    def finish(self, job: Job, rows: int) -> None:
        """Put the merged file in the place of the others. Raises OSError; they stay then."""
        if rows != job.merge.rows:
            raise OSError(f"{job.new.path.parent}: a merge of {job.merge.rows} rows has given {rows}")
        replacing.replace(self._writer.directory, job.merge.files, job.part, job.new)
        self._sizes.touch(job.new.hour)
        self._counters.figures["merges"] += 1
