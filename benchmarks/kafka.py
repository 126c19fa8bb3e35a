"""What a row costs on its way to Kafka and from there: CPU of each form, this process alone, with Tansu as the broker.

    python -m benchmarks.kafka [--rows 524288] [--runs 5] [NAME ...]

Flows are those of `benchmarks.flow_store`: 17 columns, both families. `to` is the output with one write of 65,536 rows
after the other, each acknowledged by the broker; `from` is the reading of the same messages, without a broker. For
`messages` a row is a record: 30 records an IPFIX message, first taken by a COLLECTOR with decode=0, then sent.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import struct
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from twisted.internet import defer, task  # noqa: E402 (the tree need not be installed)

from benchmarks.flow_store import batches, cpu, opened  # noqa: E402
from tests.kafka import Broker  # noqa: E402
from tests.unit.ipfix.wire import a_set, message, template  # noqa: E402
from ulogd_tw.collecting.messages import Passing  # noqa: E402
from ulogd_tw.core.batch import Batch  # noqa: E402
from ulogd_tw.ipfix.session import Session  # noqa: E402
from ulogd_tw.kafka.intake import MessageIntake  # noqa: E402
from ulogd_tw.kafka.raw import Came  # noqa: E402
from ulogd_tw.kafka.row_intake import ROWS  # noqa: E402
from ulogd_tw.plugins.inputs.collector import COLLECTOR  # noqa: E402
from ulogd_tw.plugins.inputs.kafka import KAFKA as Reader  # noqa: E402
from ulogd_tw.plugins.outputs.kafka import KAFKA  # noqa: E402

FORMS = {
    "json": {"format": "json"}, "json, 1000 rows": {"format": "json", "message_rows": 1000},
    "protobuf": {"format": "protobuf"}, "protobuf, 1000 rows": {"format": "protobuf", "message_rows": 1000},
    "arrow": {"format": "arrow"}, "messages": {"format": "messages"},
}  # fmt: skip
RECORDS, SLAB = 30, 2048
"""Records of a message, and messages that come together."""


class Wire:
    """IPFIX messages of one exporter in slabs, as a listener gives them."""

    def __init__(self, records: int) -> None:
        fields = template(256, (8, 4), (12, 4), (7, 2), (11, 2), (4, 1), (1, 8), (2, 8), (152, 8), (153, 8))
        one = struct.pack("!IIHHBQQQQ", 0x0A000001, 0xC0000201, 443, 55555, 6, 1500, 3, 1_795_961_999_000, 0)
        self.records = records
        self.first = message(a_set(2, fields))
        whole = message(a_set(256, *[one] * RECORDS))
        stride = -(-len(whole) // 8) * 8
        self.rows = np.zeros((SLAB, stride), np.uint8)
        self.rows[:, : len(whole)] = np.frombuffer(whole, np.uint8)
        self.lengths = np.full(SLAB, len(whole), np.int64)

    def batches(self) -> list[Batch]:
        """The rows of decode=0."""
        decoder, session = Passing(frozenset(), COLLECTOR("col1").counters), Session("10.0.0.1", 1, reliable=False)
        decoder.feed(session, self.first, 1.0)
        found: list[Batch] = []
        for number in range(self.records // (RECORDS * SLAB)):
            places = (np.arange(SLAB) + number * SLAB) * RECORDS
            self.rows[:, 8:12] = places.astype(">u4").view(np.uint8).reshape(-1, 4)
            decoder.feed_slab([session] * SLAB, self.rows, self.lengths, 1.0 + number)
            found += decoder.drain(1.0)
        return found


def decode(messages: Sequence[bytes]) -> int:
    """The records of messages of exporters."""
    plugin = Reader("in1")
    plugin.wanted = frozenset(("sourceIPv4Address", "destinationIPv4Address", "octetDeltaCount", "packetDeltaCount",
                               "flowStartMilliseconds", "flowEndMilliseconds", "exporter"))  # fmt: skip
    rows: list[int] = []
    plugin.emit = lambda batch: rows.append(batch.n)
    intake = MessageIntake(plugin, plugin.config, lambda *_: None)
    for one in messages:
        intake.take(0, Came.read(one))
    return sum(rows)


def raised(error: Exception) -> None:
    """For a form that is not as it should be."""
    raise error


async def send(broker: Broker, words: dict[str, Any], made: list[Batch], rows: int) -> tuple[float, float, int]:
    """CPU s/M and rows a second of the output; octets of a row."""
    topic = f"t{time.time_ns()}"
    broker.make(topic, 1)
    config = {"brokers": (broker.address,), "topic": topic, "idempotence": False} | words
    output = KAFKA("out", None)
    if words["format"] == "protobuf":
        output = opened(KAFKA, **config)
    else:
        for name, value in config.items():
            setattr(output.config, name, value)
        output = KAFKA("out", output.config)
    before, began = cpu(), time.perf_counter()
    for batch in made:
        await output.write_together([batch])
    used, busy = cpu() - before, time.perf_counter() - began
    octets = sum(len(one["value"]) for one in output._packed.messages) * len(made)
    await defer.maybeDeferred(output.stop)
    return used / rows * 1e6, rows / busy, octets


def read(words: dict[str, Any], made: list[Batch], rows: int) -> float:
    """CPU s/M of the reading of the same messages."""
    output = opened(KAFKA, **words) if words["format"] == "protobuf" else KAFKA("out", None)
    if words["format"] != "protobuf":
        for name, value in words.items():
            setattr(output.config, name, value)
        output = KAFKA("out", output.config)
    output._partitions = 1
    messages = [one["value"] for batch in made for one in output._packed_of([batch]).messages]
    before = cpu()
    if words["format"] == "messages":
        assert decode(messages) == rows
    else:
        step = 10_000 if len(messages) > 10_000 else 200
        for first in range(0, len(messages), step):
            for _ in ROWS[words["format"]](messages[first : first + step], 1.0, raised):
                pass
    return (cpu() - before) / rows * 1e6


async def measure(names: Sequence[str], rows: int, runs: int) -> None:
    """Each form in turn, `runs` times; medians."""
    flows, wire = list(batches(rows)), Wire(max(rows, RECORDS * SLAB))
    messages = wire.batches()
    records = (sum(batch.n for batch in messages) - 1) * RECORDS  # the first one has the template
    with Broker() as broker:
        found: dict[str, list[tuple[float, float, float, float]]] = {name: [] for name in names}
        for _ in range(runs):
            for name in names:
                made, n = (messages, records) if name == "messages" else (flows, rows)
                sent = await send(broker, FORMS[name], made, n)
                found[name].append((*sent[:2], sent[2] / n, read(FORMS[name], made, n)))
            await defer.maybeDeferred(print, end="", flush=True)
    for name, figures in found.items():
        to, speed, octets, back = (statistics.median(column) for column in zip(*figures, strict=True))
        print(f"{name:22} to {to:5.2f} CPU s/M  from {back:5.2f} CPU s/M", end="  ")
        print(f"{octets:6.1f} octets a row  {speed:10,.0f} rows/s")
    took = timed(wire.batches)
    print(f"{'decode=0 alone':22} to {took / records * 1e6:5.2f} CPU s/M")


def timed(call: Callable[[], object]) -> float:
    """CPU seconds of a call, the median of five."""
    found = []
    for _ in range(5):
        before = cpu()
        call()
        found.append(cpu() - before)
    return statistics.median(found)


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=524_288)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("names", nargs="*", default=list(FORMS))
    words = parser.parse_args()
    print(f"Python {platform.python_version()}, NumPy {np.__version__}, {os.cpu_count()} CPUs {platform.machine()}")
    task.react(lambda _: defer.Deferred.fromCoroutine(measure(words.names, words.rows, words.runs)))


if __name__ == "__main__":
    main()
