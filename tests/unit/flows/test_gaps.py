"""What may be missing from an answer about stored flows."""

from pathlib import Path
from types import SimpleNamespace

from twisted.trial.unittest import SynchronousTestCase

from ulogd_tw.flows import gaps
from ulogd_tw.flows.times import rfc3339
from ulogd_tw.storing.coverage import BEFORE, NO_SERVICE, NOT_YET, CoverageRecord

T = 1_790_000_000_000


class NotesTests(SynchronousTestCase):
    """A line for each gap of a range."""

    def setUp(self):
        self.store = SimpleNamespace(directory=Path(self.mktemp()))
        self.store.directory.mkdir()

    def written(self):
        """A service that was killed at 1000 ms and went on at 5000; later 3 events were lost."""
        record = CoverageRecord(self.store.directory, "one")
        record.begin(T)
        record.flushed(T + 1000, {})
        record = CoverageRecord(self.store.directory, "two")
        record.begin(T + 5000)
        record.flushed(T + 9000, {})
        record.flushed(T + 14_000, {"ct1 lost.kernel": 3})

    def reasons(self, begin, end, waiting=True):
        lines = gaps.notes(self.store, begin and T + begin, end and T + end, waiting)
        return [line.partition("Z: ")[2] for line in lines]

    def test_gaps(self):
        """Those in the range; the end is not in it."""
        self.written()
        self.assertEqual([NO_SERVICE, "3 lost: ct1 lost.kernel"], self.reasons(None, None))
        self.assertEqual([], self.reasons(1, 1001))
        self.assertEqual([NO_SERVICE], self.reasons(1, 1002))
        (line,) = gaps.notes(self.store, T, T + 6000, True)
        expected = f"incomplete between {rfc3339(T + 1001)} and {rfc3339(T + 4999)}: {NO_SERVICE}"
        self.assertEqual(expected, line)

    def test_edges(self):
        """What was before the record is missing where it is asked for; what is to come, where nothing else has it."""
        self.written()
        self.assertEqual([BEFORE], self.reasons(-500, 1))
        self.assertEqual([NOT_YET], self.reasons(14_001, 20_000, waiting=False))
        self.assertEqual([], self.reasons(14_001, 20_000))

    def test_no_record(self):
        """A directory without a record has nothing to say."""
        self.assertEqual([], self.reasons(None, None))
