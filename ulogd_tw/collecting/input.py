"""The common part of inputs of flow records: limits as options, the decoders, and log lines about exporters."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Any

from twisted.logger import Logger

from ulogd_tw.collecting.counts import COLLECTING
from ulogd_tw.collecting.messages import KEYS, Passing
from ulogd_tw.core.batch import Batch
from ulogd_tw.core.counters import Declared
from ulogd_tw.core.keys import CONTEXT, TOLD, Key, ulogd_keys
from ulogd_tw.core.keys import registry as keys
from ulogd_tw.core.limited import RateLimit, left_out
from ulogd_tw.core.options import Option, boolean, octets, one_of, positive, seconds
from ulogd_tw.core.plugin import FLOW, Input
from ulogd_tw.ipfix.decoder import Decoder
from ulogd_tw.ipfix.events import Event
from ulogd_tw.ipfix.exporters import NOT_ALLOWED, Exporters
from ulogd_tw.ipfix.limits import Kept, Limits
from ulogd_tw.ipfix.session import Session
from ulogd_tw.ipfix.template import Template
from ulogd_tw.packets.tunnels import TUNNEL

_TEXTS = {
    "domain": "is a new exporter",
    "no_template": "template {template} is missing; its records wait for it",
    "template_came": "template {template} arrived; {detail} waiting for it are decoded",
    "template_changed": "template {template} has changed, {detail}",
    "template_again": "known templates were sent again",
    "withdrawal_unknown": "withdraws the unknown template {template}; nothing changes",
    "set_id": "a set with the reserved id {template} is left out",
    "template_expired": "template {template} was not sent again within template_lifetime and has expired",
    "netflow8": "NetFlow version 8 (aggregated by the router) is not read; let the exporter send version 9 or 5",
    "malformed": "a message is malformed and dropped: {detail}",
    "limit": "template {template} is refused: {detail}",
    "template_unusable": "template {template} makes no sense and is left out: {detail}",
    "odd_options": "options records of template {template} are invalid: {detail}",
    "sequence_gap": "sequence numbers show a loss of {detail}",
    "restart_gap": "{detail} were sent while the service did not run, and are lost",
    "sequence_reset": "sequence numbers restarted: the exporter was restarted, or another exporter uses its address",
    "restart": "has restarted: {detail} from before have to come again; records wait for them as long as park says",
    "template_distrusted": "template {template} is from before a restart and did not come again within park: {detail} "
    "are dropped",
    "sampling_unmatched": "tells sampling rates, but none for records of template {template}; these are not scaled",
    "sampling_ambiguous": "tells different sampling rates that may be those of template {template}; it is not scaled",
    "names_unmatched": "gives names of {detail}s, but not of all in its records",
    "names_ambiguous": "gives different names of {detail}s in its domains; records of this domain have none",
    "start_unknown": "its domains tell different times of their start; uptimes of this one are not made absolute",
    "layers": "templates have headers of several layers; those of the {detail} one have the plain names (see tunnels=)",
    "clock_skew": "its clock is {detail}",
    "clock_right": "its clock is right again",
}
"""Log lines about an exporter; templates that come and go are not logged."""
_RELIABLE = {"no_template": "template {template} is missing; its records are dropped until it arrives"}
"""Other log lines for connections and files, where a template comes before its records."""
_EVENTS = {
    "domain": "exporter_new",
    "restart": "exporter_restarted",
    "sequence_reset": "exporter_restarted",
    "no_template": "template_missing",
    "template_changed": "template_conflict",
    "names_ambiguous": "template_conflict",
    "template_unusable": "template_refused",
    "limit": "template_refused",
    "clock_skew": "exporter_clock_wrong",
    "clock_right": "exporter_clock_right",
}
"""Events for administrators, by the kind of a decoder's."""
_LINES_A_MINUTE = 100
"""Log lines about exporters: forged source addresses must not fill the log."""


class Collecting(Input):
    """An input that decodes the Messages of any number of exporters."""

    otype = FLOW
    counts: tuple[Declared, ...] = COLLECTING
    provides = (*CONTEXT, *TOLD, *ulogd_keys(*TUNNEL))
    open_keys = True
    decoding_options = (
        Option("scale_sampled", boolean, False, "1: multiply octet and packet counts by the exporter's sampling rate, "
               "taken from the record, from options records or from the header of NetFlow v5. The key sampling_factor "
               "holds the factor (1 where the exporter sent no rate)."),
        Option("add_names", boolean, False, "1: add the names from the exporter's options records, such as "
               "ingressInterfaceName, egressInterfaceName, ingressVRFName, applicationName and samplerName, for "
               "outputs of all keys such as JSON. An output with one of these names in its configuration "
               "gets it anyway."),
        Option("tunnels", one_of("auto", "outer", "inner"), "auto", "Which headers of packets in tunnels have the "
               "plain keys: in sFlow samples and packet sections (IP in IP, GRE, VXLAN, GENEVE, GTP-U, MPLS over IP, "
               "Ethernet over MPLS), and in templates with elements of headers twice (SRv6 of IOS-XR). inner: those of "
               "the packet inside, with the outer header in tunnel.source, tunnel.destination, tunnel.protocol and "
               "tunnel.id, and as NAME#2 in templates. outer: the outer ones, with the inner ones as NAME#2 in "
               "templates. auto: inner for templates, outer for samples and sections."),
        Option("template_lifetime", seconds, 0.0, "Seconds after which a template received over UDP expires unless the "
               "exporter sends it again; use at least three times the exporters' refresh time. 0: a template lives as "
               "long as its session."),
        Option("park", seconds, 60.0, "Seconds for which records received over UDP or SCTP before their template wait "
               "for it. 0: they are not kept."),
        Option("max_parked", octets, 16 << 20, "Octets of memory for records that wait for their template, all "
               "exporters together; one exporter may use a quarter of it."),
        Option("clock_skew", seconds, 60.0, "Seconds by which an exporter's clock may be off before the log warns, "
               "once. 0: never warn."),
        Option("max_domains", positive, 1024, "Maximum number of Observation Domains of one exporter."),
        Option("max_domains_in_all", positive, 50_000, "Maximum number of Observation Domains, all exporters "
               "together."),
        Option("max_templates", positive, 8192, "Maximum number of templates of one exporter."),
        Option("max_templates_in_all", positive, 100_000, "Maximum number of templates, all exporters together."),
        Option("max_fields", positive, 16_384, "Maximum number of fields of one template."),
        Option("max_fields_in_all", positive, 1_000_000, "Maximum number of template fields, all exporters together."),
        Option("max_nesting", positive, 16, "Maximum depth of lists within lists (RFC 6313); deeper lists are left as "
               "octets."),
        Option("max_told", positive, 100_000, "Maximum number of entries kept from options records, all exporters "
               "together: names of interfaces and applications, sampling rates, types of enterprise elements."),
    )  # fmt: skip
    log = Logger()
    hears: Callable[[str], bool] = staticmethod(lambda address: True)
    """Whether datagrams of a sender come here, and not to another process."""
    had: Callable[[str], bool] = staticmethod(lambda address: True)
    """Whether those that were sent before the start come here."""

    def __init__(self, instance: str, config: Any = None) -> None:
        super().__init__(instance, config)
        if not getattr(self.config, "decode", True):
            self.decoding, self.open_keys = Passing, False
        self._kept = Kept()
        self._limit = RateLimit(_LINES_A_MINUTE)
        self._limit_of_events = RateLimit(_LINES_A_MINUTE)
        self.counters.figures.setdefault("sessions_evicted", 0)
        self.counters.figures["domains"] = lambda: self._kept.domains
        self.counters.figures["templates"] = lambda: self._kept.templates
        self.counters.figures["sets_parked"] = lambda: self._kept.parked_sets

    decoding: type[Decoder] = Decoder
    """What makes rows of Messages."""

    def keys(self) -> Iterable[Key]:
        return KEYS if self.decoding is Passing else self.provides

    def limits(self) -> Limits:
        """The limits in the options."""
        config = self.config
        return Limits(
            domains=config.max_domains,
            domains_in_all=config.max_domains_in_all,
            templates=config.max_templates,
            templates_in_all=config.max_templates_in_all,
            fields=config.max_fields,
            fields_in_all=config.max_fields_in_all,
            parked_octets=config.max_parked,
            parked_time=config.park,
            template_lifetime=config.template_lifetime,
            clock_skew=config.clock_skew,
            told=config.max_told,
            nesting=config.max_nesting,
        )

    def decoder(self) -> Decoder:
        """A decoder for sessions that have one way of waiting; all of them share the limits."""
        decoder = self.decoding(
            self.wanted,
            self.counters,
            self.limits(),
            self._kept,
            scale=self.config.scale_sampled,
            name=self.config.add_names,
            inner=self.config.tunnels == "inner",
            layer="outer" if self.config.tunnels == "outer" else "inner",
            seldom=self.seldom_wanted,
            copied=self.copied,
        )
        decoder.fault = lambda error: self.fault(error)
        return decoder

    def emit_all(self, decoder: Decoder, held: bool, now: float) -> None:
        """Emit all records waiting in a decoder, and log its events."""
        self.emit_batches(decoder.drain(now, held), decoder, now)

    def emit_batches(self, batches: Iterable[Batch], decoder: Decoder, now: float) -> None:
        """Emit the batches of a decoder, and log its events."""
        self.before_emitting(now)
        for batch in batches:
            self.emit(batch)
        if decoder.events:
            for event in decoder.events:
                self._log_event(event, now)
            decoder.events.clear()

    def before_emitting(self, now: float) -> None:
        """Decoded records are passed on next: note how far they go, as a killed process has only its notes."""
        if self.ledger is not None:
            self.ledger.receive()

    # datagrams of unknown senders

    def take_newcomer(
        self, decoder: Decoder, exporters: Exporters, place: Hashable, name: bytes, peer: tuple[str, int],
        octets: bytes | memoryview, now: float,
    ) -> None:  # fmt: skip
        """A datagram of an unknown sender: its session begins with a Message, and nothing of other octets stays."""
        for idle in exporters.forget_idle(now):
            decoder.forget(idle)
        session = exporters.candidate(place, name, peer, now)
        reason = session if isinstance(session, str) else exporters.full(place, name, now)
        if reason or isinstance(session, str):
            self.counters.messages_received += 1
            self.counters.octets_received += len(octets)
            self.refused(peer, reason, now)
            return
        decoder.feed(session, octets, now)
        if session.malformed:
            decoder.forget(session)
            return
        exporters.enter(place, name, session, now)
        self._forget_evicted(decoder, exporters, now)

    def make_room_by(self, decoder: Decoder, exporters: Exporters, now: Callable[[], float]) -> None:
        """At a limit of all sessions, sessions of `exporters` without records make room."""

        def make_room() -> bool:
            found = exporters.give_up_one(now())
            self._forget_evicted(decoder, exporters, now())
            return found

        self._kept.make_room = make_room

    def _forget_evicted(self, decoder: Decoder, exporters: Exporters, now: float) -> None:
        for evicted in exporters.evicted:
            decoder.forget(evicted)
            self.evicted(evicted.peer, now)
        exporters.evicted.clear()

    def evicted(self, host: str, now: float) -> None:
        """A session that has given no record, or only once, has made room for another one."""
        self.counters.figures["sessions_evicted"] += 1
        self.say("evicted", now, "{peer} and others are forgotten: they sent no records, and a limit is reached",
                 peer=host)  # fmt: skip

    # what the log says

    def _log_event(self, event: Event, now: float) -> None:
        """One line for a change of an exporter's state, at most one a minute of a kind and exporter."""
        text = _TEXTS.get(event.kind)
        if text is None:
            return
        if not event.session.overtakes:
            text = _RELIABLE.get(event.kind, text)
        peer = event.session.peer
        if kind := _EVENTS.get(event.kind):
            said = f"{peer}, domain {event.domain}: " + text.format(template=event.template, detail=event.detail)
            self.tell(kind, said, exporter=peer, domain=event.domain)
        self.say(f"{event.kind} {peer}", now, "{peer}, domain {domain}: " + text, peer=peer, domain=event.domain,
                 template=event.template, detail=event.detail)  # fmt: skip

    def refused(self, peer: tuple[Any, ...], reason: str, now: float) -> None:
        """A sender or connection is not taken, for one of the reasons of `exporters`; counted and said."""
        self.counters.errors[reason] += 1
        if self._limit_of_events.take(f"{reason} {peer[0]}", now):
            self.tell("exporter_refused", f"{peer[0]} is refused: {reason}", exporter=str(peer[0]))
        if reason == NOT_ALLOWED:
            self.say(reason, now, "{peer} is refused: its address is not in allow", peer=peer[0])
        else:
            option = reason.replace("limit", "max", 1)
            self.say(reason, now, "{peer} is refused: the limit {option} is reached", peer=peer[0], option=option)

    def say(self, kind: str, now: float, text: str, **fields: Any) -> None:
        """Log it, unless it was said within the last minute, or a minute has brought too many lines already."""
        if count := self._limit.take(kind, now):
            self.log.info("{instance}: " + text + left_out(count), instance=self.instance, **fields)
        self.counters.figures["log_lines_left_out"] = self._limit.left_out

    # what it knows

    def sessions(self) -> Iterator[Session]:
        """All sessions that are open now."""
        return iter(())

    def exporters(self) -> list[dict[str, Any]]:
        """The state of each exporter, for an administrator: one member a domain."""
        return list(self.each_exporter())

    def each_exporter(self) -> Iterator[dict[str, Any]]:
        """The same, one after the other: there may be some 10,000, and sessions may come and go between two."""
        for session in list(self.sessions()):
            for domain in list(session.domains.values()):
                yield _described(session, domain)

    def each_template(self, exporter: str = "") -> Iterator[dict[str, Any]]:
        """The templates of all exporters, or of one address."""
        for session in list(self.sessions()):
            if exporter in ("", session.peer):
                for domain in list(session.domains.values()):
                    for known in list(domain.templates.values()):
                        yield _template(session, domain, known.template) | {"received": known.received}


def _place(session: Session, domain: Any) -> dict[str, Any]:
    version = {0: 10, 5: 5, 9: 9}.get(domain.place >> 32, "sFlow")
    return {"exporter": session.peer, "port": session.peer_port, "domain": domain.number, "version": version}


def _template(session: Session, domain: Any, template: Template) -> dict[str, Any]:
    fields = [(keys.element(field.pen, field.ident).name, field.length) for field in template.fields]
    return _place(session, domain) | {"template": template.ident, "scopes": template.scopes, "fields": fields}


def _described(session: Session, domain: Any) -> dict[str, Any]:
    found = _place(session, domain) | {
        "messages": session.messages,
        "octets": session.octets,
        "records": domain.rows,
        "templates": len(domain.templates),
        "parked": sum(map(len, domain.parked.values())),
        "lost": session.lost,
        "lost_restart": session.lost_restart,
        "resets": session.resets,
        "malformed": session.malformed,
        "clock_wrong": domain.skewed,
        "last_received": session.last_received,
    }
    for name, look in (("records_per_second", domain.looked), ("octets_per_second", session.looked)):
        if look is not None and look.rate is not None:
            found[name] = round(look.rate, 3)
    if domain.info is not None:
        found |= {
            "sampling_factor": domain.info.factor,
            "interfaces": len(domain.info.names.get("interface", ())),
            "applications": len(domain.info.names.get("application", ())),
        }
    return found
