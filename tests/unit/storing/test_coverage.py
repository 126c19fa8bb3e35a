"""The record of when the service of a store ran, and what was lost."""

import os
from pathlib import Path

from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support import given
from ulogd_tw.storing import coverage
from ulogd_tw.storing.coverage import BEFORE, NO_SERVICE, NOT_YET, Coverage, CoverageRecord, Gap, Loss

FIRST, SECOND = "first process", "second process"
LATE = 10**7


class _InDirectory(SynchronousTestCase):
    def setUp(self):
        self.directory = Path(self.mktemp())
        self.directory.mkdir()

    def record(self, run=FIRST):
        return CoverageRecord(self.directory, run)

    def gaps(self, since, until):
        return Coverage.read(self.directory).gaps(since, until)


class CoverageTests(_InDirectory):
    """What is covered is said, and what is not."""

    def test_nothing(self):
        """A directory without a record covers nothing."""
        self.assertEqual([Gap(5, 9, BEFORE)], self.gaps(5, 9))

    def test_running(self):
        """From the begin to the last flush there is no gap; before and after there is one each."""
        record = self.record()
        record.begin(1000)
        record.flushed(6000, {})
        record.flushed(11_000, {})
        self.assertEqual([], self.gaps(1000, 11_000))
        self.assertEqual([Gap(900, 999, BEFORE)], self.gaps(900, 5000))
        self.assertEqual([Gap(11_001, 12_000, NOT_YET)], self.gaps(9000, 12_000))

    def test_killed(self):
        """After a kill the gap begins at the last flush, and ends where the next process begins."""
        record = self.record()
        record.begin(1000)
        record.flushed(6000, {})
        after = self.record(SECOND)
        after.begin(20_000)
        after.flushed(25_000, {})
        self.assertEqual([Gap(6001, 19_999, NO_SERVICE)], self.gaps(1000, 25_000))

    def test_sockets_kept(self):
        """A restart in which the kernel kept all is no gap; a kill is one even then."""
        for stop, expected in ((CoverageRecord.end, []), (CoverageRecord.flushed, [Gap(6001, 6999, NO_SERVICE)])):
            (self.directory / "coverage").unlink(missing_ok=True)
            record = self.record()
            record.begin(1000)
            stop(record, 6000, {})
            after = self.record(SECOND)
            after.begin(7000, continues=True)
            after.flushed(9000, {})
            self.assertEqual(expected, self.gaps(1000, 9000))

    def test_reload(self):
        """The same process goes on: no gap, and its totals are not counted again."""
        record = self.record()
        record.begin(1000)
        record.flushed(6000, {"ct1 lost.kernel": 3})
        record.end(6500, {"ct1 lost.kernel": 3})
        again = self.record()
        again.begin(6600)
        again.flushed(9000, {"ct1 lost.kernel": 3})
        self.assertEqual([Gap(1000, 6000, "3 lost: ct1 lost.kernel")], self.gaps(1000, 9000))

    def test_lost(self):
        """What was lost stands between the two flushes around it, with its reason and number."""
        record = self.record()
        record.begin(1000)
        record.flushed(6000, {"ct1 lost.kernel": 0})
        record.flushed(11_000, {"ct1 lost.kernel": 7})
        record.flushed(16_000, {"ct1 lost.kernel": 7})
        self.assertEqual([Gap(6000, 11_000, "7 lost: ct1 lost.kernel")], self.gaps(1000, 16_000))
        self.assertEqual([], self.gaps(11_001, 16_000))

    def test_counts_begin_anew(self):
        """The totals of another process begin at 0."""
        self.test_lost()
        after = self.record(SECOND)
        after.begin(100_000)
        after.flushed(900_000, {"ct1 lost.kernel": 2})
        self.assertEqual([Gap(100_000, 900_000, "2 lost: ct1 lost.kernel")], self.gaps(100_000, 900_000))

    def test_loss_of_unknown_time(self):
        """What was missed over a restart may be of any time since the last good moment."""
        record = self.record()
        record.begin(1000)
        record.flushed(6000, {})
        after = self.record(SECOND)
        after.begin(8000)
        after.flushed(13_000, {"col1 lost.restart": 4})
        self.assertIn(Gap(6000, 13_000, "4 lost: col1 lost.restart"), self.gaps(1000, 13_000))

    def test_late_after_all(self):
        """Records that were only late are no loss any more."""
        record = self.record()
        record.begin(1000)
        record.flushed(6000, {"col1 lost.sequence": 5})
        record.flushed(11_000, {"col1 lost.sequence": 2})
        self.assertEqual([Gap(1000, 6000, "2 lost: col1 lost.sequence")], self.gaps(1000, 11_000))
        record.flushed(16_000, {"col1 lost.sequence": 0})
        self.assertEqual([], self.gaps(1000, 16_000))

    def test_made_anew(self):
        """An instance that a reload made anew counts from 0; what was lost before stays lost."""
        record = self.record()
        record.begin(1000)
        record.flushed(6000, {"ct1 lost.kernel": 5})
        record.flushed(11_000, {"ct1 lost.kernel": 2})
        self.assertEqual([Gap(1000, 11_000, "7 lost: ct1 lost.kernel")], self.gaps(1000, 11_000))

    def test_forgotten(self):
        """Where files were deleted, nothing is kept."""
        record = self.record()
        record.begin(1000)
        record.flushed(6000, {"x dropped.error": 1})
        record.flushed(11_000, {"x dropped.error": 1})
        record.forget(8000)
        self.assertEqual([Gap(1000, 7999, BEFORE)], [g for g in self.gaps(1000, 11_000) if g.reason == BEFORE])
        record.compact()
        self.assertEqual([Gap(1000, 7999, BEFORE)], self.gaps(1000, 11_000))


class FileTests(_InDirectory):
    """The file stays small, and readable whatever happens to its writer."""

    def test_small(self):
        """Flushes of a quiet day are one span after compaction."""
        record = self.record()
        record.begin(0)
        for n in range(1, 10_001):
            record.flushed(n * 5000, {})
        self.assertLess(os.path.getsize(self.directory / "coverage"), 100 * coverage.MOST_LINES)
        record.end(50_000_001, {})
        self.assertLess(os.path.getsize(self.directory / "coverage"), 200)
        self.assertEqual([], self.gaps(0, 50_000_001))

    def test_losses_of_a_year(self):
        """However often something is lost, the entries are bounded; their sum stays."""
        self.patch(coverage, "MOST_LOSSES", 100)
        lost = [Loss(n * 100_000, n * 100_000 + 5000, "ct1 lost.kernel", 1) for n in range(5000)]
        found = Coverage.of(Coverage([[0, LATE * 100]], lost).lines())
        self.assertLessEqual(len(found.losses), 100)
        self.assertEqual(5000, sum(loss.rows for loss in found.losses))

    def test_cut(self):
        """A file that was cut claims no more than the whole one."""
        record = self.record()
        record.begin(1000)
        for n in (2000, 3000, 4000):
            record.flushed(n, {"a dropped.queue": n})
        text = (self.directory / "coverage").read_bytes()
        for at in range(len(text)):
            found = Coverage.of(text[:at].split(b"\n"))
            self.assertLessEqual(found.until, 4000)
            self.assertEqual(NOT_YET if found.spans else BEFORE, found.gaps(found.until + 1, 9000)[-1].reason)

    def test_full_disk(self):
        """A line that was written in part is an error; it does not spoil the next."""
        record = self.record()
        record.begin(1000)
        real = os.write
        self.patch(coverage.os, "write", lambda fd, data: real(fd, data[:9]))
        self.assertRaises(OSError, record.flushed, 6000, {"a dropped.full": 2})
        self.patch(coverage.os, "write", real)
        record.flushed(7000, {"a dropped.full": 2})
        self.assertEqual([Gap(1000, 7000, "2 lost: a dropped.full")], self.gaps(1000, 7000))

    @given(st.lists(st.tuples(st.sampled_from("flush kill stop lose reload".split()), st.integers(1, 100_000))))
    def test_compact_is_the_same(self, steps):
        """A compact file gives the gaps of the long one, losses near each other aside: those are joined alike."""
        lines, now, run, lost = [{"begin": 0, "run": "0"}], 0, 0, 0
        for what, time in steps:
            now += time
            if what == "lose":
                lost += time
            if what == "kill":
                run, lost = run + 1, 0
            if what in ("kill", "reload"):
                lines.append({"begin": now, "run": str(run)})
            else:
                lines.append({"end" if what == "stop" else "until": now, "counts": {"i lost.kernel": lost}})
        whole = Coverage()
        for line in lines:
            whole.add(line)
        compact = Coverage.of(whole.lines())
        self.assertEqual(whole.gaps(0, now + 9), compact.gaps(0, now + 9))
        self.assertEqual((whole.run, whole.counts, whole.ended), (compact.run, compact.counts, compact.ended))
