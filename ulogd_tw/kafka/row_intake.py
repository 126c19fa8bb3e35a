"""Rows of messages of Kafka, in any form but that of exporters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from ulogd_tw.core.batch import Batch
from ulogd_tw.kafka import flow_message_read, table_read
from ulogd_tw.kafka.rows import MistakenRows, batches

Wrong = Callable[[MistakenRows], None]


def json_rows(messages: Sequence[bytes], now: float, wrong: Wrong) -> Iterator[Batch]:
    """Rows of objects, one a line."""
    try:
        table = table_read.of_json(messages)
    except MistakenRows as error:
        yield from _one_by_one(json_rows, messages, now, wrong, error)
        return
    yield from batches(table_read.cells(table), table.num_rows, now)


def arrow_rows(messages: Sequence[bytes], now: float, wrong: Wrong) -> Iterator[Batch]:
    """Rows of streams of Arrow IPC."""
    for message in messages:
        try:
            table = table_read.of_arrow(message)
        except MistakenRows as error:
            wrong(error)
            continue
        yield from batches(table_read.cells(table), table.num_rows, now)


def protobuf_rows(messages: Sequence[bytes], now: float, wrong: Wrong) -> Iterator[Batch]:
    """Rows of FlowMessages."""
    starts, ends, first = [], [], 0
    for message in messages:
        for start, end in flow_message_read.delimited(message):
            starts.append(first + start)
            ends.append(first + end)
        first += len(message)
    octets = np.frombuffer(b"".join(messages), np.uint8)
    try:
        cells = flow_message_read.cells(octets, np.array(starts, np.int64), np.array(ends, np.int64))
    except MistakenRows as error:
        yield from _one_by_one(protobuf_rows, messages, now, wrong, error)
        return
    yield from batches(cells, len(starts), now)


def _one_by_one(
    read: Callable[[Sequence[bytes], float, Wrong], Iterator[Batch]], messages: Sequence[bytes], now: float,
    wrong: Wrong, error: MistakenRows,
) -> Iterator[Batch]:  # fmt: skip
    """One of the messages is mistaken: the others are read all the same."""
    if len(messages) == 1:
        wrong(error)
        return
    for message in messages:
        yield from read([message], now, wrong)


ROWS: dict[str, Callable[[Sequence[bytes], float, Wrong], Iterator[Batch]]] = {
    "json": json_rows, "arrow": arrow_rows, "protobuf": protobuf_rows,
}  # fmt: skip
"""By the values of the option format."""
