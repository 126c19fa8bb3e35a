"""A producer: sends messages, and waits until each was taken or refused."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ulogd_tw.kafka.faults import OF_MESSAGES, Events, NotSent
from ulogd_tw.kafka.statistics import Statistics

Message = dict[str, Any]
"""A message as confluent-kafka takes it: value, and key, partition and timestamp where they are chosen."""
PORTION = 10_000
"""Messages given to librdkafka at once."""
ANY = -1
"""The partition of messages for which Kafka chooses it."""
_LOOK_S = 0.2
"""Seconds between two looks whether the write was broken off."""


@dataclass(slots=True)
class Rest:
    """What is left of a write: messages to send again, and those that the brokers refuse, with their errors."""

    again: list[Message] = field(default_factory=list)
    refused: list[tuple[Message, str]] = field(default_factory=list)
    error: NotSent | None = None


class Sending:
    """One producer, made anew after a fatal error. Used in one thread, but for `interrupt`."""

    def __init__(self, properties: Callable[[], dict[str, Any]], events: Events, statistics: Statistics) -> None:
        """`properties`: librdkafka's, asked for each new producer."""
        self._properties = properties
        self._events = events
        self._statistics = statistics
        self._producer: Any = None
        self._rest = Rest()
        self._broken_off = False

    def _open(self) -> Any:
        """The producer. Raises OSError, `NotSent`."""
        from confluent_kafka import KafkaException, Producer

        if self._producer is None:
            told = {"error_cb": self._events.take, "stats_cb": self._statistics.take}
            only_errors = {"delivery.report.only.error": True, "on_delivery": self._delivered}
            try:
                self._producer = Producer(self._properties() | told | only_errors)
            except KafkaException as error:
                raise NotSent.of(error) from None
            self._statistics.begin()
        return self._producer

    def _delivered(self, error: Any, message: Any) -> None:
        """One message was not taken; those that were taken are not told."""
        if error is None:
            return
        sent = {"value": message.value(), "key": message.key()}
        if message.key() is None and (message.partition() or -1) >= 0:
            sent["partition"] = message.partition()
        self._not_taken(sent, NotSent.of(error))

    def partitions(self, topic: str, within: float) -> int:
        """How many the topic has. Raises `NotSent`."""
        from confluent_kafka import KafkaException

        try:
            found = self._open().list_topics(topic, timeout=within).topics[topic]
        except KafkaException as error:
            self._producer.poll(0)
            raise NotSent.of(error) from None
        if found.error is not None:
            raise NotSent.of(found.error)
        return len(found.partitions)

    def send(self, topic: str, messages: list[Message]) -> Rest:
        """Send them all, and wait until each is taken or has failed."""
        producer, self._rest = self._open(), Rest()
        for partition, some in _by_partition(messages).items():
            for first in range(0, len(some), PORTION):
                self._give(producer, topic, partition, some[first : first + PORTION])
        while self._step(producer.flush, _LOOK_S) != 0:
            if self._broken_off or self._is_fatal():
                self._step(lambda: producer.purge(blocking=False))
        self._end_of_send()
        return self._rest

    def _end_of_send(self) -> None:
        error = self._rest.error
        if error is None:
            self._events.clear()
            return
        self._rest.error = self._events.explained(error)
        if self._is_fatal() or self._rest.error.code in ("_AUTHENTICATION", "_SSL"):
            self.close()  # the next one reads the password again

    def _is_fatal(self) -> bool:
        """Whether this producer can send nothing more."""
        return self._rest.error is not None and self._rest.error.fatal

    def _step(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """One call of the producer; None where it has raised a fatal error."""
        from confluent_kafka import KafkaException

        try:
            return call(*arguments)
        except KafkaException as error:
            self._rest.error = NotSent.of(error)
            return None

    def _give(self, producer: Any, topic: str, partition: int, messages: list[Message]) -> None:
        """Put them into librdkafka's queue, as it has room."""
        while messages:
            if self._step(producer.produce_batch, topic, messages, partition, self._delivered) is None:
                self._rest.again += messages
                return
            messages = self._sorted_out(messages)
            if messages:
                self._step(producer.poll, _LOOK_S)
            if self._broken_off or self._is_fatal():
                self._step(lambda: producer.purge(blocking=False))
        self._step(producer.poll, 0)

    def _sorted_out(self, messages: list[Message]) -> list[Message]:
        """Those for which there was no room; others that were not taken are entered as what is left."""
        full = []
        for message in messages:
            if (error := message.pop("_error", None)) is None:
                continue
            if error.name() == "_QUEUE_FULL":
                full.append(message)
            else:
                self._not_taken(message, NotSent.of(error))
        return full

    def _not_taken(self, message: Message, error: NotSent) -> None:
        if error.code in OF_MESSAGES:
            self._rest.refused.append((message, str(error)))
            return
        self._rest.again.append(message)
        if not self._is_fatal():
            self._rest.error = error

    def poll(self) -> None:
        """Let librdkafka tell its statistics."""
        if self._producer is not None:
            self._producer.poll(0)

    def interrupt(self) -> None:
        """Let `send` end soon; what is not taken yet has failed. Called from another thread."""
        self._broken_off = True

    def close(self) -> None:
        """End the connections; nothing is being sent."""
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.purge()
            producer.flush(_LOOK_S)


def _by_partition(messages: list[Message]) -> dict[int, list[Message]]:
    """The messages of each partition; -1 where Kafka chooses it.

    produce_batch of confluent-kafka (2.16) does not look at the partition of a single message.
    """
    if not messages or ("partition" not in messages[0] and "partition" not in messages[-1]):
        return {ANY: messages}
    found: dict[int, list[Message]] = {}
    for message in messages:
        found.setdefault(message.get("partition", ANY), []).append(message)
    return found


def made(properties: dict[str, Any], topic: str, partitions: int, replication: int, within: float,
         config: dict[str, str] | None = None) -> bool:  # fmt: skip
    """Make a topic; whether it was not there yet. Raises `NotSent`."""
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient, NewTopic

    properties = {name: value for name, value in properties.items() if name in _OF_ADMIN or "." not in name}
    try:
        admin = AdminClient(properties)
        new = NewTopic(topic, num_partitions=partitions, replication_factor=replication, config=config or {})
        began = time.monotonic()
        future = admin.create_topics([new], request_timeout=within)[topic]
        while not future.done() and time.monotonic() - began < within * 2:
            admin.poll(_LOOK_S)  # it tells why nothing comes
        future.result(0)
    except KafkaException as error:
        found = NotSent.of(error)
        if found.code == "TOPIC_ALREADY_EXISTS":
            return False
        raise found from None
    except TimeoutError:
        raise NotSent("_TIMED_OUT", f"no answer within {time.monotonic() - began:.0f} s") from None
    return True


_OF_ADMIN = frozenset((
    "bootstrap.servers", "client.id", "security.protocol", "ssl.ca.location", "ssl.certificate.location",
    "ssl.key.location", "sasl.mechanism", "sasl.username", "sasl.password", "log_level",
))  # fmt: skip
"""Properties that a client for the making of topics has, too."""
