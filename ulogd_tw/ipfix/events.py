"""What a decoder tells its caller for the log, and how much a peer may make it remember."""

from __future__ import annotations

from dataclasses import dataclass

from ulogd_tw.ipfix.session import Session


@dataclass(frozen=True, slots=True)
class Limits:
    """What one peer may make us remember. What is beyond is refused and counted as ``limit_...``."""

    domains: int = 1024
    """Observation Domains of a session: routers have some for each line card; RFC 5471 tests with 200."""
    templates: int = 8192
    """Templates of a domain: RFC 5471 sends 8000 in a test; routers have some hundreds."""
    fields: int = 16384
    """Fields of a template: as many as fit into a Message of 65535 octets."""
    session_fields: int = 262_144
    """Fields of all templates of a session together: 30 MB at most."""
    announced_octets: int = 1 << 20
    """Octets of Template Sets of a session that are kept to recognise them when they are sent again."""
    missing: int = 256
    """Templates of a domain that are told to be missing; further ones are only counted."""
    layouts: int = 1024
    """Layouts that are kept compiled; the one unused for longest goes first, and is made again when needed."""
    layout_fields: int = 65_536
    """Fields of those layouts together: 60 MB at most where all are wanted."""
    nesting: int = 16
    """Lists within lists; what is deeper stays opaque."""
    list_octets: int = 4 << 20
    """Octets of the JSON text of a list: 65535 octets of one-octet fields with long names make that much."""
    lists_octets: int = 64 << 20
    """Octets of the texts of all lists that are decoded at once; further ones stay opaque."""
    former: int = 16384
    """Changes of templates that are remembered while records with lists wait."""
    events: int = 1000
    """Events that wait for the log."""


@dataclass(frozen=True, slots=True)
class Event:
    """A change of state for the log.

    `kind` is ``domain`` (a new one), ``template``, ``template_changed``, ``template_withdrawn``, ``no_template`` (the
    first time), ``malformed``, ``limit``, ``sequence_gap`` or ``sequence_reset``. `template` is 0 where it is not about
    one.
    """

    kind: str
    session: Session
    domain: int
    template: int
    detail: str


class Events:
    """Events that wait for the log. Beyond `most` they are only counted in `left_out`."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.waiting: list[Event] = []
        self.left_out = 0

    def add(self, kind: str, session: Session, domain: int, template: int = 0, detail: str = "") -> None:
        """Another one."""
        if len(self.waiting) < self.most:
            self.waiting.append(Event(kind, session, domain, template, detail))
        else:
            self.left_out += 1
