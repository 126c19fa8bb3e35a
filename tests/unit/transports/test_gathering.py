"""When a source is read again, with a clock of the test and a source in memory."""

from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.support import given
from ulogd_tw.core.patience import Ends
from ulogd_tw.transports.gathering import Gathering, HandsOverAll, Terms

LARGE = 128 << 20
FRAME = 2304
"""Octets that the kernel counts for a full Ethernet frame."""


class Reactor(Clock):
    """A clock with readers."""

    def __init__(self):
        super().__init__()
        self.readers = []

    def addReader(self, reader):
        if reader not in self.readers:
            self.readers.append(reader)

    def removeReader(self, reader):
        if reader in self.readers:
            self.readers.remove(reader)

    def pass_(self, seconds, step=0.001):
        """Let time pass; the source is read whenever it is readable, as the reactor would."""
        end = self.seconds() + seconds
        while self.seconds() < end - 1e-9:
            self.advance(step)
            for reader in [*self.readers]:
                if reader.queue:
                    reader.gathering.turn()


class Source(HandsOverAll):
    """Frames in a buffer; what finds no room is lost."""

    longest_s = float("inf")
    most = 2048

    def __init__(self, clock, buffer=LARGE, **terms):
        self.clock, self.buffer, self.queue, self.lost, self.reads = clock, buffer, 0, 0, []
        self.gathering = Gathering(self, Terms(**terms), clock, 19)
        self.gathering.work_clock = lambda: 0.0
        self.gathering.begin()

    def send(self, frames):
        room = self.buffer // FRAME - self.queue
        self.queue += min(frames, room)
        self.lost += max(frames - room, 0)

    def held(self):
        return self.queue * FRAME

    def read_once(self):
        rows = min(self.queue, self.most)
        self.queue -= rows
        self.reads.append((round(self.clock.seconds(), 4), rows))
        return rows


class Keeper(Source):
    """One that keeps; `handed` has time and rows of what it handed over, `ages` how long the rows had waited."""

    keeps = True

    def __init__(self, *args, **terms):
        self.kept, self.handed, self.ages, self.came = 0, [], [], []
        super().__init__(*args, **terms)

    def send(self, frames):
        before = self.queue
        super().send(frames)
        self.came += [self.clock.seconds()] * (self.queue - before)

    def keep(self):
        rows = min(self.queue, self.most - self.kept)
        self.queue -= rows
        self.kept += rows
        return self.kept

    def read_once(self):
        rows, self.kept = self.keep(), 0
        self.handed.append((round(self.clock.seconds(), 4), rows))
        self.ages += [self.clock.seconds() - at for at in self.came[:rows]]
        del self.came[:rows]
        return rows


class GatheringTests(SynchronousTestCase):
    """Reads of a source."""

    kind = Source

    def make(self, buffer=LARGE, wish=1.0, **terms):
        self.clock = Reactor()
        return self.kind(self.clock, buffer, wish=lambda: wish, **terms)

    def steady(self, source, frames, seconds):
        """So many frames each millisecond, for so long; the reads of the last second."""
        for _ in range(int(seconds * 1000)):
            source.send(frames)
            self.clock.pass_(0.001)
        return [read for read in source.reads if read[0] > self.clock.seconds() - 1]

    def test_small_traffic(self):
        """Four wake-ups a second, not one for each datagram; the first one after silence is read at once."""
        source = self.make()
        for _ in range(200):
            source.send(1)
            self.clock.pass_(0.01)
        self.assertEqual(source.reads[0], (0.001, 1))
        self.assertIn(len([at for at, _ in source.reads if at > 1]), (4, 5))
        self.assertEqual(source.lost, 0)

    def test_kept_rows(self):
        """One wake-up a second where an aggregate keeps the rows anyway, and a burst in it is not lost."""
        source = self.make(8 << 20, longest=lambda: 1.0)
        for _ in range(400):
            source.send(1)
            self.clock.pass_(0.01)
        self.assertIn(len([at for at, _ in source.reads if at > 1]), (3, 4))
        self.steady(source, 200, 0.5)
        self.assertEqual(source.lost, 0)

    def test_shorter_wish(self):
        """A wish of 50 ms is kept."""
        source = self.make(wish=0.05)
        reads = self.steady(source, 1, 2)
        self.assertTrue(19 <= len(reads) <= 20, reads)

    def test_at_once(self):
        """Without patience an idle source is not left alone; a busy one is, for the short wait."""
        source = self.make(wish=0.0)
        self.assertIn(len(self.steady(source, 1, 2)), (1000, 1001))
        self.assertEqual(source.gathering.wait(1, 0.001, FRAME, False), 0.019)

    def test_nobody_says(self):
        """Where no plugin has a wish the usual wait holds."""
        source = self.make(wish=None, usual=0.02)
        self.assertEqual(source.gathering.wait(1, 0.0, FRAME, True), 0.02)

    def test_bound(self):
        """The administrator's bound holds, and so does a shorter wish; an exact one holds in a small buffer too."""
        for bound, wish, exact, buffer, expected in (
            (0.004, 1.0, False, LARGE, 0.004), (0.5, 1.0, False, 512 << 20, 0.5), (0.5, 0.1, False, LARGE, 0.1),
            (0.5, None, True, 200_000, 0.5), (0.5, 0.05, True, 200_000, 0.05), (0.0, 1.0, True, LARGE, 0.0),
            (0.0, 1.0, False, LARGE, 0.0), (0.05, 1.0, False, 200_000, 200_000 / 2304 / 200_000),
        ):  # fmt: skip
            source = self.make(buffer, wish, bound=bound, exact=exact)
            self.assertAlmostEqual(source.gathering.wait(1, 0.0, FRAME, False), expected, msg=(bound, wish, buffer))

    def test_small_buffer(self):
        """A buffer of less than 1 MB is never left alone for more than 4 ms."""
        for buffer in (212_992, 425_984, (1 << 20) - 1):
            self.assertLessEqual(self.make(buffer).gathering.wait(1, 0.0, FRAME, True), 0.004)

    def test_ten_times_the_rate(self):
        """The buffer holds ten times the rate of the last second for the whole wait."""
        source = self.make(8 << 20)
        reads = self.steady(source, 5, 3)  # 11.5 MB/s, which would fill it in 0.073 s ten times as fast
        gaps = [after[0] - before[0] for before, after in zip(reads, reads[1:], strict=False)]
        self.assertTrue(0.06 < max(gaps) < (8 << 20) / (10 * 5000 * FRAME) + 0.002, gaps)

    def test_full_rate(self):
        """Under load too: reads find about a sixth of the buffer full, soon after a burst has begun."""
        for frames in (60, 100, 150):
            source = self.make(8 << 20)
            source.gathering.work_clock = iter(range(0, 10**6, 1)).__next__  # the longest wait under load
            source.send(1)
            self.clock.pass_(2.0)
            self.steady(source, frames, 0.3)
            late = [rows for at, rows in source.reads if at > self.clock.seconds() - 0.25]
            self.assertLess(max(late) * FRAME, (8 << 20) / 6 + 2 * frames * FRAME, frames)
            self.assertGreater(max(late) * FRAME, (8 << 20) * 0.05, frames)

    def test_burst_in_a_wait(self):
        """A wait is over when a look finds the buffer a quarter full; 200,000 frames a second are not lost."""
        for buffer in (2 << 20, 8 << 20, 32 << 20, LARGE):
            source = self.make(buffer)
            source.send(1)
            self.clock.pass_(60.0, 0.1)
            source.send(1)
            self.clock.pass_(0.002)
            self.assertTrue(source.gathering.waits)
            self.steady(source, 200, 0.5)
            self.assertEqual(source.lost, 0, buffer)

    def test_quarter_full(self):
        """A read that finds the buffer a quarter full is followed by the next one at once."""
        source = self.make(8 << 20)
        self.assertEqual(source.gathering.wait(1, 0.0, 2 << 20, False), 0.0)
        self.assertGreater(source.gathering.wait(1, 0.0, (2 << 20) - 1, False), 0.2)

    def test_end_of_interval(self):
        """No wait crosses the end of an interval: what came 6 ms before is read before."""
        for late in (0, 3):
            source = self.make(ends=lambda late=late: (Ends(10, late),), wall=lambda: 1000.0 + self.clock.seconds())
            for _ in range(1499 + 100 * late):
                source.send(1)
                self.clock.pass_(0.01)
            before = 10.0 + late
            self.assertTrue([at for at, _ in source.reads if before - 0.006 <= at < before], source.reads)
            self.assertLess(len(source.reads), 90)

    def test_hurry(self):
        """A tap that comes ends the wait, and catching up reads at once."""
        source = self.make()
        source.send(1)
        self.clock.pass_(0.001)
        source.send(3)
        self.assertEqual(self.clock.readers, [])
        source.gathering.hurry()
        self.assertEqual(self.clock.readers, [source])
        source.gathering.catch_up()
        self.assertEqual((source.queue, source.reads[-1][1]), (0, 3))

    def test_end(self):
        """After the end nothing is read, and no timer is left."""
        source = self.make()
        source.send(1)
        self.clock.pass_(0.001)
        source.gathering.end()
        source.gathering.end()
        source.send(1)
        self.clock.pass_(1.0)
        source.gathering.catch_up()
        self.assertEqual((len(source.reads), self.clock.readers, self.clock.getDelayedCalls()), (1, [], []))

    @given(
        st.lists(st.tuples(st.integers(0, 400), st.integers(1, 60)), min_size=1, max_size=12),
        st.sampled_from((212_992, 1 << 20, 8 << 20, LARGE)), st.sampled_from((0.0, 0.05, 1.0, None)),
    )  # fmt: skip
    def test_any_traffic(self, phases, buffer, wish):
        """Whatever comes, up to 200,000 frames a second: nothing is lost, and no row waits longer than a wait."""
        source = self.make(buffer, wish)
        for frames, milliseconds in phases:
            for _ in range(2 * milliseconds):
                source.send(min(frames // 2, 100, buffer // FRAME // 4))
                self.clock.pass_(0.0005, 0.0005)
        self.assertEqual(source.lost, 0)
        self.clock.pass_(0.27)
        self.assertEqual(source.queue, 0)


class KeepingTests(SynchronousTestCase):
    """A source that keeps rows, since its buffer is too small for the time that they may wait."""

    make, steady = GatheringTests.make, GatheringTests.steady
    kind = Keeper

    def test_handed_over_together(self):
        """20,000 frames a second in 8 MB: handed over when they are as many as one read takes, not before."""
        source = self.make(8 << 20, longest=lambda: 1.0)
        self.steady(source, 20, 2)
        late = [rows for at, rows in source.handed if at > 1]
        self.assertTrue(9 <= len(late) <= 11, late)
        self.assertEqual((min(late), source.lost), (2048, 0))

    def test_no_longer_than_the_wish(self):
        """However few come, none waits longer than the plugins below allow, also when no other one comes."""
        source = self.make(8 << 20, wish=0.1)
        self.steady(source, 15, 0.555)
        self.clock.pass_(0.2)
        self.assertLess(max(source.ages), 0.103)
        self.assertEqual((len(source.ages), source.kept), (15 * 555, 0))

    def test_room_for_a_pause(self):
        """Under load the buffer is never more than a tenth full, so that it has room while much is handed over."""
        source = self.make(8 << 20)
        source.gathering.work_clock = iter(range(0, 10**6, 1)).__next__  # the longest wait under load
        found = []
        self.patch(source, "held", lambda: found.append(source.queue) or source.queue * FRAME)
        self.steady(source, 30, 1.5)
        self.assertLess(max(found[len(found) // 2 :]) * FRAME, (8 << 20) / 10 + 4 * 30 * FRAME)

    def test_more_than_one_read(self):
        """What a read has left in the buffer has waited already, and does not wait anew."""
        source = self.make(LARGE)
        source.send(1)
        self.clock.pass_(0.001)
        for _ in range(96):
            source.send(22)
            self.clock.pass_(0.0005, 0.0005)
        self.clock.pass_(0.3)
        self.assertEqual(len(source.ages), 96 * 22 + 1)
        self.assertLess(max(source.ages), 0.26)

    def test_no_patience(self):
        """Nothing is kept where rows may not wait, or no longer than the administrator says."""
        for terms in ({"wish": 0.0}, {"bound": 0.004}, {"bound": 0.0, "exact": True}):
            source = self.make(8 << 20, **terms)
            self.patch(source, "keep", lambda: self.fail("kept"))
            self.patch(source, "read_once", lambda source=source: Source.read_once(source))
            self.steady(source, 20, 0.5)
            self.assertGreater(len(source.reads), 20)

    def test_end_of_interval(self):
        """What is kept is handed over before an interval ends."""
        source = self.make(8 << 20, longest=lambda: 1.0, ends=lambda: (Ends(10, 0),),
                           wall=lambda: 1009.5 + self.clock.seconds())  # fmt: skip
        self.steady(source, 20, 0.5)
        self.assertTrue([at for at, _ in source.handed if 0.493 <= at < 0.5], source.handed)

    def test_catch_up(self):
        """Catching up hands over what is kept."""
        source = self.make(8 << 20, longest=lambda: 1.0)
        self.steady(source, 20, 1.05)
        self.assertGreater(source.kept, 0)
        source.gathering.catch_up()
        self.assertEqual((source.queue, source.kept), (0, 0))

    @given(
        st.lists(st.tuples(st.integers(0, 400), st.integers(1, 60)), min_size=1, max_size=12),
        st.sampled_from((212_992, 1 << 20, 8 << 20, LARGE)), st.sampled_from((0.0, 0.05, 1.0, None)),
    )  # fmt: skip
    def test_any_traffic(self, phases, buffer, wish):
        """Whatever comes, up to 200,000 frames a second: nothing is lost or left, and no row waits for too long."""
        source = self.make(buffer, wish)
        for frames, milliseconds in phases:
            for _ in range(2 * milliseconds):
                source.send(min(frames // 2, 100, buffer // FRAME // 4))
                self.clock.pass_(0.0005, 0.0005)
        self.clock.pass_(0.27)
        self.assertEqual((source.lost, source.queue, source.kept), (0, 0, 0))
        self.assertLess(max(source.ages, default=0), 0.26)
