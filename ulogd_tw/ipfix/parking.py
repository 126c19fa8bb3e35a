"""Data Sets whose template has not come yet: kept for a while over UDP, where Messages overtake each other (RFC 7011
sections 8 and 8.4)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ulogd_tw.core.counters import Counters
from ulogd_tw.core.plurals import plural
from ulogd_tw.ipfix.events import Events
from ulogd_tw.ipfix.limits import Kept, Limits
from ulogd_tw.ipfix.session import Domain, KnownTemplate, Parked, Session


class Parking:
    """All parked Data Sets.

    Data Sets given up are counted: as error ``no_template_dropped``, or as dropped ``template_distrusted`` if their
    template is from before a restart of the exporter.
    """

    def __init__(self, limits: Limits, kept: Kept, counters: Counters, events: Events) -> None:
        self._limits = limits
        self._kept = kept
        self._counters = counters
        self._events = events
        self._domains: dict[Domain, Session] = {}

    def __len__(self) -> int:
        """Domains with parked sets."""
        return len(self._domains)

    def park(self, session: Session, domain: Domain, set_id: int, parked: Parked) -> None:
        """Keep a Data Set, if its session may have more."""
        limits, kept, octets = self._limits, self._kept, len(parked.body)
        own = session.parked_octets + octets
        full = own > limits.parked_octets // 4 or kept.parked_octets + octets > limits.parked_octets
        if full or not limits.parked_time:
            self._give_up(session, domain, set_id, 1)
            return
        domain.parked.setdefault(set_id, []).append(parked)
        self._domains[domain] = session
        self._count(session, octets, 1)

    def _give_up(self, session: Session, domain: Domain, set_id: int, sets: int) -> None:
        """So many Data Sets wait no longer."""
        if set_id in domain.doubted:
            self._counters.rows_received += sets  # how many rows they have is not known
            self._counters.dropped["template_distrusted"] += sets
            self._events.add("template_distrusted", session, domain.number, set_id, plural(sets, "set"))
        else:
            self._counters.errors["no_template_dropped"] += sets

    def overdue(self, before: float) -> list[tuple[Session, Domain]]:
        """Domains with Data Sets that came before this time."""
        return [
            (session, domain)
            for domain, session in self._domains.items()
            if any(parked[0].received < before for parked in domain.parked.values())
        ]

    def drop(self, session: Session, domain: Domain, which: Callable[[Parked], bool]) -> int:
        """Let some Data Sets of a domain wait no longer; how many."""
        dropped = 0
        for set_id in list(domain.parked):
            parked = self._remove(session, domain, set_id)
            for one in parked:
                if which(one):
                    dropped += 1
                else:
                    self.park(session, domain, set_id, one)
        return dropped

    def _count(self, session: Session, octets: int, sets: int) -> None:
        session.parked_octets += octets
        self._kept.parked_octets += octets
        self._kept.parked_sets += sets

    def take(self, session: Session, domain: Domain) -> Iterator[tuple[KnownTemplate, Parked]]:
        """The Data Sets with a known template now; they are parked no longer."""
        for set_id in [set_id for set_id in domain.parked if set_id in domain.templates]:
            parked = self._remove(session, domain, set_id)
            self._events.add("template_came", session, domain.number, set_id, plural(len(parked), "set"))
            for one in parked:
                if (known := domain.templates.get(set_id)) is not None:
                    yield known, one
                else:  # the records before it showed that its template cannot be trusted
                    self.park(session, domain, set_id, one)

    def _remove(self, session: Session, domain: Domain, set_id: int) -> list[Parked]:
        parked = domain.parked.pop(set_id)
        if not domain.parked:
            self._domains.pop(domain, None)
        self._count(session, -sum(len(one.body) for one in parked), -len(parked))
        return parked

    def move(self, old: tuple[Session, Domain], new: tuple[Session, Domain]) -> None:
        """Data Sets waiting in one domain wait in another one of the same exporter."""
        for set_id in list(old[1].parked):
            for one in self._remove(*old, set_id):
                new[1].parked.setdefault(set_id, []).append(one)
                self._domains[new[1]] = new[0]
                self._count(new[0], len(one.body), 1)

    def expire(self, now: float) -> None:
        """Give up Data Sets that have waited too long."""
        before = now - self._limits.parked_time
        for domain, session in list(self._domains.items()):
            for set_id, parked in list(domain.parked.items()):
                if parked[0].received < before:
                    late = self._remove(session, domain, set_id)
                    rest = [one for one in late if one.received >= before]
                    self._give_up(session, domain, set_id, len(late) - len(rest))
                    for one in rest:
                        self.park(session, domain, set_id, one)

    def forget(self, session: Session) -> None:
        """The session is over."""
        if session.parked_octets:
            for domain in session.domains.values():
                for set_id in list(domain.parked):
                    self._give_up(session, domain, set_id, len(self._remove(session, domain, set_id)))

    def clear(self) -> None:
        """Everything is over."""
        for session in set(self._domains.values()):
            self.forget(session)
