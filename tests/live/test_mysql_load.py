"""MYSQL by LOAD DATA and by INSERT: the same rows, each once, whatever happens to the server."""

import os
import random
import signal

import pymysql
from twisted.internet import threads

from tests.live.mysql_case import ROWS, BothWaysTestCase, pause, until
from tests.support import PrivateMariaDB
from tests.unit.storing.sql_rows import NUMBER_KEYS, ODD_STRINGS, batch_of, numbers
from ulogd_tw.core import types
from ulogd_tw.core.keys import Key, known

MANY = 60_000
"""Rows of a batch that takes long enough to be interrupted."""


class ValuesTests(BothWaysTestCase):
    """What stands in the tables."""

    async def test_any_value(self):
        """Odd text and extremes are stored exactly, or as every output has them, and both ways are the same."""
        chance = random.Random(1)
        texts = [*ODD_STRINGS, "\\N", "\\", "\t", "a\tb\\", "x" * 65536, "\U0001f600" * 9000, "NULL", None]
        texts += ["".join(chance.choices("ab\\'\"\t\n\r\0\x1a\x7fé€😀N,", k=chance.randrange(12))) for _ in range(500)]
        texts = [text and text.rstrip("\0") for text in texts]
        n = len(texts)

        def some(*values):
            return [*values, *chance.choices(values, k=n - len(values))]

        rows = {
            Key("s", types.STRING): texts,
            Key("u", types.UNSIGNED64): some((1 << 64) - 1, 1 << 63, 0, None),
            Key("i", types.SIGNED64): some(-(1 << 63), (1 << 63) - 1, -1, None),
            Key("skew", types.SIGNED32): some(-(1 << 31), 0, None),
            Key("six", types.IPV6): some((1 << 128) - 1, 0, 0xFFFF_0A000001, None),
            Key("o", types.OCTETS): some(bytes(range(256)), b"", b"\t\n\\", None),
            Key("f", types.FLOAT64): some(1.7976931348623157e308, -0.1, 5e-324, None),
        }
        batch = batch_of(*rows.items())
        made = await self.both(above=batch.schema.values())
        await self.write_both(made, batch)
        addresses = {(1 << 128) - 1: "ffff:" * 7 + "ffff", 0: "::", 0xFFFF_0A000001: "::ffff:10.0.0.1", None: None}
        expected = [
            (s, u, i, skew, addresses[six], o and o.hex() if o is not None else None, f)
            for s, u, i, skew, six, o, f in zip(*rows.values(), strict=True)
        ]
        expected = [(*row[:5], "" if row[5] == b"" else row[5], row[6]) for row in expected]
        for way in self.WAYS:
            found = self.server.execute(f"SELECT s, u, i, skew, six, o, f FROM `{self.table}_{way}` ORDER BY id")
            self.assertEqual(found, expected, way)
        self.assertTrue(made[0].database.loading.used)
        self.assertEqual([output.counters.dropped for output in made], [{}, {}])

    async def test_invalid_utf_8(self):
        """It becomes U+FFFD both ways; a column of Latin letters takes what it has letters for, by row."""
        ddl = "CREATE TABLE {t} (number INT, userName VARCHAR(9)) CHARSET latin1"
        keys = (NUMBER_KEYS[1], known("userName"))
        made = await self.both(ddl, keys, create=False)
        await self.write_both(made, batch_of((keys[0], [1, 2]), (keys[1], ["é", "ü"])))
        await self.write_both(made, batch_of((keys[0], [3, 4, 5]), (keys[1], [b"\xff", "ä", "😀"])))
        self.assertAccounted(made, [1, 2, 4])
        self.assertRefused(made, 2)

    async def test_binary_columns(self):
        """Octets as they are, addresses as octets, and NULL."""
        keys = (NUMBER_KEYS[1], Key("o", types.OCTETS), known("sourceAddress").typed(types.IPV6))
        ddl = "CREATE TABLE {t} (number INT, o VARBINARY(300), sourceAddress BINARY(16)) CHARSET utf8mb4"
        made = await self.both(ddl, keys, keys=("number", "o", "sourceAddress"))
        octets = [bytes(range(256)), b"\xf0\t", b"", None]
        addresses = [1 << 120 | 9, 0, (1 << 128) - 1, None]
        await self.write_both(made, batch_of((keys[0], [1, 2, 3, 4]), (keys[1], octets), (keys[2], addresses)))
        addresses = [value if value is None else value.to_bytes(16, "big") for value in addresses]
        for way in self.WAYS:
            found = self.server.execute(f"SELECT o, sourceAddress FROM `{self.table}_{way}` ORDER BY number")
            self.assertEqual(found, list(zip(octets, addresses, strict=True)), way)
        self.assertAccounted(made, [1, 2, 3, 4])

    async def test_one_column(self):
        """A row of one empty text, and one of NULL."""
        key = known("userName")
        made = await self.both(above=(key,))
        await self.write_both(made, batch_of((key, ["", None, "", "x"])))
        for way in self.WAYS:
            self.assertEqual(
                self.server.execute(f"SELECT userName FROM `{self.table}_{way}` ORDER BY id"),
                [("",), (None,), ("",), ("x",)],
            )

    async def test_types_that_take_text_otherwise(self):
        """BIT, ENUM, SET and YEAR get numbers, as ever."""
        ddl = "CREATE TABLE {t} (number INT, a BIT(8), b ENUM('5', '1'), c SET('5', '1'))"
        keys = (NUMBER_KEYS[1], *(Key(name, types.UNSIGNED8) for name in "abc"))
        made = await self.both(ddl, keys, keys=("number", "a", "b", "c"))
        await self.write_both(made, batch_of(*((key, [1]) for key in keys)))
        for way in self.WAYS:
            self.assertEqual(self.server.execute(f"SELECT * FROM `{self.table}_{way}`"), [(1, b"\1", "5", "5")])
        self.assertFalse(made[0].database.loading.used)


class RefusedTests(BothWaysTestCase):
    """Rows that do not fit."""

    async def test_column_too_small(self):
        """Numbers, strings and NULL where there is no room, and keys that are there twice: these rows alone are left
        out, and not one of them is cut. Whether the next batch is good or bad."""
        ddl = "CREATE TABLE {t} (number TINYINT UNSIGNED NOT NULL UNIQUE, userName VARCHAR(3) NOT NULL)"
        keys = (NUMBER_KEYS[1], known("userName"))
        made = await self.both(ddl, keys, keys=("number", "userName"))
        await self.write_both(made, batch_of((keys[0], [0, 1]), (keys[1], ["a", "b"])))
        await self.write_both(
            made, batch_of((keys[0], [2, 256, None, 3, 1, 4]), (keys[1], ["x"] * 3 + ["long", "x", None]))
        )
        for first in (5, 7):
            await self.write_both(made, batch_of((keys[0], [first, first + 1]), (keys[1], ["c", "d"])))
        self.assertAccounted(made, [0, 1, 2, 5, 6, 7, 8])
        self.assertRefused(made, 5)

    async def test_poison_row(self):
        """A trigger that fails for one row in a hundred, by its own error and by one about the statement."""
        made = await self.both("CREATE TABLE {t} (number INT UNSIGNED) ENGINE=InnoDB", create=False, reconnect=0.05)
        for way in self.WAYS:
            for number, bad in ((1644, 7), (30001, 13)):
                self.server.execute(
                    f"CREATE TRIGGER `{way}{bad}` BEFORE INSERT ON `{self.table}_{way}` FOR EACH ROW BEGIN IF "
                    f"NEW.number > 400 AND NEW.number % 100 = {bad} THEN SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = "
                    f"{number}, MESSAGE_TEXT = 'odd row'; END IF; END"
                )
        await self.write_both(made, numbers(0, 300))
        await self.write_both(made, numbers(300, 300))
        self.assertAccounted(made, [n for n in range(600) if n < 400 or n % 100 not in (7, 13)])
        self.assertRefused(made, 4)

    async def test_table_altered(self):
        """A column that is dropped, made smaller, or renamed while rows are written."""
        made = await self.both()
        await self.write_both(made, numbers(0, 10))
        for way in self.WAYS:
            self.server.execute(f"ALTER TABLE `{self.table}_{way}` DROP COLUMN sourceIPv4Address")
        await self.write_both(made, numbers(10, 10))
        for way in self.WAYS:
            self.server.execute(f"ALTER TABLE `{self.table}_{way}` MODIFY number TINYINT UNSIGNED")
        await self.write_both(made, numbers(250, 10))
        self.assertAccounted(made, [*range(20), *range(250, 256)])
        self.assertRefused(made, 4)


class OutageTests(BothWaysTestCase):
    """Rows received less rows counted are in the table, each once."""

    async def test_server_dies(self):
        """It is killed in the middle of a batch, and comes back; then connections are killed."""
        made = await self.both()
        await self.write_both(made, numbers(0, ROWS))
        writing = self.write_both(made, numbers(ROWS, MANY))
        await pause(0.15)
        await threads.deferToThread(self.server.stop, 9)
        await threads.deferToThread(self.server.start)
        await writing
        writing = self.write_both(made, numbers(ROWS + MANY, MANY))
        await pause(0.1)
        for (ident,) in self.execute(
            "SELECT ID FROM information_schema.PROCESSLIST WHERE ID <> CONNECTION_ID() AND DB = 'ulogd'"
        ):
            self.execute(f"KILL CONNECTION {ident}")
        await writing
        self.assertAccounted(made, range(ROWS + 2 * MANY))
        self.assertRefused(made, 0)

    async def test_server_hangs(self):
        """For ten seconds, in the middle of a batch, longer than `timeout`: nothing is there twice."""
        made = await self.both(timeout=2.0, connect_timeout=1.0)
        await self.write_both(made, numbers(0, ROWS))
        for way in self.WAYS:
            self.server.execute(
                f"CREATE TRIGGER `{way}_waits` BEFORE INSERT ON `{self.table}_{way}` FOR EACH ROW BEGIN IF "
                f"NEW.number = {ROWS + 500} THEN DO SLEEP(1); END IF; END"
            )
        writing = self.write_both(made, numbers(ROWS, MANY))
        waits = "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE STATE = 'User sleep'"
        await until(lambda: self.server.execute(waits) != [(0,)])
        os.kill(self.server.pid, signal.SIGSTOP)
        try:
            await pause(10)
            self.assertFalse(writing.called)
        finally:
            os.kill(self.server.pid, signal.SIGCONT)
        await writing
        self.assertAccounted(made, range(ROWS + MANY))

    async def test_deadlock(self):
        """Another client makes one: the server takes the transaction back, and the batch is written again."""
        ddl = "CREATE TABLE {t} (number INT UNSIGNED PRIMARY KEY) ENGINE=InnoDB"
        self.server.execute("CREATE TABLE heavy (a INT) ENGINE=InnoDB")
        waits = "SELECT COUNT(*) FROM information_schema.INNODB_TRX WHERE trx_state = 'LOCK WAIT'"
        for made in await self.both(ddl, create=False):
            await made.write(numbers(0, 2))
            other = pymysql.connect(**self.server.connect_kwargs)
            with other.cursor() as cursor:
                cursor.execute("INSERT INTO heavy SELECT 1 FROM seq_1_to_20000")
                cursor.execute(f"INSERT INTO {made.database.table} VALUES (5)")
                writing = made.write(numbers(2, ROWS))
                await until(lambda: self.server.execute(waits) != [(0,)])
                statement = f"SELECT * FROM ulogd_tw_batches WHERE run = '{made.database.run}' FOR UPDATE"
                await threads.deferToThread(cursor.execute, statement)
            other.rollback()
            other.close()
            await writing
            self.assertEqual(made.counters.errors["locked"], 1)
            found = self.server.execute(f"SELECT COUNT(*), MAX(number) FROM {made.database.table}")
            self.assertEqual(found, [(ROWS + 2, ROWS + 1)])

    async def test_not_allowed(self):
        """With local_infile=OFF rows are inserted, and one line says so; once it is ON, new connections load."""
        self.execute("SET GLOBAL local_infile = OFF")
        self.addCleanup(self.execute, "SET GLOBAL local_infile = ON")
        (made, _) = await self.both()
        await made.write(numbers(0, ROWS))
        made.writer.renew = True
        await made.write(numbers(ROWS, ROWS))
        self.assertEqual(len([line for line in self.told if "local_infile is OFF" in line]), 1)
        self.assertFalse(made.database.loading.used)
        self.execute("SET GLOBAL local_infile = ON")
        made.writer.renew = True
        await made.write(numbers(2 * ROWS, ROWS))
        self.assertTrue(made.database.loading.used)
        self.assertEqual(self.execute(f"SELECT COUNT(*) FROM {made.database.table}"), [(3 * ROWS,)])

    async def test_not_allowed_later(self):
        """An administrator switches it off under an open connection: the batch is inserted all the same."""
        made = await self.both()
        await self.write_both(made, numbers(0, 10))
        self.execute("SET GLOBAL local_infile = OFF")
        self.addCleanup(self.execute, "SET GLOBAL local_infile = ON")
        await self.write_both(made, numbers(10, 10))
        self.assertAccounted(made, range(20))


class FullTests(BothWaysTestCase):
    """A server whose data file must not grow: on a small file system, MariaDB 10.11 itself ends."""

    def setUp(self):
        super().setUp()
        self.server = PrivateMariaDB(networking=True, options=["--innodb-data-file-path=ibdata1:12M;ibdata2:8M"])
        self.server.__enter__()
        self.addCleanup(self.server.__exit__)

    async def test_disk_full(self):
        """Rows wait while there is no room, and are there when there is, each once."""
        self.execute("SET GLOBAL innodb_file_per_table = OFF")
        self.execute("CREATE TABLE others (a CHAR(200)) SELECT 'x' AS a FROM seq_1_to_12000")
        made = await self.both("CREATE TABLE {t} (number INT UNSIGNED, note CHAR(200) DEFAULT 'x')", keys=("number",))
        await self.write_both(made, numbers(0, ROWS))
        writing = self.write_both(made, numbers(ROWS, 8000))
        await pause(2)
        self.assertFalse(writing.called)
        self.assertGreater(sum(out.counters.errors["full"] for out in made), 0)
        self.execute("DROP TABLE others")
        await writing
        self.assertAccounted(made, range(ROWS + 8000))
