"""The batch under way at a kill is counted by what the file or the database has of it."""

import sqlite3
import tempfile
from pathlib import Path

import numpy as np
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ulogd_tw.core import types
from ulogd_tw.core.batch import Batch, Schema
from ulogd_tw.core.batch_journal import BatchJournal, under_way
from ulogd_tw.core.keys import known
from ulogd_tw.core.ledger import Written
from ulogd_tw.core.options import Options
from ulogd_tw.plugins.outputs.json import JSON
from ulogd_tw.plugins.outputs.sqlite3 import SQLite
from ulogd_tw.storing.refused import Refused
from ulogd_tw.storing.table_writer import TableWriter

KEY = known("protocolIdentifier")


def rows_of(n):
    """A batch of so many rows."""
    return Batch(Schema([KEY]), {KEY.name: np.arange(n, dtype=types.UNSIGNED8.dtype)}, {}, n=n, now=0.0)


class Entry:
    """A place in the ledger where so much is finished."""

    finished = 70


class Former:
    """A ledger that tells which writes were found done."""

    def unsaved(self, ident, held=0, committed=()):
        self.committed = list(committed)
        return 0


class Case(SynchronousTestCase):
    """An empty state directory."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.directory = Path(folder.name)
        self.path = str(self.directory / "batch")


class JournalTests(Case):
    """The file itself."""

    def test_under_way(self):
        journal = BatchJournal(self.path, "a-run")
        self.assertIsNone(under_way(self.path))
        journal.begin(3, 70, 12, 4, 99, 1000)
        found = under_way(self.path)
        self.assertEqual(("a-run", 3, Written(70, 12), 4, 99, 1000), found)
        self.assertEqual([Written(70, 0), Written(70, 9), Written(70, 12)], [found.part(n) for n in (0, 3, 5)])

    def test_an_end_in_order(self):
        """No batch is under way; the same where there is no file."""
        self.assertIsNone(under_way(self.path))
        journal = BatchJournal(self.path, "a-run")
        journal.begin(3, 70, 12, 4)
        journal.close()
        self.assertIsNone(under_way(self.path))

    def test_damage(self):
        BatchJournal(self.path, "a-run")
        whole = Path(self.path).read_bytes()
        for octets in (b"", whole[:100], b"ulogd_tw batch 2\n" + whole[17:], whole[:-1]):
            Path(self.path).write_bytes(octets)
            self.assertRaises(ValueError, under_way, self.path)


class TextTests(Case):
    """JSON: the lines in the file tell."""

    def output(self):
        plugin = JSON("json1", Options(JSON.all_options(), {"file": str(self.directory / "rows.json")}), Clock())
        plugin.fault = lambda error: None
        plugin.keep_state(self.directory, 1.0)
        plugin.open()
        plugin.ledger = Entry()
        return plugin

    def found_after(self, change):
        """What the next run finds of a batch of five rows, after another of three."""
        first = self.output()
        first.write(rows_of(3))
        first.write(rows_of(5))
        path = self.directory / "rows.json"
        path.write_bytes(change(path.read_bytes()))
        former = Former()
        self.output().count_unsaved(former, "json1")
        return former.committed

    def test_whole(self):
        self.assertEqual([Written(70, 5)], self.found_after(lambda octets: octets))

    def test_cut_within_a_row(self):
        """Two of its rows are whole; the cut one is removed."""
        lines = b"\n"

        def cut(octets):
            return b"".join(line + lines for line in octets.split(lines)[:5]) + b'{"proto'

        self.assertEqual([Written(70, 2)], self.found_after(cut))

    def test_nothing_of_it(self):
        self.assertEqual([Written(70, 0)], self.found_after(lambda octets: b"".join(octets.splitlines(True)[:3])))

    def test_another_file(self):
        """After a rotation nothing is known of it."""
        first = self.output()
        first.write(rows_of(5))
        (self.directory / "rows.json").rename(self.directory / "rows.json.1")
        former = Former()
        self.output().count_unsaved(former, "json1")
        self.assertEqual([Written(70, 0)], former.committed)


class DatabaseTests(Case):
    """The table of batch numbers tells, by the name of the run."""

    def test_committed(self):
        database = SQLite(str(self.directory / "flows.sqlite3"), "flows", "db1")
        connection = sqlite3.connect(database.path, isolation_level=None)
        self.addCleanup(connection.close)
        database.opened(connection)
        database.number_batches(connection)
        connection.execute("CREATE TABLE flows (protocolIdentifier INTEGER)")
        (column,) = database.columns(connection)
        writer = TableWriter(database, None, None, None)
        writer._connection = lambda pool: connection
        former = SQLite(database.path, "flows", "db1")
        former.numbered = database.numbered
        former._commit(connection, [], 0, 7, Refused())
        self.assertEqual(
            [True, False, False],
            [writer.committed(None, run, n) for run, n in ((former.run, 7), (former.run, 8), ("another", 1))],
        )
