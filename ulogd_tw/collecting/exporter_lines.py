"""What is known of UDP exporters as plain values: for a file, or for a successor in the same process.

A line (a dict of JSON's values) for each session, for each of its domains, and for each template of a domain.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterable, Iterator
from math import inf
from typing import Any

from ulogd_tw.core import types
from ulogd_tw.core.keys import Key
from ulogd_tw.ipfix.decoder import Decoder
from ulogd_tw.ipfix.exporter_info import plain, restored
from ulogd_tw.ipfix.exporters import Exporters
from ulogd_tw.ipfix.lives import Place
from ulogd_tw.ipfix.netflow.packet import CLASSIC
from ulogd_tw.ipfix.session import Domain, Session
from ulogd_tw.ipfix.template import Field, Template

Line = dict[str, Any]


# write


def copy(decoder: Decoder, exporters: Exporters) -> list[tuple]:
    """References to all that `lines` needs, for another thread: what they refer to never changes."""
    return [
        (place, name, session, [_copy(decoder, domain) for domain in session.domains.values()])
        for (place, name), session in exporters.items()
        if any(domain.templates or domain.sequence.expected >= 0 for domain in session.domains.values())
    ]


def _copy(decoder: Decoder, domain: Domain) -> tuple:
    """A domain, its templates, what it said of itself, and where its Messages have come to."""
    came_to = decoder.intake.restarts.came_to(domain)
    return (
        domain,
        list(domain.templates.values()),
        domain.info and plain(domain.info),
        dataclasses.astuple(came_to) if came_to else None,
        domain.sequence.expected,
    )


def lines(sessions: list[tuple], numbers: bool = False) -> Iterator[Line]:
    """The lines of a copy; with `numbers` also the next Sequence Numbers, which are true at this moment only."""
    for place, name, session, domains in sessions:
        described = [[*key.elements[0], key.name, key.type.name, key.unit, key.semantics]
                     for key in list(session.types.values())]  # fmt: skip
        yield {
            "peer": session.peer, "port": session.peer_port, "place": place, "sender": name.hex(),
            "last": session.last_received, "types": described, "proven": session.has_given,
        }  # fmt: skip
        for domain, templates, told, came_to, expected in domains:
            yield {
                "domain": domain.number, "domain_place": domain.place, "origin": domain.origin, "told": told,
                "came_to": came_to,
            } | ({"expected": expected} if numbers else {})  # fmt: skip
            for learnt in templates:
                template = learnt.template
                fields = [(field.pen, field.ident, field.length) for field in template.fields]
                if domain.place >> 32 not in CLASSIC:  # the templates of NetFlow v1, v5 and v7 are always known
                    yield {"template": template.ident, "scopes": template.scopes, "received": learnt.received,
                           "exported": learnt.exported, "fields": fields}  # fmt: skip


# read


class Restoring:
    """Puts lines into a decoder and its sessions.

    Sessions that were silent for `idle` seconds are left out, and those with other listening addresses than `places`:
    another collector may have heard them since. None: all addresses. `hears`: of senders whether they are heard here.

    `take` raises ValueError, TypeError, KeyError or IndexError for what no such line is.
    """

    def __init__(
        self, decoder: Decoder, exporters: Exporters, idle: float, now: float, places: Collection[str] | None = None,
        hears: Callable[[str], bool] = lambda peer: True,
    ) -> None:  # fmt: skip
        self.sessions = self.templates = 0
        self.places = places
        self.newest: dict[tuple[str, str], float] = {}
        """When sessions were heard last, by listening address and sender, where several files have them."""
        self.decoder = decoder
        self._exporters = exporters
        self._idle = idle
        self._hears = hears
        self._now = now
        self._session: Session | None = None
        self._last = 0.0
        self._number = self._place = 0

    def take_all(self, lines: Iterable[Line]) -> None:
        """Take lines in their order."""
        for line in lines:
            self.take(line)

    def take(self, line: Line) -> None:
        """Take the next line."""
        if "peer" in line:
            self._take_session(line)
        elif self._session is None:
            return  # silent for too long, or refused
        elif "domain" in line:
            self._take_domain(self._session, line)
        else:
            self._take_template(self._session, line)

    def _take_session(self, line: Line) -> None:
        self._session = None
        elsewhere = (self.places is not None and line["place"] not in self.places) or not self._hears(line["peer"])
        if self._now - line["last"] >= self._idle or elsewhere:
            return
        if self.newest:
            key = line["place"], line["sender"]
            if line["last"] < self.newest.get(key, 0.0):
                return
            self.newest[key] = inf  # once
        name, peer = bytes.fromhex(line["sender"]), (line["peer"], line["port"])
        session = self._exporters.restore(line["place"], name, peer, self._now, bool(line.get("proven")))
        if isinstance(session, str):
            return
        session.last_received = self._last = float(line["last"])
        self.decoder.restore_types(session, [_key(item) for item in line["types"]])
        self._session = session
        self.sessions += 1

    def _take_domain(self, session: Session, line: Line) -> None:
        self._number, self._place = line["domain"], line["domain_place"]
        told = restored(line["told"]) if line["told"] else None
        came_to = Place(*line["came_to"]) if line.get("came_to") else None
        self.decoder.restore_domain(session, self._number, self._place, float(line["origin"]), told, came_to)
        if line.get("expected", -1) >= 0:
            self.decoder.resume_at(session, self._place, line["expected"], self._now - self._last)

    def _take_template(self, session: Session, line: Line) -> None:
        lifetime = self.decoder.limits.template_lifetime
        if lifetime and self._now - line["received"] >= lifetime:
            return
        fields = tuple(Field(*map(int, field)) for field in line["fields"])
        template = Template(int(line["template"]), fields, int(line["scopes"]))
        received, exported = float(line["received"]), int(line.get("exported", 0))
        self.templates += self.decoder.restore(session, self._number, self._place, template, received, exported)


def _key(item: list[Any]) -> Key:
    pen, ident, name, type_, unit, semantics = item
    return Key(name, types.TYPES[type_], ((pen, ident),), unit, semantics)
