"""Rows from the disk that an earlier run may have stored already: they are there once."""

import itertools
import sqlite3
from pathlib import Path

from twisted.internet import defer
from twisted.trial.unittest import TestCase

from tests.unit.storing.sql_rows import numbers, opened, output
from ulogd_tw.core.batch import Past
from ulogd_tw.core.errors import NotWritten
from ulogd_tw.plugins.outputs.sqlite3 import SQLITE3
from ulogd_tw.spool import FILE_ROWS, Spool, Unspooled

RUN = "01234567-89ab-cdef-0123-456789abcdef"


class PastTests(TestCase):
    """A spool, and a file of SQLite."""

    def setUp(self):
        self.path = self.mktemp()
        self.fresh = (f"{number:012d}-00000000-000000" for number in itertools.count())
        self.spool = Spool(self.mktemp(), "db")

    def save(self, *batches):
        """Put batches into the spool."""
        return self.spool.save(list(batches), lambda: next(self.fresh))

    def load(self):
        """The batches in the spool, whose files stay, as after a kill."""
        unspooled = Unspooled(self.spool)
        return list(iter(unspooled.read, None))

    async def run_once(self, **options):
        """One run of the output."""
        return await opened(self, output(SQLITE3, db=self.path, table="flows", create=True, **options))

    def rows(self):
        """What stands in the table."""
        with sqlite3.connect(self.path) as connection:
            return [number for (number,) in connection.execute("SELECT number FROM flows ORDER BY number")]

    async def test_killed_while_it_reads_the_spool(self):
        """Files whose rows were stored are not stored again, those whose were not are."""
        self.save(numbers(0, 3))
        self.save(numbers(3, 3))
        first = await self.run_once()
        await first.write(self.load()[0])
        for _ in range(2):
            made = await self.run_once()
            for batch in self.load():
                await made.write(batch)
        self.assertEqual(self.rows(), list(range(6)))

    async def test_equal_rows(self):
        """Two files of the same rows are two."""
        self.save(numbers(0, 2))
        self.save(numbers(0, 2))
        made = await self.run_once()
        for batch in self.load():
            await made.write(batch)
        self.assertEqual(self.rows(), [0, 0, 1, 1])

    async def test_no_answer_before_the_stop(self):
        """The commit is done, its answer lost, and the service stopped: the next run leaves these rows alone."""
        for commits in (True, False):
            self.path, self.spool = self.mktemp(), Spool(self.mktemp(), "db")
            made = await self.run_once(reconnect=60.0)
            await made.write(numbers(0, 1))
            real = made.database._execute
            batch = numbers(1, FILE_ROWS + 5)
            self.lose_answer(made, commits)
            writing = made.write(batch)
            given_back = self.assertFailure(writing, NotWritten)
            while not made.counters.errors:
                await defer.ensureDeferred(self.turn())
            made.database._execute = real
            await made.stop()
            await given_back
            self.assertEqual(batch.past, Past("", made.database.run, 2) if commits else None)
            self.save(batch, numbers(FILE_ROWS + 6, 2))
            again = await self.run_once()
            for each in self.load():
                await again.write(each)
            self.assertEqual(self.rows(), list(range(FILE_ROWS + 8)))

    async def turn(self):
        """Let the threads work."""
        from twisted.internet import reactor, task

        await task.deferLater(reactor, 0.01, lambda: None)

    def lose_answer(self, made, commits):
        """From now on the database is away, after the next commit or before it."""

        class Lossy:
            def __init__(self, connection):
                self.__dict__["held"] = connection

            def __getattr__(self, name):
                return getattr(self.held, name)

            def commit(self):
                self.held.commit()
                raise sqlite3.OperationalError("database is locked")

        def away(connection):
            raise sqlite3.OperationalError("database is locked")

        store = made.database.store

        def lossy(connection, *arguments, **keywords):
            made.database.store = lambda connection, *_, **__: away(connection)
            return store(Lossy(connection), *arguments, **keywords) if commits else away(connection)

        made.database.store = lossy

    def test_names_of_files(self):
        """The past is in the name of a file, and goes along when the rows go to the disk again."""
        batch = numbers(0, FILE_ROWS + 1)
        batch.past = Past("", RUN, 7)
        self.save(batch, numbers(0, 1), numbers(1, 1))
        found = self.load()
        self.assertEqual([each.n for each in found], [FILE_ROWS, 1, 2])
        self.assertEqual([(each.past.run, each.past.number) for each in found], [(RUN, 7), (RUN, 7), ("", 0)])
        self.assertEqual(len({each.past.mark for each in found}), 3)
        for path in Path(self.spool.directory).iterdir():
            path.unlink()
        self.save(*found)
        self.assertEqual([each.past for each in self.load()], [each.past for each in found])
