"""Data Records copied as they came, with the columns of the collector as further fields behind each of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ulogd_tw.core.aligned import window
from ulogd_tw.core.columns import numbers, places, scatter
from ulogd_tw.ipfix.encoder import Encoder, Records
from ulogd_tw.ipfix.received import ReceivedBatch
from ulogd_tw.ipfix.template import Template


class Splice:
    """Copies the records of one kind of template. `behind` encodes the columns called `names`, the last fields."""

    def __init__(self, template: Template, behind: Encoder, names: Sequence[str]) -> None:
        self._template = template
        self._behind = behind
        self._names = names
        size, more = template.least_octets - behind.template.least_octets, behind.template.least_octets
        self._form = np.dtype([("record", f"V{size}"), ("behind", f"V{more}")])

    def records(self, batch: ReceivedBatch) -> Records:
        """The records of all rows; none of their fields is read."""
        octets, behind = batch.received.octets, self._columns(batch)
        if not isinstance(octets, np.ndarray):
            buffer, starts, lengths = places(octets)
            return self._varying(buffer, starts.astype(np.int64), lengths.astype(np.int64), behind)
        out = np.empty(batch.n, self._form)
        out["record"] = octets.view(self._form["record"])[:, 0]
        out["behind"] = behind
        return Records(self._template, out.view(np.uint8).reshape(batch.n, -1))

    def _varying(self, buffer: np.ndarray, starts: np.ndarray, lengths: np.ndarray, behind: np.ndarray) -> Records:
        size = self._form["behind"].itemsize
        offsets = np.zeros(len(starts) + 1, np.int64)
        np.cumsum(lengths + size, out=offsets[1:])
        out = np.empty(int(offsets[-1]), np.uint8)
        scatter(out, offsets[:-1], buffer, starts, lengths)
        window(out, size)[offsets[1:] - size] = behind
        return Records(self._template, out, offsets)

    def _columns(self, batch: ReceivedBatch) -> np.ndarray:
        """The further fields of each row, as one void; one row of them where all have the same."""
        columns = [numbers(batch.context[name]) for name in self._names]
        n = batch.n
        if not any(column.strides[0] for column in columns):
            columns, n = [column[:1] for column in columns], 1
        return self._behind.encode(columns, n).data.view(self._form["behind"])[:, 0]
