"""Finds options data for the records of a template: rates, names, the start of the exporter.

Each item is searched from the most special place to the most general: its own domain, by scope; domain 0, which stands
for the whole exporter; the other domains of the exporter. From other domains, names are taken, and sampling rates by
the id of a sampler or with the exporter itself as scope. None stands for contradicting data of several domains.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any, TypeVar

from ulogd_tw.ipfix.exporter_info import BOOT, WHOLE, ExporterInfo
from ulogd_tw.ipfix.scopes import ORDER, Scope, specificity
from ulogd_tw.ipfix.session import Domain, KnownTemplate, Session

Found = TypeVar("Found")
_V5 = 5
_SAME_START = 2000
"""Milliseconds by which the domains of one exporter may differ about when it started."""


@dataclass(frozen=True, slots=True)
class Step:
    """One look-up of a sampling rate: `rates` by the values of `identities`.

    `without` are identities that records must not have: rates told by more than what stands in `identities`.
    """

    identities: tuple[str, ...]
    rates: Mapping[tuple[int, ...], float | None]
    without: frozenset[str] = frozenset()
    rank: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class Rates:
    """Steps one after another until one of them finds a rate; `told`: whether the exporter sent any rate."""

    steps: tuple[Step, ...] = ()
    told: bool = False


_NOTHING = Rates()
_UNNAMED = tuple(map(frozenset, (("sampler",), ("direction",), ("sampler", "direction"))))
"""Identities of rates that records may lack: their rate is that of the rest, if all rates of the rest are equal."""
_LAST = (len(ORDER) + 1, 0)
"""The rank of the only rate of samplers, for records that name none: behind those of the domain and of the exporter."""
_SEQUENCE = frozenset(("sequence",))
"""A Selection Sequence names samplers."""
_MOST = 4096
"""Results that are kept for a session."""


def rates_of(known: KnownTemplate) -> Rates:
    """The sampling rates that the records of a template may have."""
    domain, session = known.domain, known.session
    return _kept(session, ("rates", domain.place, known.template.ident), lambda: _rates(session, domain, known))


def names_of(known: KnownTemplate, kind: str) -> tuple[Mapping[Any, bytes | None], ...]:
    """Tables of names of one kind, each to be asked where the one before it has nothing."""
    domain, session = known.domain, known.session
    return _kept(session, ("names", domain.place, kind), lambda: _names(session, domain, kind))


def boot_of(known: KnownTemplate) -> int | None:
    """When the exporter of a template's records started (ms since 1970); None where that is not clear."""
    domain, session = known.domain, known.session
    return _kept(session, ("boot", domain.place), lambda: _boot(session, domain))


def _kept(session: Session, key: tuple, make: Callable[[], Found]) -> Found:
    """Made once, until new data arrives."""
    found = session.lookups.get(key, ...)
    if found is ...:
        if len(session.lookups) >= _MOST:
            session.lookups.clear()
        found = session.lookups[key] = make()
    return found


def _infos(session: Session) -> list[ExporterInfo]:
    domains = (domain for domain in session.domains.values() if domain.place >> 32 != _V5)
    return [domain.info for domain in domains if domain.info is not None]


def _zero(session: Session, domain: Domain) -> ExporterInfo | None:
    """The data of domain 0 of the same protocol, if that is another domain."""
    zero = session.domains.get(domain.place - domain.number)
    return zero.info if zero is not None and zero is not domain else None


def _merged(tables: Iterable[Mapping[Any, Any]]) -> dict[Any, Any]:
    """All of them; None where they differ."""
    found: dict[Any, Any] = {}
    for table in tables:
        for key, value in table.items():
            if found.setdefault(key, value) != value:
                found[key] = None
    return found


# rates


def _rates(session: Session, domain: Domain, known: KnownTemplate) -> Rates:
    own = domain.info
    if domain.place >> 32 == _V5:  # each header says whether there is sampling
        return Rates(tuple(_own_steps(own, known.template.ident)) if own else (), told=own is not None)
    others = _kept(session, ("rates",), lambda: _rates_of_all(session))
    steps = list(_own_steps(own, known.template.ident)) if own else []
    if (zero := _zero(session, domain)) is not None:
        steps += _steps({scope: rate for scope, rate in zero.rates.items() if "template" not in dict(scope)})
    told = any(info.rates for info in _infos(session))
    return Rates((*steps, *_steps(others)), True) if told else _NOTHING


def _own_steps(info: ExporterInfo, template: int) -> list[Step]:
    rates: dict[Scope, float | None] = {}
    for scope, rate in info.rates.items():
        if ("template", template) in scope or all(name != "template" for name, _ in scope):
            rates[scope] = rate
    for sequence, selectors in info.sequences.items():
        known = [info.rates[scope] for scope in ((("sampler", s),) for s in selectors) if scope in info.rates]
        if known:
            rates.setdefault((("sequence", sequence),), _product(known))
    return sorted([*_steps(rates), *_steps_without(rates)], key=lambda step: step.rank)


def _product(rates: list[float | None]) -> float | None:
    """The rate behind several selectors, one after another (RFC 5476 section 6.5.1)."""
    found = 1.0
    for rate in rates:
        if rate is None:
            return None
        found *= rate
    return found


def _steps(rates: Mapping[Scope, float | None], without: frozenset[str] = frozenset()) -> Iterator[Step]:
    """The steps, the most special first. A rate of a template or of the exporter needs no column."""

    def asked(scope: Scope) -> tuple[str, ...]:
        return tuple(name for name, _ in scope)

    for names, scopes in groupby(sorted(rates, key=lambda s: (specificity(s), asked(s))), key=asked):
        places = [place for place, name in enumerate(names) if name not in ("template", "exporter")]
        table = {tuple(scope[place][1] for place in places): rates[scope] for scope in scopes}
        rank = specificity(tuple((name, 0) for name in names)) if names or not without else _LAST
        yield Step(tuple(names[place] for place in places), table, without, rank)


def _steps_without(rates: Mapping[Scope, float | None]) -> Iterator[Step]:
    """Steps for records that name no sampler, or have no direction: by what else their rates were told by."""
    for names in _UNNAMED:
        there = [scope for scope in rates if names <= dict(scope).keys()]
        rest = _merged({tuple(part for part in scope if part[0] not in names): rates[scope]} for scope in there)
        yield from _steps(rest, names | _SEQUENCE if "sampler" in names else names)


def _rates_of_all(session: Session) -> dict[Scope, float | None]:
    """The rates that a domain may take from another: of samplers, and of the exporter itself."""

    def taken(scope: Scope) -> bool:
        return scope == WHOLE or (bool(scope) and scope[0][0] == "sampler" and "template" not in dict(scope))

    return _merged({scope: rate for scope, rate in info.rates.items() if taken(scope)} for info in _infos(session))


# names and times


def _names(session: Session, domain: Domain, kind: str) -> tuple[Mapping[Any, bytes | None], ...]:
    own, zero = domain.info, _zero(session, domain)
    tables: list[Mapping[Any, bytes | None]] = [i.names.get(kind, {}) for i in (own, zero) if i is not None]
    tables.append(_kept(session, ("names", kind), lambda: _names_of_all(session, kind)))
    return tuple(table for table in tables if table)


def _names_of_all(session: Session, kind: str) -> dict[Any, bytes | None]:
    return _merged(info.names.get(kind, {}) for info in _infos(session))


def _boot(session: Session, domain: Domain) -> int | None:
    for info in (domain.info, _zero(session, domain)):
        if info is not None and BOOT in info.times:
            return info.times[BOOT]
    times = [info.times[BOOT] for info in _infos(session) if BOOT in info.times]
    return max(times) if times and max(times) - min(times) <= _SAME_START else None


def boots_differ(known: KnownTemplate) -> bool:
    """Whether domains tell when the exporter started, each something else."""
    return any(BOOT in info.times for info in _infos(known.session))
