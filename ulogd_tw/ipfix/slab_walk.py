"""Messages of many sessions at once by the kernel: what a walk met is looked at, and then taken or left.

The walk has no effect of its own. Its templates were found by Messages that were fed one by one, and each is compared
with the domain's before its records are taken, so that a template that has changed costs a second walk and no more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ulogd_tw.ipfix.intake import Intake
from ulogd_tw.ipfix.layout import BEFORE, Layout
from ulogd_tw.ipfix.lives import SAME_UPTIME, Place
from ulogd_tw.ipfix.message import HEADER, SET_HEADER, VERSION
from ulogd_tw.ipfix.netflow.packet import INTERVAL5
from ulogd_tw.ipfix.sequence import HALF, MASK
from ulogd_tw.ipfix.session import Clock, Domain, KnownTemplate, Session
from ulogd_tw.kernels.walk import Walk

_FEW = 8
"""Messages that are walked after one that was fed by itself; the stretch doubles while there is no other."""
_MOST_FORGOTTEN = 1024
"""Sessions that have ended; then the table is made anew, so that nothing of them is kept."""
_SINGLY = 32
"""Messages in a row that are fed one by one at most, before a walk is tried again."""


class SlabWalk:
    """Takes Messages in memory for an intake. One that cannot be taken together with others goes to `feed`."""

    def __init__(self, intake: Intake, feed: Callable[[Session, bytes, float], None]) -> None:
        self._intake = intake
        self._feed = feed
        self._forgotten = 0
        self._begin()

    def _begin(self) -> None:
        """Nothing is known yet, or any more."""
        self._walk = Walk(SAME_UPTIME)
        self._known: list[KnownTemplate] = []
        self._layouts: list[Layout] = []
        self._places: dict[KnownTemplate, int] = {}
        self._groups: dict[Domain, int] = {}
        self._forgotten = 0

    def forget(self) -> None:
        """A session has ended."""
        self._forgotten += 1

    def feed(self, sessions: Sequence[Session], rows: np.ndarray, lengths: np.ndarray, now: float) -> None:
        """See `Decoder.feed_slab`."""
        memory, stride = np.ascontiguousarray(rows).reshape(-1), rows.shape[1]
        starts = stride * np.arange(len(rows), dtype=np.int64)
        self.feed_at(sessions, memory, starts, lengths.astype(np.int64, copy=False), now)

    def feed_at(
        self, sessions: Sequence[Session], memory: np.ndarray, starts: np.ndarray, lengths: np.ndarray, now: float
    ) -> None:
        """Take the Messages that begin at `starts` in `memory`, one session each."""
        if self._forgotten > _MOST_FORGOTTEN:
            self._begin()
        numbers = np.fromiter([session.number for session in sessions], np.uint32, len(sessions))
        at, n, most, alone = 0, len(sessions), len(sessions), 1
        while at < n:
            end = min(at + most, n)
            taken = self._taken(memory, starts, lengths, numbers, at, end, now)
            most, alone = (most * 2, 1) if taken else (_FEW, min(alone * 2, _SINGLY))
            at += taken
            if at == end:
                continue
            most = _FEW
            for place in range(at, min(at + (alone if not taken else 1), n)):
                first = int(starts[place])
                self._one(sessions[place], memory[first : first + int(lengths[place])].tobytes(), now)
                at += 1

    def _one(self, session: Session, octets: bytes, now: float) -> None:
        """Feed a Message by itself; its templates are looked for from then on."""
        self._feed(session, octets, now)
        version = int.from_bytes(octets[:2], "big")
        if version == VERSION and len(octets) >= HEADER.size:
            domain = session.domains.get(int.from_bytes(octets[12:16], "big"))
            self._learn(session, domain, version, octets, HEADER.size)
        elif version == 9 and len(octets) >= 20:
            domain = session.domains.get(9 << 32 | int.from_bytes(octets[16:20], "big"))
            self._learn(session, domain, version, octets, 20)
        elif version == 5 and len(octets) >= 24:
            domain = session.domains.get(5 << 32 | int.from_bytes(octets[20:22], "big"))
            if domain is not None and (known := domain.templates.get(5)) is not None:
                self._put(session, domain, known, version)

    def _learn(self, session: Session, domain: Domain | None, version: int, octets: bytes, at: int) -> None:
        """Look for the templates of the Data Sets of a Message."""
        while domain is not None and at + SET_HEADER.size <= len(octets):
            set_id, length = SET_HEADER.unpack_from(octets, at)
            if (known := domain.templates.get(set_id)) is not None:
                self._put(session, domain, known, version)
            if length < SET_HEADER.size:
                break
            at += length

    def _put(self, session: Session, domain: Domain, known: KnownTemplate, version: int) -> None:
        layout, shape = known.layout, known.layout.shape
        if known in self._places or layout.tells or layout.lists or known.since >= 0 or not shape.least:
            return
        group = self._groups.get(domain, -1)
        if group < 0 and (group := self._walk.new_group()) >= 0:
            self._groups[domain] = group
        key = (session.number, domain.number, version << 16 | known.template.ident)
        segments = shape.segments if not known.octets else ()
        place = self._walk.put(key, group, known.octets, segments, shape.tail, shape.least) if group >= 0 else -1
        if place < 0:
            self._begin()
            return
        self._places[known] = place
        self._known.append(known)
        self._layouts.append(layout)

    # what a walk met

    def _taken(
        self, memory: np.ndarray, starts: np.ndarray, lengths: np.ndarray, numbers: np.ndarray, at: int, end: int,
        now: float,
    ) -> int:  # fmt: skip
        """Walk Messages [at, end), and take those before the first one that needs a closer look; how many."""
        while (stop := self._walk.messages(memory, starts, lengths, numbers, at, end)) > at:
            templates, domains = self._walk.met_templates(), self._walk.met_domains()
            if gone := [place for place, *_ in templates if self._is_gone(place)]:
                for place in gone:
                    self._walk.remove(place)
                continue
            odd = [found[1] for found in domains if not self._in_line(found)]
            if odd:  # only what comes before it
                end = min(odd)
                continue
            for found in domains:
                self._take_domain(found, now)
            self._queue(memory, templates, now)
            return stop - at
        return 0

    def _is_gone(self, place: int) -> bool:
        """Whether a template has changed since it was put into the table."""
        known = self._known[place]
        if known.domain.templates.get(known.template.ident) is known and known.layout is self._layouts[place]:
            return False
        self._places.pop(known, None)
        return True

    def _in_line(self, found: tuple) -> bool:
        """Whether the first Message of a domain goes on from the one before it, or is a little ahead."""
        known, number = self._known[found[0]], found[3]
        domain = known.domain
        expected, last, version = domain.sequence.expected, domain.sequence.last, domain.place >> 32
        if domain.doubted or (expected >= 0 and (number - expected) & MASK >= HALF):
            return False
        if version == 9:
            return self._intake.restarts.leads_on(known.session, domain, number, found[7], found[9])
        return version == 5 or (last >= 0 and (number - last) & MASK < HALF)

    def _take_domain(self, found: tuple, now: float) -> None:
        """Count the Messages of one domain."""
        place, _, messages, number, steps, last, after, _, exported, _, uptime, sampling, rows, octets = found
        intake, known = self._intake, self._known[place]
        session, domain = known.session, known.domain
        version = domain.place >> 32
        if version == 5:
            if sampling or domain.info is not None:
                intake.sampled(known, sampling & INTERVAL5, now)
        elif version == 9:
            intake.restarts.note(session, domain, Place(last, exported, uptime, now))
        if number == domain.sequence.expected:
            domain.sequence.expected = after
        else:
            unit = "packets" if version == 9 else "records"
            intake.sequences.follow(session, domain, number, steps, unit)
            if rest := (after - number - steps) & MASK:
                intake.sequences.follow(session, domain, (number + steps) & MASK, rest, unit)
        if not version:
            domain.goes_on(last, exported)
        intake.counters.messages_received += messages
        intake.counters.octets_received += octets
        session.last_received = now
        session.messages += messages
        session.octets += octets
        domain.rows += rows

    def _queue(self, memory: np.ndarray, templates: Sequence[tuple[int, int, int]], now: float) -> None:
        """Queue the records of a walk, those of one template together."""
        room = sum(octets for _, _, octets in templates)
        out, sources = self._walk.bodies(memory, [place for place, *_ in templates], BEFORE, room)
        at, n = 0, len(sources)
        while at < n:
            place, start, octets, rows, exported, *_ = sources[at]
            known, clock, end = self._known[place], None, at + 1
            if known.domain.place >> 32:
                while end < n and sources[end][0] == place and sources[end][4] == exported:
                    end += 1
                octets = sources[end - 1][1] + sources[end - 1][2] - start
                clock = _clock(sources[at:end], known.domain.place >> 32)
            if octets > BEFORE:
                self._intake.queue_records(known, out[start : start + octets], (known, exported, now, None, clock))
            at = end


def _clock(sources: list, version: int) -> Clock:
    """When each packet of NetFlow was exported (ms), the uptime then, and its records."""
    table = np.array(sources, np.int64)
    exported = table[:, 4] * 1000
    if version == 5:
        exported += table[:, 6] // 1_000_000
    return exported, table[:, 5], table[:, 3]
