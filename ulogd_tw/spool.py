"""The spool: rows that an output could not write before a stop, in files for the next start."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from twisted.logger import Logger

from ulogd_tw.core import durable
from ulogd_tw.core.batch import Batch, Past
from ulogd_tw.core.errors import PartlyWritten
from ulogd_tw.core.gather import JOIN_OCTETS

_PAST = re.compile(r"(?:@(s-[0-9a-f]{32}))?(?:@([0-9a-f-]{36})\.([0-9]{1,18}))?\.batch$")
FILE_ROWS = 8192
"""Maximum rows of a spooled file: a start reads one file at least into the queue."""


class Spool:
    """Batches in files of one directory, NumPy's npz, written under another name and then renamed."""

    log = Logger()

    def __init__(self, directory: str, instance: str) -> None:
        self.directory = Path(directory)
        self._prefix = f"{instance}-"

    def save(self, batches: list[Batch], fresh: Callable[[], str]) -> int:
        """Write the batches; returns the number of rows. Raises `PartlyWritten`: only its rows are on the disk."""
        saved = 0
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            for batch in _for_files(batches):
                durable.write(self.directory / f"{self._prefix}{fresh()}{_words(batch.past)}.batch", batch.save)
                saved += batch.n
        except OSError as error:
            raise PartlyWritten(f"spool {self.directory}: {error.strerror or error}", saved) from error
        return saved

    def load(self) -> Iterator[tuple[Path, Batch]]:
        """The batches in the directory, oldest first. An unreadable file is left in place and named in the log."""
        for path in sorted(self.directory.glob(f"{self._prefix}*.batch")):
            try:
                with open(path, "rb") as file:
                    batch = Batch.load(file)
                batch.past = _past(path.name)
                yield path, batch
            except (OSError, ValueError) as error:
                self.log.error("spooled batch {path} cannot be read: {error}", path=path, error=error)


def _words(past: Past | None) -> str:
    """The past of a batch as part of a file's name."""
    if past is None:
        return ""
    return (f"@{past.mark}" if past.mark else "") + (f"@{past.run}.{past.number}" if past.run else "")


def _past(name: str) -> Past:
    """The past of the batch in a file of this name, which is its mark if it has none."""
    found = _PAST.search(name)
    mark, run, number = found.groups() if found else (None, None, None)
    return Past(mark or "s-" + hashlib.sha256(name.encode()).hexdigest()[:32], run or "", int(number or 0))


def rows_spooled(path: Path) -> int:
    """The rows in a spooled file; 0 where it cannot be read."""
    try:
        with open(path, "rb") as file:
            return Batch.rows_in(file)
    except (OSError, ValueError):
        return 0


class Unspooled:
    """The rows of an earlier run, read back a part at a time. A file is removed when its rows are written.

    Until then a kill loses nothing of them: they weigh nothing in the ledger.
    """

    def __init__(self, spool: Spool) -> None:
        self._files = spool.load()
        self._read: list[tuple[Path, Batch]] = []
        self._under_way: list[tuple[Path, Batch]] = []
        self.more = True
        """Whether there may be further files to read."""

    @property
    def rows(self) -> int:
        """Rows read that wait or are being written."""
        return sum(batch.n for _, batch in self._present)

    @property
    def octets(self) -> int:
        """Memory of these rows."""
        return sum(batch.nbytes for _, batch in self._present)

    @property
    def waits(self) -> bool:
        """Whether rows wait."""
        return bool(self._read)

    @property
    def _present(self) -> list[tuple[Path, Batch]]:
        return [*self._under_way, *self._read]

    def read(self) -> Batch | None:
        """The next batch, which waits from now on; None at the end."""
        for path, batch in self._files if self.more else ():
            batch.held = batch.kept = True
            self._read.append((path, batch))
            return batch
        self.more = False
        return None

    def take(self, together: bool, rows: int, octets: int) -> list[Batch]:
        """The oldest batches, one at least, for a write of so many rows and octets; of one schema unless `together`."""
        taken: list[tuple[Path, Batch]] = []
        for one in self._read:
            rows, octets = rows - one[1].n, octets - one[1].nbytes
            fits = rows >= 0 and octets >= 0 and (together or one[1].schema == self._read[0][1].schema)
            if taken and not fits:
                break
            taken.append(one)
        self._read, self._under_way = self._read[len(taken) :], taken
        batches = [batch for _, batch in taken]
        if together:
            return batches
        joined = Batch.joined(batches)
        joined.kept = True
        return [joined]

    def written(self) -> None:
        """The batches taken last are written, or given up: their files go."""
        for path, _ in self._under_way:
            path.unlink(missing_ok=True)
        self._under_way = []

    def give_back(self) -> None:
        """The batches taken last wait again, before the others."""
        self._read, self._under_way = self._present, []

    def leave(self) -> int:
        """Forget what is read, which stays on the disk; its rows."""
        rows = self.rows
        self._read, self._under_way = [], []
        return rows


def _pieces(batches: list[Batch]) -> Iterator[Batch]:
    """The batches, those too large in pieces; a mark is of one piece."""
    for whole in batches:
        for at in range(0, whole.n, FILE_ROWS):
            batch = whole.take(slice(at, at + FILE_ROWS))
            batch.past = whole.past
            if batch.past is not None and batch.n < whole.n:
                batch.past = batch.past._replace(mark="")
            yield batch


def _for_files(batches: list[Batch]) -> Iterator[Batch]:
    """The batches joined with their neighbours, and cut: one file each is synced to disk."""
    some: list[Batch] = []
    rows = octets = 0
    for batch in _pieces(batches):
        if batch.past is not None:
            yield batch
            continue
        fits = rows + batch.n <= FILE_ROWS and octets + batch.nbytes <= JOIN_OCTETS
        if some and (batch.schema != some[0].schema or not fits):
            yield Batch.joined(some)
            some, rows, octets = [], 0, 0
        some.append(batch)
        rows, octets = rows + batch.n, octets + batch.nbytes
    if some:
        yield Batch.joined(some)
