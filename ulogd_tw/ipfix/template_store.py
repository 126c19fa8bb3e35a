"""Templates as they come, change and go (RFC 7011 section 8), within limits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from weakref import WeakValueDictionary

from ulogd_tw.core.errors import MessageError
from ulogd_tw.core.plurals import plural
from ulogd_tw.ipfix import sequence
from ulogd_tw.ipfix.events import Events
from ulogd_tw.ipfix.layout import Layout
from ulogd_tw.ipfix.limits import Kept, Limits
from ulogd_tw.ipfix.message import FIRST_DATA_SET, OPTIONS_TEMPLATE_SET, TEMPLATE_SET
from ulogd_tw.ipfix.options_records import tells
from ulogd_tw.ipfix.session import DeferredMessage, Domain, KnownTemplate, Session
from ulogd_tw.ipfix.template import Action, Template, Unusable, Withdrawal, parse_set
from ulogd_tw.ipfix.variable_length import walk

Actions = Sequence[Action]
"""The content of a Template Set."""
News = dict[int, Actions]
"""The contents of the Template Sets of a Message, by their place among its Sets."""


class TemplateStore:
    """Keeps the templates of all sessions; counts refusals in `errors`, reports changes to `events`."""

    def __init__(self, limits: Limits, kept: Kept, errors: Counter[str], events: Events) -> None:
        self._limits = limits
        self._kept = kept
        self._errors = errors
        self._events = events
        self._changed: dict[Domain, None] = {}
        self._former = 0
        self.changes = 0
        """How often a template has come or gone."""
        self._layouts: WeakValueDictionary[tuple, Layout] = WeakValueDictionary()

    def walked(
        self,
        session: Session,
        domain: Domain | None,
        message: bytes,
        sets: list[tuple[int, int, int]],
        news: News,
    ) -> dict[int, int]:
        """The records of each Data Set of variable length in a Message that has new templates too, by place.

        Raises `MessageError` for one that is cut: the templates of the Message must not take effect then.
        """
        later = _Later(domain, session.reliable)
        counts = {}
        for index, (set_id, start, end) in enumerate(sets):
            if index in news:
                later.act(news[index])
            elif set_id >= FIRST_DATA_SET and (template := later.find(set_id)):
                layout = self.layout(template, session)
                if layout.octets:
                    continue
                found: list[int] = []
                shape = layout.shape
                if not walk(message, start, end, shape, found):
                    raise MessageError(f"a record of template {set_id} is cut", "record", start)
                counts[index] = len(found) // (1 + 2 * len(shape.segments))
        return counts

    def learn_set(self, session: Session, domain: Domain, octets: bytes, actions: Actions, now: float) -> None:
        """Carry out a Template Set received now; `octets` are the whole Set."""
        announced: list[KnownTemplate] | None = []  # None where something is not known after all
        again = False
        for action in actions:
            if isinstance(action, Withdrawal):
                announced = None
                self._withdraw(session, domain, action)
            elif isinstance(action, Unusable):
                announced = None
                self._refuse(session, domain, action)
            else:
                old = domain.templates.get(action.ident)
                found = self._learn(session, domain, action, now)
                again |= found is not None and found is old
                if found is None:
                    announced = None
                elif announced is not None:
                    announced.append(found)
        if again:
            self._tell_again(session, domain)
        if announced is not None and octets not in domain.announced:
            if session.announced_octets + len(octets) <= self._limits.announced_octets:
                session.announced_octets += len(octets)
                domain.announced[octets] = tuple(announced)

    def _refuse(self, session: Session, domain: Domain, action: Unusable) -> None:
        """An invalid template loses only itself, and the former template of its id."""
        self._errors["template"] += 1
        self._events.add("template_unusable", session, domain.number, action.ident, action.why)
        self._forget_doubted(domain, action.ident)
        if (old := domain.templates.get(action.ident)) is not None:
            self._drop(session, domain, old)

    def again(self, session: Session, domain: Domain, octets: bytes, now: float) -> None:
        """A Template Set that is known has come once more."""
        for known in domain.announced.get(octets, ()):
            known.received, known.exported = now, domain.announcing
        self._tell_again(session, domain)

    def _tell_again(self, session: Session, domain: Domain) -> None:
        """A repeated template is no error (RFC 7011 section 8); over UDP and in NetFlow it is usual (section 8.4)."""
        if session.reliable and domain.place == domain.number:
            self._events.add("template_again", session, domain.number)

    def _learn(self, session: Session, domain: Domain, template: Template, now: float) -> KnownTemplate | None:
        """Take a template over; None where a limit refuses it, and then the old one is not valid any more either."""
        old = domain.templates.get(template.ident)
        if old is None and (old := domain.doubted.pop(template.ident, None)) is not None:
            self._remember(domain, template.ident)
            domain.templates[template.ident] = old
        if old is not None:
            if old.template == template:
                old.received, old.exported = now, domain.announcing
                return old
            self._drop(session, domain, old)
        reason = self._refusal(session, template)
        while reason == "limit_templates_in_all" and self._kept.make_room():
            reason = self._refusal(session, template)
        if reason:
            self._errors[reason] += 1
            self._events.add("limit", session, domain.number, template.ident, reason)
            return None
        known = self._add(session, domain, template, now)
        self._forget_announced(session, domain)
        kind = "template" if old is None else "template_changed"
        self._events.add(kind, session, domain.number, template.ident, plural(len(template.fields), "field"))
        return known

    def _refusal(self, session: Session, template: Template) -> str:
        """The limit that a further template would exceed."""
        limits, kept, fields = self._limits, self._kept, len(template.fields)
        if fields > limits.fields:
            return "limit_fields"
        if session.fields + fields > limits.session_fields:
            return "limit_session_fields"
        if session.templates >= limits.templates:
            return "limit_templates"
        if kept.templates >= limits.templates_in_all or kept.fields + fields > limits.fields_in_all:
            return "limit_templates_in_all"
        return ""

    def _add(self, session: Session, domain: Domain, template: Template, received: float) -> KnownTemplate:
        layout = self.layout(template, session)
        # The layout's fields, so that equal templates of many exporters are in memory once.
        template = Template(template.ident, layout.fields, template.scopes)
        domain.lists = domain.lists or layout.lists
        self._remember(domain, template.ident)
        exported = domain.announcing
        since = exported if session.reliable and session.overtakes else -1
        known = KnownTemplate(session, domain, template, layout, layout.octets, received, exported, since)
        domain.templates[template.ident] = known
        domain.missing.discard(template.ident)
        self._count(session, known, 1)
        return known

    def _count(self, session: Session, known: KnownTemplate, sign: int) -> None:
        self.changes += 1
        fields = sign * len(known.template.fields)
        session.templates += sign
        session.fields += fields
        self._kept.templates += sign
        self._kept.fields += fields

    def restore(self, session: Session, domain: Domain, template: Template, received: float, exported: int) -> bool:
        """Take over a template that an earlier run knew; False where a limit refuses it."""
        if template.ident in domain.templates or self._refusal(session, template):
            return False
        self._add(session, domain, template, received).exported = exported
        return True

    def move(self, session: Session, domain: Domain, known: KnownTemplate) -> None:
        """A template of another session of the same exporter is this domain's from now on, unless it has its own."""
        if known.template.ident not in domain.templates:
            self._remember(domain, known.template.ident)
            self._count(known.session, known, -1)
            self._count(session, known, 1)
            known.session, known.domain = session, domain
            domain.templates[known.template.ident] = known
            domain.lists = domain.lists or known.layout.lists

    def doubt(self, session: Session, domain: Domain) -> None:
        """Set all templates of a domain aside: they may be those of a former life of the exporter."""
        if domain.lists:
            for ident in domain.templates:
                self._remember(domain, ident)
        if domain.doubted:
            for known in domain.templates.values():
                self._forget_doubted(domain, known.template.ident)
            domain.doubted.update(domain.templates)
            domain.templates.clear()
        else:
            domain.templates, domain.doubted = domain.doubted, domain.templates
        self._forget_announced(session, domain)

    def trust(self, domain: Domain) -> None:
        """Templates set aside are valid again, except those received anew."""
        doubted, domain.doubted = domain.doubted, domain.templates
        for ident, known in domain.doubted.items():
            self._remember(domain, ident)
            if (old := doubted.pop(ident, None)) is not None:
                self._count(old.session, old, -1)
            doubted[ident] = known
        domain.templates, domain.doubted = doubted, {}

    def distrust(self, session: Session, domain: Domain, ident: int) -> None:
        """Set one template aside."""
        self._remember(domain, ident)
        self._forget_doubted(domain, ident)
        domain.doubted[ident] = domain.templates.pop(ident)
        self._forget_announced(session, domain)

    def _forget_doubted(self, domain: Domain, ident: int) -> None:
        if (old := domain.doubted.pop(ident, None)) is not None:
            self._count(old.session, old, -1)

    def retype(self, session: Session) -> None:
        """Elements have got names and types: templates with them are read anew. Records that wait keep their layout."""
        for domain in session.domains.values():
            for known in (*domain.templates.values(), *domain.doubted.values()):
                layout = self.layout(known.template, session)
                if layout is not known.layout:
                    known.layout, known.octets = layout, layout.octets
                    domain.lists = domain.lists or layout.lists

    def expire(self, session: Session, before: float) -> int:
        """Forget templates that have not come since; how many."""
        gone = 0
        for domain in session.domains.values():
            for known in [known for known in domain.templates.values() if 0 < known.received < before]:
                self._drop(session, domain, known)
                self._events.add("template_expired", session, domain.number, known.template.ident)
                gone += 1
            for known in [known for known in domain.doubted.values() if 0 < known.received < before]:
                self._forget_doubted(domain, known.template.ident)
        return gone

    def forget(self, session: Session) -> None:
        """Know nothing of the session any more: templates never outlive it (section 8)."""
        kept = self._kept
        kept.domains -= sum(max(len(domain.sequences), 1) for domain in session.domains.values())
        kept.templates -= session.templates
        kept.fields -= session.fields
        kept.told -= len(session.types) + sum(len(d.info) for d in session.domains.values() if d.info is not None)
        for domain in session.domains.values():
            domain.let_go()
        session.domains.clear()
        session.types.clear()
        session.templates = session.fields = session.announced_octets = 0

    def _withdraw(self, session: Session, domain: Domain, withdrawal: Withdrawal) -> None:
        if not session.reliable:  # RFC 7011 section 8.4: MUST be ignored over UDP
            self._errors["withdrawal_ignored"] += 1
            return
        if withdrawal.ident < FIRST_DATA_SET:  # all of its kind, section 8.1
            gone = [known for known in domain.templates.values() if known.template.options == withdrawal.options]
        else:
            known = domain.templates.get(withdrawal.ident)
            gone = [known] if known and known.template.options == withdrawal.options else []
            if not gone:
                self._errors["withdrawal_unknown"] += 1
                self._events.add("withdrawal_unknown", session, domain.number, withdrawal.ident)
        for known in gone:
            self._drop(session, domain, known)
            self._events.add("template_withdrawn", session, domain.number, known.template.ident)

    def _drop(self, session: Session, domain: Domain, known: KnownTemplate) -> None:
        self._remember(domain, known.template.ident)
        domain.replaced = domain.replaced or (session.reliable and session.overtakes)
        del domain.templates[known.template.ident]
        self._count(session, known, -1)
        self._forget_announced(session, domain)

    def _remember(self, domain: Domain, ident: int) -> None:
        """The template of this id is about to change."""
        if not (domain.lists and (domain.deferring or domain.waits)):
            return
        if self._former >= self._limits.former:
            self.forget_former()
        self._former += 1
        self._changed[domain] = None
        domain.remember(ident)

    def uncounted(self, domain: Domain, number: int) -> DeferredMessage:
        """A deferred Message for a Data Set beside templates: its records are counted already, its lists still wait."""
        domain.waits = True
        self._changed[domain] = None
        return DeferredMessage(number, -1, False, domain, domain.stamp)

    def forget_former(self) -> None:
        """No records wait any more that came before templates changed."""
        for domain in self._changed:
            domain.forget_former()
        self._changed.clear()
        self._former = 0

    def _forget_announced(self, session: Session, domain: Domain) -> None:
        session.announced_octets -= sum(map(len, domain.announced))
        domain.announced.clear()

    def layout(self, template: Template, session: Session) -> Layout:
        """The one layout of all templates with these fields and scopes, for exporters of the session's family.

        Elements described by this exporter only are part of the equality of layouts.
        """
        types = session.types
        described = (
            tuple(types[place] for f in template.fields if (place := (f.pen, f.ident)) in types) if types else ()
        )
        key = (template.fields, template.scopes, session.family, described)
        layout = self._layouts.get(key)
        if layout is None:
            layout = self._layouts[key] = Layout(template, session.family, described)
            layout.tells = tells(template)
        return layout

    def new_domain(self, session: Session, number: int, place: int | None = None) -> Domain | None:
        """A domain of which nothing is known yet; None when there are too many.

        `place` is where it stands in the session's domains, if not under its number.
        """
        reason = ""
        if len(session.domains) >= self._limits.domains:
            reason = "limit_domains"
        elif self._kept.domains >= self._limits.domains_in_all and not self._kept.make_room():
            reason = "limit_domains_in_all"
        if reason:
            self._errors[reason] += 1
            self._events.add("limit", session, number, 0, reason)
            return None
        place = number if place is None else place
        domain = session.domains[place] = Domain(number, place)
        self._kept.domains += 1
        self._events.add("domain", session, number)
        return domain

    def new_sequence(self, domain: Domain, stream: int) -> None:
        """Sequence Numbers of a further stream of an association; they are not followed when there are too many."""
        domain.sequence = sequence.Sequence()
        if self._kept.domains >= self._limits.domains_in_all:
            self._errors["limit_domains_in_all"] += 1
        else:
            self._kept.domains += 1
            domain.sequences[stream] = domain.sequence


def template_sets(domain: Domain | None, message: bytes, sets: list[tuple[int, int, int]]) -> News:
    """The contents of the template sets of a Message, by place; empty if all of it is known. Raises `MessageError`."""
    places = [place for place, (set_id, _, _) in enumerate(sets) if set_id in (TEMPLATE_SET, OPTIONS_TEMPLATE_SET)]
    if not places:
        return {}
    if domain is not None and all(message[sets[p][1] - 4 : sets[p][2]] in domain.announced for p in places):
        return {}
    return {p: parse_set(sets[p][0], message[sets[p][1] : sets[p][2]]) for p in places}


class _Later:
    """The templates of a domain as they will be after some sets of a Message that may yet turn out malformed."""

    def __init__(self, domain: Domain | None, reliable: bool) -> None:
        self._now = domain.templates if domain is not None else {}
        self._reliable = reliable
        self._new: dict[int, Template | None] = {}
        self._gone: set[bool] = set()

    def act(self, actions: Actions) -> None:
        for action in actions:
            if isinstance(action, Template):
                self._new[action.ident] = action
            elif isinstance(action, Unusable):
                self._new[action.ident] = None
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
        known = self._now.get(ident)
        return known.template if known and known.template.options not in self._gone else None
