"""Messages as they came, as rows: for a program that decodes them later or elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

import numpy as np

from ulogd_tw.core import types
from ulogd_tw.core.batch import Batch, Schema
from ulogd_tw.core.columns import Coded, Octets
from ulogd_tw.core.columns import joined as together
from ulogd_tw.core.errors import MessageError
from ulogd_tw.core.keys import Key
from ulogd_tw.ipfix.decoder import Decoder
from ulogd_tw.ipfix.message import VERSION
from ulogd_tw.ipfix.netflow.packet import VERSIONS
from ulogd_tw.ipfix.session import Session
from ulogd_tw.ipfix.sflow.decoder import STARTS

MESSAGE = Key("message", types.OCTETS)
CARRIER = Key("carrier", types.STRING)
"""``datagram`` or ``stream``: whether messages may be lost and overtake each other."""
_EXPORTER, _PORT, _TIME = (
    Key("exporter", types.ADDRESS),
    Key("exporter_port", types.UNSIGNED16),
    Key("received_ms", types.MILLISECONDS),
)
KEYS = (_EXPORTER, _PORT, _TIME, CARRIER, MESSAGE)
"""The keys of a row, which is a message."""
_CARRIERS = (b"datagram", b"stream")
_SCHEMAS = {
    family: Schema([_EXPORTER.typed(address), *KEYS[1:]]) for family, address in ((4, types.IPV4), (6, types.IPV6))
}


def is_message(octets: bytes) -> bool:
    """Whether a message of a protocol that is known begins so."""
    return octets[:2] == VERSION.to_bytes(2, "big") or octets[:2] in VERSIONS or octets[:4] in STARTS


class Passing(Decoder):
    """Takes Messages as a decoder does, and gives them as they came."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._came: dict[int, list[tuple[Session, float, int]]] = {4: [], 6: []}
        """By family: sessions, the time, and how many messages, in the order of `_octets`."""
        self._octets: dict[int, list[Octets]] = {4: [], 6: []}

    def feed(self, session: Session, message: bytes | memoryview, now: float) -> None:
        octets = bytes(message)
        if not session.messages and not is_message(octets):
            self._count(session, 1, len(octets), now)
            self.intake.refuse(session, 0, MessageError("no message of a protocol that is known", "version", 0))
            return
        self._octets[session.family or 4].append(Octets.of([octets]))
        self._enter(session, 1, len(octets), now)

    def feed_stream(self, session: Session, stream: int, message: bytes, now: float) -> None:
        self.feed(session, message, now)

    def feed_slab(self, sessions: Sequence[Session], rows: np.ndarray, lengths: np.ndarray, now: float) -> None:
        starts = np.arange(len(lengths), dtype=np.int64) * rows.shape[1]
        octets, first = Octets.gathered(np.ascontiguousarray(rows).reshape(-1), starts, lengths), 0
        alike = len({session.family for session in sessions}) == 1
        if alike:
            self._octets[sessions[0].family or 4].append(octets)
        for session, group in groupby(sessions):
            n = sum(1 for _ in group)
            if not alike:
                self._octets[session.family or 4].append(octets.take(slice(first, first + n)))
            self._enter(session, n, int(lengths[first : first + n].sum()), now)
            first += n

    def _enter(self, session: Session, n: int, size: int, now: float) -> None:
        self._count(session, n, size, now)
        self._came[session.family or 4].append((session, now, n))

    def _count(self, session: Session, n: int, size: int, now: float) -> None:
        self.counters.messages_received += n
        self.counters.octets_received += size
        session.last_received = now
        session.messages += n
        session.octets += size

    def drain(self, now: float, held: bool = False) -> list[Batch]:
        found = []
        for family, came in self._came.items():
            if came:
                found.append(self._batch(family, came, self._octets[family], now, held))
                self._came[family], self._octets[family] = [], []
        return found

    def _batch(
        self, family: int, came: Sequence[tuple[Session, float, int]], octets: list[Octets], now: float, held: bool
    ) -> Batch:
        counts = np.array([n for _, _, n in came])

        def column(values: Iterable[Any], key: Key) -> np.ndarray:
            return np.repeat(np.array(list(values), key.type.dtype), counts, axis=0)

        schema = _SCHEMAS[family]
        sessions = [session for session, _, _ in came]
        reliable = np.repeat(np.array([session.reliable for session in sessions]), counts)
        columns: dict[str, Any] = {
            "exporter": column((session.address for session in sessions), schema["exporter"]),
            "exporter_port": column((session.peer_port for session in sessions), _PORT),
            "received_ms": column((int(time * 1000) for _, time, _ in came), _TIME),
            "carrier": Coded(reliable.astype(np.intp), _CARRIERS),
            "message": together(octets),
        }
        n = int(counts.sum())
        self.counters.rows_received += n
        return Batch(schema, columns, n=n, now=now, held=held)
