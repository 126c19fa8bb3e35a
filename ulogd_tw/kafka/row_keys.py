"""The key of a row's message: rows with the same key are in the same partition."""

from __future__ import annotations

import numpy as np

from ulogd_tw.core import hashes, text
from ulogd_tw.core.batch import Batch, Schema
from ulogd_tw.core.bounded import Bounded
from ulogd_tw.core.columns import Octets
from ulogd_tw.core.lines import ColumnField, Lines
from ulogd_tw.core.resolve import Find, Found, Provided, Sources

FIVE = (
    "sourceAddress", "destinationAddress", "sourceTransportPort", "destinationTransportPort", "protocolIdentifier",
)  # fmt: skip
_WORDS = {"exporter": ("exporter",), "5tuple": FIVE}
_SECRET = np.uint64(0)


def names(words: tuple[str, ...]) -> tuple[str, ...]:
    """The names of the keys that the option key= chooses."""
    return tuple(dict.fromkeys(name for word in words for name in _WORDS.get(word, (word,))))


class Anywhere:
    """Finds keys of these names in batches of any schema, for an output that takes every key as it comes."""

    def __init__(self, chosen: tuple[str, ...]) -> None:
        self._names = chosen
        self._sources = Sources()
        self._seen: Bounded[Schema, bool] = Bounded(Sources.MOST_SCHEMAS)

    def find(self, batch: Batch, name: str) -> Found | None:
        """The column of a key, under any name or form."""
        if batch.schema not in self._seen:
            provided = Provided(batch.schema.values())
            for one in self._names:
                self._sources.add(one, provided.recipes(one))
            self._seen[batch.schema] = True
        return self._sources.find(batch, name)


class RowKeys:
    """Keys of messages, from the columns of these names."""

    def __init__(self, chosen: tuple[str, ...], find: Find) -> None:
        self._names = chosen
        self._find = find
        self._lines = Lines(b"\n", b"|", b"")

    def __bool__(self) -> bool:
        return bool(self._names)

    def texts(self, batch: Batch) -> Octets | None:
        """The values of each row as text, with | between them; None where no keys were chosen."""
        if not self._names:
            return None
        found = [one for name in self._names if (one := self._find(batch, name)) is not None]
        fields = [ColumnField(b"", one.values, one.missing, one.key, text.PLAIN) for one in found]
        return self._lines.column(fields, batch.n)

    def partitions(self, batch: Batch, number: int) -> np.ndarray | None:
        """The partition of each row, of so many; None where any will do."""
        if not self._names:
            return None
        found = [self._find(batch, name) for name in self._names]
        return (hashes.of_rows(found, batch.n, _SECRET) % np.uint64(number)).astype(np.int64)
