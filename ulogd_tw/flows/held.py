"""The stores of a running service: their files, and the rows that are in no file yet, as they were at one moment."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ulogd_tw.core.batch import Batch, Schema
from ulogd_tw.core.resolve import Found
from ulogd_tw.flows import stores
from ulogd_tw.flows.directories import Directories, listed_files, listed_hours
from ulogd_tw.flows.errors import NoStore, Vanished
from ulogd_tw.flows.plan import HOUR_MS, Reach
from ulogd_tw.flows.reading import Cut, Reader
from ulogd_tw.flows.stores import Store
from ulogd_tw.storing.parquet import pieces
from ulogd_tw.storing.parquet.directory import StoredFile
from ulogd_tw.storing.stored_columns import StoredColumn


@dataclass(frozen=True)
class Moment:
    """A store at one moment, without its rows.

    Files of the writes from `number` of the process `run` on are later ones: their rows are among the waiting rows.
    Merged files that were made after `taken_ns` may have such rows. Of a roll-up, `until` is the begin of the oldest
    interval (ms) of which rows may not be there.
    """

    name: str
    directory: str
    run: str
    number: int
    taken_ns: int
    until: int | None = None
    columns: tuple[StoredColumn, ...] = ()
    """The columns of the waiting rows."""
    notes: tuple[str, ...] = ()

    def has(self, file: StoredFile) -> bool:
        """Whether the rows of a file were in files at this moment. Raises `Vanished` where nobody can tell."""
        if file.level == 0:
            return file.run != self.run or file.number < self.number
        try:
            made = os.stat(file.path).st_mtime_ns
        except OSError as error:
            raise Vanished(f"{file.path}: {error.strerror}") from None
        if made >= self.taken_ns:
            raise Vanished(f"{file.path} was made meanwhile")
        return True


@dataclass
class Held(Directories):
    """Stores at one moment, with their waiting rows by the name of the store."""

    waiting_too = True
    moments: Mapping[str, Moment]
    waiting: Mapping[str, Sequence[Batch]]
    stores: Sequence[Store] = field(init=False)

    def __post_init__(self) -> None:
        found = []
        for moment in self.moments.values():
            try:
                found.append(stores.read(moment.directory, moment.name))
            except NoStore:
                if not self.waiting.get(moment.name):
                    continue
                raise
        if not found:
            names = ", ".join(moment.directory for moment in self.moments.values())
            raise NoStore(f"{names}: nothing has been stored yet")
        super().__init__(found)

    def reach(self, store: Store, reader: Reader) -> Reach | None:
        """From the oldest hour to the interval that is not complete."""
        hours = listed_hours(store)
        if not hours:
            return None
        return Reach(hours[0] * HOUR_MS, None if store.rollup is None else self.moments[store.name].until or 0)

    def cut(self, store: Store, begin: int | None, end: int | None) -> Cut:
        """The files that were there, and the rows that waited."""
        moment = self.moments[store.name]
        files = [file for file in listed_files(store, begin, end) if moment.has(file)]
        return Cut(store, files, streams(self.waiting.get(store.name, ()), moment.columns), list(moment.notes))


def streams(batches: Sequence[Batch], columns: Iterable[StoredColumn]) -> list[Any]:
    """The rows of batches as streams of Arrow, as they would be in files."""
    listed = list(columns)
    return [piece.stream(listed, every=True) for piece in pieces.cut(batches, listed, found, None).pieces]


def found(batch: Batch, name: str) -> Found | None:
    """A column of a batch by its name."""
    key = batch.schema.get(name)
    return None if key is None else Found(batch.columns[name], batch.missing.get(name), key)


def stored(batch: Batch, columns: Iterable[StoredColumn], find: Any) -> Batch:
    """The rows of a batch with these columns alone, each under the name of its column."""
    taken = {column: there for column in columns if (there := find(batch, column.name)) is not None}
    keys = [there.key.named(column.name) for column, there in taken.items()]
    values = {column.name: there.values for column, there in taken.items()}
    missing = {column.name: there.missing for column, there in taken.items() if there.missing is not None}
    return Batch(Schema(keys), values, missing, n=batch.n, now=batch.now)
