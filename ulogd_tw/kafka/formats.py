"""How rows are written as messages: JSON, Arrow IPC, and goflow2's FlowMessage."""

from __future__ import annotations

from typing import Any

import numpy as np

from ulogd_tw.core.arrow import Stream, Vector
from ulogd_tw.core.batch import Batch
from ulogd_tw.core.columns import Octets
from ulogd_tw.core.lines import Lines
from ulogd_tw.core.resolve import Find
from ulogd_tw.kafka.flow_message import FlowMessages
from ulogd_tw.kafka.packing import Packed, cuts, groups, many, one_each
from ulogd_tw.kafka.raw import Came
from ulogd_tw.kafka.row_keys import RowKeys
from ulogd_tw.storing.stored_columns import StoredColumn
from ulogd_tw.writing.objects import Objects, printed


class Terms:
    """How many rows and octets a message may have; 0 rows: as the format likes it. `find` finds requested keys."""

    def __init__(self, rows: int, octets: int, find: Find) -> None:
        self.rows = rows
        self.octets = octets
        self.find = find


class Format:
    """Turns batches into messages."""

    most_rows = 1
    """Rows of a message where nothing is said."""

    def __init__(self, terms: Terms, keys: RowKeys) -> None:
        self.rows = terms.rows or self.most_rows
        self.octets = terms.octets
        self.keys = keys

    @property
    def by_partition(self) -> bool:
        """Whether `messages` must know how many partitions there are."""
        return bool(self.keys) and self.rows > 1

    def partitions(self, batch: Batch, number: int) -> np.ndarray | None:
        """The partition of each row; None where any will do."""
        return self.keys.partitions(batch, number) if self.by_partition else None

    def messages(self, batch: Batch, whole: Batch, partitions: int) -> Packed:
        """The messages of a batch, for a topic of so many partitions; `whole` has the columns of the key, too."""
        raise NotImplementedError


class RowFormat(Format):
    """A format that writes each row by itself."""

    separator = b""
    """What is between the rows of one message."""

    def values(self, batch: Batch) -> Octets:
        """Each row as octets."""
        raise NotImplementedError

    def messages(self, batch: Batch, whole: Batch, partitions: int) -> Packed:
        values = self.values(batch)
        if self.rows == 1:
            return one_each(values, self.keys.texts(whole))
        return many(values, self.separator, self.partitions(whole, partitions), self.rows, self.octets)


class JsonRows(RowFormat):
    """An object a row, as the output JSON writes them; many of them with a newline between."""

    separator = b"\n"

    def __init__(self, terms: Terms, keys: RowKeys) -> None:
        super().__init__(terms, keys)
        self._objects = Objects()
        self._lines = Lines(b"\n{", b",", b"}")

    def values(self, batch: Batch) -> Octets:
        return self._lines.column(list(self._objects.members(batch)), batch.n)


class ProtobufRows(RowFormat):
    """A FlowMessage a row; many of them with the length before each."""

    def __init__(self, terms: Terms, keys: RowKeys) -> None:
        super().__init__(terms, keys)
        self._messages = FlowMessages(terms.find, self.rows > 1)

    def values(self, batch: Batch) -> Octets:
        return self._messages.values(batch)


class ArrowRows(Format):
    """Columns as a stream of Arrow IPC, with the schema in each message."""

    most_rows = 65536

    def messages(self, batch: Batch, whole: Batch, partitions: int) -> Packed:
        found = Packed()
        for partition, rows in groups(self.partitions(whole, partitions), batch.n):
            some = batch if partition is None else batch.take(rows)
            names, vectors = columns(some)
            size = max(sum(vector.nbytes for vector in vectors) // max(some.n, 1), 1)
            for start, end in cuts(np.full(some.n, size), self.rows, self.octets):
                part = vectors if end - start == some.n else columns(some.take(slice(start, end)))[1]
                message: dict[str, Any] = {"value": ipc(names, part)}
                found.messages.append(message if partition is None else message | {"partition": partition})
                found.rows.append(rows[start:end])
        return found


def columns(batch: Batch) -> tuple[list[str], list[Vector]]:
    """The names and values of a batch, as in a store of PARQUET."""
    keys = printed(batch.schema)
    vectors = [StoredColumn(k).vector(batch.columns[k.name], k, batch.missing.get(k.name)) for k in keys]
    return [key.name for key in keys], vectors


def ipc(names: list[str], vectors: list[Vector]) -> bytes:
    """One chunk of rows as a stream of Arrow IPC."""
    import pyarrow

    reader = pyarrow.RecordBatchReader.from_stream(Stream(names, [vectors]))
    sink = pyarrow.BufferOutputStream()
    with pyarrow.ipc.new_stream(sink, reader.schema) as writer:
        for chunk in reader:
            writer.write_batch(chunk)
    return bytes(sink.getvalue())


class RawMessages(Format):
    """Messages of exporters as they came, many in one of Kafka."""

    most_rows = 65536

    def messages(self, batch: Batch, whole: Batch, partitions: int) -> Packed:
        found, came = Packed(), Came.of(batch)
        for partition, rows in groups(self.partitions(whole, partitions), batch.n):
            sizes = came.sizes[rows]
            for start, end in cuts(sizes, self.rows, self.octets):
                message: dict[str, Any] = {"value": came.take(rows[start:end]).written()}
                found.messages.append(message if partition is None else message | {"partition": partition})
                found.rows.append(rows[start:end])
        return found


FORMATS: dict[str, type[Format]] = {
    "json": JsonRows, "arrow": ArrowRows, "protobuf": ProtobufRows, "messages": RawMessages,
}  # fmt: skip
"""By the values of the option format."""
