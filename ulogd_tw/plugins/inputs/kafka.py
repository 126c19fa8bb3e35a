"""KAFKA: reads a topic of Kafka: messages of exporters, or rows."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from typing import Any

from twisted.internet import defer, reactor, threads
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from ulogd_tw.collecting.input import Collecting
from ulogd_tw.core.counters import Count, Fault
from ulogd_tw.core.libraries import install, is_there
from ulogd_tw.core.limited import RateLimitedLog
from ulogd_tw.core.options import Option, one_of, positive, seconds, text
from ulogd_tw.core.passages import Mark
from ulogd_tw.core.plugin import ALL
from ulogd_tw.core.plurals import plural
from ulogd_tw.core.states import State, down
from ulogd_tw.ipfix.session import Session
from ulogd_tw.kafka import faults, settings, statistics
from ulogd_tw.kafka.faults import Events, NotSent
from ulogd_tw.kafka.intake import MessageIntake
from ulogd_tw.kafka.raw import Came, MistakenMessage
from ulogd_tw.kafka.reading import Done, Group, Reading
from ulogd_tw.kafka.row_intake import ROWS

REVOKE_S = 10.0
"""Seconds for which the next owner of partitions waits until our rows are written."""
MOST_MARKS = 64
"""Marks that wait for the outputs; more are not made."""
FEW, MANY = 200, 10_000
"""Messages read at once: of many rows, and of one row."""
_LOOK_S = 0.05


class KAFKA(Collecting):
    """Reads the messages of a topic in a consumer group, and decodes them as COLLECTOR does.

    The topic has messages of exporters, from the output KAFKA with format=messages below a COLLECTOR with decode=0, or
    rows. Offsets are committed when the outputs below have written the rows, so each row is there at least once: rows
    after the last commit come again when a process is killed. Templates and options data of exporters are in a
    compacted topic beside, so the next owner of a partition decodes the next record. It needs confluent-kafka:
    pip install 'ulogd_tw[kafka]'.
    """

    name = "KAFKA"
    counts = (
        *Collecting.counts,
        *statistics.READ,
        Count("commits", "occasions", "Commits of offsets."),
        Count("rebalances", "occasions", "Changes of the partitions that are ours.", rare=True),
        Fault("form", "messages", "Messages of Kafka that are not as format says."),
        *faults.COUNTS,
    )
    options = (
        *settings.CLIENT,
        Option("group", text, "ulogd-tw", "Name of the consumer group: its members share the partitions."),
        Option("format", one_of("messages", *ROWS), "messages", "Form of the messages: messages, those of exporters; "
               "json, objects, one a line, and arrow, streams of Arrow IPC, with keys as names (both need pyarrow); "
               "protobuf, goflow2's FlowMessage."),
        Option("begin", one_of("earliest", "latest"), "earliest", "Where a group without committed offsets begins."),
        Option("state_topic", text, "", "Compacted topic with templates and options data of exporters; it is made. "
               "Empty: the name of the topic and -state."),
        Option("replication", positive, 1, "Replicas of this topic."),
        Option("commit_interval", seconds, 1.0, "Seconds between two commits of offsets, at least."),
        Option("session_key", one_of("auto", "strict", "address"), "auto", "Identity of an exporter: see COLLECTOR."),
        Option("max_sessions", positive, 10_000, "Maximum number of exporters."),
        Option("max_sessions_of_address", positive, 1000, "Maximum number of exporters with one address."),
        Option("idle_timeout", seconds, 86400.0, "Seconds without a message after which an exporter and its templates "
               "are forgotten."),
        *Collecting.decoding_options,
    )  # fmt: skip
    reactor: Any = reactor

    def __init__(self, instance: str, config: Any = None) -> None:
        super().__init__(instance, config)
        self.limited = RateLimitedLog(time.monotonic)
        self._events = Events(self._told)
        read = statistics.Statistics(self.counters, statistics.CONSUMED)
        self._reading = Reading(self._group, self, self._in_reactor, self._events, read)
        self._intake: MessageIntake | None = None
        self._marks: deque[tuple[Mark, Done]] = deque()
        self._read: dict[int, int] = {}
        """The next offset of each partition."""
        self._marked: dict[int, int] = {}
        self._last_mark = 0.0
        self._threads: ThreadPool | None = None
        self._ended: defer.Deferred[Any] | None = None
        self._trouble = ""

    def mistakes(self) -> Iterator[tuple[str, str]]:
        yield from super().mistakes()
        yield from settings.mistakes(self.config, self.name)
        if self.config.format in ("json", "arrow") and not is_there("pyarrow"):
            yield "format", f"{self.config.format} needs pyarrow: {install('pyarrow')}"

    def remarks(self) -> Iterator[tuple[str, str]]:
        yield from super().remarks()
        yield from settings.remarks(self.config)

    @property
    def where(self) -> str:
        """The topic, for log lines."""
        return f"topic {self.config.topic} on {self.config.brokers[0]}"

    def _group(self) -> Group:
        config = self.config
        client = settings.common(config, self.instance) | {"error_cb": self._events.take}
        further = settings.further(config)
        consumer = {
            "group.id": config.group, "auto.offset.reset": config.begin, "enable.auto.commit": False,
            "enable.auto.offset.store": False, "queued.max.messages.kbytes": 32_768,
            "partition.assignment.strategy": "range,roundrobin",
        }  # fmt: skip
        raw = config.format == "messages"
        state = (config.state_topic or f"{config.topic}-state") if raw else ""
        most = FEW if config.format in ("messages", "arrow") else MANY
        quiet = {name: value for name, value in client.items() if name != "statistics.interval.ms"}
        return Group(config.topic, state, most, config.replication, client | consumer | further, quiet)

    # start and stop

    def begin(self) -> None:
        self._threads = ThreadPool(1, 1, f"{self.instance} reads")
        self._threads.start()
        self._ended = threads.deferToThreadPool(self.reactor, self._threads, self._reading.run)
        self._ended.addErrback(self._broken)

    @defer.inlineCallbacks
    def stop(self) -> Any:
        """Read no more; what was read goes on, and is committed if it is written soon."""
        self._reading.ends = True
        if self._ended is not None:
            yield self._ended  # closing the consumer gives the partitions up, see `revoked`
        if self._threads is not None:
            self._threads.stop()
            self._threads = None

    def _broken(self, failure: Failure) -> None:
        if isinstance(failure.value, Exception):
            self.fault(failure.value)

    def pause(self) -> None:
        self._reading.paused = True

    def resume(self) -> None:
        self._reading.paused = False

    def _in_reactor(self, call: Any, *arguments: Any) -> Any:
        return threads.blockingCallFromThread(self.reactor, call, *arguments)

    # what the thread says; in the reactor

    def assigned(self, partitions: list[int], states: list[bytes]) -> None:
        """Begin with these partitions."""
        self._intake = MessageIntake(self, self.config, self.reactor.callLater)
        if wrong := self._intake.restore(states, time.time()):
            self.counters.errors["state"] += wrong
        self._marks.clear()
        self._read, self._marked, self._trouble = {}, {}, ""
        self.counters.figures["rebalances"] += 1
        self.log.info("{instance}: reads {partitions} of {where}", instance=self.instance,
                      partitions=plural(len(partitions), "partition"), where=self.where)  # fmt: skip

    def came(self, messages: list[tuple[int, int, bytes]]) -> Done:
        """Decode messages; what is done by now."""
        if self._intake is None:
            return Done()
        if self.config.format == "messages":
            self._decode(self._intake, messages)
        elif messages:
            self._emit_rows([octets for _, _, octets in messages])
        self._read |= {partition: offset + 1 for partition, offset, _ in messages}
        if messages:
            self._trouble = ""
        now = time.monotonic()
        if now - self._last_mark >= self.config.commit_interval and len(self._marks) < MOST_MARKS:
            self._last_mark = now
            self._mark()
        return self._done()

    def _decode(self, intake: MessageIntake, messages: list[tuple[int, int, bytes]]) -> None:
        """Decode messages of exporters."""
        for partition, _, octets in messages:
            try:
                intake.take(partition, Came.read(octets))
            except MistakenMessage as error:
                self._wrong(error)

    def _emit_rows(self, messages: list[bytes]) -> None:
        """Emit the rows of messages; their keys that nobody wants are left out."""
        now = time.time()
        for batch in ROWS[self.config.format](messages, now, self._wrong):
            self.counters.rows_received += batch.n
            self.before_emitting(now)
            if self.wanted is not ALL:
                batch = batch.select([name for name in batch.schema if name in self.wanted])
            self.emit(batch)

    def _wrong(self, error: ValueError) -> None:
        self.counters.errors["form"] += 1
        self.limited.say(self.log.warn, "form", "{instance}: {where}: a message is left out: {error}",
                         instance=self.instance, where=self.where, error=error)  # fmt: skip

    def _mark(self) -> None:
        """Note how far it has read, and what is known of exporters there."""
        intake = self._intake
        if intake is None or self._read == self._marked or not intake.settled:
            return
        self._marked = dict(self._read)
        self._marks.append((Mark(self.outlets.values()), Done(dict(self._read), intake.changed())))

    def _done(self) -> Done:
        """What the outputs are done with."""
        found = Done()
        while self._marks and self._marks[0][0].passed():
            found.add(self._marks.popleft()[1])
        if found.offsets:
            self.counters.figures["commits"] += 1
        return found

    @defer.inlineCallbacks
    def revoked(self, settle: bool) -> Any:
        """Hand the partitions over: wait for the outputs, as long as the next owner may wait."""
        found, intake = Done(), self._intake
        if intake is not None and settle:
            intake.end()
            self._mark()
            within = min(REVOKE_S, self.stop_within / 2) if self._reading.ends else REVOKE_S
            until = self.reactor.seconds() + within
            found.add(self._done())
            while self._marks and self.reactor.seconds() < until:
                yield self._pause(_LOOK_S)
                found.add(self._done())
        self._intake = None
        self._marks.clear()
        return found

    def _pause(self, seconds: float) -> defer.Deferred[None]:
        waiting: defer.Deferred[None] = defer.Deferred()
        self.reactor.callLater(seconds, waiting.callback, None)
        return waiting

    def failed(self, error: NotSent | OSError) -> None:
        """Say once a minute that nothing is read, and why."""
        if isinstance(error, NotSent):
            error = self._events.explained(error)
        fault = faults.meaning(error)
        assert fault is not None
        self.counters.errors[fault.reason] += 1
        self._trouble = f"{self.where}: {error}"
        self.limited.say(self.log.warn, fault.reason, "{instance}: {where}: {error}{remedy}; trying again",
                         instance=self.instance, where=self.where, error=error,
                         remedy=f"; {fault.remedy}" if fault.remedy else "")  # fmt: skip

    def _told(self, words: str) -> None:
        """librdkafka has something to tell. Called in the thread of the reading."""
        self.reactor.callFromThread(self._in_trouble, words)

    def _in_trouble(self, words: str) -> None:
        self._trouble = f"{self.where}: {words}"

    # what it knows

    def state(self) -> State:
        """Down since the last error, until something is read."""
        return down(self._trouble)

    def sessions(self) -> Iterator[Session]:
        yield from self._intake.exporters if self._intake is not None else ()

    def wake(self, now: float) -> float | None:
        if self._intake is not None:
            self._intake.expire(now)
        return 1.0
