"""Transport Sessions with their Observation Domains: what a collector remembers of an Exporting Process."""

from __future__ import annotations

import ipaddress
from bisect import bisect_right
from dataclasses import dataclass

from ulogd_tw.ipfix.layout import Layout
from ulogd_tw.ipfix.sequence import Sequence
from ulogd_tw.ipfix.template import Template


class Session:
    """A Transport Session (RFC 7011 section 2): its templates and sequence numbers belong to it alone.

    `reliable` is true for TCP, SCTP and files: withdrawals count. Over UDP they are ignored (section 8.4).
    `domains` are by number; those of NetFlow, which are others, by number plus version times 2**32.
    `address` is the peer's as a number, with `family` 4 or 6; 0 where `peer` is no address (a file).
    """

    def __init__(self, peer: str, peer_port: int, *, reliable: bool) -> None:
        self.peer = peer
        self.peer_port = peer_port
        self.reliable = reliable
        self.domains: dict[int, Domain] = {}
        self.last_received = 0.0
        self.family, self.address = _address(peer)
        self.fields = 0
        self.announced_octets = 0

    def __repr__(self) -> str:
        return f"<Session with {self.peer} port {self.peer_port}>"

    def forget(self) -> None:
        """Know nothing any more: templates never outlive their session (section 8)."""
        self.domains.clear()
        self.fields = self.announced_octets = 0


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

    announced   octets of Template Sets that change nothing: all of it is known
    missing     template ids that were told to be missing
    deferred    Messages whose records are not counted yet, and those after them, in order
    lists       whether there was ever a template with lists
    waits       whether records of walked Messages wait that are not in `deferred`
    stamp       how many changes of templates are remembered: those while records wait that may have lists
    """

    __slots__ = (
        "number", "templates", "sequence", "announced", "missing", "deferred", "lists", "waits", "stamp",
        "_former", "_oldest",
    )  # fmt: skip

    def __init__(self, number: int) -> None:
        self.number = number
        self.templates: dict[int, Learnt] = {}
        self.sequence = Sequence()
        self.announced: set[bytes] = set()
        self.missing: set[int] = set()
        self.deferred: list[Fate] = []
        self.lists = self.waits = False
        self.stamp = 0
        self._former: dict[int, list[tuple[int, Learnt | None]]] = {}
        self._oldest = 0

    def remember(self, ident: int) -> None:
        """The template of this id is about to change: waiting lists may still need what it was."""
        self.stamp += 1
        self._former.setdefault(ident, []).append((self.stamp, self.templates.get(ident)))

    def template_at(self, ident: int, stamp: int) -> Learnt | None:
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
class Learnt:
    """A template as it was learnt in one domain of one session; `octets` is its layout's."""

    session: Session
    domain: int
    template: Template
    layout: Layout
    octets: int


@dataclass(slots=True, eq=False)
class Fate:
    """A Message of a domain that waits for records of variable length to be counted, or for one that does.

    `number` is its Sequence Number, `rows` its records as far as they are counted (below 0: that cannot be known);
    `malformed` when a record turned out to be cut. `domain` and `stamp` tell by which templates its lists are read.
    """

    number: int
    rows: int = 0
    malformed: bool = False
    domain: Domain | None = None
    stamp: int = 0
