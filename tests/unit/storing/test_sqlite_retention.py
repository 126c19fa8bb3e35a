"""Old rows of SQLITE3: which ones go, in bites, and what stays."""

import sqlite3
import time

from twisted.trial.unittest import TestCase

from tests.unit.storing.sql_rows import batch_of, opened, output, told
from ulogd_tw.core import types
from ulogd_tw.core.errors import StartError
from ulogd_tw.core.keys import Key, known
from ulogd_tw.plugins.outputs.sqlite3 import SQLITE3
from ulogd_tw.storing import sqlite_retention

DAY = 86400
END, NUMBER = known("flowEndMilliseconds"), Key("number", types.UNSIGNED32)


class RetentionTests(TestCase):
    """A table of ten days of rows, and two days to keep."""

    def setUp(self):
        self.path = self.mktemp()
        self.now = time.time()

    def execute(self, statement, *arguments):
        """The rows of one statement, on a connection of its own."""
        connection = sqlite3.connect(self.path, isolation_level=None)
        try:
            return connection.execute(statement, arguments).fetchall()
        finally:
            connection.close()

    def batch(self, *ages):
        """Rows that ended so many days ago; None: without an end."""
        ends = [None if age is None else int((self.now - age * DAY) * 1000) for age in ages]
        return batch_of((END, ends), (NUMBER, list(range(len(ages)))))

    async def output(self, **options):
        options = {"db": self.path, "table": "flows", "create": True, "retain": 2.0 * DAY} | options
        return await opened(self, output(SQLITE3, **options), (END, NUMBER))

    def upkeep(self, made):
        """A look at once, as after a minute."""
        made.database.retention._next = 0.0
        made.writer.upkeep(made.pool)

    async def in_thread(self, made):
        """The same in the thread of the output."""
        await made.in_thread(self.upkeep, made)
        made._count_expired()

    async def test_old_rows_go(self):
        """Exactly those older than `retain` go, and are counted; there is an index by time."""
        made = await self.output()
        await made.write(self.batch(10, 1.9, 2.1, 0, 5))
        await self.in_thread(made)
        self.assertEqual(self.execute("SELECT number FROM flows ORDER BY number"), [(1,), (3,)])
        self.assertEqual(made.counters.figures["rows_expired"], 3)
        self.assertEqual(self.execute("SELECT name FROM sqlite_master WHERE type = 'index' AND tbl_name = 'flows'"),
                         [("flows_by_time",)])  # fmt: skip
        plan = self.execute("EXPLAIN QUERY PLAN SELECT rowid FROM flows WHERE flowEndMilliseconds < 1")
        self.assertIn("flows_by_time", str(plan))

    async def test_rows_without_a_time(self):
        """Rows without a time, or of one that is to come, go by the time when they were stored."""
        made = await self.output()
        await made.write(self.batch(None, -400, None, -0.5))
        self.execute("UPDATE flows SET stored_at = stored_at - ? WHERE number < 2", 3 * DAY)
        await self.in_thread(made)
        self.assertEqual(self.execute("SELECT number FROM flows ORDER BY number"), [(2,), (3,)])

    async def test_bites(self):
        """However many rows are old, no transaction is long, and a look ends soon; the next batch goes on."""
        self.patch(sqlite_retention, "BITE", 10)
        self.patch(sqlite_retention, "LONGEST_S", 0.0)
        made = await self.output()
        await made.write(self.batch(*[9] * 95, 0))
        for expected in (86, 76, 66):
            await self.in_thread(made)
            self.assertEqual(self.execute("SELECT COUNT(*) FROM flows"), [(expected,)])
        for _ in range(7):
            await made.write(self.batch(0))
        self.assertEqual(self.execute("SELECT COUNT(*) FROM flows"), [(8,)])
        self.assertEqual(made.counters.figures["rows_expired"], 95)

    async def test_existing_table(self):
        """Its column of times is found, or named by retain_by; without an index its rows stay, and the log has the
        statement to make one."""
        lines = told(self)
        self.execute("CREATE TABLE flows (number INTEGER, flow_end_sec INTEGER, other INTEGER)")
        self.execute("INSERT INTO flows VALUES (1, 5, ?), (2, ?, 5)", int(self.now), int(self.now))
        options = {"create": False, "keys": ("number",)}
        made = await self.output(**options)
        await self.in_thread(made)
        self.assertEqual(self.execute("SELECT COUNT(*) FROM flows"), [(2,)])
        self.assertRegex(lines[0], 'no index by "flow_end_sec".*CREATE INDEX by_time ON "flows" ."flow_end_sec".')
        await made.stop()
        self.execute("CREATE INDEX a ON flows (flow_end_sec)")
        self.execute("CREATE INDEX b ON flows (other)")
        for retain_by, left in (("", [(2,)]), ("other", [])):
            made = await self.output(retain_by=retain_by, **options)
            await self.in_thread(made)
            self.assertEqual(self.execute("SELECT number FROM flows"), left)

    async def test_without_rowid(self):
        """A table that cannot be kept so gets its rows all the same; the log says that old ones stay."""
        lines = told(self)
        self.execute("CREATE TABLE flows (number INTEGER PRIMARY KEY, flowEndMilliseconds INTEGER) WITHOUT ROWID")
        made = await self.output(keys=("number", "flowEndMilliseconds"))
        await made.write(self.batch(9))
        self.assertEqual(self.execute("SELECT number FROM flows"), [(0,)])
        self.assertRegex(lines[0], "old rows of .* stay: no such column: rowid")

    async def test_no_time(self):
        """A table without any time is a mistake, made or to be made."""
        for ddl in ("", "CREATE TABLE flows (number INTEGER)"):
            if ddl:
                self.execute(ddl)
            with self.assertRaisesRegex(StartError, "column of times.*retain_by=, or retain=0"):
                await opened(self, output(SQLITE3, db=self.path, table="flows", create=True, retain=9.0), (NUMBER,))

    async def test_nothing_by_default(self):
        """Without retain nothing is removed, and the table is as ever."""
        made = await self.output(retain=0.0)
        await made.write(self.batch(10_000))
        made.writer.upkeep(made.pool) if made.pool is None else await made.in_thread(made.writer.upkeep, made.pool)
        self.assertEqual(self.execute("SELECT COUNT(*) FROM flows"), [(1,)])
        self.assertEqual(self.execute("SELECT COUNT(*) FROM pragma_table_info('flows')"), [(2,)])

    async def test_the_file_shrinks(self):
        """A file that is more than half empty is given back by and by."""
        made = await self.output()
        self.assertEqual(self.execute("PRAGMA auto_vacuum"), [(2,)])
        await made.write(self.batch(*[9] * 40_000))
        before = self.execute("PRAGMA page_count")[0][0]
        for _ in range(3):
            await self.in_thread(made)
        self.assertEqual(self.execute("SELECT COUNT(*) FROM flows"), [(0,)])
        self.assertLess(self.execute("PRAGMA page_count")[0][0], before)
