"""One batch in one INSERT: its token, its repeats, the rows that are refused."""

from unittest import mock

import numpy as np
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.storing.clickhouse.server import SETTINGS, Server
from ulogd_tw.core import types
from ulogd_tw.core.batch import Past
from ulogd_tw.core.keys import Key, known
from ulogd_tw.core.resolve import Found
from ulogd_tw.storing.clickhouse.client import NoAnswer, ServerError, Way
from ulogd_tw.storing.clickhouse.database import ClickHouse
from ulogd_tw.storing.columns import Target
from ulogd_tw.storing.errors import TableError

KEY = Key("number", types.UNSIGNED32)
TABLE = {"number": "UInt16"}


def values(numbers):
    """The values of one column."""
    return [(Target("number", ("number",)), Found(np.array(numbers, np.uint32), None, KEY))]


def numbers(octets):
    """The numbers in the octets of an INSERT."""
    return np.frombuffer(octets.partition(b"UInt16")[2], "<u2").tolist()


class DatabaseCase(SynchronousTestCase):
    """With a server in memory."""

    def opened(self, server):
        """A table of this server."""
        database = ClickHouse("flows", "ch1", Way([("h", 1), ("i", 1)], "default"))
        database.opened(server)
        database.columns(server)
        return database

    def setUp(self):
        self.server = Server(TABLE)
        self.database = self.opened(self.server)

    def inserted(self):
        """The numbers of all inserts."""
        return [numbers(octets) for _, octets, _ in self.server.inserts]


class StoreTests(DatabaseCase):
    """Writes that go well, or of which nobody knows."""

    def test_insert(self):
        """The statement names the columns; the token is the run and the number, and inserts wait for nobody."""
        self.database.store(self.server, values([7, 8]), 2, 5)
        ((statement, octets, settings),) = self.server.inserts
        self.assertEqual(statement, "INSERT INTO flows (number) FORMAT Native")
        self.assertEqual(octets, b"\1\2\6number\6UInt16\7\0\x08\0")
        token = f"{self.database.run}-5"
        self.assertEqual(settings["insert_deduplication_token"], token)
        self.assertEqual((settings["query_id"], settings["async_insert"]), (token, 0))

    def test_repeated(self):
        """A repeat has the same token, and its rows are not counted as there twice."""

        def lose(body, settings):
            self.server.refuses = lambda *_: None
            self.server.insert("", [body], **settings)
            raise NoAnswer("lost", sent=True)

        self.server.refuses = lose
        with self.assertRaises(NoAnswer):
            self.database.store(self.server, values([7]), 1, 5)
        refused = self.database.store(self.server, values([7]), 1, 5, True)
        self.assertEqual((refused.maybe_twice, len(self.server.inserts)), (0, 1))

    def test_repeated_without_window(self):
        """Without a deduplication window, or on a server without tokens, rows may be there twice."""
        for server in (Server(TABLE, window=0), Server(TABLE, settings=SETTINGS[:2])):
            database = self.opened(server)
            self.assertFalse(database.numbered)
            server.refuses = self._lost
            with self.assertRaises(NoAnswer):
                database.store(server, values([7, 8]), 2, 5)
            server.refuses = lambda *_: None
            self.assertEqual(database.store(server, values([7, 8]), 2, 5, True).maybe_twice, 2)
            self.assertEqual(database.store(server, values([7, 8]), 2, 6).maybe_twice, 0)
            self.assertNotIn("insert_deduplication_token", server.inserts[0][2])

    @staticmethod
    def _lost(body, settings):
        raise NoAnswer("lost", sent=True)

    def test_repeated_elsewhere(self):
        """Another server does not know the token, unless the table is replicated."""
        for engine, twice in (("MergeTree", 1), ("ReplicatedMergeTree", 0)):
            server = Server(TABLE, engine=engine)
            database = self.opened(server)
            server.refuses = self._lost
            with self.assertRaises(NoAnswer):
                database.store(server, values([7]), 1, 5)
            server.refuses, server.host = lambda *_: None, 1
            self.assertEqual(database.store(server, values([7]), 1, 5, True).maybe_twice, twice, engine)

    def test_which_server(self):
        """After a doubt the same server comes first, after a refusal or in silence the next one."""
        for error, first, doubt in (
            (NoAnswer("lost", sent=True), 0, True), (ServerError(252, 500, "Too many parts"), 1, False),
            (ServerError(241, 500, "Memory limit"), 0, True), (NoAnswer("away"), 0, False),
        ):  # fmt: skip
            database = self.opened(Server(TABLE))

            def refuse(body, settings, error=error):
                raise error

            database.connection.refuses = refuse
            raised = self.assertRaises(type(error), database.store, database.connection, values([7]), 1, 5)
            database.fault(raised)
            self.assertEqual((database.way.first, database.in_doubt == 5), (first, doubt), error)

    def test_silent_server(self):
        """A server that takes connections and says nothing is left for the next one."""
        database = ClickHouse("flows", "ch1", Way([("h", 1), ("i", 1)], "default"))
        with mock.patch.object(self.server, "ask", side_effect=NoAnswer("no answer in time", sent=True)):
            self.assertRaises(NoAnswer, database.opened, self.server)
        self.assertEqual(database.way.first, 1)

    def test_sorted(self):
        """Rows go in the order of the table's key."""
        database = self.opened(Server(TABLE, key="number"))
        server = database.connection
        database.store(server, values([9, 7, 8]), 3, 5)
        self.assertEqual(numbers(server.inserts[0][1]), [7, 8, 9])

    def test_does_not_fit(self):
        """Rows that do not fit a column are refused by their numbers, the others stored."""
        refused = self.database.store(self.server, values([70000, 7, 70001, 6]), 4, 5)
        self.assertEqual([row for row, _ in refused.at], [0, 2])
        self.assertIn("does not fit column number, which is UInt16", next(iter(refused.reasons)))
        self.assertEqual(self.inserted(), [[7, 6]])

    def test_no_value(self):
        """Rows without a value for any column are refused: ClickHouse has no INSERT of defaults alone."""
        refused = self.database.store(self.server, [(Target("number", ("number",)), None)], 2, 5)
        self.assertEqual((refused.rows, self.server.inserts), (2, []))

    def test_nothing_fits(self):
        """Without rows there is no INSERT."""
        self.assertEqual(self.database.store(self.server, values([70000]), 1, 5).rows, 1)
        self.assertEqual(self.server.inserts, [])


class PastTests(DatabaseCase):
    """Batches of an earlier run."""

    def test_mark(self):
        """A batch from the disk has its mark for a token: a run that is killed may have stored it."""
        for _ in range(2):
            self.database.store(self.server, values([7]), 1, 5, False, Past("mark"))
        self.assertEqual(len(self.server.inserts), 1)

    def test_in_doubt(self):
        """A batch that got no answer before a stop is looked up in the query log."""
        for log, stored, twice in ((["QueryStart", "QueryFinish"], 0, 0), (["ExceptionWhileProcessing"], 1, 0),
                                   ([], 1, 1), (None, 1, 1)):  # fmt: skip
            self.server.inserts.clear()
            self.server.tokens.clear()
            self.server.log = log
            refused = self.database.store(self.server, values([7]), 1, 5, False, Past("", "earlier", 3))
            self.assertEqual((len(self.server.inserts), refused.maybe_twice), (stored, twice), log)
        self.assertIn("query_id = 'earlier-3'", self.server.statements[-2] + self.server.statements[-3])


class SiftTests(DatabaseCase):
    """Rows for which the server has an error of its own."""

    def constraint(self, *bad, code=469):
        """The server refuses inserts with these numbers."""

        def refuse(body, settings):
            if set(bad) & set(numbers(body)):
                raise ServerError(code, 500, "Constraint `c` is violated")

        self.server.refuses = refuse

    def test_sifted(self):
        """Bad rows are refused by their numbers, all others stored once."""
        self.constraint(7, 30, 31)
        batch = list(range(100, 0, -1))
        refused = self.database.sift(self.server, values(batch), 100, 5)
        self.assertEqual(sorted(batch[row] for row, _ in refused.at), [7, 30, 31])
        stored = sorted(number for some in self.inserted() for number in some)
        self.assertEqual(stored, [n for n in range(1, 101) if n not in (7, 30, 31)])

    def test_repeated(self):
        """A sift that is repeated stores no row twice."""
        self.constraint(7)
        for _ in range(2):
            self.database.sift(self.server, values(list(range(50))), 50, 5)
        self.assertEqual(len([number for some in self.inserted() for number in some]), 49)

    def test_in_order_of_key(self):
        """The numbers are those of the batch, not of the sorted rows."""
        self.server.key = "number"
        self.database.columns(self.server)
        self.constraint(3)
        refused = self.database.sift(self.server, values([9, 3, 5]), 3, 5)
        self.assertEqual([row for row, _ in refused.at], [1])

    def test_only_bad(self):
        """One bad row alone is refused for an error about values; for another error it waits."""
        self.constraint(7)
        self.assertEqual(self.database.sift(self.server, values([7]), 1, 5).rows, 1)
        self.constraint(7, code=48)
        with self.assertRaises(ServerError):
            self.database.sift(self.server, values([7]), 1, 6)


class TableTests(DatabaseCase):
    """What is told about a table."""

    def test_too_old(self):
        """A server that is too old for create=1 is one clear error."""
        database = self.opened(Server(None, version="18.16.1"))
        database.to_make = object()
        with self.assertRaises(TableError) as raised:
            database.make(database.connection, [known("octets")])
        self.assertIn("create=1 needs ClickHouse 24.8 or later; this server is 18.16.1", str(raised.exception))

    def test_statements(self):
        """The statements that mend a table."""
        (statement,) = self.database.add_ddl([known("octets")])
        self.assertEqual(statement, "ALTER TABLE flows ADD COLUMN octets UInt64 CODEC(ZSTD(1))")

    def test_old_server(self):
        """A server without sorting_key and with its own dots in the name."""
        database = ClickHouse("a.b", "ch1", Way([("h", 1)], "default"))
        database.opened(self.server)
        database.columns(self.server)
        self.assertIn("database = 'a' AND table IN ('b')", self.server.statements[-2])

    def test_token_of_distributed(self):
        """A Distributed table has the window of its local one, and its inserts wait for all servers."""

        class Distributed(Server):
            def ask(self, statement, **settings):
                if "system.tables" in statement and "name IN ('flows')" in statement:
                    return [["Distributed", "Distributed('c', 'd', 'flows_local', rand())", ""]]
                return super().ask(statement, **settings)

        server = Distributed(TABLE, settings=(*SETTINGS, "distributed_foreground_insert", "insert_distributed_sync"))
        database = self.opened(server)
        self.assertTrue(database.numbered)
        self.assertIn("database = 'd' AND name IN ('flows_local')", server.statements[-1])
        database.store(server, values([7]), 1, 5)
        self.assertEqual(server.inserts[0][2]["distributed_foreground_insert"], 1)
