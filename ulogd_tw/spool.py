"""The spool: rows that an output could not write before a stop, in files for the next start."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from twisted.logger import Logger

from ulogd_tw.core import durable
from ulogd_tw.core.batch import Batch
from ulogd_tw.core.gather import JOIN_OCTETS
from ulogd_tw.core.ledger import weight

FILE_ROWS = 8192
"""Maximum rows of a spooled file: a start reads one file at least into the queue."""


class Spool:
    """Batches in files of one directory, NumPy's npz, written under another name and then renamed."""

    log = Logger()

    def __init__(self, directory: str, instance: str) -> None:
        self.directory = Path(directory)
        self._prefix = f"{instance}-"

    def save(self, batches: list[Batch], fresh: Callable[[], str]) -> int:
        """Write the batches; returns the number of rows safely on disk."""
        saved = 0
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for batch in _for_files(batches):
            path = self.directory / f"{self._prefix}{fresh()}.batch"
            durable.write(path, batch.save)
            saved += batch.n
        return saved

    def load(self) -> Iterator[tuple[Path, Batch]]:
        """The batches in the directory, oldest first. An unreadable file is left in place and named in the log."""
        for path in sorted(self.directory.glob(f"{self._prefix}*.batch")):
            try:
                with open(path, "rb") as file:
                    yield path, Batch.load(file)
            except (OSError, ValueError) as error:
                self.log.error("spooled batch {path} cannot be read: {error}", path=path, error=error)


def rows_spooled(path: Path) -> int:
    """The rows in a spooled file; 0 where it cannot be read."""
    try:
        with open(path, "rb") as file:
            return Batch.rows_in(file)
    except (OSError, ValueError):
        return 0


class Unspooled:
    """The rows of an earlier run, read file by file; a file is removed when its rows are written."""

    def __init__(self, spool: Spool) -> None:
        self._files = spool.load()
        self._read: list[Path] = []
        self._weight = 0

    def next(self) -> Batch | None:
        """The next batch, which no bound cuts; None at the end."""
        for path, batch in self._files:
            self._read.append(path)
            self._weight += weight(batch)
            batch.held = True
            return batch
        return None

    def remove(self) -> int:
        """Remove the files read so far; the weight of their rows."""
        for path in self._read:
            path.unlink(missing_ok=True)
        self._read.clear()
        removed, self._weight = self._weight, 0
        return removed


def _for_files(batches: list[Batch]) -> Iterator[Batch]:
    """The batches joined with their neighbours, and cut: one file each is synced to disk."""
    some: list[Batch] = []
    rows = octets = 0
    for batch in (whole.take(slice(at, at + FILE_ROWS)) for whole in batches for at in range(0, whole.n, FILE_ROWS)):
        fits = rows + batch.n <= FILE_ROWS and octets + batch.nbytes <= JOIN_OCTETS
        if some and (batch.schema != some[0].schema or not fits):
            yield Batch.joined(some)
            some, rows, octets = [], 0, 0
        some.append(batch)
        rows, octets = rows + batch.n, octets + batch.nbytes
    if some:
        yield Batch.joined(some)
