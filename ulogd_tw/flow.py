"""Flow control: the bounded queue before an output, and the pausing of inputs.

A batch goes straight to the output while it writes at once. A Deferred from `Output.write` opens the queue: batches
wait until it fires. Waiting batches of one schema are joined, so a slow database gets larger inserts. Before an output
that gathers (`Output.gathers`), batches wait until enough of them are there, or long enough.
"""

from __future__ import annotations

import time
from typing import Any

from twisted.internet import defer
from twisted.python.failure import Failure

from ulogd_tw.core.batch import Batch, Schema
from ulogd_tw.core.errors import PartlyWritten
from ulogd_tw.core.gather import JOIN_OCTETS, JOIN_ROWS, Gather
from ulogd_tw.core.ledger import weight
from ulogd_tw.core.passages import Passage
from ulogd_tw.core.plugin import Aggregator, Output, Plugin
from ulogd_tw.core.stack import Graph, Node
from ulogd_tw.core.waits import Waits
from ulogd_tw.spool import Unspooled

_SMALL, _GATHERED = 1024, 64
"""Rows of a small batch; so many waiting batches with a small one first are joined. Each has 2 kB of its own."""


class Pauses:
    """The inputs and aggregates paused by queues. A plugin resumes when no queue holds it paused any more."""

    def __init__(self) -> None:
        self._full: dict[Plugin, set[OutputQueue]] = {}

    def pause(self, feeders: list[Plugin], queue: OutputQueue) -> None:
        for source in feeders:
            full = self._full.setdefault(source, set())
            if not full:
                source.pause()
            full.add(queue)

    def resume(self, feeders: list[Plugin], queue: OutputQueue) -> None:
        for source in feeders:
            full = self._full.get(source)
            if full and queue in full:
                full.discard(queue)
                if not full:
                    source.resume()


class OutputQueue:
    """The queue before one output: `put` replaces `Output.write` in its node.

    It is bounded in rows and octets. Over half the bound, inputs able to wait are paused. Their batches (`held`) are
    always taken, since rows already read must not be lost. Batches of other inputs are cut at the bound, and the rest
    is counted.
    """

    def __init__(self, node: Node, pauses: Pauses, waits: bool = False) -> None:
        """With `waits` nothing is written until `begin`."""
        assert isinstance(node.plugin, Output)
        self.node = node
        self.output = node.plugin
        self.counters = node.plugin.counters
        self.feeders = [feeder.plugin for feeder in node.feeders()]
        self.most_rows: int = self.output.config.queue_rows
        self.most_octets: int = self.output.config.queue_octets
        self._gathers = self._bounded(self.output.gathers)
        self.passage = self._new_passage()
        self._pauses = pauses
        self._waiting: dict[Schema | None, list[Batch]] = {}
        self._octets = 0
        self._writing: list[Batch] = []
        self._due: Any = None
        """The timer of a queue that gathers, while rows wait."""
        self._ripe = False
        """Whether the waiting rows of a queue that gathers are to be written, however few they are."""
        self._draining = False
        self._stopped = waits
        self._paused = False
        self._idle: list[defer.Deferred[None]] = []
        self.spooled: Unspooled | None = None
        """The rows of an earlier run on the disk."""
        self._after_spool = False
        """Whether the last write was of these."""
        self.waits = Waits()
        self.output.waited = lambda: self.waits.oldest(time.monotonic())
        node.put = self.put

    def _bounded(self, wish: Gather | None) -> Gather | None:
        """The wish of the output: at most half of the rows and octets at which inputs are paused."""
        if wish is None or not wish.seconds:
            return wish
        return Gather(min(wish.rows, self.most_rows // 4), min(wish.octets, self.most_octets // 4), wish.seconds)

    def _new_passage(self) -> Passage:
        """What the inputs are told of their rows."""
        passage = Passage(feeder for feeder in self.feeders if isinstance(feeder, Aggregator))
        self._show(passage)
        return passage

    def _show(self, passage: Passage) -> None:
        for source in self.output.inputs:
            source.outlets[self.output.instance] = passage

    def begin(self) -> None:
        """Write what waits, and what comes from now on."""
        self._stopped = False
        self._next()

    def move(self, node: Node) -> None:
        """The output has this node now, below other inputs perhaps."""
        if self._paused:
            self._pauses.resume(self.feeders, self)
        self.node, self.feeders = node, [feeder.plugin for feeder in node.feeders()]
        self.passage.behind = tuple(feeder for feeder in self.feeders if isinstance(feeder, Aggregator))
        self._show(self.passage)
        node.put = self.put
        if self._paused:
            self._pauses.pause(self.feeders, self)

    def take_over(self, batches: list[Batch]) -> None:
        """Rows of a former output of the same name, before those that come."""
        for batch in batches:
            batch.held = True
            self.counters.rows_received += batch.n
            self.node.received_before += batch.n
            self.put(batch)

    @property
    def empty(self) -> bool:
        return not self._writing and not self._waiting and not self._of_disk

    @property
    def weight(self) -> int:
        """The rows that wait here or are being written, as the ledger counts them."""
        return sum(weight(batch) for batches in [self._writing, *self._waiting.values()] for batch in batches)

    def put(self, batch: Batch) -> None:
        """Write the batch now, or keep it until the output is free."""
        if self.empty and not self._stopped and self._gathers is None:
            self.passage.come(self._heap(batch), batch.n)
            self.waits.come(batch.n, time.monotonic())
            self._write([batch])
            return
        if not batch.held:
            batch = self._cut(batch)
        if batch.n:
            heap = self._heap(batch)
            self.passage.come(heap, batch.n)
            waiting = self._waiting.setdefault(heap, [])
            waiting.append(batch)
            self.waits.come(batch.n, time.monotonic())
            self._octets += batch.nbytes
            self.counters.rows_waiting += batch.n
            if heap is not None and len(waiting) >= _GATHERED and waiting[-_GATHERED].n < _SMALL:
                self._gather(waiting)
        if self._over(2) and not self._paused:
            self._paused = True
            self._pauses.pause(self.feeders, self)
        if self._gathers is not None:
            self._gather_on(self._gathers)

    def _gather_on(self, wish: Gather) -> None:
        """Write if enough waits now, else at the end of the time that the first rows may wait."""
        if not self._holds_on:
            self._next()
        if self._waiting and self._due is None and not self._ripe and not self._draining:
            self._due = self.output.clock.callLater(wish.seconds, self._turn)

    def _enough(self, wish: Gather) -> bool:
        under_way = sum(batch.n for batch in self._writing if not batch.kept)
        return self._came - under_way >= wish.rows or self._octets >= wish.octets

    @property
    def _holds_on(self) -> bool:
        """Whether the waiting rows of a queue that gathers stay for more."""
        if self._gathers is None or self._ripe or self._draining:
            return False
        return not self._enough(self._gathers)

    @property
    def _of_disk(self) -> int:
        """Rows read from the disk that wait or are being written."""
        return self.spooled.rows if self.spooled is not None else 0

    @property
    def _came(self) -> int:
        """The other rows that wait or are being written."""
        return self.counters.rows_waiting - self._of_disk

    @property
    def octets(self) -> int:
        """Memory of the rows that wait."""
        return self._octets

    def _gather(self, waiting: list[Batch]) -> None:
        """Join the last batches, unless they would be too large for one write."""
        batches = waiting[-_GATHERED:]
        octets = sum(batch.nbytes for batch in batches)
        if sum(batch.n for batch in batches) <= JOIN_ROWS and octets <= JOIN_OCTETS:
            joined = Batch.joined(batches)
            waiting[-_GATHERED:] = [joined]
            self._octets += joined.nbytes - octets

    def read_back(self, spooled: Unspooled) -> None:
        """Take the rows of an earlier run from the disk, a part of the bound at a time, and what comes between them."""
        self.spooled = spooled
        self._next()

    def leave_rest(self) -> None:
        """Read no more from the disk."""
        if self.spooled is not None:
            self.spooled.more = False

    def _refill(self, spooled: Unspooled) -> None:
        """Read the next rows from the disk."""
        while spooled.rows * 4 <= self.most_rows and spooled.octets * 4 <= self.most_octets:
            batch = spooled.read()
            if batch is None:
                return
            self.counters.rows_received += batch.n
            self.counters.rows_unspooled += batch.n
            self.counters.rows_waiting += batch.n
            self.waits.come(batch.n, time.monotonic())

    def _turn(self) -> None:
        """The first waiting rows have waited as long as they may."""
        self._due = None
        self._ripe = bool(self._waiting)
        self._next()

    def _over(self, part: int) -> bool:
        """Whether the rows that came in are more than a part of the bound."""
        return self._came * part > self.most_rows or self._octets * part > self.most_octets

    def _cut(self, batch: Batch) -> Batch:
        """The part of the batch with room in the queue; the rest is dropped and counted."""
        room = self.most_rows - self.counters.rows_waiting
        if batch.n:
            room = min(room, (self.most_octets - self._octets) * batch.n // max(batch.nbytes, 1))
        room = max(room, 0)
        if batch.n <= room:
            return batch
        self.counters.dropped["queue_full"] += batch.n - room
        taken = batch.take(slice(0, room))
        if self.output.ledger is not None:
            self.output.ledger.cut(weight(batch) - weight(taken))
        return taken

    def _finish(self, batches: list[Batch]) -> None:
        """These batches are written, or given up: enter it in the ledger, and how long they have waited."""
        self.waits.go(sum(batch.n for batch in batches), time.monotonic())
        for batch in batches:
            if not batch.kept:
                self.passage.go(self._heap(batch), batch.n)
        if self.spooled is not None and batches and batches[0].kept:
            self.spooled.written()
        if self.output.ledger is not None:
            self.output.ledger.finish(sum(map(weight, batches)))

    def _write(self, batches: list[Batch]) -> None:
        before, n = self._not_written(), sum(batch.n for batch in batches)
        try:
            if self.output.together:
                result = self.output.write_together(batches)
            else:
                result = self.output.write(batches[0])
        except Exception as error:
            self.counters.dropped["error"] += n - (self._not_written() - before)
            self._finish(batches)
            self.node.report(self.output, error)
            return
        if not isinstance(result, defer.Deferred):
            self.counters.rows_written += n - (self._not_written() - before)
            self._finish(batches)
            return
        self._writing = batches
        self.counters.rows_waiting += n
        result.addCallbacks(self._written, self._failed, callbackArgs=(before,), errbackArgs=(before,))

    def _not_written(self) -> int:
        """The output's own count of rows not written; compared before and after a write."""
        return self.counters.dropped.total() + self.counters.rows_filtered - self.counters.dropped["queue_full"]

    def _written(self, _: object, before: int) -> None:
        n = self._end_of_write()
        self.counters.rows_waiting -= n
        self.counters.rows_written += n - (self._not_written() - before)
        self._next()

    def _end_of_write(self) -> int:
        """Forget the batches under way; their rows."""
        batches, self._writing = self._writing, []
        self._finish(batches)
        return sum(batch.n for batch in batches)

    def _failed(self, failure: Failure, before: int) -> None:
        if self._stopped:  # the output gave up since it is stopped: the rows are still ours
            if isinstance(failure.value, PartlyWritten):
                self._take_off(failure.value.rows)
            self._give_back()
            return
        n = self._end_of_write()
        self.counters.rows_waiting -= n
        self.counters.dropped["error"] += n - (self._not_written() - before)
        assert isinstance(failure.value, Exception)
        self.node.report(self.output, failure.value)
        self._next()

    def _take_off(self, rows: int) -> None:
        """The first rows of the batch under way are written."""
        (batch,) = self._writing
        rest = batch.take(slice(rows, batch.n))
        if self.spooled is not None and batch.kept:
            self.spooled.written()
            if self.output.ledger is not None:
                self.output.ledger.hold(weight(rest))
        else:
            self._finish([batch.take(slice(0, rows))])
        self._writing = [rest]
        self.counters.rows_waiting -= rows
        self.counters.rows_written += rows

    def _give_back(self) -> None:
        """The batches under way wait again, before the others."""
        batches, self._writing = self._writing, []
        if self.spooled is not None and batches[0].kept:
            self.spooled.give_back()
            return
        for batch in reversed(batches):
            heap = self._heap(batch)
            self._waiting = {heap: [batch, *self._waiting.pop(heap, [])]} | self._waiting
            self._octets += batch.nbytes

    def _next(self) -> None:
        """Write waiting batches and those on the disk; fire the Deferreds of `drained` when the queue is empty."""
        while not self._writing and not self._stopped and (batches := self._choose()):
            self.counters.rows_waiting -= sum(batch.n for batch in batches)
            self._write(batches)
        if self._paused and not self._over(4):
            self._paused = False
            self._pauses.resume(self.feeders, self)
        if self.empty:
            idle, self._idle = self._idle, []
            for waiter in idle:
                waiter.callback(None)

    def _choose(self) -> list[Batch]:
        """The batches of the next write: those read from the disk, then some that came, then the next from the disk."""
        came = bool(self._waiting) and not self._holds_on
        spooled = self.spooled
        if spooled is not None and not spooled.waits and not (came and self._after_spool):
            self._refill(spooled)
        self._after_spool = spooled is not None and spooled.waits
        if spooled is not None and spooled.waits:
            return spooled.take(self.output.together, *((0, 0) if self.output.knows_past else self._bounds))
        return self._take() if came else []

    def _heap(self, batch: Batch) -> Schema | None:
        """The batches to join with this one: those of its schema, or all if the output orders them itself."""
        return batch.schema if self._mixes or not self.output.together else None

    @property
    def _mixes(self) -> bool:
        """Whether one write takes batches of all schemas, in no order."""
        return self.output.together and self._gathers is not None and self._gathers.seconds > 0

    def _take(self) -> list[Batch]:
        """The oldest batches that can be written at once, up to the bounds of one write; joined if of one schema."""
        rows, octets = self._bounds
        found: list[Batch] = []
        while self._waiting and (not found or self._mixes and rows > 0 and octets > 0):
            heap = next(iter(self._waiting))
            batches = self._take_of(heap, rows, octets)
            found += batches if heap is None else [Batch.joined(batches)]
            rows -= sum(batch.n for batch in batches)
            octets -= sum(batch.nbytes for batch in batches)
        self._taken()
        return found

    def _take_of(self, heap: Schema | None, most_rows: int, most_octets: int) -> list[Batch]:
        """The first batches of a heap: one at least, and as many as the bounds have room for."""
        batches = self._waiting.pop(heap)
        count = rows = size = 0
        for batch in batches:
            if count and (rows + batch.n > most_rows or size + batch.nbytes > most_octets):
                break
            count, rows, size = count + 1, rows + batch.n, size + batch.nbytes
        if count < len(batches):
            self._waiting[heap] = batches[count:]
        self._octets -= size
        return batches[:count]

    @property
    def _bounds(self) -> tuple[int, int]:
        """Rows and octets of one write."""
        if self._gathers is None or not self._gathers.seconds:
            return JOIN_ROWS, JOIN_OCTETS
        return self._gathers.rows, self._gathers.octets

    def _taken(self) -> None:
        """Without waiting rows there is nothing to be timed."""
        if self._waiting or self._gathers is None:
            return
        self._ripe = False
        self._cancel()

    def _cancel(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None

    def drained(self) -> defer.Deferred[None]:
        """Fires when the queue is empty. From now on nothing is gathered."""
        self._draining = True
        if self._waiting and not self._stopped:
            self._next()
        if self.empty:
            return defer.succeed(None)
        waiter: defer.Deferred[None] = defer.Deferred(self._forget)
        self._idle.append(waiter)
        return waiter

    def _forget(self, waiter: defer.Deferred[None]) -> None:
        self._idle.remove(waiter)

    def close(self) -> None:
        """Start no further write; rows waiting or given back by the output are then in `left`."""
        self._stopped = True
        self._cancel()

    def present(self) -> list[Batch]:
        """The rows that wait or are being written, at this moment."""
        return [batch for batches in (self._writing, *self._waiting.values()) for batch in batches]

    @property
    def writes(self) -> bool:
        """Whether a write is under way."""
        return bool(self._writing)

    def left(self) -> list[Batch]:
        """The rows not written, which leave the queue and its counts; those on the disk stay there."""
        if self._paused:
            self._paused = False
            self._pauses.resume(self.feeders, self)
        batches = [batch for batches in self._waiting.values() for batch in batches]
        batches[:0], self._writing = [batch for batch in self._writing if not batch.kept], []
        if self.spooled is not None:
            self.counters.rows_spooled += self.spooled.leave()
        self._waiting = {}
        self._octets = 0
        self.passage.end()
        self.waits.clear()
        self.counters.rows_waiting = 0
        return batches

    def end(self, batches: list[Batch]) -> None:
        """These batches, which were left, are on the disk or given up: a kill does not lose them any more."""
        if self.output.ledger is not None:
            self.output.ledger.finish(sum(map(weight, batches)))


def queues(graph: Graph, pauses: Pauses | None = None) -> list[OutputQueue]:
    """A queue before every output of the graph."""
    pauses = pauses or Pauses()
    return [OutputQueue(node, pauses) for node in graph.outputs]
