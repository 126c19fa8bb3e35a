"""Merges of a store, by the process that makes them."""

from pathlib import Path
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from tests.unit.storing.parquet.flows import COLUMNS, NOON, flows, names, ports, writer
from ulogd_tw.core.counters import Counters
from ulogd_tw.storing.parquet import merging
from ulogd_tw.storing.parquet.compaction import MANY, QUIET_S
from ulogd_tw.storing.parquet.directory import files
from ulogd_tw.storing.parquet.upkeep import Upkeep

MS = NOON * 1000
OVER = NOON + 3600 + QUIET_S + 1


class UpkeepTests(SynchronousTestCase):
    """An hour with some files."""

    def setUp(self):
        self.place = Path(self.mktemp())
        self.writer = writer(self.place)
        self.addCleanup(self.writer.end)
        self.counters = Counters("PARQUET")
        self.upkeep = Upkeep(self.writer, self.counters, None, None, "zstd")

    def write(self, n):
        for number in range(1, n + 1):
            self.writer.write([flows([MS], first=number)], COLUMNS, number)

    def merge(self, now):
        """One look; the levels and rows of the files after it."""
        job = self.upkeep.plan(["sourceAddress"], now)
        if job is not None:
            self.upkeep.finish(job, merging.result(job.process))
        return [(file.level, file.rows) for file in files(self.place)]

    def test_under_way(self):
        """Many files become one; that of the last write stays, since the journal may still ask for it."""
        self.write(MANY)
        self.assertEqual(self.merge(NOON), [(0, 1)] * MANY)
        self.write(MANY + 1)
        self.assertEqual(self.merge(NOON), [(0, 1), (1, MANY)])
        self.assertEqual(ports(self.place), list(range(1, MANY + 2)))
        self.assertEqual(self.counters.figures["merges"], 1)
        self.assertEqual([name for name in names(self.place) if name.startswith(".")], [])

    def test_over(self):
        """An hour that is over becomes one file, and is then left alone until rows come late."""
        self.write(3)
        self.writer.last = 0
        self.assertEqual(self.merge(OVER), [(1, 3)])
        self.assertEqual(self.merge(OVER), [(1, 3)])
        self.writer.write([flows([MS], first=9)], COLUMNS, 4)
        self.writer.last = 0
        self.upkeep.wrote([NOON // 3600], OVER)
        self.assertEqual(self.merge(OVER + QUIET_S + 1), [(2, 4)])

    def test_failure(self):
        """A merge that fails says why, and changes nothing."""
        self.write(3)
        self.writer.last = 0
        damaged = files(self.place)[0].path
        damaged.write_bytes(b"no Parquet")
        job = self.upkeep.plan(["sourceAddress"], OVER)
        self.assertIn("Parquet", str(self.assertRaises(OSError, merging.result, job.process)))
        self.assertEqual(len(files(self.place)), 3)
        self.upkeep.abandon(job)
        self.assertEqual(list((self.place / ".new").iterdir()), [])
        self.assertIsNone(self.upkeep.plan([], OVER))
        self.upkeep.wrote([NOON // 3600], NOON)
        again = self.upkeep.plan([], OVER)
        self.assertIsNotNone(again)
        again.process.kill()
        self.assertRaises(OSError, merging.result, again.process)

    def test_no_room(self):
        """Nothing is merged where the new file would take the room that stays free."""
        self.write(3)
        self.writer.last = 0
        with mock.patch.object(self.writer, "room", lambda: 100):
            self.assertIsNone(self.upkeep.plan([], OVER))

    def test_rows_missing(self):
        """A merge with another number of rows than its files had is not used."""
        self.write(3)
        self.writer.last = 0
        job = self.upkeep.plan(["sourceAddress"], OVER)
        rows = merging.result(job.process)
        self.assertEqual(rows, 3)
        self.assertRaises(OSError, self.upkeep.finish, job, rows - 1)
        self.assertEqual(ports(self.place), [1, 2, 3])

    def test_killed(self):
        """A merge that is killed is no number of rows."""
        self.write(3)
        self.writer.last = 0
        job = self.upkeep.plan(["sourceAddress"], OVER)
        job.process.kill()
        self.assertIn("-9", str(self.assertRaises(OSError, merging.result, job.process)))
