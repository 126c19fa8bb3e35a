"""UDP exporters' templates in a file, so that their records can be decoded at once after a restart.

Lines of JSON: a head, then a line for each session, for each of its domains, and for each template of a domain. The
last line has the number of the lines before it and their checksum.
"""

from __future__ import annotations

import dataclasses
import json
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from twisted.internet import defer, threads

from ulogd_tw.core import durable, types
from ulogd_tw.core.keys import Key
from ulogd_tw.core.regular_file import read_regular
from ulogd_tw.ipfix.decoder import Decoder
from ulogd_tw.ipfix.exporter_info import plain, restored
from ulogd_tw.ipfix.exporters import Exporters
from ulogd_tw.ipfix.lives import Place
from ulogd_tw.ipfix.netflow.packet import CLASSIC
from ulogd_tw.ipfix.session import Domain, Session
from ulogd_tw.ipfix.template import Field, Template

if TYPE_CHECKING:
    from ulogd_tw.collecting.input import Collecting

_HEAD = {"ulogd_tw": "templates", "version": 1}
SOONEST = 1.0
"""Seconds between two writes, when templates change; twenty times as long as the last write took, if that is more."""
LATEST = 300.0
"""Seconds after which it is written anyway, since repeated templates have a later expiry."""


class TemplateCache:
    """The file of one collector."""

    def __init__(self, path: str, collector: Collecting) -> None:
        self._path = Path(path)
        self._collector = collector
        self._written = float("-inf")
        self._pause = SOONEST
        self._changes = -1
        self._writing: defer.Deferred[Any] | None = None

    # read

    def load(self, decoder: Decoder, exporters: Exporters, idle: float, now: float) -> None:
        """Restore sessions that have not been silent for too long. A file that is not whole is left alone, and said."""
        try:
            lines = _checked(read_regular(self._path))
            sessions, templates = self._restore(lines, decoder, exporters, idle, now)
        except FileNotFoundError:
            return
        except (OSError, ValueError, TypeError, KeyError, IndexError) as error:
            self._collector.counters.errors["template_cache"] += 1
            self._collector.log.error(
                "{instance}: template_cache {path} is not used: {error}; records wait until the exporters send their "
                "templates again", instance=self._collector.instance, path=str(self._path), error=error,
            )  # fmt: skip
            return
        self._changes = decoder.changes
        if sessions:
            self._collector.log.info(
                "{instance}: template_cache has {templates} templates of {sessions} exporters",
                instance=self._collector.instance, templates=templates, sessions=sessions,
            )  # fmt: skip

    def _restore(
        self, lines: list[dict[str, Any]], decoder: Decoder, exporters: Exporters, idle: float, now: float
    ) -> tuple[int, int]:
        lifetime = decoder.limits.template_lifetime
        sessions = templates = 0
        session: Session | str = ""
        number = place = 0
        for line in lines:
            if "peer" in line:
                session = ""
                if now - line["last"] < idle:
                    name = bytes.fromhex(line["sender"])
                    session = exporters.restore(
                        line["place"], name, (line["peer"], line["port"]), now, bool(line.get("proven"))
                    )
                if not isinstance(session, str):
                    session.last_received = line["last"]
                    decoder.restore_types(session, [_key(item) for item in line["types"]])
                    sessions += 1
            elif isinstance(session, str):
                continue  # silent for too long, or refused
            elif "domain" in line:
                number, place = line["domain"], line["domain_place"]
                told = restored(line["told"]) if line["told"] else None
                came_to = Place(*line["came_to"]) if line.get("came_to") else None
                decoder.restore_domain(session, number, place, float(line["origin"]), told, came_to)
            elif not lifetime or now - line["received"] < lifetime:
                fields = tuple(Field(*map(int, field)) for field in line["fields"])
                template = Template(int(line["template"]), fields, int(line["scopes"]))
                received, exported = float(line["received"]), int(line.get("exported", 0))
                templates += decoder.restore(session, number, place, template, received, exported)
        return sessions, templates

    # write

    def wake(self, decoder: Decoder, exporters: Exporters, now: float) -> None:
        """Write it when something has changed; `now` are seconds of a steady clock."""
        age = now - self._written
        changed = decoder.changes != self._changes
        if self._writing is None and (age >= LATEST or (changed and age >= self._pause)):
            self.save(decoder, exporters, now)

    def save(self, decoder: Decoder, exporters: Exporters, now: float) -> defer.Deferred[Any]:
        """Write it in a thread, in the place of the former one only when it is whole."""
        if self._writing is not None:
            return self._writing.addCallback(lambda _: self.save(decoder, exporters, now))
        self._changes, self._written = decoder.changes, now
        # References only: what they refer to is written in the thread, and never changes.
        copy = [
            (place, name, session, [_copy(decoder, domain) for domain in session.domains.values()])
            for (place, name), session in exporters.items()
            if any(domain.templates for domain in session.domains.values())
        ]
        began = time.monotonic()
        writing = self._writing = threads.deferToThread(_write, self._path, copy)
        writing.addErrback(self._failed)

        def done(_: Any) -> None:
            self._writing = None
            self._pause = max(SOONEST, 20 * (time.monotonic() - began))

        return writing.addCallback(done)

    def _failed(self, failure: Any) -> None:
        self._collector.fault(failure.value)


def _copy(decoder: Decoder, domain: Domain) -> tuple:
    """A domain, its templates, what it said of itself, and where its Messages have come to."""
    came_to = decoder.intake.restarts.came_to(domain)
    return (
        domain,
        list(domain.templates.values()),
        domain.info and plain(domain.info),
        dataclasses.astuple(came_to) if came_to else None,
    )


def _write(path: Path, sessions: list[tuple]) -> None:
    durable.write(path, lambda file: _put(file, sessions), ".new")


def _put(file: BinaryIO, sessions: list[tuple]) -> None:
    crc = count = 0
    for line in _lines(sessions):
        octets = json.dumps(line, separators=(",", ":")).encode() + b"\n"
        crc, count = zlib.crc32(octets, crc), count + 1
        file.write(octets)
    file.write(_end(count, crc))


def _lines(sessions: list[tuple]) -> Iterator[dict[str, Any]]:
    yield _HEAD
    for place, name, session, domains in sessions:
        described = [[*key.elements[0], key.name, key.type.name, key.unit, key.semantics]
                     for key in list(session.types.values())]  # fmt: skip
        yield {
            "peer": session.peer, "port": session.peer_port, "place": place, "sender": name.hex(),
            "last": session.last_received, "types": described, "proven": session.has_given,
        }  # fmt: skip
        for domain, templates, told, came_to in domains:
            yield {
                "domain": domain.number, "domain_place": domain.place, "origin": domain.origin, "told": told,
                "came_to": came_to,
            }  # fmt: skip
            for learnt in templates:
                template = learnt.template
                fields = [(field.pen, field.ident, field.length) for field in template.fields]
                if domain.place >> 32 not in CLASSIC:  # the templates of NetFlow v1, v5 and v7 are always known
                    yield {"template": template.ident, "scopes": template.scopes, "received": learnt.received,
                           "exported": learnt.exported, "fields": fields}  # fmt: skip


def _end(lines: int, crc32: int) -> bytes:
    """The last line of a file of so many lines."""
    return json.dumps({"lines": lines, "crc32": crc32}).encode() + b"\n"


def _checked(octets: bytes) -> list[dict[str, Any]]:
    """The lines between the head and the end. Raises ValueError for a file that is not one of these, or not whole."""
    body, newline, last = octets.rstrip(b"\n").rpartition(b"\n")
    lines = [json.loads(line) for line in (body + newline).splitlines()]
    if not lines or lines[0] != _HEAD:
        raise ValueError("it is not a template cache of this version")
    if last + b"\n" != _end(len(lines), zlib.crc32(body + newline)):
        raise ValueError("its checksum is wrong")
    return lines[1:]


def _key(item: list[Any]) -> Key:
    pen, ident, name, type_, unit, semantics = item
    return Key(name, types.TYPES[type_], ((pen, ident),), unit, semantics)
