"""Messages in the memory of recvmmsg, taken many at once: runs of alike ones, and others of one domain Set by Set."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ulogd_tw.ipfix import set_walk
from ulogd_tw.ipfix.intake import Intake
from ulogd_tw.ipfix.layout import BEFORE
from ulogd_tw.ipfix.message_runs import DOMAIN, EXPORTED, NUMBER, headers, runs
from ulogd_tw.ipfix.netflow import packet_runs
from ulogd_tw.ipfix.netflow.decoder import NetFlow
from ulogd_tw.ipfix.netflow.packet import BEFORE_RECORDS
from ulogd_tw.ipfix.session import Session


class SlabDecoder:
    """Takes the rows of arrays for an intake. A Message that can not be taken together with others goes to `feed`."""

    def __init__(self, intake: Intake, netflow: NetFlow, feed: Callable[[Session, bytes, float], None]) -> None:
        self._intake = intake
        self._netflow = netflow
        self._feed = feed

    def feed(self, sessions: Sequence[Session], rows: np.ndarray, lengths: np.ndarray, now: float) -> None:
        """See `Decoder.feed_slab`."""
        if not len(rows):
            return
        if rows.shape[1] < BEFORE_RECORDS:
            self._each(sessions, rows, lengths, now)
            return
        words = headers(rows)
        if packet_runs.any_of(words):
            self._with_netflow(sessions, rows, lengths, now)
            return
        for first, last, alike in runs(sessions, words, lengths):
            if not (alike and self._alike(sessions[first], rows[first:last], words[first:last], now)):
                self._mixed(sessions[first:last], rows[first:last], words[first:last], lengths[first:last], now)

    def forget(self) -> None:
        """A session has ended: nothing of it is kept here."""

    def _with_netflow(self, sessions: Sequence[Session], rows: np.ndarray, lengths: np.ndarray, now: float) -> None:
        taken = self._netflow.feed_alike
        for first, last, words in packet_runs.runs(sessions, rows, lengths):
            size = int(lengths[first])
            if words is None or not taken(sessions[first], rows[first:last, :size], words, now):
                self._each(sessions[first:last], rows[first:last], lengths[first:last], now)

    def _each(self, sessions: Sequence[Session], rows: np.ndarray, lengths: np.ndarray, now: float) -> None:
        """Each row by itself."""
        feed, stride = self._feed, rows.shape[1]
        octets = np.ascontiguousarray(rows).reshape(-1).data
        for place, (session, length) in enumerate(zip(sessions, lengths.tolist(), strict=True)):
            feed(session, bytes(octets[place * stride : place * stride + length]), now)

    def _alike(self, session: Session, rows: np.ndarray, words: np.ndarray, now: float) -> bool:
        """Take a run of alike Messages; False where their records have to be looked at."""
        length, export_time, _, domain_id, set_id = words[0].tolist()
        domain = session.domains.get(domain_id)
        known = domain.templates.get(set_id >> 16) if domain is not None else None
        if domain is None or known is None or not known.octets or known.layout.tells:
            return False
        if not self._intake.restarts.in_line(domain, words[:, NUMBER]):
            return False
        size = length & 0xFFFF
        records = (size - BEFORE) // known.octets
        octets = records * known.octets
        body = np.empty(BEFORE + octets * len(rows), np.uint8)
        body[BEFORE:].reshape(len(rows), octets)[:] = rows[:, BEFORE : BEFORE + octets]
        self._intake.count_together(
            session, domain, words[:, NUMBER], records, size * len(rows), records * len(rows), now
        )
        domain.goes_on(int(words[-1, NUMBER]), export_time)
        self._intake.queue_records(known, body, (known, export_time, now, None, None))
        return True

    def _mixed(
        self, sessions: Sequence[Session], rows: np.ndarray, words: np.ndarray, lengths: np.ndarray, now: float
    ) -> None:
        """Messages that differ, by session and domain."""
        if len(rows) < set_walk.FEWEST:
            self._each(sessions, rows, lengths, now)
            return
        memory = np.ascontiguousarray(rows).reshape(-1)
        whose = np.fromiter(map(id, sessions), np.uint64, len(sessions))
        for places in set_walk.by_domain(whose, words):
            session = sessions[int(places[0])]
            while len(places):
                n = 0
                if len(places) >= set_walk.FEWEST:
                    n = self._walked(session, memory, places * rows.shape[1], words[places], lengths[places], now)
                # what the walk ended at, and more where walking on is not worth it
                alone = places[n : n + 1] if n >= set_walk.FEWEST else places[n : n + set_walk.FEWEST]
                self._each([session] * len(alone), rows[alone], lengths[alone], now)
                places = places[n + len(alone) :]

    def _walked(
        self, session: Session, memory: np.ndarray, starts: np.ndarray, words: np.ndarray, lengths: np.ndarray,
        now: float,
    ) -> int:  # fmt: skip
        """Take the first of these Messages of one domain that have nothing but Data Sets; how many they are."""
        domain = session.domains.get(int(words[0, DOMAIN]))
        if domain is None or not self._intake.restarts.in_line(domain, words[:, NUMBER]):
            return 0
        walked = set_walk.walk(memory, starts, words, lengths, domain)
        n, records = walked.n, walked.records
        if n:
            octets, rows = int(lengths[:n].sum()), int(records.sum())
            self._intake.count_together(session, domain, words[:n, NUMBER], records, octets, rows, now)
            domain.goes_on(int(words[n - 1, NUMBER]), int(words[n - 1, EXPORTED]))
            for known, export_time, body in walked.bodies(memory, words[:, EXPORTED]):
                self._intake.queue_records(known, body, (known, export_time, now, None, None))
        return n
