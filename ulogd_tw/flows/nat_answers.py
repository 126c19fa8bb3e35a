"""The whole answer to who had an address: the sessions, and what may be missing from them."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ulogd_tw.core.protocols import PROTOCOLS
from ulogd_tw.core.text import ipv6_text
from ulogd_tw.flows.nat_rows import MAPPED, NatRow, Question
from ulogd_tw.flows.nat_sql import MOST_ROWS
from ulogd_tw.flows.nat_store import NatStore
from ulogd_tw.flows.who_had import Answer, answers
from ulogd_tw.storing.coverage import NOT_YET, Coverage, Gap
from ulogd_tw.storing.parquet.directory import StoredFile

FOUND, NOBODY, INCOMPLETE = 0, 1, 3
"""Exit statuses."""
_NAMES: dict[int | None, str] = {number: name for name, number in reversed(PROTOCOLS.items())}
_ENDPOINT = re.compile(r"(?:\[([^\]]+)\]|([^:]+))(?::([0-9]{1,6}))?", re.ASCII)
MOST_ANSWERS = 10_000
MOST_GAPS = 100
CUT = f"more than {MOST_ROWS} rows concern this question; ask for a port, or a shorter --within"
UNREACHED = "connections that are still open, and rows that are in no file yet, could not be asked for"


@dataclass(frozen=True)
class Kept:
    """What a store has: since when, and whether there are events in it, whose beginnings may be long ago."""

    name: str
    coverage: Coverage
    events: bool


@dataclass
class Found:
    """Answers, and the times of which records may be missing."""

    question: Question
    answers: list[Answer]
    gaps: list[Gap]
    notes: list[str] = field(default_factory=list)

    @property
    def status(self) -> int:
        """The exit status."""
        if self.gaps or self.notes:
            return INCOMPLETE
        return FOUND if self.answers else NOBODY

    def as_dict(self) -> dict[str, Any]:
        """For JSON; times are milliseconds since 1970."""
        question = self.question
        return {
            "address": shown(question.address),
            "port": question.port,
            "at": question.at,
            "within": question.within,
            "longest": question.longest,
            "answers": [_as_dict(answer) for answer in self.answers[:MOST_ANSWERS]],
            "more": len(self.answers) > MOST_ANSWERS,
            "incomplete": [gap._asdict() for gap in self.gaps],
            "notes": list(self.notes),
            "status": self.status,
        }


def ask(
    store: NatStore,
    places: Mapping[str, Path],
    question: Question,
    now: int,
    more: Iterable[NatRow] = (),
    live: bool = False,
) -> Found:
    """Ask stores, the directories by their names. `more`: rows that are in no file; `live`: they were all asked for.

    Raises OSError, and what DuckDB raises.
    """
    rows, kept, cut = list(more), [], False
    for name, place in places.items():
        coverage = Coverage.read(place)  # before the files: they may have more then, never less
        listed: list[StoredFile] = []

        def listing(place: Path = place, listed: list[StoredFile] = listed) -> list[StoredFile]:
            listed[:] = store.listing.files(place)
            return listed

        rows += store.rows(listing, question)
        cut = cut or store.cut
        kept.append(Kept(name, coverage, store.events(file.path for file in listed)))
    found = Found(question, answers(rows, question), gaps(kept, question, now, live))
    if not live and unreached(question, now):
        found.notes.append(UNREACHED)
    if cut:
        found.notes.append(CUT)
    return found


def gaps(stores: Sequence[Kept], question: Question, now: int, live: bool) -> list[Gap]:
    """The times that matter for the question of which records may be missing.

    A flow is recorded at its end, which may come `longest` after the time asked for; the beginning of a session may
    be as long before it. `live`: what is in no file yet was asked for as well.
    """
    found: list[Gap] = []
    for kept in stores:
        since = question.earliest - (question.longest if kept.events else 0)
        until = min(question.latest + question.longest, now)
        name = f"{kept.name}: " if len(stores) > 1 else ""
        for gap in kept.coverage.gaps(max(since, 0), max(until, question.earliest)):
            if not (live and gap.reason == NOT_YET):
                found.append(gap._replace(reason=name + gap.reason))
    return _fewer(sorted(found))


def unreached(question: Question, now: int) -> bool:
    """Whether connections of that time may still be open, as far as sessions last no longer than `longest`."""
    return question.earliest + question.longest > now


def _fewer(found: list[Gap]) -> list[Gap]:
    """The first ones, and one for all others."""
    if len(found) <= MOST_GAPS:
        return found
    kept, rest = found[: MOST_GAPS - 1], found[MOST_GAPS - 1 :]
    last = Gap(rest[0].since, max(gap.until for gap in rest), f"{len(rest)} further times")
    return [*kept, last]


def shown(address: int) -> str:
    """An address as text; IPv4 where it is one."""
    if address >> 32 == MAPPED >> 32:
        return str(ipaddress.IPv4Address(address & 0xFFFF_FFFF))
    return ipv6_text(address)


def address_of(text: str) -> int:
    """An address as 128 bits; it cannot have a zone, as rows have none. Raises ValueError."""
    if "%" in text:
        raise ValueError(f"{text!r} has a zone, which stored rows do not have; leave out the % and what follows it")
    found = ipaddress.ip_address(text)
    return int(found) if found.version == 6 else int(found) | MAPPED


def endpoint(text: str) -> tuple[int, int | None]:
    """Address and port of ``192.0.2.1:4711``, ``192.0.2.1``, ``[2001:db8::1]:4711`` or ``2001:db8::1``.

    Raises ValueError.
    """
    found = _ENDPOINT.fullmatch(text.strip())
    inside, plain, port = found.groups() if found else (None, text.strip(), None)
    try:
        address = address_of(inside or plain)
    except ValueError as error:
        if "%" in text:
            raise error
        raise ValueError(f"{text!r} is not an address; write 192.0.2.1, 192.0.2.1:4711 or [2001:db8::1]:4711") from None
    if port is not None and not int(port) < 65536:
        raise ValueError(f"{port} is not a port; ports are 0 to 65535")
    return address, None if port is None else int(port)


def _as_dict(answer: Answer) -> dict[str, Any]:
    found = answer._asdict()
    for name in ("inside", "outside", "peer", "exporter"):
        found[name] = None if found[name] is None else shown(found[name])
    found["protocol"] = _NAMES.get(answer.protocol, answer.protocol)
    return found
