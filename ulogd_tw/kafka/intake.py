"""Decodes the messages of exporters that came through Kafka, and keeps what is known of each exporter for others."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable, Iterable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np

from ulogd_tw.collecting.datagrams import DatagramIntake
from ulogd_tw.collecting.exporter_lines import Restoring, copy, lines
from ulogd_tw.collecting.input import Collecting
from ulogd_tw.core.columns import Octets
from ulogd_tw.ipfix.exporters import Allowed, Exporters, peer_of
from ulogd_tw.kafka.raw import Came

STRIDE = 1504
"""Octets of a message that is decoded with others at once; longer ones are decoded one by one."""
_MOST_OCTETS = 64 << 20
"""Octets of what is known of one exporter, when it is read."""
_CARRIERS = ("datagram", "stream")
State = tuple[int, str, bytes]
"""What is known of an exporter: the partition of its messages, its name, its lines."""


class CameSlab:
    """Messages in the form of a slab of datagrams."""

    stride = STRIDE

    def __init__(self, came: Came) -> None:
        self._octets = came.octets.plain()
        self.n = len(came)
        self.lengths = self._octets.lengths
        self.names = came.names()
        self.rows = self._as_rows()

    def _as_rows(self) -> np.ndarray:
        short = np.minimum(self.lengths, STRIDE)
        starts = self._octets.offsets[:-1].astype(np.int64)
        data = Octets.gathered(self._octets.data, starts, short).data
        rows = np.zeros((self.n, STRIDE), np.uint8)
        rows[np.arange(STRIDE) < short[:, None]] = data
        return rows

    def octets(self, i: int) -> bytes:
        """One message."""
        offsets = self._octets.offsets
        return self._octets.data[offsets[i] : offsets[i + 1]].tobytes()

    def peer(self, i: int) -> tuple[str, int]:
        """Address and port of its exporter."""
        return peer_of(self.names[i].tobytes())


class _HeldIntake(DatagramIntake):
    """The intake of datagrams whose source waits while their rows wait."""

    def hand_on(self) -> tuple[float, int]:
        now = self._now()
        batches = self._decoder.drain(now, True)
        began = self.work_clock()
        self._plugin.emit_batches(batches, self._decoder, now)
        return self.work_clock() - began, sum(batch.n for batch in batches)


class MessageIntake:
    """The sessions and the decoder of the partitions that are ours, until they are given to others."""

    def __init__(self, plugin: Collecting, config: Any, later: Callable[..., Any]) -> None:
        self.decoder = plugin.decoder()
        self.exporters = Exporters(
            config.session_key, config.max_sessions, config.max_sessions_of_address, Allowed(()), config.idle_timeout
        )
        self.exporters.heard = set()
        self.time = 0.0
        """The time of arrival of what is decoded now: seconds since 1970."""
        self._idle = config.idle_timeout
        self._intake: Any = _HeldIntake(plugin, self.decoder, self.exporters, lambda: self.time, later)
        plugin.make_room_by(self.decoder, self.exporters, lambda: self.time)
        self._changes = -1
        self._changed: dict[Any, Any] = {}
        self._known: dict[str, bytes] = {}
        """A digest of what was told of each exporter."""

    def take(self, partition: int, came: Came) -> None:
        """Decode messages of a partition, and emit their records."""
        if not len(came):
            return
        breaks = np.flatnonzero((came.times[1:] != came.times[:-1]) | (came.streams[1:] != came.streams[:-1])) + 1
        for some in np.split(np.arange(len(came)), breaks):
            part = came.take(slice(int(some[0]), int(some[-1]) + 1))
            self.time = int(part.times[0]) / 1000
            place = SimpleNamespace(place=f"{partition}/{_CARRIERS[int(part.streams[0])]}")
            self._intake.take(place, CameSlab(part))

    @property
    def settled(self) -> bool:
        """Whether all that was taken is decoded."""
        return not self._intake._turns.waits

    def expire(self, now: float) -> None:
        """Forget what is too old."""
        for session in self.exporters.forget_idle(self.time):
            self.decoder.forget(session)
        self.decoder.expire(self.exporters, min(now, self.time))
        self._intake.hand_on()

    def end(self) -> None:
        """Nothing more comes."""
        self._intake.finish(10.0)
        self.decoder.end()
        self._intake.hand_on()

    # what is known of exporters

    def changed(self) -> list[State]:
        """What is known of exporters, as far as it is new since the last call."""
        assert self.exporters.heard is not None
        if self.decoder.changes == self._changes:
            return []
        heard, self._changes = self.exporters.heard, self.decoder.changes
        self.exporters.heard = set()
        items = [(key, session) for key, session in self.exporters.items() if session in heard]
        return list(self._states(items))

    def _states(self, items: Iterable[tuple[Any, Any]]) -> Iterator[State]:
        for key, session in items:
            place, sender = key
            found = list(lines(copy(self.decoder, SimpleNamespace(items=lambda one=(key, session): [one]))))  # type: ignore[arg-type]
            if not found:
                continue
            name = f"{place}/{sender.hex()}"
            digest = hashlib.blake2b(json.dumps(_lasting(found)).encode(), digest_size=16).digest()
            if self._known.get(name) != digest:
                self._known[name] = digest
                yield int(place.partition("/")[0]), name, zlib.compress(json.dumps(found).encode(), 1)

    def restore(self, states: Iterable[bytes], now: float) -> int:
        """Know what others have known of exporters; how many of them could not be read."""
        restoring, wrong = Restoring(self.decoder, self.exporters, self._idle, now), 0
        for state in states:
            try:
                restoring.take_all(json.loads(zlib.decompressobj().decompress(state, _MOST_OCTETS)))
            except (ValueError, TypeError, KeyError, IndexError, zlib.error):
                wrong += 1
        self._changes = self.decoder.changes
        return wrong


def _lasting(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Lines without the times that change with each message."""
    return [{name: value for name, value in line.items() if name not in ("last", "received", "came_to", "exported")}
            for line in found]  # fmt: skip
