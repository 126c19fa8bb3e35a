"""The decoding half of a Collecting Process: Messages in, batches of records out. No socket, no clock.

`Decoder.feed` gives each Message to the decoder of its protocol: `message_decoder` for IPFIX, `netflow.decoder` for
NetFlow, `sflow.decoder` for sFlow, `slab_decoder` for Messages that come many at once. They put the records
into their `intake`, by layout; `Decoder.drain` makes columns of all of them at once (`batches`).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from ulogd_tw.core.batch import Batch
from ulogd_tw.core.counters import Counters
from ulogd_tw.core.errors import MessageError
from ulogd_tw.core.keys import Key
from ulogd_tw.core.plugin import ALL, Wanted
from ulogd_tw.core.quantities import needed
from ulogd_tw.ipfix.batches import Batches
from ulogd_tw.ipfix.events import Event
from ulogd_tw.ipfix.exporter_info import ExporterInfo
from ulogd_tw.ipfix.families import by_family
from ulogd_tw.ipfix.intake import Intake
from ulogd_tw.ipfix.layout import BEFORE
from ulogd_tw.ipfix.limits import Kept, Limits
from ulogd_tw.ipfix.lives import Place
from ulogd_tw.ipfix.message import VERSION
from ulogd_tw.ipfix.message_decoder import MessageDecoder
from ulogd_tw.ipfix.netflow.decoder import NetFlow
from ulogd_tw.ipfix.netflow.packet import VERSIONS
from ulogd_tw.ipfix.sequence import HALF, MASK
from ulogd_tw.ipfix.session import DeferredMessage, Session
from ulogd_tw.ipfix.sflow import decoder as sflow
from ulogd_tw.ipfix.slab_decoder import SlabDecoder
from ulogd_tw.ipfix.slab_walk import SlabWalk
from ulogd_tw.ipfix.template import Template
from ulogd_tw.kernels import lib

IPFIX = b"\0\x0a"
"""How a Message begins (VERSION)."""
_ONE_SET = struct.Struct("!HHIIIHH")
"""The Message Header and the header of the first Set."""
_OF_SAMPLES = ("octetDeltaCount", "packetDeltaCount")

__all__ = ["Decoder", "Event", "Limits"]


def _of_samples(wanted: Wanted, seldom: frozenset[str]) -> Wanted:
    """The wanted keys of sFlow's samples, which have delta counters."""
    return wanted if wanted is ALL else needed(wanted, seldom, _OF_SAMPLES)


class Decoder:
    """Decodes the Messages of any number of sessions. Nothing that a peer sends raises anything here.

    A session belongs to one decoder.
    """

    def __init__(
        self, wanted: Wanted, counters: Counters, limits: Limits = Limits(),  # noqa: B008 (frozen)
        kept: Kept | None = None, *, scale: bool = False, name: bool = False, inner: bool = False, layer: str = "",
        seldom: frozenset[str] = frozenset(), copied: bool = False,
    ) -> None:  # fmt: skip
        self.wanted = wanted
        self.counters = counters
        self.limits = limits
        self.intake = intake = Intake(counters, limits, kept or Kept())
        self._messages = MessageDecoder(intake)
        self._netflow = NetFlow(intake)
        self._sflow = sflow.SFlow(intake, _of_samples(wanted, seldom), scale, inner)
        self._slabs: SlabWalk | SlabDecoder = (
            SlabDecoder(intake, self._netflow, self.feed) if lib is None else SlabWalk(intake, self.feed)
        )
        self._batches = Batches(
            wanted, intake, scale=scale, name=name, inner=inner, layer=layer, seldom=seldom, copied=copied
        )
        self._expired = 0.0
        self._ready: list[Batch] = []
        intake.flush = self._flush
        # Used on the path of nearly all Messages.
        self._waiting = intake.waiting
        self._follow, self._defer = intake.sequences.follow, intake.sequences.defer

    def want(self, wanted: Wanted, seldom: frozenset[str] = frozenset(), copied: bool = False) -> None:
        """Give other keys from now on. To be called right after `drain`."""
        self.wanted = wanted
        self._batches.want(wanted, seldom, copied)
        self._sflow.want(_of_samples(wanted, seldom))

    @property
    def events(self) -> list[Event]:
        """Changes since the caller cleared this list, for the log."""
        return self.intake.events.waiting

    @property
    def malformed(self) -> int:
        """Messages dropped whole, and packets of NetFlow v9 cut off at a fault."""
        return self.intake.malformed

    @property
    def homes(self) -> list[tuple[Session, Session]]:
        """Sessions without some templates, each with the session that seems to have them, since the caller cleared
        this."""
        return self.intake.homes

    @property
    def fault(self) -> Callable[[Exception], None]:
        """Called with errors of our own."""
        return self.intake.fault

    @fault.setter
    def fault(self, fault: Callable[[Exception], None]) -> None:
        self.intake.fault = fault

    # a message comes

    def feed(self, session: Session, message: bytes | memoryview, now: float) -> None:
        """Take one Message, as it came in a datagram or was cut out of a stream."""
        if type(message) is not bytes:
            message = bytes(message)
        counters = self.counters
        size = len(message)
        counters.messages_received += 1
        counters.octets_received += size
        session.last_received = now
        session.messages += 1
        session.octets += size
        # Nearly all Messages are one Data Set of a template that is known: no call, no loop.
        if size >= BEFORE:
            version, length, export_time, number, domain_id, set_id, set_length = _ONE_SET.unpack_from(message)
            if (
                set_length + 16 == length == size
                and version == VERSION
                and (domain := session.domains.get(domain_id))
                and (known := domain.templates.get(set_id))
            ):
                deferred = None
                sequence = domain.sequence
                in_line = number == sequence.expected
                if not in_line and ((number - sequence.last) & MASK >= HALF or domain.doubted):
                    self._messages.feed(session, message, now)
                    return
                sequence.last = number
                domain.exported = export_time
                if octets := known.octets:
                    rows, padding = divmod(size - BEFORE, octets)
                    if padding:
                        message = message[:-padding]
                    domain.rows += rows
                    if in_line:
                        sequence.expected = (number + rows) & MASK
                    else:
                        self._follow(session, domain, number, rows)
                elif known.layout.tells:
                    self._messages.feed(session, message, now)
                    return
                else:
                    deferred = DeferredMessage(number, 0, False, domain, domain.stamp)
                    self._defer(session, domain, deferred)
                layout = known.layout
                if not layout.bodies:
                    if layout.tells:
                        self.intake.queue_telling(known, message, (known, export_time, now, deferred, None))
                        return
                    self._waiting.append(layout)
                layout.bodies.append(message)
                layout.sources.append((known, export_time, now, deferred, None))
                return
            if length == size and version == VERSION and (domain := session.domains.get(domain_id)):
                if self._messages.feed_known(session, domain, message, export_time, number, now):
                    return
        self._feed_any(session, message, now)

    def _feed_any(self, session: Session, message: bytes, now: float) -> None:
        """A Message of any protocol, to the decoder of its own."""
        if message[:4] in sflow.STARTS:
            self._sflow.feed(session, message, now)
        elif message[:2] in VERSIONS:
            self._netflow.feed(session, message, now)
        else:
            self._messages.feed(session, message, now)

    def feed_stream(self, session: Session, stream: int, message: bytes, now: float) -> None:
        """Take one Message of a stream of an SCTP association; each has Sequence Numbers of its own (section 3.1)."""
        ident = int.from_bytes(message[12:16], "big")
        domain = session.domains.get(ident)
        if domain is not None and not domain.on_stream(stream):
            self.intake.templates.new_sequence(domain, stream)
        if message[:2] == IPFIX and not (domain is not None and domain.replaced):
            self.feed(session, message, now)
            if domain is None and stream and (domain := session.domains.get(ident)) is not None:
                domain.sequences[stream] = domain.sequence
            return
        self.counters.messages_received += 1
        self.counters.octets_received += len(message)
        session.last_received = now
        session.messages += 1
        session.octets += len(message)
        if message[:2] == IPFIX:
            self._messages.feed(session, message, now)  # which looks for data overtaken by templates
        else:
            self.intake.refuse(session, 0, MessageError("a message of another protocol", "version", 0))

    def feed_slab(self, sessions: Sequence[Session], rows: np.ndarray, lengths: np.ndarray, now: float) -> None:
        """Take many Messages, as if each row were fed: `rows` is uint8 (n, stride), each as long as in `lengths`.

        `sessions` has the session of each row. The array may be used again afterwards.
        """
        self._slabs.feed(sessions, rows, lengths, now)

    # sessions come and go

    def merge(self, home: Session, other: Session) -> None:
        """Two sessions are one exporter, whose templates and data came from different ports: all of it is `home`'s."""
        self.intake.merge(home, other)
        self.forget(other)

    def restore(
        self, session: Session, number: int, place: int, template: Template, received: float, exported: int = 0
    ) -> bool:
        """A template that an earlier run knew of this session; False where a limit refuses it."""
        domain = self.intake.domain(session, number, place)
        return domain is not None and self.intake.templates.restore(session, domain, template, received, exported)

    def restore_types(self, session: Session, keys: Iterable[Key]) -> None:
        """Elements that the exporter of this session had described."""
        self.intake.options.restore_types(session, keys)

    def restore_domain(
        self, session: Session, number: int, place: int, origin: float, info: ExporterInfo | None,
        came_to: Place | None = None,
    ) -> None:  # fmt: skip
        """A domain with the former clock of its exporter, its options data, and its place in the sequence."""
        before = len(self.events)
        domain = self.intake.domain(session, number, place)
        if domain is not None:
            del self.events[before:]  # it is not new to the administrator
            domain.origin = origin
            if came_to is not None:
                self.intake.restarts.restore(domain, came_to)
            if info is not None:
                self.intake.options.restore(session, domain, info)

    def resume_at(self, session: Session, place: int, number: int, seconds: float) -> bool:
        """Go on in a domain from the number that an earlier run expected so many seconds ago; False: no room for it."""
        domain = self.intake.domain(session, place & MASK, place)
        if domain is not None:
            domain.sequence.resume_at(number, seconds)
        return domain is not None

    @property
    def changes(self) -> int:
        """Grows with each change of what is known of exporters."""
        return self.intake.templates.changes + self.intake.options.changes

    def forget(self, session: Session) -> None:
        """The session is closed: its templates are gone. Records that wait are still given by `drain`."""
        self._sflow.forget(session)
        self._slabs.forget()
        self.intake.forget(session)

    def clock_set(self, sessions: Iterable[Session], step: float) -> None:
        """The wall clock, which `now` is of, was set by so many seconds: what is remembered keeps its age."""
        self._expired += step
        for session in sessions:
            session.clock_set(step)

    def expire(self, sessions: Iterable[Session], now: float) -> None:
        """Forget what is too old: parked Data Sets, and templates of these sessions. To be called every second."""
        self.intake.expire(now)
        lifetime = self.limits.template_lifetime
        if lifetime and now - self._expired >= min(lifetime / 4, 10.0):
            self._expired = now
            for session in sessions:
                if not session.reliable:
                    expired = self.intake.templates.expire(session, now - lifetime)
                    self.counters.errors["template_expired"] += expired

    def end(self) -> None:
        """No more will come: give up what waits for templates."""
        self.intake.end()

    # records become columns

    def drain(self, now: float, held: bool = False) -> list[Batch]:
        """Batches of all records fed since the last call, one for each layout and address family of exporters."""
        self.intake.no_more()
        self._flush(now)
        found, self._ready = self._ready, []
        for batch in found:
            batch.held = held
        found += self._sflow.drain(now, held)
        return found

    def _flush(self, now: float) -> None:
        """Decode all that is queued; `drain` hands it on."""
        self._ready += [part for batch in self._batches.drain(now, False) for part in by_family(batch)]
        self._batches.end()
