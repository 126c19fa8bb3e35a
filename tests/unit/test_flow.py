"""Tests of ulogd_tw.flow: the queue before an output keeps order, bounds and the balance of rows."""

import errno
import os

import numpy as np
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.support import given
from tests.unit.core import doubles
from tests.unit.core.doubles import numbers
from ulogd_tw.core import durable
from ulogd_tw.core.errors import PartlyWritten
from ulogd_tw.core.gather import Gather
from ulogd_tw.core.stack import Builder, StackSpec
from ulogd_tw.flow import OutputQueue, Pauses
from ulogd_tw.spool import Spool, Unspooled
from ulogd_tw.spools import Spools


class OutputQueueTests(SynchronousTestCase):
    """A queue between an input and an output that answers when told to."""

    def setUp(self):
        spec = StackSpec("f:FLOWS,k:KEEP", "test.conf:1", (("f", "FLOWS"), ("k", "KEEP")))
        self.graph = Builder(doubles.lookup, doubles.read_options).build([spec])
        self.source, self.keep = self.graph.instances["f"], self.graph.instances["k"]
        self.reported = []
        self.graph.outputs[0].report = lambda plugin, error: self.reported.append(error)
        self.keep.wait = True

    def queue(self, rows=100, octets=1 << 20):
        self.keep.config.queue_rows, self.keep.config.queue_octets = rows, octets
        return OutputQueue(self.graph.outputs[0], Pauses())

    def rows(self):
        return [value for batch in self.keep.batches for value in batch.columns["a"].tolist()]

    def test_batches_are_joined_while_the_output_is_busy(self):
        """One write for all that came meanwhile, in order."""
        self.queue()
        for value in range(4):
            self.source.receive(numbers(1, a=[value]))
        self.keep.pending[0].callback(None)
        self.assertEqual([b.n for b in self.keep.batches], [1, 3])
        self.keep.pending[1].callback(None)
        self.assertEqual(self.rows(), [0, 1, 2, 3])
        self.assertEqual(self.keep.counters.rows_written, 4)

    def test_rows_beyond_the_bound_are_counted(self):
        """An input that cannot wait loses rows, and it shows."""
        self.queue(rows=10)
        for _ in range(4):
            self.source.receive(numbers(4, a=[1, 2, 3, 4]))
        self.assertEqual(self.keep.counters.dropped, {"queue_full": 6})
        self.assertEqual(self.keep.counters.rows_waiting, 10)
        self.assertEqual(self.graph.unaccounted(), {})

    def test_octets_are_bounded_too(self):
        self.queue(octets=40)
        for _ in range(5):
            self.source.receive(numbers(4, a=[1, 2, 3, 4]))
        self.assertEqual(self.keep.counters.rows_waiting, 4 + 10)
        self.assertEqual(self.keep.counters.dropped["queue_full"], 6)

    def test_an_input_that_can_wait_is_paused_and_loses_nothing(self):
        """Its batches are taken even beyond the bound; it goes on when there is room."""
        self.queue(rows=10)
        for _ in range(5):
            self.source.receive(numbers(4, held=True, a=[1, 2, 3, 4]))
        self.assertEqual(self.source.paused, 1)
        self.assertEqual(self.keep.counters.dropped, {})
        while self.keep.pending:
            self.keep.pending.pop(0).callback(None)
        self.assertEqual(self.source.paused, 0)
        self.assertEqual(self.keep.counters.rows_written, 20)

    def test_a_failed_write_is_counted_and_the_next_goes_on(self):
        self.queue()
        self.source.receive(numbers(2, a=[1, 2]))
        self.source.receive(numbers(3, a=[3, 4, 5]))
        self.keep.pending[0].errback(ValueError("no"))
        self.keep.pending[1].callback(None)
        self.assertEqual(self.keep.counters.dropped, {"error": 2})
        self.assertEqual(self.keep.counters.rows_written, 3)
        self.assertEqual(len(self.reported), 1)
        self.assertEqual(self.graph.unaccounted(), {})

    def test_rows_that_the_output_refuses_are_not_counted_twice(self):
        """What it counts itself during a write is not written, and what the queue drops meanwhile is not its."""
        self.queue(rows=4)
        self.source.receive(numbers(4, a=[1, 2, 3, 4]))
        self.source.receive(numbers(4, a=[5, 6, 7, 8]))
        self.keep.counters.dropped["refused"] += 1
        self.keep.pending[0].callback(None)
        self.assertEqual(self.keep.counters.rows_written, 3)
        self.assertEqual(self.keep.counters.dropped, {"refused": 1, "queue_full": 4})
        self.assertEqual(self.graph.unaccounted(), {})

    def test_what_is_left_at_a_stop_comes_back(self):
        """The write that was given up, then what waited; nothing is counted as waiting any more."""
        queue = self.queue()
        for value in range(3):
            self.source.receive(numbers(1, a=[value]))
        queue.close()
        self.keep.pending[0].errback(ValueError("stopped"))
        left = queue.left()
        self.assertEqual([v for b in left for v in b.columns["a"].tolist()], [0, 1, 2])
        self.assertEqual(self.keep.counters.rows_waiting, 0)
        self.assertEqual(self.reported, [])

    def test_a_batch_written_in_part_comes_back_in_part(self):
        """Its first rows are written; the others are left, before what waited."""
        queue = self.queue()
        for value in (0, 4):
            self.source.receive(numbers(4, a=range(value, value + 4)))
        queue.close()
        self.keep.pending[0].errback(PartlyWritten("stopped", 3))
        self.assertEqual([v for b in queue.left() for v in b.columns["a"].tolist()], [3, 4, 5, 6, 7])
        self.assertEqual((3, 0), (self.keep.counters.rows_written, self.keep.counters.rows_waiting))

    def test_drained_fires_when_nothing_waits(self):
        queue = self.queue()
        self.source.receive(numbers(1, a=[1]))
        self.source.receive(numbers(1, b=[1]))
        done = queue.drained()
        self.keep.pending[0].callback(None)
        self.assertNoResult(done)
        self.keep.pending[1].callback(None)
        self.assertIsNone(self.successResultOf(done))

    @given(
        st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 9), st.booleans(), st.integers(0, 3))),
        st.integers(1, 30),
    )
    def test_every_row_is_accounted_for(self, steps, bound):
        """Whatever comes and whenever writes end: written, waiting or dropped; written rows are in order per schema."""
        self.setUp()
        self.queue(rows=bound)
        sent = {"a": 0, "b": 0}
        for name, n, held, done in steps:
            self.source.receive(numbers(n, held=held, **{name: np.arange(sent[name], sent[name] + n)}))
            sent[name] += n
            for _ in range(done):
                if self.keep.pending:
                    self.keep.pending.pop(0).callback(None)
            self.assertEqual(self.graph.unaccounted(), {})
        while self.keep.pending:
            self.keep.pending.pop(0).callback(None)
        self.assertEqual(self.keep.counters.rows_waiting, 0)
        for name in sent:
            values = [v for b in self.keep.batches if name in b.columns for v in b.columns[name].tolist()]
            self.assertEqual(values, sorted(set(values)))

    def spool(self, files):
        """A spool with so many files of 10 rows, numbered through."""
        spool, names = Spool(self.mktemp(), "k"), (f"{n:03}" for n in range(files))
        for n in range(files):
            spool.save([numbers(10, a=range(10 * n, 10 * n + 10))], lambda: next(names))
        return spool

    def answer(self):
        self.keep.pending.pop(0).callback(None)

    def test_spool_is_read_as_the_output_takes_it(self):
        """However much is on the disk: a part of the queue at a time, in order, and every row once."""
        queue, spool = self.queue(rows=100), self.spool(20)
        queue.read_back(Unspooled(spool))
        self.assertEqual((30, 20), (self.keep.counters.rows_waiting, len(os.listdir(spool.directory))))
        self.source.receive(numbers(2, a=[1000, 1001]))  # room is left for others
        self.answer()
        self.assertEqual(32, self.keep.counters.rows_received)
        self.answer()
        self.assertEqual((62, 17), (self.keep.counters.rows_received, len(os.listdir(spool.directory))))
        while self.keep.pending:
            self.answer()
        self.assertEqual([*range(30), 1000, 1001, *range(30, 200)], self.rows())
        counters = self.keep.counters
        self.assertEqual((200, 202, {}), (counters.rows_unspooled, counters.rows_written, counters.dropped))
        self.assertEqual(([], {}), (os.listdir(spool.directory), self.graph.unaccounted()))

    def test_spool_of_an_output_that_writes_at_once(self):
        """All of it, and the files are gone."""
        self.keep.wait = False
        queue, spool = self.queue(rows=20), self.spool(50)
        queue.read_back(Unspooled(spool))
        self.assertEqual((list(range(500)), []), (self.rows(), os.listdir(spool.directory)))

    def test_stop_reads_no_further(self):
        """The rest stays on the disk; what was read is written, or in the queue."""
        queue, spool = self.queue(rows=100), self.spool(20)
        queue.read_back(Unspooled(spool))
        queue.leave_rest()
        drained = queue.drained()
        while self.keep.pending:
            self.answer()
        self.successResultOf(drained)
        self.assertEqual((30, 17), (len(self.rows()), len(os.listdir(spool.directory))))

    def test_spool_while_rows_never_end(self):
        """Rows that come during each write neither keep the rest on the disk nor the files of rows that are written."""
        queue, spool = self.queue(rows=100), self.spool(20)
        self.source.receive(numbers(1, a=[1000]))
        queue.read_back(Unspooled(spool))
        for value in range(1001, 1020):
            self.source.receive(numbers(1, a=[value]))
            self.answer()
        self.assertEqual(([], 200), (os.listdir(spool.directory), self.keep.counters.rows_unspooled))
        self.assertEqual(list(range(200)), [value for value in self.rows() if value < 1000])
        self.assertEqual({}, self.graph.unaccounted())

    def test_rows_on_the_disk_are_not_lost_by_a_kill(self):
        """They weigh nothing in the ledger, and stay where they are at a stop; rows that came do not."""
        queue, spool = self.queue(rows=100), self.spool(5)
        queue.read_back(Unspooled(spool))
        self.source.receive(numbers(4, a=[1, 2, 3, 4]))
        self.assertEqual((34, 4), (self.keep.counters.rows_waiting, queue.weight))
        queue.leave_rest()
        queue.close()
        self.keep.pending.pop(0).errback(ValueError("stopped"))
        self.assertEqual(([4], 5), ([batch.n for batch in queue.left()], len(os.listdir(spool.directory))))
        self.assertEqual((30, 30), (self.keep.counters.rows_unspooled, self.keep.counters.rows_spooled))

    def test_a_part_of_a_spooled_file_is_written(self):
        """Its rest is left as rows that came are, and the file is gone."""
        queue, spool = self.queue(rows=100), self.spool(1)
        queue.read_back(Unspooled(spool))
        queue.close()
        self.keep.pending.pop(0).errback(PartlyWritten("stopped", 3))
        self.assertEqual([3, 4, 5, 6, 7, 8, 9], [v for b in queue.left() for v in b.columns["a"].tolist()])
        self.assertEqual(([], 3), (os.listdir(spool.directory), self.keep.counters.rows_written))

    def test_a_disk_that_fills_at_a_stop(self):
        """What is on the disk waits for the next start; the rest is dropped and counted, and no row is both."""
        write, paths, told = durable.write, [], []

        def one_file(path, fill):
            paths.append(path)
            if len(paths) > 1:
                raise OSError(errno.ENOSPC, "No space left on device")
            write(path, fill)

        self.patch(durable, "write", one_file)
        queue, spool = self.queue(), self.mktemp()
        for name in ("a", "b"):
            self.source.receive(numbers(3, **{name: [1, 2, 3]}))
        queue.close()
        self.keep.pending[0].errback(ValueError("stopped"))
        Spools(lambda: spool, lambda plugin, error: told.append(str(error))).leave(queue)
        counters = self.keep.counters
        self.assertEqual((3, {"stop_timeout": 3}), (counters.rows_spooled, counters.dropped))
        self.assertEqual(([f"spool {spool}: No space left on device"], {}), (told, self.graph.unaccounted()))

    def test_small_batches_are_joined(self):
        """Thousands of them are few arrays while they wait, within the bounds of a write; nothing else changes."""
        queue = self.queue(rows=10**6)
        for value in range(3000):
            self.source.receive(numbers(1, a=[value]))
        self.source.receive(numbers(70_000, a=np.arange(3000, 73_000)))
        for value in range(73_000, 73_100):
            self.source.receive(numbers(1, a=[value]))
        self.assertLess(sum(len(batches) for batches in queue._waiting.values()), 3 * 64)
        queue.close()
        batches = queue.left()
        self.assertEqual(list(range(1, 73_100)), [v for b in batches[1:] for v in b.columns["a"].tolist()])
        spool = Spool(self.mktemp(), "k")
        names = (f"{n:02}" for n in range(99))
        self.assertEqual(73_100, spool.save(batches, lambda: next(names)))
        loaded = [b for _, b in spool.load()]
        self.assertEqual(list(range(73_100)), [v for b in loaded for v in b.columns["a"].tolist()])
        self.assertEqual((True, 10), (max(b.n for b in loaded) <= 8192, len(loaded)))


class GatheringTests(SynchronousTestCase):
    """A queue before an output that gathers up to 10 rows or 5 seconds."""

    def setUp(self):
        OutputQueueTests.setUp(self)
        self.clock = self.keep.clock = Clock()
        self.patch(type(self.keep), "gathers", Gather(rows=10, octets=1 << 20, seconds=5))
        self.keep.wait = False

    def queue(self, rows=1000):
        return OutputQueueTests.queue(self, rows)

    def written(self):
        return [batch.columns["a"].tolist() for batch in self.keep.batches]

    def test_time(self):
        """The first waiting rows start the time, and all that came until its end is one write."""
        self.queue()
        self.source.receive(numbers(2, a=[1, 2]))
        self.clock.advance(3)
        self.source.receive(numbers(1, a=[3]))
        self.assertEqual(([], 3), (self.written(), self.keep.counters.rows_waiting))
        self.clock.advance(2)
        self.assertEqual(([[1, 2, 3]], 0), (self.written(), self.keep.counters.rows_waiting))
        self.source.receive(numbers(1, a=[4]))
        self.clock.advance(4.9)
        self.assertEqual(1, len(self.written()))
        self.clock.advance(0.1)
        self.assertEqual([[1, 2, 3], [4]], self.written())
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_rows(self):
        """Enough rows do not wait for the time, and the time of the next rows begins with them."""
        self.queue()
        self.source.receive(numbers(9, a=range(9)))
        self.clock.advance(4)
        self.source.receive(numbers(1, a=[9]))
        self.assertEqual([list(range(10))], self.written())
        self.source.receive(numbers(1, a=[10]))
        self.clock.advance(4)
        self.assertEqual(1, len(self.written()))
        self.clock.advance(1)
        self.assertEqual([10], self.written()[1])

    def test_enough_for_the_queue(self):
        """The bound of the queue goes before: an input is paused at half of it, and a write comes before that."""
        self.queue(rows=8)
        self.source.receive(numbers(2, a=[1, 2]))
        self.assertEqual([[1, 2]], self.written())

    def test_while_writing(self):
        """What comes while a write is under way waits for its own time, or goes behind it where this is over."""
        self.queue()
        self.keep.wait = True
        self.source.receive(numbers(10, a=range(10)))
        self.source.receive(numbers(1, a=[10]))
        self.clock.advance(6)
        self.assertEqual(1, len(self.written()))
        self.source.receive(numbers(1, a=[11]))
        self.keep.pending.pop(0).callback(None)
        self.assertEqual([10, 11], self.written()[1])

    def test_soon_after_a_write(self):
        self.queue()
        self.keep.wait = True
        self.source.receive(numbers(10, a=range(10)))
        self.source.receive(numbers(1, a=[10]))
        self.keep.pending.pop(0).callback(None)
        self.assertEqual(1, len(self.written()))
        self.clock.advance(5)
        self.assertEqual([10], self.written()[1])

    def test_stop(self):
        """A stop does not wait for the time, nor does what comes during it; no timer is left."""
        queue = self.queue()
        self.source.receive(numbers(1, a=[1]))
        self.assertIsNone(self.successResultOf(queue.drained()))
        self.source.receive(numbers(1, a=[2]))
        self.assertEqual([[1], [2]], self.written())
        queue.close()
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_left(self):
        """What waits for its time at a stop is left for the spool."""
        queue = self.queue()
        self.source.receive(numbers(1, a=[1]))
        queue.close()
        self.assertEqual([1], [batch.n for batch in queue.left()])
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_all_schemas_at_once(self):
        """An output for all schemas gets one batch of each in a write."""
        self.patch(type(self.keep), "together", True)
        writes = []
        self.patch(self.keep, "write_together", writes.append)
        self.queue()
        for name in "abab":
            self.source.receive(numbers(1, **{name: [1]}))
        self.clock.advance(5)
        self.assertEqual([[(["a"], 2), (["b"], 2)]], [[(list(b.schema), b.n) for b in write] for write in writes])

    @given(
        st.lists(
            st.tuples(st.sampled_from("ab"), st.integers(0, 9), st.booleans(), st.integers(0, 3), st.floats(0, 6))
        ),
        st.integers(1, 60),
        st.booleans(),
    )
    def test_every_row_is_accounted_for(self, steps, bound, together):
        """Whatever comes, and whenever writes end: written, waiting or dropped; in order within a schema."""
        self.setUp()
        self.keep.wait = not together
        self.patch(type(self.keep), "together", together)
        self.keep.write_together = lambda batches: [self.keep.write(batch) for batch in batches][:0]
        queue, sent = self.queue(bound), {"a": 0, "b": 0}
        for name, n, held, done, seconds in steps:
            self.source.receive(numbers(n, held=held, **{name: np.arange(sent[name], sent[name] + n)}))
            sent[name] += n
            self.clock.advance(seconds)
            for pending in self.keep.pending[:done]:
                self.keep.pending.remove(pending)
                pending.callback(None)
            self.assertEqual(self.graph.unaccounted(), {})
        drained = queue.drained()
        while self.keep.pending:
            self.keep.pending.pop(0).callback(None)
        self.successResultOf(drained)
        self.assertEqual([], self.clock.getDelayedCalls())
        for name in "ab":
            rows = [value for b in self.keep.batches if name in b.columns for value in b.columns[name].tolist()]
            self.assertEqual(sorted(set(rows)), rows)
        counters = self.keep.counters
        self.assertEqual(sum(sent.values()), counters.rows_written + counters.dropped.total())


class SpoolTests(SynchronousTestCase):
    """Batches in files."""

    def test_what_was_saved_comes_back_in_order(self):
        """Strings, IPv6 addresses and missing rows too."""
        from tests.unit.core.test_batch import mixed_batch

        batch = mixed_batch()
        names = iter("0123")
        spool = Spool(self.mktemp(), "db1")
        self.assertEqual(spool.save([batch, numbers(2, a=[1, 2])], lambda: next(names)), batch.n + 2)
        loaded = [b for _, b in spool.load()]
        self.assertEqual([list(b.rows()) for b in loaded], [list(batch.rows()), [{"a": 1}, {"a": 2}]])
        self.assertEqual(loaded[0].schema, batch.schema)

    def test_a_damaged_file_is_left_alone(self):
        """And named in the log; the others are read."""
        spool = Spool(self.mktemp(), "db1")
        names = iter("01")
        for value in (1, 2):  # batches of one schema would share a file
            spool.save([numbers(1, a=[value])], lambda: next(names))
        path = sorted(os.listdir(spool.directory))[0]
        (spool.directory / path).write_bytes(b"PK\x03\x04 rubbish")
        self.assertEqual([b.columns["a"].tolist() for _, b in spool.load()], [[2]])
        self.assertEqual(len(os.listdir(spool.directory)), 2)
