"""Writes batches into a table, in the thread of a pool: its connection, the columns, one batch at a time."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from ulogd_tw.core.batch import Batch
from ulogd_tw.core.keys import Key
from ulogd_tw.core.resolve import Find
from ulogd_tw.storing.columns import TableColumn, Target, values_of, worth_writing
from ulogd_tw.storing.database import Database
from ulogd_tw.storing.errors import TableError
from ulogd_tw.storing.refused import Refused

Choose = Callable[[list[TableColumn]], list[Target]]
KeysToMake = Callable[[Batch | None], list[Key] | None]
KeysToAdd = Callable[[list[TableColumn], Batch | None], list[Key] | None]


class TableWriter:
    """Writes through an `adbapi.ConnectionPool` of one thread; each failure discards the connection.

    adbapi alone keeps a dead connection and loses the rows written to it. `choose` gives the columns to write;
    `keys_to_make` (may raise `TableError`) gives the keys for a missing table, `keys_to_add` those for missing columns.
    """

    def __init__(
        self,
        database: Database,
        choose: Choose,
        keys_to_make: KeysToMake,
        find: Find,
        keys_to_add: KeysToAdd = lambda columns, batch: [],
    ) -> None:
        self.database = database
        self.targets: list[Target] | None = None
        """The columns to write; None until they are read through this connection."""
        self.must_add = False
        """Whether all keys were named, so that each must have a column."""
        self._told = False
        self.renew = False
        """Set to have a new connection for the next batch."""
        self._choose = choose
        self._keys_to_make = keys_to_make
        self._keys_to_add = keys_to_add
        self._find = find

    def opened(self, connection: Any) -> None:
        """adbapi has connected (its ``cp_openfun``)."""
        self.targets = None
        try:
            self.database.opened(connection)
            self.database.number_batches(connection)
        except BaseException:
            connection.close()  # adbapi forgets one whose cp_openfun fails
            raise

    def write(self, pool: Any, batch: Batch | None, number: int, again: bool) -> Refused:
        """Write the batch in one transaction; for None only check that the table exists.

        `again`: an earlier attempt may have been committed unnoticed. After an error the connection is discarded.
        """
        return self._written(
            pool, batch, partial(self.database.store, number=number, again=again, past=batch.past if batch else None)
        )

    def sift(self, pool: Any, batch: Batch, number: int) -> Refused:
        """The same after attempts in vain: without the rows that are to blame (`Database.sift`)."""
        return self._written(pool, batch, partial(self.database.sift, number=number, past=batch.past))

    def _written(self, pool: Any, batch: Batch | None, store: Callable[..., Refused]) -> Refused:
        try:
            connection = self._connection(pool)
            if self.targets is None:
                self.targets = self._learn(connection, batch)
            if batch is None or self.targets is None:
                return Refused()
            values = values_of(self.targets, lambda name: self._find(batch, name))
            nothing, numbers = 0, None
            if (kept := worth_writing(values, self._find(batch, "record_kind"), batch.n)) is not None:
                numbers = np.flatnonzero(kept)
                batch = batch.take(numbers)
                nothing = len(kept) - batch.n
                values = values_of(self.targets, lambda name: self._find(batch, name))
            refused = store(connection, values, batch.n) if batch.n else Refused()
            refused.nothing = nothing
            if numbers is not None:
                refused.move(numbers)
            return refused
        except BaseException:
            self.disconnect(pool)
            raise

    def stored(self, pool: Any, number: int) -> Refused | None:
        """The result of `Database.stored` for this batch."""
        return self.database.stored(self._connection(pool), number)

    def committed(self, pool: Any, run: str, number: int) -> bool:
        """Whether an earlier run has committed its batch of this number; False also where nobody knows."""
        return self.database.numbered and self.database.last_number(self._connection(pool), run) >= number

    def upkeep(self, pool: Any) -> None:
        """Keep the table in order while nothing is written; after an error the connection is discarded."""
        if self.targets is None:
            return
        try:
            self.database.upkeep(self._connection(pool))
        except BaseException:
            self.disconnect(pool)
            raise

    def disconnect(self, pool: Any) -> None:
        """Close the connection, if there is one; uncommitted rows are rolled back."""
        for connection in list(pool.connections.values()):
            self._close(pool, connection)

    def _close(self, pool: Any, connection: Any) -> None:
        self.database.closing(connection)
        pool.disconnect(connection)

    def _connection(self, pool: Any) -> Any:
        connection = pool.connect()
        if self.renew or self.database.stale():
            self.renew = False
            self._close(pool, connection)
            connection = pool.connect()
        return connection

    def _add(self, connection: Any, keys: list[Key]) -> None:
        """Add columns. Where the user may not, keys that nobody has named stay without one, and the log says so."""
        try:
            self.database.add_columns(connection, keys)
        except TableError as error:
            if self.must_add:
                raise
            if not self._told:
                self._told = True
                self.database.log.warn(
                    "{instance}: {error}: not written; {remedy}", instance=self.database.instance, error=error,
                    remedy=error.remedy,
                )  # fmt: skip

    def _learn(self, connection: Any, batch: Batch | None) -> list[Target] | None:
        """The columns to write. Makes the table, or columns; None if a batch must come first to show types of keys."""
        columns = self.database.columns(connection)
        keys = self._keys_to_add(columns, batch) if columns else self._keys_to_make(batch)
        if keys is None:
            return None
        if not columns:
            self.database.make(connection, keys)
        elif keys:
            self._add(connection, keys)
        return self._choose(self.database.columns(connection) if keys else columns)
