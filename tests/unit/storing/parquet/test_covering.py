"""The record of coverage through the life of an output."""

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from ulogd_tw.storing.coverage import BEFORE, NOT_YET, Coverage
from ulogd_tw.storing.parquet.covering import ON_THEIR_WAY_S, Covering


class CoveringTests(SynchronousTestCase):
    """What is claimed is in files."""

    def setUp(self):
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        self.covering = Covering(self.directory)

    def until(self):
        """The last moment that is covered, in seconds."""
        return Coverage.read(self.directory).until / 1000

    def test_rows_wait(self):
        """Nothing is claimed from the oldest row on that is in no file."""
        self.covering.begin(1000, False)
        self.covering.covered(1010, 0, {})
        self.assertEqual(1010 - ON_THEIR_WAY_S, self.until())
        self.covering.covered(1060, 50, {})
        self.assertEqual(1010 - ON_THEIR_WAY_S, self.until())
        self.covering.end(1070, 60, {})
        self.assertEqual([NOT_YET], [gap.reason for gap in Coverage.read(self.directory).gaps(1_005_000, 1_070_000)])

    def test_stop(self):
        """A stop with nothing left claims all until then."""
        self.covering.begin(1000, False)
        self.covering.end(1010, 0, {})
        self.assertEqual(1010, self.until())
        self.covering.covered(1020, 0, {})
        self.assertEqual(1010, self.until())

    def test_not_begun(self):
        """A directory that could not be written at first is covered from the time on when it can."""
        self.directory.rmdir()
        self.assertRaises(OSError, self.covering.begin, 1000, False)
        self.directory.mkdir()
        self.covering.covered(2000, 0, {})
        self.covering.covered(2010, 0, {})
        gaps = Coverage.read(self.directory).gaps(1_000_000, 2_005_000)
        self.assertEqual([(1_000_000, 1_999_999, BEFORE)], gaps)

    def test_deleted(self):
        """Nothing is claimed of hours that were deleted."""
        self.covering.begin(1000, False)
        self.covering.covered(2000, 0, {})
        self.covering.forget(1500)
        self.assertEqual([(1_400_000, 1_499_999, BEFORE)], Coverage.read(self.directory).gaps(1_400_000, 1_600_000))
