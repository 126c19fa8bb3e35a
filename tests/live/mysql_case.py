"""For tests of MYSQL with a real server: one server for a module, and a table for each test."""

import atexit
from functools import cache

from twisted.internet import defer, reactor, threads
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from tests.support import PrivateMariaDB
from tests.unit.storing.sql_rows import NUMBER_KEYS, numbers, opened, output, told
from ulogd_tw.plugins.outputs.mysql import MYSQL

ROWS = 500
"""Rows of a batch in tests that write many."""


async def until(condition, within=60.0):
    """Wait until it holds; a server needs some time."""
    for _ in range(int(within / 0.02)):
        if await threads.deferToThread(condition):
            return
        await pause(0.02)
    raise AssertionError(f"did not happen within {within:g} s")


def pause(seconds):
    """A Deferred that fires then."""
    return deferLater(reactor, seconds, lambda: None)


@cache
def shared_server():
    """One server for all tests of MYSQL, ended with the process: to make one takes seconds."""
    server = PrivateMariaDB(networking=True)
    server.__enter__()
    atexit.register(server.__exit__)
    return server


class MYSQLTestCase(TestCase):
    """With a server; every test has its own table."""

    timeout = 120

    def setUp(self):
        self.server = shared_server()
        self.table = self.id().rpartition(".")[2]
        self.told = told(self)

    def output(self, **options):
        where = {"host": "127.0.0.1", "port": self.server.port, "user": "root", "db": "ulogd"}
        return output(MYSQL, **where | {"table": self.table, "create": True, "reconnect": 0.5} | options)

    def execute(self, statement, *arguments):
        """The rows of a statement with {t} for the table."""
        return self.server.execute(statement.replace("{t}", f"`{self.table}`"), *arguments)

    async def write(self, made, first, batches):
        """Write batches one after the other, as the queue does; the number of the row after the last."""
        for _ in range(batches):
            await made.write(numbers(first, ROWS))
            first += ROWS
        return first

    def assertOnce(self, rows):
        """The numbers 0 to `rows` - 1 are in the table, each once."""
        found = self.execute("SELECT COUNT(*), COUNT(DISTINCT number), MAX(number) FROM {t}")
        self.assertEqual(found, [(rows, rows, rows - 1)])


class BothWaysTestCase(MYSQLTestCase):
    """With two outputs at once, by LOAD DATA and by INSERT, each on a table of its own."""

    timeout = 120

    WAYS = ("loaded", "inserted")

    async def both(self, ddl="", above=NUMBER_KEYS, **options):
        """The outputs below these keys, on tables made by `ddl` with {t}, or by themselves."""
        made = []
        for way in self.WAYS:
            table = f"{self.table}_{way}"
            if ddl:
                self.server.execute(ddl.replace("{t}", f"`{table}`"))
            made.append(await opened(self, self.output(table=table, load_data=way == "loaded", **options), above))
        return made

    def write_both(self, made, batch):
        """Write a batch by both; fires when both have."""
        return defer.gatherResults([out.write(batch) for out in made], consumeErrors=True)

    def assertAccounted(self, made, expected):
        """Both tables have these numbers, each once; the first was loaded, the other not."""
        for way, out in zip(self.WAYS, made, strict=True):
            found = self.server.execute(f"SELECT number FROM `{self.table}_{way}` ORDER BY number")
            self.assertEqual([number for (number,) in found], sorted(expected), way)
            self.assertEqual(out.database.loading.used, way == "loaded")

    def assertRefused(self, made, rows):
        """Both have counted so many rows as refused."""
        self.assertEqual([out.counters.dropped["refused"] for out in made], [rows] * 2)
