"""Writes the batches of an output into Parquet files: part files, synced, which then get their names.

All calls come from one thread at a time. DuckDB writes the files, in the calling thread; it lets go of the interpreter
meanwhile.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ulogd_tw.core import durable
from ulogd_tw.core.batch import Batch
from ulogd_tw.core.resolve import Find
from ulogd_tw.storing.parquet import description, replacing
from ulogd_tw.storing.parquet.description import Description
from ulogd_tw.storing.parquet.directory import hour_directory, name_of, part_of
from ulogd_tw.storing.parquet.errors import StoreFull, StoreGone, StoreLocked, StoreStrange
from ulogd_tw.storing.parquet.faults import rows_to_blame
from ulogd_tw.storing.parquet.merge_process import connected, copy
from ulogd_tw.storing.parquet.pieces import Cut, Piece, cut
from ulogd_tw.storing.stored_columns import StoredColumn

LOCK = ".lock"
MODE = 0o640
_DIRECTORY_MODE = 0o750
_NAME = "rows of a write"
_MEMORY = 512 << 20


class Writer:
    """The files of one store. `retain` is in seconds, None for rows that are kept; `min_free` a share of the disk."""

    def __init__(
        self, directory: Path, run: str, *, compression: str, retain: float | None, min_free: float, find: Find
    ) -> None:
        self.directory = directory
        self.run = run
        self.recovered = (0, 0)
        """Files that became whole at the begin, and files that were removed."""
        self.last = 0
        """The number of the last write; its files are left alone."""
        self._compression = compression
        self._retain = retain
        self._min_free = min_free
        self._find = find
        self._lock = -1
        self._identity: tuple[int, int] | None = None
        self._connection: Any = None

    # begin and end

    def begin(self, described: Description, make: bool) -> None:
        """Lock the store, end what a killed process has left, and write store.json.

        `make`: the directory is made if its parent is there. Raises OSError.
        """
        if make:
            with suppress(FileExistsError):
                self.directory.mkdir(mode=_DIRECTORY_MODE)
        try:
            self._take_lock()
        except FileNotFoundError as error:
            raise StoreGone(f"the directory {self.directory} is gone") from error
        self.recovered = replacing.recover(self.directory)
        self.describe(described)
        found = os.stat(self.directory)
        self._identity = found.st_dev, found.st_ino

    def describe(self, described: Description) -> None:
        """Write store.json anew. Raises OSError."""
        try:
            former = description.read(self.directory)
        except ValueError as error:
            raise StoreStrange(error) from error
        described.with_columns_of(former).write(self.directory, MODE)

    @property
    def begun(self) -> bool:
        """Whether the store is open; not any more where its directory was removed or replaced."""
        try:
            found = os.stat(self.directory)
        except OSError:
            return False
        return self._identity == (found.st_dev, found.st_ino)

    def _take_lock(self) -> None:
        self.end()
        fd = os.open(self.directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, MODE)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            raise StoreLocked(self.directory) from None
        except BaseException:
            os.close(fd)
            raise
        self._lock = fd

    def end(self) -> None:
        """Let go of the store."""
        self._identity = None
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def interrupt(self) -> None:
        """Make a running write fail soon; called in another thread."""
        if (connection := self._connection) is not None:
            connection.interrupt()

    # writes

    def write(self, batches: Sequence[Batch], columns: Sequence[StoredColumn], number: int) -> Cut:
        """Write all rows; after it they survive a kill and a power failure. Raises OSError and DuckDB's errors.

        May be called again with the same batches and number: files that have their names are not written again.
        """
        self.check_room()
        found = cut(batches, columns, self._find, self._retain)
        paths = [self._path(piece, number, place) for place, piece in enumerate(found.pieces)]
        todo = [(piece, path) for piece, path in zip(found.pieces, paths, strict=True) if not path.exists()]
        for piece, path in todo:
            self._copy(piece, columns, path)
        _give_names([path for _, path in todo])
        for place in {path.parent for path in paths}:
            durable.settle_names(place)
        self.last = number
        return found

    def refuses(self, batch: Batch, columns: Sequence[StoredColumn]) -> Exception | None:
        """Why DuckDB does not take a batch; None if it does. Raises errors that other rows would meet too."""
        part = replacing.stage(self.directory) / "probe"
        try:
            for piece in cut([batch], columns, self._find, self._retain).pieces:
                self._copy_to(part, piece, columns)
        except Exception as error:
            if not rows_to_blame(error):
                raise
            return error
        finally:
            part.unlink(missing_ok=True)
        return None

    def _path(self, piece: Piece, number: int, place: int) -> Path:
        name = name_of(piece.start // 1000, 0, piece.rows, self.run, number, place)
        return hour_directory(self.directory, piece.hour) / name

    def _copy(self, piece: Piece, columns: Sequence[StoredColumn], path: Path) -> None:
        """Write the part file of a piece, so that it is on the disk."""
        self._make_hour(path.parent)
        part = part_of(path)
        try:
            self._copy_to(part, piece, columns)
        except BaseException:
            part.unlink(missing_ok=True)
            raise

    def _copy_to(self, part: Path, piece: Piece, columns: Sequence[StoredColumn]) -> None:
        connection = self.connect()
        connection.register(_NAME, piece.stream(columns))
        try:
            copy(connection, piece.query(columns, _NAME), part, self._compression)
        finally:
            connection.unregister(_NAME)

    def _make_hour(self, place: Path) -> None:
        for path in (place.parent, place):
            try:
                path.mkdir(mode=_DIRECTORY_MODE)
            except FileExistsError:
                continue
            durable.settle_names(path.parent)

    def check_room(self) -> None:
        """Raises `StoreGone` and `StoreFull`."""
        try:
            found = os.statvfs(self.directory)
        except OSError as error:
            raise StoreGone(f"the directory {self.directory} is gone") from error
        if self._min_free and found.f_bavail < found.f_blocks * self._min_free:
            raise StoreFull(self.directory, self._min_free)

    def room(self) -> int:
        """The octets that files may still take, until `min_free` is left. Raises OSError."""
        found = os.statvfs(self.directory)
        return max(int(found.f_bavail - found.f_blocks * self._min_free) * found.f_frsize, 0)

    def connect(self) -> Any:
        """The connection to DuckDB, which is loaded at first: 0.1 s in which no other thread runs."""
        if self._connection is None:
            self._connection = connected(_MEMORY)
        return self._connection


def _give_names(paths: Sequence[Path]) -> None:
    """Give complete part files their names: all of them, or none where that fails."""
    try:
        for path in paths:
            os.replace(part_of(path), path)
    except OSError:
        for path in paths:
            path.unlink(missing_ok=True)
        raise
