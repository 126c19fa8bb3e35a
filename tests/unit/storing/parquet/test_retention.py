"""Which hours are deleted."""

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.unit.storing.parquet.flows import COLUMNS, HOUR, NOON, flows, ports, writer
from ulogd_tw.core.counters import Counters
from ulogd_tw.storing.parquet.directory import files
from ulogd_tw.storing.parquet.retention import Sizes, expired
from ulogd_tw.storing.parquet.upkeep import Upkeep

MS = NOON * 1000
NOW = NOON + 1800


class ExpiredTests(SynchronousTestCase):
    """Hours of 100 octets each."""

    def of(self, *hours, retain=None, size=None):
        sizes = {HOUR + hour: 100 for hour in hours}
        return [hour - HOUR for hour in expired(sizes, retain, size, NOW)]

    def test_no_limit(self):
        """Without limits nothing is deleted."""
        self.assertEqual(self.of(-100_000, 0), [])

    def test_retain(self):
        """An hour goes when its last moment is old enough."""
        self.assertEqual(self.of(-3, -2, -1, 0, retain=5400.0), [-3, -2])
        self.assertEqual(self.of(-3, -2, -1, 0, retain=5401.0), [-3])

    def test_size(self):
        """The oldest hours go until the others have room."""
        self.assertEqual(self.of(-3, -2, -1, 0, size=250), [-3, -2])
        self.assertEqual(self.of(-3, -2, -1, 0, size=400), [])

    def test_now(self):
        """The hour of now and later ones stay, whatever they take."""
        self.assertEqual(self.of(0, 1, retain=0.0, size=1), [])


class UpkeepTests(SynchronousTestCase):
    """Deletion in a store."""

    def setUp(self):
        self.place = Path(self.mktemp())
        self.writer = writer(self.place)
        self.addCleanup(self.writer.end)
        self.writer.write([flows([MS - 7_200_000, MS - 7_200_000, MS - 3_600_000, MS])], COLUMNS, 1)
        self.counters = Counters("PARQUET")

    def test_delete(self):
        """The deleted rows and octets are counted, the rest is measured."""
        oldest, *others = files(self.place)
        octets, left = oldest.octets, sum(file.octets for file in others)
        upkeep = Upkeep(self.writer, self.counters, 3600.0, None, "zstd")
        self.assertIsNone(upkeep.plan(["sourceAddress"], NOW))
        figures = self.counters.figures
        names = ("hours_deleted", "rows_deleted", "octets_deleted", "octets_stored")
        self.assertEqual([figures[name] for name in names], [1, 2, octets, left])
        self.assertEqual(ports(self.place), [2, 3])

    def test_sizes(self):
        """Hours are measured again once they were touched."""
        sizes = Sizes(self.place)
        before = sizes.read()
        self.writer.write([flows([MS], first=9)], COLUMNS, 2)
        self.assertEqual(sizes.read(), before)
        sizes.touch(HOUR)
        self.assertGreater(sizes.read()[HOUR], before[HOUR])
