"""BYPROTOCOL: octets by protocol and interval. A template of a filter that keeps rows and emits rows of its own."""

import numpy as np

from ulogd_tw.core.batch import Batch, Schema
from ulogd_tw.core.keys import known
from ulogd_tw.core.options import Option, positive
from ulogd_tw.core.plugin import FLOW, Aggregator

_PROTOCOL, _OCTETS = known("protocolIdentifier"), known("octetDeltaCount")
_SCHEMA = Schema((_PROTOCOL, _OCTETS))


class BYPROTOCOL(Aggregator):
    """Sums the octets of flows by protocol, one row for each protocol and interval."""

    name = "BYPROTOCOL"
    itype = otype = FLOW
    provides = (_PROTOCOL, _OCTETS)
    uses = (_PROTOCOL.name, _OCTETS.name)
    options = (Option("interval", positive, 60, "Seconds of an interval; intervals begin at multiples of it in UTC."),)

    def __init__(self, instance, config=None):
        super().__init__(instance, config)
        self._octets = np.zeros(256, np.uint64)
        self._rows = np.zeros(256, np.int64)
        self._end = 0.0
        self._now = 0.0

    @property
    def holds(self):
        """Whether it holds rows: a stop waits for them."""
        return bool(self._rows.any())

    def process(self, batch):
        """Add the rows. Each received row counts: as merged, or as filtered where a value is missing."""
        protocols, octets = (self.find(batch, key.name) for key in (_PROTOCOL, _OCTETS))
        if protocols is None or octets is None:
            self.counters.rows_filtered += batch.n
            return None
        keep = np.ones(batch.n, bool)
        for found in (protocols, octets):
            if found.missing is not None:
                keep &= ~found.missing
        kept = int(np.count_nonzero(keep))
        np.add.at(self._octets, protocols.values[keep], octets.values[keep].astype(np.uint64))
        self._rows += np.bincount(protocols.values[keep], minlength=256)
        self._now = batch.now
        self.counters.rows_merged += kept
        self.counters.rows_filtered += batch.n - kept
        return None

    def wake(self, now):
        """Emit at the end of an interval; the seconds until the next one."""
        if now >= self._end:
            if self._end:
                self._now = now
                self.flush()
            self._end = now - now % self.config.interval + self.config.interval
        return self._end - now

    def flush(self):
        """Emit all rows held; also called at a stop, after the inputs."""
        (protocols,) = np.nonzero(self._rows)
        if len(protocols):
            columns = {_PROTOCOL.name: protocols.astype(np.uint8), _OCTETS.name: self._octets[protocols]}
            self.emit(Batch(_SCHEMA, columns, n=len(protocols), now=self._now))
        self._octets = np.zeros(256, np.uint64)  # the old array belongs to the batch now
        self._rows[:] = 0
