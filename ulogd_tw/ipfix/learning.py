"""Templates as they come, change and go (RFC 7011 section 8), within limits."""

from __future__ import annotations

from collections import Counter
from weakref import WeakValueDictionary

from ulogd_tw.core.errors import MessageError
from ulogd_tw.ipfix.events import Events, Limits
from ulogd_tw.ipfix.layout import Layout, has_lists
from ulogd_tw.ipfix.message import FIRST_DATA_SET, OPTIONS_TEMPLATE_SET, TEMPLATE_SET
from ulogd_tw.ipfix.session import Domain, Fate, Learnt, Session
from ulogd_tw.ipfix.template import Template, Withdrawal, parse_set
from ulogd_tw.ipfix.varying import walk

News = dict[int, list[Template | Withdrawal]]
"""What the Template Sets of a Message say, by their place among its Sets."""


class Learning:
    """Keeps the templates of all sessions; counts refusals in `errors`, tells changes to `events`."""

    def __init__(self, limits: Limits, errors: Counter[str], events: Events) -> None:
        self._limits = limits
        self._errors = errors
        self._events = events
        self._changed: dict[Domain, None] = {}
        self._former = 0
        self._layouts: WeakValueDictionary[tuple, Layout] = WeakValueDictionary()

    def walked(
        self,
        session: Session,
        domain: Domain | None,
        message: bytes,
        sets: list[tuple[int, int, int]],
        news: dict[int, list[Template | Withdrawal]],
    ) -> dict[int, int]:
        """The records of each Data Set of variable length in a Message that has new templates too, by place.

        Raises `MessageError` for one that is cut: the templates of the Message must not take effect then.
        """
        later = _Later(domain, session.reliable)
        counts = {}
        for index, (set_id, start, end) in enumerate(sets):
            if index in news:
                later.act(news[index])
            elif set_id >= FIRST_DATA_SET and (template := later.find(set_id)) and _walked(template):
                found: list[int] = []
                shape = self.layout(template, session.family).shape
                if not walk(message, start, end, shape, found):
                    raise MessageError(f"a record of template {set_id} is cut", "record", start)
                counts[index] = len(found) // (1 + 2 * len(shape.segments))
        return counts

    def learn_set(
        self, session: Session, domain: Domain, octets: bytes, actions: list[Template | Withdrawal]
    ) -> None:
        """Do what a Template Set says; `octets` are the whole Set."""
        plain = True
        for action in actions:
            if isinstance(action, Withdrawal):
                plain = False
                self._withdraw(session, domain, action)
            else:
                plain &= self._learn(session, domain, action)
        if plain and octets not in domain.announced:
            if session.announced_octets + len(octets) <= self._limits.announced_octets:
                session.announced_octets += len(octets)
                domain.announced.add(octets)

    def _learn(self, session: Session, domain: Domain, template: Template) -> bool:
        """Take a template over; False where a limit refuses it, and then the old one is not valid any more either."""
        old = domain.templates.get(template.ident)
        if old is not None:
            if old.template == template:
                return True
            self._drop(session, domain, old)
        reason = ""
        if len(template.fields) > self._limits.fields:
            reason = "limit_fields"
        elif session.fields + len(template.fields) > self._limits.session_fields:
            reason = "limit_session_fields"
        elif len(domain.templates) >= self._limits.templates:
            reason = "limit_templates"
        if reason:
            self._errors[reason] += 1
            self._events.add("limit", session, domain.number, template.ident, reason)
            return False
        layout = self.layout(template, session.family)
        # The layout's fields, so that equal templates of many exporters are in memory once.
        template = Template(template.ident, layout.fields, template.scopes)
        domain.lists = domain.lists or layout.lists
        self._remember(domain, template.ident)
        domain.templates[template.ident] = Learnt(session, domain.number, template, layout, layout.octets)
        domain.missing.discard(template.ident)
        session.fields += len(template.fields)
        self._forget_announced(session, domain)
        kind = "template" if old is None else "template_changed"
        self._events.add(kind, session, domain.number, template.ident, f"{len(template.fields)} fields")
        return True

    def _withdraw(self, session: Session, domain: Domain, withdrawal: Withdrawal) -> None:
        if not session.reliable:  # RFC 7011 section 8.4: MUST be ignored over UDP
            self._errors["withdrawal_ignored"] += 1
            return
        if withdrawal.ident < FIRST_DATA_SET:  # all of its kind, section 8.1
            gone = [learnt for learnt in domain.templates.values() if learnt.template.options == withdrawal.options]
        else:
            learnt = domain.templates.get(withdrawal.ident)
            gone = [learnt] if learnt and learnt.template.options == withdrawal.options else []
            if not gone:
                self._errors["withdrawal_unknown"] += 1
        for learnt in gone:
            self._drop(session, domain, learnt)
            self._events.add("template_withdrawn", session, domain.number, learnt.template.ident)

    def _drop(self, session: Session, domain: Domain, learnt: Learnt) -> None:
        self._remember(domain, learnt.template.ident)
        del domain.templates[learnt.template.ident]
        session.fields -= len(learnt.template.fields)
        self._forget_announced(session, domain)

    def _remember(self, domain: Domain, ident: int) -> None:
        """The template of this id is about to change."""
        if not (domain.lists and (domain.deferred or domain.waits)):
            return
        if self._former >= self._limits.former:
            self.forget_former()
        self._former += 1
        self._changed[domain] = None
        domain.remember(ident)

    def fate(self, domain: Domain, number: int) -> Fate:
        """The fate of a Data Set whose Message also has templates: its records are counted, its lists still wait."""
        domain.waits = True
        self._changed[domain] = None
        return Fate(number, -1, False, domain, domain.stamp)

    def forget_former(self) -> None:
        """No records wait any more that came before templates changed."""
        for domain in self._changed:
            domain.forget_former()
        self._changed.clear()
        self._former = 0

    def _forget_announced(self, session: Session, domain: Domain) -> None:
        session.announced_octets -= sum(map(len, domain.announced))
        domain.announced.clear()

    def layout(self, template: Template, family: int) -> Layout:
        """The one layout of all templates with these fields and scopes, for exporters of this address family."""
        key = (template.fields, template.scopes, family)
        layout = self._layouts.get(key)
        if layout is None:
            layout = self._layouts[key] = Layout(template, family)
        return layout

    def new_domain(self, session: Session, number: int, place: int | None = None) -> Domain | None:
        """A domain of which nothing is known yet; None when the session has too many.

        `place` is where it stands in the session's domains, if not under its number.
        """
        if len(session.domains) >= self._limits.domains:
            self._errors["limit_domains"] += 1
            self._events.add("limit", session, number, 0, "limit_domains")
            return None
        domain = session.domains[number if place is None else place] = Domain(number)
        self._events.add("domain", session, number)
        return domain


def template_sets(
    domain: Domain | None, message: bytes, sets: list[tuple[int, int, int]]
) -> dict[int, list[Template | Withdrawal]]:
    """What the template sets of a Message say, by place; nothing when all of it is known. Raises `MessageError`."""
    places = [place for place, (set_id, _, _) in enumerate(sets) if set_id in (TEMPLATE_SET, OPTIONS_TEMPLATE_SET)]
    if not places:
        return {}
    if domain is not None and all(message[sets[p][1] - 4 : sets[p][2]] in domain.announced for p in places):
        return {}
    return {p: parse_set(sets[p][0], message[sets[p][1] : sets[p][2]]) for p in places}


def _walked(template: Template) -> bool:
    return template.variable or has_lists(template.fields)


class _Later:
    """The templates of a domain as they will be after some sets of a Message that may yet turn out malformed."""

    def __init__(self, domain: Domain | None, reliable: bool) -> None:
        self._now = domain.templates if domain is not None else {}
        self._reliable = reliable
        self._new: dict[int, Template | None] = {}
        self._gone: set[bool] = set()

    def act(self, actions: list[Template | Withdrawal]) -> None:
        for action in actions:
            if isinstance(action, Template):
                self._new[action.ident] = action
            elif not self._reliable:
                continue
            elif action.ident < FIRST_DATA_SET:
                self._gone.add(action.options)
                for ident, template in self._new.items():
                    if template is not None and template.options == action.options:
                        self._new[ident] = None
            elif (template := self.find(action.ident)) and template.options == action.options:
                self._new[action.ident] = None

    def find(self, ident: int) -> Template | None:
        if ident in self._new:
            return self._new[ident]
        learnt = self._now.get(ident)
        return learnt.template if learnt and learnt.template.options not in self._gone else None
