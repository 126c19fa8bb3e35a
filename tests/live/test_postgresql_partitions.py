"""PGSQL with `retain`: daily partitions of a real server, and what becomes of odd times."""

import time

import psycopg

from tests.live.test_postgresql import PGSQLTestCase, pause
from tests.unit.storing.sql_rows import batch_of, opened
from ulogd_tw.core import types
from ulogd_tw.core.errors import StartError
from ulogd_tw.core.keys import Key, known
from ulogd_tw.storing.postgresql_partitions import Partitions

DAY_MS = 86_400_000
DAY = 86400


def rows_at(*times):
    """Rows with a number each, ending at these times in milliseconds; None: no time."""
    return batch_of((Key("number", types.UNSIGNED32), range(len(times))), (known("flowEndMilliseconds"), list(times)))


class PartitionTests(PGSQLTestCase):
    """Tables made by create=1."""

    def setUp(self):
        super().setUp()
        self.now = int(time.time() * 1000)

    async def opened(self, **options):
        batch = rows_at(0)
        return await opened(self, self.output(**{"retain": 3.0 * DAY} | options), batch.schema.values())

    def partitions(self):
        """Rows by the end of the partition's name."""
        found = self.execute("SELECT tableoid::regclass::text, array_agg(number ORDER BY number) FROM {t} GROUP BY 1")
        return {name.strip('"').rpartition("_")[2]: numbers for name, numbers in found}

    def names(self):
        found = self.execute("SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = '{t}'::regclass")
        return {name.strip('"').rpartition("_")[2] for (name,) in found}

    def day(self, days):
        return time.strftime("%Y%m%d", time.gmtime(self.now / 1000 + days * DAY))

    async def test_days(self):
        """Days from `retain` ago to two days ahead have a partition; other rows and those without time the default."""
        made = await self.opened()
        await made.write(rows_at(self.now, self.now - DAY_MS, self.now - 10 * DAY_MS, self.now + 10 * DAY_MS, None))
        self.assertEqual({self.day(0): [0], self.day(-1): [1], "odd": [2, 3, 4]}, self.partitions())
        self.assertEqual({"odd", *(self.day(days) for days in (-1, 0, 1, 2))}, self.names())
        self.assertEqual({}, made.counters.dropped)
        (kind,) = self.execute("SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attname = 'stored_at' "
                               "AND attrelid = '{t}'::regclass")[0]  # fmt: skip
        self.assertEqual("timestamp with time zone", kind)

    async def test_dropped(self):
        """Old partitions go as a whole, odd rows by the time when they were stored; the rest stays."""
        made = await self.opened()
        await made.write(rows_at(self.now, self.now - 2 * DAY_MS, None, self.now + 99 * DAY_MS))
        self.execute("UPDATE {t} SET stored_at = now() - interval '4 days' WHERE number IN (0, 2)")
        self.patch(time, "time", lambda: self.now / 1000 + 2 * DAY)
        made.database._partitions._next = 0
        await made.in_thread(made.writer.upkeep, made.pool)
        self.assertEqual({self.day(0): [0], "odd": [3]}, self.partitions())
        self.assertEqual({"odd", *(self.day(days) for days in (0, 1, 2, 3, 4))}, self.names())
        self.assertTrue([line for line in self.told if "dropped the partition" in line])

    async def test_day_comes(self):
        """Rows of the default partition move into that of their day when it is made."""
        made = await self.opened()
        await made.write(rows_at(self.now + 5 * DAY_MS, self.now))
        self.assertEqual([0], self.partitions()["odd"])
        self.patch(Partitions, "_today", lambda partitions: self.now // DAY_MS + 4)
        await made.write(rows_at(*[self.now] * 3))
        self.assertEqual({self.day(5): [0], self.day(0): [0, 1, 1, 2]}, self.partitions())

    async def test_long_query(self):
        """A long query of the table holds no rows up: its partitions are made and dropped when it has ended."""
        made = await self.opened()
        await made.write(rows_at(self.now, self.now - 2 * DAY_MS))
        self.patch(time, "time", lambda: self.now / 1000 + 3 * DAY)
        made.database._partitions._next = 0
        with psycopg.connect(**self.server.where) as reader:
            reader.execute(f'SELECT count(*) FROM "{self.table}"')
            began = time.monotonic()
            await made.write(rows_at(self.now + 4 * DAY_MS))
            self.assertLess(time.monotonic() - began, 10)
        self.assertEqual({self.day(0): [0], self.day(-2): [1], "odd": [0]}, self.partitions())
        made.database._partitions._next = made.database._partitions._later = 0
        await made.write(rows_at(self.now))
        self.assertEqual({self.day(0): [0, 0], self.day(4): [0]}, self.partitions())

    async def test_not_kept(self):
        """Rows are written also where partitions cannot be made or dropped for another reason; the log has it."""
        made = await self.opened()
        await made.write(rows_at(self.now))
        part = f'"{self.table}_{self.day(-1)}"'
        self.execute(f"CREATE TABLE {part} (number bigint)")  # a table of this name, but no partition
        await made.write(rows_at(self.now - DAY_MS))
        self.assertEqual({self.day(0): [0], "odd": [0]}, self.partitions())
        await made.write(rows_at(self.now - 2 * DAY_MS))
        self.patch(time, "time", lambda: self.now / 1000 + 2 * DAY)
        self.execute(f'CREATE VIEW looks AS SELECT * FROM "{self.table}_{self.day(-2)}"')
        self.addCleanup(self.execute, "DROP VIEW looks")
        made.database._partitions._next = 0
        await made.write(rows_at(self.now))
        self.assertEqual([0, 0], self.partitions()[self.day(0)])
        self.assertTrue([line for line in self.told if "old rows stay: cannot drop table" in line], self.told)

    async def test_two_at_once(self):
        """Two instances that make the same table and partitions at the same moment both write."""
        batch = rows_at(self.now)
        made = []
        for _ in range(2):
            one = self.output(retain=3.0 * DAY)
            one.prepare()
            self.assertEqual([], list(one.available(tuple(batch.schema.values()))))
            self.addCleanup(one.stop)
            made.append((one, one.open()))
        for one, opening in made:
            await opening
            await one.write(batch)
        self.assertEqual([(2,)], self.execute("SELECT count(*) FROM {t}"))

    async def test_wakes(self):
        """Without rows old partitions go as well."""
        made = await self.opened()
        await made.write(rows_at(self.now - 2 * DAY_MS))
        self.patch(time, "time", lambda: self.now / 1000 + 2 * DAY)
        made.database._partitions._next = 0
        self.assertLess(made.wake(0), 600)
        await pause(0.3)
        self.assertEqual({}, self.partitions())

    async def test_plain_table(self):
        """A table without partitions has its old rows deleted; one without times is refused."""
        self.execute('CREATE TABLE {t} (number int, "flowEndMilliseconds" timestamptz)')
        made = await self.opened()
        await made.write(rows_at(self.now, self.now - 4 * DAY_MS, None))
        made.database._partitions._next = 0
        await made.write(rows_at(self.now))
        self.assertEqual([(0,), (0,), (2,)], self.execute("SELECT number FROM {t} ORDER BY 1"))
        self.execute('ALTER TABLE {t} DROP "flowEndMilliseconds"')
        with self.assertRaisesRegex(StartError, "no column of times"):
            self.output(retain=3.0 * DAY, create=False).prepare()

    async def test_not_the_owner(self):
        """A user who may not make partitions writes all the same; the log says so once."""
        made = await self.opened()
        await made.in_thread(made.writer.upkeep, made.pool)
        await made.stop()
        self.execute("CREATE ROLE writer LOGIN")
        self.execute("GRANT SELECT, INSERT ON {t} TO writer")
        made = await self.opened(user="writer", create=False)
        for _ in range(2):
            await made.write(rows_at(self.now, self.now - DAY_MS))
        self.assertEqual({self.day(0): [0, 0], "odd": [1, 1]}, self.partitions())
        self.assertEqual(1, len([line for line in self.told if "make the user its owner" in line]))

    async def test_timescale(self):
        """With TimescaleDB's functions the table is a hypertable with chunks of a day, dropped by it.

        The functions are stand-ins that note their arguments: Debian has no package of it.
        """
        for statement in (
            "CREATE TABLE calls (text text)",
            "CREATE FUNCTION create_hypertable(t regclass, c name, chunk_time_interval interval, if_not_exists bool) "
            "RETURNS void LANGUAGE sql AS $$ INSERT INTO calls VALUES "
            "(t::text || ' ' || c || ' ' || chunk_time_interval) $$",
            "CREATE FUNCTION drop_chunks(t regclass, older_than timestamptz) RETURNS SETOF text LANGUAGE sql AS "
            "$$ INSERT INTO calls VALUES ('drop ' || t::text || ' ' || "
            "round(extract(epoch FROM now() - older_than) / 8640)) RETURNING text $$",
            "CREATE SCHEMA timescaledb_information",
            f"CREATE VIEW timescaledb_information.hypertables AS SELECT 'public'::name AS hypertable_schema, "
            f"'{self.table}'::name AS hypertable_name",
        ):
            self.execute(statement)
        try:
            made = await self.opened()
            await made.write(rows_at(self.now))
            self.assertEqual([(f"{self.table} flowEndMilliseconds 1 day",), (f"drop {self.table} 30",)],
                             self.execute("SELECT text FROM calls"))  # fmt: skip
            self.assertEqual([("r",)], self.execute("SELECT relkind::text FROM pg_class WHERE oid = '{t}'::regclass"))
        finally:
            self.execute("DROP SCHEMA timescaledb_information CASCADE")
            self.execute("DROP FUNCTION create_hypertable, drop_chunks")
