"""How much a decoder remembers of its peers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of the memory used by peers. Data beyond them is refused and counted as ``limit_...``.

    Times are in seconds; 0 means never.
    """

    domains: int = 1024
    """Observation Domains of a session: routers have some for each line card; RFC 5471 tests with 200."""
    domains_in_all: int = 50_000
    """Observation Domains of all sessions: 50 MB at most."""
    templates: int = 8192
    """Templates of a session: RFC 5471 sends 8000 in a test; routers have some hundreds."""
    templates_in_all: int = 100_000
    """Templates of all sessions: 100 MB at most."""
    fields: int = 16384
    """Fields of a template: as many as fit into a Message of 65535 octets."""
    session_fields: int = 262_144
    """Fields of all templates of a session together: 30 MB at most."""
    fields_in_all: int = 1_000_000
    """Fields of the templates of all sessions: 120 MB at most, where no two templates are equal."""
    announced_octets: int = 1 << 20
    """Octets of Template Sets of a session that are kept to recognise them when they are sent again."""
    missing: int = 256
    """Templates of a domain reported as missing, with unknown ids of Sets; further ones are only counted."""
    parked_octets: int = 16 << 20
    """Octets of Data Sets whose template has not come yet; a single session has a quarter of it."""
    parked_time: float = 60.0
    """Seconds for which such a Data Set waits: exporters repeat their templates each minute or oftener at the start."""
    template_lifetime: float = 0.0
    """Seconds after which a template not sent again over UDP is forgotten."""
    clock_skew: float = 0.0
    """Seconds by which Export Time and arrival may differ before it is reported."""
    told: int = 100_000
    """Names of interfaces and applications, sampling rates and types of elements of all sessions: 50 MB at most."""
    layouts: int = 1024
    """Layouts that are kept compiled; the one unused for longest goes first, and is made again when needed."""
    layout_fields: int = 65_536
    """Fields of these layouts together: at most 60 MB if all are wanted."""
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


@dataclass(slots=True)
class Kept:
    """How much all sessions of a collector have made it remember: what the limits ``..._in_all`` are held against."""

    domains: int = 0
    templates: int = 0
    fields: int = 0
    parked_octets: int = 0
    parked_sets: int = 0
    told: int = 0
    make_room: Callable[[], bool] = lambda: False
    """Ends a session that has given nothing, where a limit of all sessions is reached; whether there was one."""
