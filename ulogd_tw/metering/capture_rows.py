"""The packets of a capture as batches of rows, by the capture's clock and at the wanted speed."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np

from ulogd_tw.core import columns, types
from ulogd_tw.core.batch import Batch, Schema
from ulogd_tw.core.columns import Column, Pieces
from ulogd_tw.core.keys import known, ulogd_keys
from ulogd_tw.core.plugin import Wanted
from ulogd_tw.packets.capture import Packets

KEYS = ulogd_keys("raw.pkt", "raw.pktlen", "raw.pktcount", "oob.time.sec", "oob.time.usec", "raw.linktype", "raw.mac",
                  "raw.mac_len", "raw.type", "observationTimeMilliseconds", "observationTimeNanoseconds")  # fmt: skip
HIDDEN = frozenset({"raw.pktcount", "raw.linktype", "observationTimeMilliseconds", "observationTimeNanoseconds"})
_ETHERNET, _HEADER, _ARPHRD_ETHER = 1, 14, 1
TOGETHER_SECONDS = 0.02
"""When replaying in real time: seconds of capture for one batch."""


class PacketRows:
    """Makes batches of packets, with the `wanted` columns."""

    def __init__(self, wanted: Wanted) -> None:
        self._keys = tuple(key for key in KEYS if key.name in wanted)
        self._schema = Schema(self._keys)

    def batch(self, packets: Packets, rows: slice, now: float) -> Batch:
        """A batch of some packets; links without an address give no raw.mac."""
        found: dict[str, Column] = {}
        missing: dict[str, np.ndarray] = {}
        framed = None
        for key in self._keys:
            if key.name in ("raw.mac", "raw.mac_len", "raw.type"):
                if framed is None:
                    framed = (packets.links[rows] == _ETHERNET) & (packets.lengths[rows] >= _HEADER)
                if not framed.all():
                    missing[key.name] = ~framed
            found[key.name] = self._column(key.name, packets, rows)
        return Batch(self._schema, found, missing, n=rows.stop - rows.start, now=now, held=True)

    def _column(self, name: str, packets: Packets, rows: slice) -> Column:
        seconds, nanoseconds = packets.seconds[rows], packets.nanoseconds[rows]
        if name == "raw.pkt":
            return Pieces(packets.octets, packets.starts[rows], packets.lengths[rows])
        if name == "raw.mac":
            sizes = np.minimum(packets.lengths[rows], _HEADER)
            return Pieces(packets.octets, packets.starts[rows], sizes).plain()
        if name == "raw.pktlen":
            return packets.wire[rows].astype(np.uint32)
        if name == "raw.linktype":
            return _alike(packets.links[rows], types.UNSIGNED16)
        if name == "oob.time.sec":
            return seconds.astype(np.uint32)
        if name == "oob.time.usec":
            return (nanoseconds // 1000).astype(np.uint32)
        if name == "observationTimeMilliseconds":
            return (seconds * 1000 + nanoseconds // 1_000_000).astype(np.uint64)
        if name == "observationTimeNanoseconds":
            return _ntp(seconds, nanoseconds)
        value = {"raw.pktcount": 1, "raw.mac_len": _HEADER, "raw.type": _ARPHRD_ETHER}[name]
        return columns.repeated(value, len(seconds), known(name).type.dtype)


def _alike(values: np.ndarray, type_: types.Type) -> np.ndarray:
    """A column of values that are mostly equal."""
    if len(values) and (values == values[0]).all():
        return columns.repeated(int(values[0]), len(values), type_.dtype)
    return values.astype(type_.dtype)


def _ntp(seconds: np.ndarray, nanoseconds: np.ndarray) -> np.ndarray:
    """NTP time in the form of RFC 7011 section 6.1.10: seconds since 1900, and 1/2**32 parts of a second."""
    fraction = (nanoseconds.astype(np.uint64) << np.uint64(32)) // np.uint64(1_000_000_000)
    return (seconds + 2_208_988_800 & 0xFFFFFFFF).astype(np.uint64) << np.uint64(32) | fraction


class Pace:
    """The time when packets are due: `factor` times as fast as captured, or at once for 0."""

    def __init__(self, factor: float, set_back: float) -> None:
        self._factor = factor
        self._set_back = set_back
        self._began: tuple[float, float] | None = None
        self._last = 0.0

    def ahead(self, captured: float) -> float:
        """Seconds until a packet of this time is due."""
        if not (captured and self._factor):
            return 0.0
        now = time.monotonic()
        if self._began is None or captured < self._last - self._set_back:
            self._began = (now, captured)
        self._last = captured
        return (captured - self._began[1]) / self._factor - (now - self._began[0])

    def due(self, times: np.ndarray) -> int:
        """How many of the next packets are due by now, or soon; at least the first of them."""
        if not self._factor or self._began is None:
            return len(times)
        until = self._began[1] + (time.monotonic() - self._began[0] + TOGETHER_SECONDS) * self._factor
        late = np.flatnonzero((times > until) | (times < times[0] - self._set_back))
        return max(int(late[0]), 1) if len(late) else len(times)


def stretches(packets: Packets, pace: Pace, seconds_apart: bool) -> Iterator[float | slice]:
    """Groups of packets for one batch each, with the seconds to wait between them."""
    start, n, times = 0, len(packets), packets.times
    while start < n:
        if (delay := pace.ahead(float(times[start]))) > 0.001:
            yield delay
        stop = start + pace.due(times[start:])
        if not seconds_apart:
            yield slice(start, stop)
        else:
            seconds = packets.seconds[start:stop]
            edges = (start + 1 + np.flatnonzero(seconds[1:] != seconds[:-1])).tolist()
            for one, other in zip([start, *edges], [*edges, stop], strict=True):
                yield slice(one, other)
        start = stop
