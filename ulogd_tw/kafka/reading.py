"""A consumer in a group: reads the messages of its partitions in a thread, and tells there how far they are done."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from ulogd_tw.kafka.faults import Events, NotSent
from ulogd_tw.kafka.sending import made
from ulogd_tw.kafka.statistics import Statistics

POLL_S = 0.1
"""Seconds to wait for messages before the reactor is asked for what to do."""
AGAIN_S = 1.0
"""Seconds before a consumer that failed is made anew."""
ANSWER_S = 10.0
"""Seconds within which brokers must answer."""


@dataclass(slots=True)
class Done:
    """How far partitions are done, and what must be known of exporters before that is told."""

    offsets: dict[int, int] = field(default_factory=dict)
    states: list[tuple[int, str, bytes]] = field(default_factory=list)

    def add(self, other: Done) -> None:
        """Go on to a later one."""
        self.offsets |= other.offsets
        self.states += other.states

    def __bool__(self) -> bool:
        return bool(self.offsets or self.states)


class Reader(Protocol):
    """Who wants the messages. All is called in the reactor's thread; `revoked` may return a Deferred."""

    def assigned(self, partitions: list[int], states: list[bytes]) -> None:
        """These partitions are ours now; what others knew of their exporters."""

    def came(self, messages: list[tuple[int, int, bytes]]) -> Done:
        """Messages: partition, offset, octets. Returns what is done by now."""

    def revoked(self, settle: bool) -> Any:
        """Our partitions go to others; fires with what is done. `settle`: there is time to wait for it."""

    def failed(self, error: NotSent | OSError) -> None:
        """Something went wrong; it is tried again."""


@dataclass(frozen=True, slots=True)
class Group:
    """What a consumer reads, and how."""

    topic: str
    state_topic: str
    """The compacted topic with what is known of exporters; empty: none."""
    most: int
    """Messages read at once."""
    replication: int
    consumer: dict[str, Any]
    """Properties of the consumer, and below of the clients of the state's topic."""
    client: dict[str, Any]


class Reading:
    """The thread of one consumer. `call` runs a function in the reactor and returns its result."""

    def __init__(
        self, properties: Callable[[], Group], reader: Reader, call: Callable[..., Any], events: Events,
        statistics: Statistics,
    ) -> None:  # fmt: skip
        self._properties = properties
        self._reader = reader
        self._call = call
        self._events = events
        self._statistics = statistics
        self.paused = False
        """Set from outside: no messages are read."""
        self.ends = False
        """Set from outside: `run` ends."""
        self._stops = False
        self._fetching = True

    def run(self) -> None:
        """Read until `ends`; for a thread."""
        from confluent_kafka import KafkaException

        while not self.ends:
            try:
                self._read(self._properties())
            except (KafkaException, NotSent, OSError) as error:
                found = NotSent.of(error) if isinstance(error, KafkaException) else error
                self._call(self._reader.failed, found)
                time.sleep(AGAIN_S)

    def _read(self, group: Group) -> None:
        from confluent_kafka import Consumer

        told = {"error_cb": self._events.take, "stats_cb": self._statistics.take}
        state = StateTopic(group) if group.state_topic else None
        consumer = Consumer(group.consumer | told)
        self._statistics.begin()
        self._fetching = True
        try:
            consumer.subscribe(
                [group.topic],
                on_assign=lambda _, partitions: self._assigned(partitions, state),
                on_revoke=lambda one, partitions: self._revoked(one, group, state, True),
                on_lost=lambda one, partitions: self._revoked(one, group, state, False),
            )
            while not self.ends:
                self._follow_pause(consumer)
                self._turn(consumer, group, state)
            self._revoked(consumer, group, state, True)
        finally:
            consumer.close()
            if state is not None:
                state.close()

    def _turn(self, consumer: Any, group: Group, state: StateTopic | None) -> None:
        messages = []
        for message in consumer.consume(group.most, POLL_S):
            if message.error() is None:
                messages.append((message.partition(), message.offset(), message.value() or b""))
            else:
                self._call(self._reader.failed, NotSent.of(message.error()))
        if messages:
            self._events.clear()
        self._tell(consumer, group, state, self._call(self._reader.came, messages))

    def _follow_pause(self, consumer: Any) -> None:
        if self.paused == self._fetching:
            self._fetching = not self.paused
            (consumer.resume if self._fetching else consumer.pause)(consumer.assignment())

    @staticmethod
    def _tell(consumer: Any, group: Group, state: StateTopic | None, done: Done) -> None:
        """Keep what is known, then tell how far partitions are done."""
        from confluent_kafka import TopicPartition

        if done.states and state is not None:
            state.keep(done.states)
        if done.offsets:
            offsets = [TopicPartition(group.topic, one, offset) for one, offset in done.offsets.items()]
            consumer.commit(offsets=offsets, asynchronous=False)

    def _assigned(self, partitions: list[Any], state: StateTopic | None) -> None:
        numbers = [one.partition for one in partitions]
        states = state.read(numbers) if state is not None else []
        self._fetching = True
        self._call(self._reader.assigned, numbers, states)

    def _revoked(self, consumer: Any, group: Group, state: StateTopic | None, settle: bool) -> None:
        from confluent_kafka import KafkaException

        done = self._call(self._reader.revoked, settle)
        if not settle:
            return
        try:
            self._tell(consumer, group, state, done)
        except (KafkaException, NotSent) as error:
            found = NotSent.of(error) if isinstance(error, KafkaException) else error
            self._call(self._reader.failed, found)


class StateTopic:
    """A compacted topic with what is known of exporters, in partitions of the same numbers. Raises `NotSent`."""

    def __init__(self, group: Group) -> None:
        self._group = group
        self._producer: Any = None
        self._failed: NotSent | None = None
        self._make()

    def _make(self) -> None:
        from confluent_kafka import KafkaException
        from confluent_kafka.admin import AdminClient

        group = self._group
        admin = AdminClient(group.client)
        try:
            found = admin.list_topics(timeout=ANSWER_S).topics
        except KafkaException as error:
            admin.poll(0)  # it tells why nothing came
            raise NotSent.of(error) from None
        if group.state_topic in found:
            return
        if group.topic not in found:
            raise NotSent("UNKNOWN_TOPIC_OR_PART", f"there is no topic {group.topic}")
        partitions, compact = len(found[group.topic].partitions), {"cleanup.policy": "compact"}
        made(group.client, group.state_topic, partitions, group.replication, ANSWER_S, compact)

    def read(self, partitions: list[int]) -> list[bytes]:
        """The latest state of each exporter in these partitions."""
        from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, TopicPartition

        settings = self._group.client | {"group.id": "state", "enable.auto.commit": False}
        consumer = Consumer(settings)
        found: dict[bytes, bytes] = {}
        ends: dict[int, int] = {}
        try:
            for number in partitions:
                place = TopicPartition(self._group.state_topic, number, OFFSET_BEGINNING)
                low, high = consumer.get_watermark_offsets(place, timeout=ANSWER_S)
                if high > low:
                    ends[number] = high
            consumer.assign([TopicPartition(self._group.state_topic, one, OFFSET_BEGINNING) for one in ends])
            self._read_to(consumer, ends, found)
        except KafkaException as error:
            raise NotSent.of(error) from None
        finally:
            consumer.close()
        return list(found.values())

    @staticmethod
    def _read_to(consumer: Any, ends: dict[int, int], found: dict[bytes, bytes]) -> None:
        until = time.monotonic() + 6 * ANSWER_S
        while ends:
            if time.monotonic() > until:
                raise NotSent("_TIMED_OUT", "what is known of exporters could not be read in time")
            for message in consumer.consume(1000, POLL_S):
                if message.error() is None:
                    found[message.key() or b""] = message.value() or b""
            for place in consumer.position(consumer.assignment()):
                if place.offset >= ends.get(place.partition, 1 << 62):
                    del ends[place.partition]

    def keep(self, states: list[tuple[int, str, bytes]]) -> None:
        """Write what is known, and wait until brokers have it."""
        from confluent_kafka import Producer

        if self._producer is None:
            self._producer = Producer(self._group.client | {"acks": "all", "message.timeout.ms": int(ANSWER_S * 1000)})
        self._failed = None
        for partition, name, value in states:
            self._producer.produce(
                self._group.state_topic, value, name.encode(), partition, on_delivery=self._delivered
            )
        while self._producer.flush(ANSWER_S):
            pass
        if self._failed is not None:
            raise self._failed

    def _delivered(self, error: Any, _: Any) -> None:
        if error is not None:
            self._failed = NotSent.of(error)

    def close(self) -> None:
        """End the connections."""
        self._producer = None
