"""KAFKA: sends rows to a topic of Kafka."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ulogd_tw.collecting.messages import KEYS as MESSAGE_KEYS
from ulogd_tw.core.batch import Batch, Schema
from ulogd_tw.core.bounded import Bounded
from ulogd_tw.core.gather import Gather
from ulogd_tw.core.keys import nearest
from ulogd_tw.core.libraries import install, is_there
from ulogd_tw.core.options import Option, boolean, number, octets, one_of, positive, seconds, words
from ulogd_tw.core.plugin import ALL, FLOW, PACKET, SUM, Wanted
from ulogd_tw.kafka import faults, settings, statistics
from ulogd_tw.kafka.faults import Events, NotSent
from ulogd_tw.kafka.flow_message import KEYS
from ulogd_tw.kafka.formats import FORMATS, Terms
from ulogd_tw.kafka.packing import Packed
from ulogd_tw.kafka.row_keys import Anywhere, RowKeys, names
from ulogd_tw.kafka.sending import Rest, Sending, made
from ulogd_tw.storing.counts import GATHERING
from ulogd_tw.storing.gathering import GatheringOutput, gathering_options
from ulogd_tw.storing.refused import Fault, Refused
from ulogd_tw.writing.objects import MOST_SCHEMAS

FLUSH_S = 1.0
LOOK_S = 10.0
"""Seconds between two looks at the statistics while nothing is sent."""


class KAFKA(GatheringOutput):
    """Sends rows to a topic of Kafka, and keeps them until the brokers have taken them.

    Rows are JSON objects with the names of the output JSON, columns in Arrow IPC, or goflow2's FlowMessage. While no
    broker takes rows, they wait in the queue before this output and then in the spool, as with a database; each row is
    sent at least once. It needs confluent-kafka: pip install 'ulogd_tw[kafka]'.
    """

    name = "KAFKA"
    itype = PACKET | FLOW | SUM
    together = True
    gather = Gather(rows=65536, octets=16 << 20)
    counts = (*GATHERING, *faults.COUNTS, *statistics.SENT)
    options = (
        *settings.CLIENT,
        Option("format", one_of(*FORMATS), "json", "Form of the rows: json, an object a row; arrow, columns of many "
               "rows a message as a stream of Arrow IPC (needs pyarrow); protobuf, goflow2's FlowMessage; messages, "
               "many messages of a COLLECTOR with decode=0 in one, in the partition of their exporter."),
        Option("keys", words, (), "Keys to send, such as \"sourceAddress octets\". Empty: all."),
        Option("key", words, (), "Key of the messages, by which Kafka chooses the partition: exporter, 5tuple (both "
               "addresses, both ports and the protocol), or names of keys. Empty: none, and rows go to any partition."),
        Option("message_rows", number, 0, "Rows of a message at most: in json with a newline between them, in protobuf "
               "with the length of each before it. With key, rows of one message are of one partition, and messages "
               "have no key. 0: 1 row, in arrow 65536."),
        Option("message_size", octets, 900_000, "Octets of a message of many rows, about; brokers take 1 MB if not "
               "told otherwise."),
        Option("compression", one_of("none", "gzip", "snappy", "lz4", "zstd"), "lz4", "Compression of the messages."),
        Option("acks", one_of("all", "1"), "all", "Which brokers must have the rows before they count as written: all "
               "in-sync replicas, or 1, the leader."),
        Option("idempotence", boolean, True, "1: a request that is sent again because its answer was lost adds no "
               "rows twice. Needs acks=all."),
        Option("timeout", seconds, 30.0, "Seconds within which a broker must take a message; then the rows are sent "
               "anew, and may be there twice."),
        Option("create", boolean, False, "1: make the topic if it does not exist."),
        Option("partitions", positive, 6, "Partitions of a topic that create=1 makes."),
        Option("replication", positive, 1, "Replicas of a topic that create=1 makes."),
        *gathering_options(FLUSH_S),
    )  # fmt: skip

    def __init__(self, instance: str, config: Any = None) -> None:
        super().__init__(instance, config)
        self._events = Events(self._told)
        self._sending = Sending(
            self._properties, self._events, statistics.Statistics(self.counters, statistics.PRODUCED)
        )
        chosen = names(("exporter",) if self._raw else self.config.key)
        find = Anywhere(chosen).find if self._takes_all else self.find
        terms = Terms(self.config.message_rows, self.config.message_size, self.find)
        self._format = FORMATS[self.config.format](terms, RowKeys(chosen, find))
        self._packed = Packed()
        self._rest = Rest()
        """What is left of the write `_left_of`."""
        self._left_of = 0
        self._there = False
        """Whether the topic was made or found."""
        self._partitions = 0
        self._schemas: Bounded[Any, Schema] = Bounded(MOST_SCHEMAS)

    # configuration

    def mistakes(self) -> Iterator[tuple[str, str]]:
        yield from super().mistakes()
        config = self.config
        yield from settings.mistakes(config, self.name)
        if config.idempotence and config.acks != "all":
            yield "acks", "must be all with idempotence; set idempotence=0"
        if 0 < config.timeout < 1:
            yield "timeout", "must be 1 second at least"
        if config.format == "protobuf" and config.keys:
            yield "keys", "has no effect with format=protobuf: FlowMessage has fields of its own"
        if self._raw and (config.keys or config.key):
            yield "keys" if config.keys else "key", "has no effect with format=messages; the key is the exporter"
        if config.format == "arrow" and not is_there("pyarrow"):
            yield "format", f"arrow needs pyarrow: {install('pyarrow')}"
        for word in config.key:
            if word not in ("exporter", "5tuple") and (near := nearest(word, ("exporter", "5tuple"))):
                yield "key", f"there is no key {word}; did you mean {near}?"

    def remarks(self) -> Iterator[tuple[str, str]]:
        yield from super().remarks()
        yield from settings.remarks(self.config)

    def requests(self, wanted: Wanted) -> Any:
        """Every key, or those that were chosen."""
        if self._takes_all:
            return ALL
        if self._raw:
            return dict.fromkeys((key.name for key in MESSAGE_KEYS), True)
        optional = KEYS if self.config.format == "protobuf" else ()
        return dict.fromkeys((*names(self.config.key), *optional), False) | dict.fromkeys(self.config.keys, True)

    @property
    def _takes_all(self) -> bool:
        """Whether it sends every key."""
        return not self.config.keys and self.config.format not in ("protobuf", "messages")

    @property
    def _raw(self) -> bool:
        """Whether it sends messages of exporters as they came."""
        return bool(self.config.format == "messages")

    @property
    def where(self) -> str:
        return f"topic {self.config.topic} on {self.config.brokers[0] if self.config.brokers else ''}"

    def _properties(self) -> dict[str, Any]:
        config = self.config
        return (
            settings.common(config, self.instance)
            | {
                "message.timeout.ms": int(config.timeout * 1000) or 300_000,
                "compression.type": config.compression,
                "enable.idempotence": config.idempotence,
                "acks": config.acks,
                "linger.ms": 5,
                "partitioner": "murmur2_random",
                "message.max.bytes": max(config.message_size * 2, 1_000_000),
                "queue.buffering.max.messages": 200_000,
                "queue.buffering.max.kbytes": 65_536,
                "sticky.partitioning.linger.ms": 50,
            }
            | settings.further(config)
        )

    # rows; in the output's thread

    def store(self, batches: Sequence[Batch], number: int, again: bool) -> Refused:
        if number != self._left_of:
            self._prepare()
            self._packed = self._packed_of(batches)
            self._rest, self._left_of = Rest(again=self._packed.messages), number
        refused, self._rest.again = self._rest.again, []
        rest = self._sending.send(self.config.topic, refused)
        self._rest = Rest(rest.again, self._rest.refused + rest.refused)
        if rest.error is not None:
            self._forget_topic(rest.error)
            raise rest.error
        return self._refused()

    def _prepare(self) -> None:
        """See that the topic is there. Raises `NotSent`."""
        config, within = self.config, self.config.timeout or 30.0
        try:
            if config.create and not self._there:
                told = {"error_cb": self._events.take}
                made(self._properties() | told, config.topic, config.partitions, config.replication, within)
            if self._format.by_partition and not self._partitions:
                self._partitions = self._sending.partitions(config.topic, within)
        except NotSent as error:
            raise self._events.explained(error) from None
        self._there = True

    def _forget_topic(self, error: NotSent) -> None:
        """Look for the topic again where a broker does not know it."""
        fault = faults.meaning(error)
        if fault is not None and fault.reason == "topic":
            self._there, self._partitions, self._left_of = False, 0, 0

    def _packed_of(self, batches: Sequence[Batch]) -> Packed:
        found, first = Packed(), 0
        for batch in batches:
            found.add(self._format.messages(self._chosen(batch), batch, self._partitions), first)
            first += batch.n
        return found

    def _chosen(self, batch: Batch) -> Batch:
        """The batch with the chosen keys, where it has them."""
        if not self.config.keys:
            return batch
        found = [one for name in self.config.keys if (one := self.find(batch, name)) is not None]
        keys = tuple(one.key for one in found)
        schema = self._schemas.get(keys)
        if schema is None:
            schema = self._schemas[keys] = Schema(keys, batch.schema.ipv6)
        columns = {one.key.name: one.values for one in found}
        missing = {one.key.name: one.missing for one in found if one.missing is not None}
        return Batch(schema, columns, missing, n=batch.n, now=batch.now)

    def _refused(self) -> Refused:
        found = Refused()
        for message, reason in self._rest.refused:
            for row in self._packed.rows_of(message).tolist():
                found.add(reason, row)
        return found

    def interrupt(self) -> None:
        self._sending.interrupt()

    def meaning(self, error: Exception) -> Fault | None:
        return faults.meaning(error)

    # besides

    def _told(self, text: str) -> None:
        """librdkafka has something to tell: while rows wait, it is why. Called in the output's thread."""
        self.reactor.callFromThread(self._in_trouble, text)

    def _in_trouble(self, text: str) -> None:
        if self._busy is not None:
            self._trouble = f"{self.where}: {text}"

    def wake(self, now: float) -> float | None:
        if self._busy is None and not self._stopping and self.write_number:
            self.in_thread(self._sending.poll)
        return LOOK_S

    def close(self) -> Any:
        """Close the connections."""
        if self._threads is None:
            return None
        return self.in_thread(self._sending.close)
