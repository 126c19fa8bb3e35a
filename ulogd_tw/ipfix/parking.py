"""Data Sets whose template has not come yet: kept for a while over UDP, where Messages overtake each other (RFC 7011
sections 8 and 8.4)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from ulogd_tw.ipfix.events import Events
from ulogd_tw.ipfix.limits import Kept, Limits
from ulogd_tw.ipfix.session import Domain, KnownTemplate, Parked, Session


class Parking:
    """All of them. What is given up is counted as ``no_template_dropped`` in `errors`, in Data Sets."""

    def __init__(self, limits: Limits, kept: Kept, errors: Counter[str], events: Events) -> None:
        self._limits = limits
        self._kept = kept
        self._errors = errors
        self._events = events
        self._domains: dict[Domain, Session] = {}

    def __len__(self) -> int:
        """Domains with parked sets."""
        return len(self._domains)

    def park(self, session: Session, domain: Domain, set_id: int, parked: Parked) -> None:
        """Keep a Data Set, if its session may have more."""
        limits, kept, octets = self._limits, self._kept, len(parked.body)
        own = session.parked_octets + octets
        if not limits.parked_time or own > limits.parked_octets // 4:
            self._errors["no_template_dropped"] += 1
            return
        if kept.parked_octets + octets > limits.parked_octets:
            self._errors["no_template_dropped"] += 1
            return
        domain.parked.setdefault(set_id, []).append(parked)
        self._domains[domain] = session
        self._count(session, octets, 1)

    def _count(self, session: Session, octets: int, sets: int) -> None:
        session.parked_octets += octets
        self._kept.parked_octets += octets
        self._kept.parked_sets += sets

    def take(self, session: Session, domain: Domain) -> Iterator[tuple[KnownTemplate, Parked]]:
        """Those whose template is there now; they are parked no longer."""
        for set_id in [set_id for set_id in domain.parked if set_id in domain.templates]:
            parked = self._remove(session, domain, set_id)
            self._events.add("template_came", session, domain.number, set_id, f"{len(parked)} sets")
            for one in parked:
                yield domain.templates[set_id], one

    def _remove(self, session: Session, domain: Domain, set_id: int) -> list[Parked]:
        parked = domain.parked.pop(set_id)
        if not domain.parked:
            self._domains.pop(domain, None)
        self._count(session, -sum(len(one.body) for one in parked), -len(parked))
        return parked

    def move(self, old: tuple[Session, Domain], new: tuple[Session, Domain]) -> None:
        """What waits in one domain waits in another one of the same exporter."""
        for set_id in list(old[1].parked):
            for one in self._remove(*old, set_id):
                new[1].parked.setdefault(set_id, []).append(one)
                self._domains[new[1]] = new[0]
                self._count(new[0], len(one.body), 1)

    def expire(self, now: float) -> None:
        """Give up those that have waited for too long."""
        before = now - self._limits.parked_time
        for domain, session in list(self._domains.items()):
            for set_id, parked in list(domain.parked.items()):
                if parked[0].received < before:
                    late = self._remove(session, domain, set_id)
                    rest = [one for one in late if one.received >= before]
                    self._errors["no_template_dropped"] += len(late) - len(rest)
                    for one in rest:
                        self.park(session, domain, set_id, one)

    def forget(self, session: Session) -> None:
        """The session is over."""
        if session.parked_octets:
            for domain in session.domains.values():
                for set_id in list(domain.parked):
                    self._errors["no_template_dropped"] += len(self._remove(session, domain, set_id))

    def clear(self) -> None:
        """Everything is over."""
        for session in set(self._domains.values()):
            self.forget(session)
