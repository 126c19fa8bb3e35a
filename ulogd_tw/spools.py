"""Rows between two runs of the service: which outputs have a spool, what they leave there, and what they read back."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from itertools import count

from twisted.logger import Logger

from ulogd_tw.core.batch import Batch
from ulogd_tw.core.errors import PartlyWritten
from ulogd_tw.core.plugin import Plugin
from ulogd_tw.core.plurals import plural
from ulogd_tw.flow import OutputQueue
from ulogd_tw.spool import Spool, Unspooled


class Spools:
    """The spools of all outputs. `default` gives the directory for outputs without `spool`, or an empty string."""

    log = Logger()

    def __init__(self, default: Callable[[], str], report: Callable[[Plugin, Exception], None]) -> None:
        self._default = default
        self._report = report
        self._fresh = _names()

    def of(self, queue: OutputQueue) -> str:
        """The directory for rows that an output could not write before the stop; empty: they are dropped."""
        return queue.output.config.spool or self._default()

    def read_back(self, queue: OutputQueue) -> None:
        """Read back the rows that waited at an earlier stop."""
        if directory := self.of(queue):
            try:
                queue.read_back(Unspooled(Spool(directory, queue.node.ident)))
            except Exception as error:
                self._report(queue.output, error)

    def leave(self, queue: OutputQueue) -> None:
        """Rows not written in time go to the spool, or are counted as dropped."""
        batches = queue.left()
        rows = sum(batch.n for batch in batches)
        directory = self.of(queue)
        if rows and directory:
            rows -= self._save(queue, batches, directory)
        if rows:
            queue.counters.dropped["stop_timeout"] += rows
            text = plural(rows, "row was", "rows were")
            self.log.error("{node}: {rows} not written before stop_timeout", node=queue.node.ident, rows=text)
        queue.end(batches)

    def _save(self, queue: OutputQueue, batches: list[Batch], directory: str) -> int:
        """Put rows on the disk; the number of those that are there."""
        try:
            saved = Spool(directory, queue.node.ident).save(batches, self._fresh)
        except PartlyWritten as error:
            self._report(queue.output, error)
            saved = error.rows
        if saved:
            queue.counters.rows_spooled += saved
            self.log.warn("{node}: {rows} in {directory}", node=queue.node.ident,
                          rows=plural(saved, "row waits", "rows wait"), directory=directory)  # fmt: skip
        return saved


def _names() -> Callable[[], str]:
    """Names that sort by age and never repeat."""
    start, run, number = int(time.time()), uuid.uuid4().hex[:8], count()
    return lambda: f"{start:012d}-{run}-{next(number):06d}"
