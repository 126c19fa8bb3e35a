"""MYSQL with retain: partitions of days, made ahead and dropped, and what is deleted by row."""

import time

from tests.live.mysql_case import MYSQLTestCase
from tests.unit.storing.sql_rows import batch_of, opened
from ulogd_tw.core import types
from ulogd_tw.core.errors import StartError
from ulogd_tw.core.keys import Key, known

DAY = 86400
END, NUMBER = known("flowEndMilliseconds"), Key("number", types.UNSIGNED32)


class PartitionTests(MYSQLTestCase):
    """Two days to keep."""

    def setUp(self):
        super().setUp()
        self.now = time.time() // DAY * DAY + DAY / 2

    def batch(self, *ages):
        """Rows that ended so many days ago; None: without an end."""
        ends = [None if age is None else int((self.now - age * DAY) * 1000) for age in ages]
        return batch_of((END, ends), (NUMBER, list(range(len(ages)))))

    async def opened(self, **options):
        return await opened(self, self.output(**{"retain": 2.0 * DAY} | options), (END, NUMBER))

    def numbers(self):
        """What stands in the table."""
        return [number for (number,) in self.execute("SELECT number FROM {t} ORDER BY number")]

    def partitions(self):
        """The numbers of rows by partition, but for those that are empty."""
        names = self.execute(
            "SELECT PARTITION_NAME FROM information_schema.PARTITIONS WHERE TABLE_NAME = %s ORDER BY "
            "PARTITION_ORDINAL_POSITION", self.table,
        )  # fmt: skip
        return {name: self.execute(f"SELECT COUNT(*) FROM {{t}} PARTITION ({name})")[0][0] for (name,) in names}

    async def later(self, made, days):
        """Upkeep as it is so many days later."""
        made.database.partitions.clock = lambda: self.now + days * DAY
        made.database.partitions._next = 0.0
        await made.in_thread(made.writer.upkeep, made.pool)
        made._count_expired()

    def day(self, days):
        """The name of a partition, by days from today."""
        return time.strftime("d%Y%m%d", time.gmtime(self.now + days * DAY))

    async def test_days(self):
        """Each row is in the partition of its day; days come ahead, and go with all their rows when they are old."""
        made = await self.opened()
        await made.write(self.batch(2.2, 1, 0, -1, None, 400, -400))
        self.assertEqual(self.partitions(), {
            "odd": 2, self.day(-2): 1, self.day(-1): 1, self.day(0): 1, self.day(1): 1, self.day(2): 0,
            "later": 1,
        })  # fmt: skip
        await self.later(made, 1)
        self.assertEqual(self.partitions(), {
            "odd": 2, self.day(-1): 1, self.day(0): 1, self.day(1): 1, self.day(2): 0, self.day(3): 0, "later": 1,
        })  # fmt: skip
        self.assertEqual(made.counters.figures["partitions_dropped"], 1)
        self.assertEqual(self.numbers(), [1, 2, 3, 4, 5, 6])
        self.execute("UPDATE {t} SET stored_at = FROM_UNIXTIME(%s) WHERE number IN (4, 6)", int(self.now - 3 * DAY))
        await self.later(made, 1)
        self.assertEqual(self.numbers(), [1, 2, 3, 5])
        self.assertEqual(made.counters.figures["rows_expired"], 2)
        await made.write(self.batch(-2))
        self.assertTrue(made.database.loading.used)
        await made.stop()
        again = await self.opened()  # a table that is there
        await self.later(again, 5)
        self.assertEqual(list(self.partitions()), ["odd", *(self.day(day) for day in range(3, 8)), "later"])

    async def test_after_a_long_pause(self):
        """A service that was off for months makes the days of the last month only."""
        made = await self.opened()
        await self.later(made, 200)
        self.assertLess(len(self.partitions()), 40)
        self.assertIn(self.day(202), self.partitions())

    async def test_table_without_partitions(self):
        """Old rows are deleted a few at once, if there is an index; else they stay, and the log has the statement."""
        self.execute("CREATE TABLE {t} (number INT, flowEndMilliseconds BIGINT UNSIGNED)")
        made = await self.opened(create=False)
        await made.write(self.batch(*[9] * 5000, 1, None))
        await self.later(made, 0)
        self.assertEqual(len(self.numbers()), 5002)
        statement = next(line for line in self.told if "no index" in line).partition("; ")[2]
        await made.stop()
        self.execute(statement)
        made = await self.opened(create=False)
        await self.later(made, 0)
        self.assertEqual(self.numbers(), [5000, 5001])
        self.assertEqual(made.counters.figures["rows_expired"], 5000)

    async def test_few_rights(self):
        """Rows are written all the same; the log says once what the user lacks."""
        (await self.opened()).stop()
        self.execute("CREATE USER fewest@'127.0.0.1'")
        self.execute("GRANT SELECT, INSERT ON ulogd.* TO fewest@'127.0.0.1'")
        made = await self.opened(user="fewest", create=False)
        for _ in range(2):
            await self.later(made, 3)
            await made.write(self.batch(0))
        self.assertEqual(self.numbers(), [0, 0])
        self.assertEqual(len([line for line in self.told if "grant ALTER" in line]), 1)

    async def test_upkeep_fails(self):
        """Rows are written all the same; the log says why the old ones stay."""
        made = await self.opened()
        self.execute("ALTER TABLE {t} RENAME COLUMN stored_at TO other")
        await self.later(made, 0)
        await made.write(self.batch(0))
        self.assertEqual(self.numbers(), [0])
        self.assertEqual(len([line for line in self.told if "Unknown column 'stored_at'" in line]), 1)

    async def test_no_time(self):
        """A table without a time is a mistake."""
        with self.assertRaisesRegex(StartError, "column of times.*retain_by=, or retain=0"):
            await opened(self, self.output(retain=9.0), (NUMBER,))
