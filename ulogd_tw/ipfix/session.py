"""Transport Sessions with their Observation Domains: what a collector remembers of an Exporting Process."""

from __future__ import annotations

import ipaddress
from bisect import bisect_right
from collections.abc import Collection, Hashable
from dataclasses import dataclass
from itertools import count
from typing import Any, NamedTuple

import numpy as np

from ulogd_tw.core.keys import Element, Key
from ulogd_tw.core.looks import Look
from ulogd_tw.ipfix.exporter_info import ExporterInfo
from ulogd_tw.ipfix.layout import Layout
from ulogd_tw.ipfix.lives import Life
from ulogd_tw.ipfix.sequence import Sequence
from ulogd_tw.ipfix.template import Template

_numbers = count(1)


class Session:
    """A Transport Session (RFC 7011 section 2): its templates and sequence numbers belong to it alone.

    `reliable` is true for TCP, SCTP and files: withdrawals count. Over UDP they are ignored (section 8.4). `overtakes`
    is true for UDP and SCTP: Messages may overtake each other, so that data waits for its template. `domains` are by
    number; NetFlow's separate domains by number plus version times 2**32. `address` is the peer's as a number, with
    `family` 4 or 6; 0 where `peer` is no address (a file). `proven` after its first record, `ended` when it had to make
    room for another one. `siblings` are the sessions of the same address, where templates and data may come from
    different ports of it. `number` tells it from the other sessions of this process.
    """

    def __init__(self, peer: str, peer_port: int, *, reliable: bool, overtakes: bool | None = None) -> None:
        self.peer = peer
        self.peer_port = peer_port
        self.number = next(_numbers) & 0xFFFFFFFF
        self.reliable = reliable
        self.overtakes = not reliable if overtakes is None else overtakes
        self.domains: dict[int, Domain] = {}
        self.last_received = 0.0
        self.family, self.address = _address(peer)
        self.siblings: Collection[Session] = ()
        self.templates = self.fields = self.announced_octets = self.parked_octets = 0
        self.messages = self.octets = self.malformed = self.lost = self.lost_restart = self.resets = 0
        self.looked: Look | None = None
        """The last look at `octets`, those of all Messages."""
        self.proven = self.ended = False
        self.types: dict[Element, Key] = {}
        """Elements of enterprises as this exporter has described them (RFC 5610)."""
        self.key: tuple[Hashable, bytes] | None = None
        """Its place and sender among the sessions of datagrams (see `exporters`)."""
        self.lookups: dict[Hashable, Any] = {}
        """Results of `exporter_lookup`; emptied after each change of options data."""
        self.said: set[tuple[str, int, int, str]] = set()
        """Events reported once: kind, domain, template, detail."""

    def clock_set(self, step: float) -> None:
        """The clock was set by so many seconds: silence, templates and parked sets keep their age."""
        self.last_received += step
        for domain in self.domains.values():
            if not domain.place >> 32:  # NetFlow's is the beginning of its uptime, independent of our clock
                domain.origin -= step
            if domain.life is not None:
                domain.life.clock_set(step)
            for known in domain.templates.values():
                if known.received:
                    known.received += step
            for set_id, parked in domain.parked.items():
                domain.parked[set_id] = [one._replace(received=one.received + step) for one in parked]

    @property
    def has_given(self) -> bool:
        """Whether a record has come of it, in this run or an earlier one."""
        if not self.proven and any(domain.rows for domain in self.domains.values()):
            self.proven = True
        return self.proven

    def __repr__(self) -> str:
        return f"<Session with {self.peer} port {self.peer_port}>"


def _address(peer: str) -> tuple[int, int | tuple[int, int]]:
    try:
        address = ipaddress.ip_address(peer.partition("%")[0])
    except ValueError:
        return 0, 0
    if address.version == 6 and address.ipv4_mapped:  # a socket for both families shows IPv4 peers so
        address = address.ipv4_mapped
    number = int(address)
    return (4, number) if address.version == 4 else (6, (number >> 64, number & 0xFFFFFFFFFFFFFFFF))


class Domain:
    """An Observation Domain of one session: its templates by id (data and options in one space) and its sequence.

    place       its key among the session's domains: its number, for NetFlow with the version above it
    announced   octets of Template Sets without changes, with their templates
    missing     template ids reported as missing, and reported reserved ids of Sets
    parked      Data Sets waiting for their template, by its id
    doubted     templates of a possible former life of the exporter, by id (see `restarts`)
    life        the state of `restarts` for the domain
    announcing  Export Time of the Message with the templates being read
    origin      the exporter's clock at its last new template (see `origin`)
    rows        number of received records
    skewed      whether the exporter's clock was reported as wrong
    info        the exporter's options data
    sequences   those of the streams of an SCTP association (RFC 7011 section 3.1), if there are several;
                `sequence` is that of the stream being read
    deferring   number of sequences with Messages not completely counted
    exported    Export Time of the last Message in sequence
    replaced    whether a template was replaced in a session where Messages may overtake each other
    lists       whether there was ever a template with lists
    waits       True while records of walked Messages are counted but not decoded, and not among the deferred ones
    looked      the last look at `rows`
    noted       its place in the file of Sequence Numbers, -1 if it has none
    stamp       number of changes of templates remembered while records with lists may wait
    """

    __slots__ = (
        "number", "place", "templates", "sequence", "announced", "missing", "parked", "doubted", "life",
        "announcing", "origin", "rows", "skewed", "info", "sequences", "deferring", "exported", "replaced", "lists",
        "waits", "stamp", "noted", "looked", "_former", "_oldest",
    )  # fmt: skip

    def __init__(self, number: int, place: int) -> None:
        self.number = number
        self.place = place
        self.templates: dict[int, KnownTemplate] = {}
        self.sequence = Sequence()
        self.announced: dict[bytes, tuple[KnownTemplate, ...]] = {}
        self.missing: set[int] = set()
        self.parked: dict[int, list[Parked]] = {}
        self.doubted: dict[int, KnownTemplate] = {}
        self.life: Life | None = None
        self.origin = 0.0
        self.rows = 0
        self.skewed = False
        self.info: ExporterInfo | None = None
        self.sequences: dict[int, Sequence] = {}
        self.deferring = 0
        self.exported = self.announcing = 0
        self.replaced = False
        self.lists = self.waits = False
        self.stamp = 0
        self.noted = -1
        self.looked: Look | None = None
        self._former: dict[int, list[tuple[int, KnownTemplate | None]]] = {}
        self._oldest = 0

    def goes_on(self, number: int, exported: int) -> None:
        """A Message went on from the one before it."""
        self.sequence.last, self.exported = number, exported

    def let_go(self) -> None:
        """The session has ended: no circle of references stays, which would wait for a collection of garbage.

        Lists in records that are queued still need their templates.
        """
        if not self.lists:
            for known in (self.templates, self.announced, self.doubted, self.parked, self._former):
                known.clear()

    def on_stream(self, stream: int) -> bool:
        """Messages of this stream come now; False where its numbers are not followed yet."""
        if not self.sequences:
            if not stream:
                return True
            self.sequences[0] = self.sequence
        sequence = self.sequences.get(stream)
        if sequence is not None:
            self.sequence = sequence
        return sequence is not None

    def remember(self, ident: int) -> None:
        """The template of this id is about to change: waiting lists may still need what it was."""
        self.stamp += 1
        self._former.setdefault(ident, []).append((self.stamp, self.templates.get(ident)))

    def template_at(self, ident: int, stamp: int) -> KnownTemplate | None:
        """The template of this id when there had been `stamp` changes; None also where that is forgotten."""
        if stamp < self._oldest:
            return None
        former = self._former.get(ident, ())
        place = bisect_right(former, stamp, key=lambda change: change[0])
        return former[place][1] if place < len(former) else self.templates.get(ident)

    def forget_former(self) -> None:
        """Only the templates of now are known from here on."""
        self._former.clear()
        self.waits = False
        self._oldest = self.stamp


@dataclass(slots=True, eq=False)
class KnownTemplate:
    """A template known in one domain of one session; `octets` is its layout's.

    `received` is its last arrival, `exported` the Export Time of that Message. `since` is the first Export Time of data
    described by it, on a reliable session where Messages may overtake each other; else -1. `said` has hashes of Data
    Sets without changes (see `intake`).
    """

    session: Session
    domain: Domain
    template: Template
    layout: Layout
    octets: int
    received: float = 0.0
    exported: int = 0
    since: int = -1
    said: set[int] | None = None

    def is_later_than(self, export_time: int) -> bool:
        """Whether data of this Export Time belongs to the former template of this id (RFC 7011 section 8.2)."""
        return self.since >= 0 and (export_time - self.since) & 0xFFFFFFFF >= 0x80000000


Clock = tuple[int, int] | tuple[np.ndarray, np.ndarray, np.ndarray]
"""Of one packet of NetFlow: when it was exported (ms since 1970), and the exporter's uptime then (ms, 32 bits).

Arrays where the records are those of several packets, with the number of records of each.
"""


def origin(export_time: int, received: float, clock: tuple[int, int] | None) -> float:
    """A value common to all Messages of an exporter: the error of its clock, or the beginning of its uptime (s)."""
    return export_time - received if clock is None else export_time - clock[1] / 1000


class Parked(NamedTuple):
    """The body of a Data Set that waits for its template, with `layout.BEFORE` octets in front.

    `clock` is the `Clock` of a packet of NetFlow, else None.
    """

    body: bytes
    export_time: int
    received: float
    number: int
    clock: tuple[int, int] | None

    @property
    def origin(self) -> float:
        """As of its domain."""
        return origin(self.export_time, self.received, self.clock)


@dataclass(slots=True, eq=False)
class DeferredMessage:
    """A Message of a domain waiting until records of variable length are counted, its own or earlier ones.

    `number` is its Sequence Number, `rows` its records counted so far (below 0: unknown); `malformed` if a record
    turned out to be cut. `domain` and `stamp` give the templates for its lists.
    """

    number: int
    rows: int = 0
    malformed: bool = False
    domain: Domain | None = None
    stamp: int = 0
