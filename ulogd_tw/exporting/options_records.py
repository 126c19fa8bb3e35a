"""The options records of an exporter: its reports about itself, every `options_interval` seconds."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Iterator, Sequence

from ulogd_tw.core.plugin import Input
from ulogd_tw.exporting.collector import Collector
from ulogd_tw.ipfix import statements
from ulogd_tw.ipfix.builder import MessageBuilder
from ulogd_tw.ipfix.encoder import Records
from ulogd_tw.ipfix.record_encoder import RecordEncoder
from ulogd_tw.ipfix.statements import Loss
from ulogd_tw.ipfix.wire_format import WireFormat


class OptionsReporter:
    """Makes the options records for each collector.

    `not_sent` gives the rows that reached no collector at all. The losses of `inputs` are reported, except those of
    collectors and files, which are not Metering Processes here.
    """

    def __init__(
        self,
        outgoing: RecordEncoder,
        form: WireFormat,
        domain: int,
        not_sent: Callable[[], int],
        inputs: Sequence[Input],
    ) -> None:
        self._inputs = inputs
        self._outgoing = outgoing
        self._form = form
        self._domain = domain
        self._not_sent = not_sent
        self._metering = Loss()
        self._exporting: dict[Collector, Loss] = {}
        self._known: dict[Collector, tuple[int, frozenset[int]]] = {}

    def report(self, collector: Collector, now: float) -> None:
        """Queue all records for a collector that is there."""
        builder, count, messages = MessageBuilder(collector.limit, self._form), 0, []
        for records in self._records(collector, now):
            count += len(records)
            messages += builder.add(records)
        collector.options_sent += count - builder.too_long
        collector.put(messages + builder.flush())

    def _records(self, collector: Collector, now: float) -> Iterator[Records]:
        outgoing, domain = self._outgoing, self._domain
        yield statements.sampling(outgoing, domain, self._form)
        if self._form.version == 9:
            return
        yield statements.metering_statistics(
            outgoing, domain, collector.messages_sent, collector.records_sent, collector.octets_sent
        )
        metering = [source for source in self._inputs if not source.listens and not source.own_clock]
        if metering:
            lost = sum(source.counters.lost["kernel"] for source in metering)
            self._metering.grown(now, 0, lost)
            yield statements.metering_reliability(outgoing, domain, self._metering)
        loss = self._exporting.setdefault(collector, Loss())
        loss.grown(now, collector.dropped.total() + self._not_sent(), *collector.dropped_counts)
        yield statements.exporting_reliability(outgoing, domain, loss)
        yield from self._about_templates(collector, metering)

    def _about_templates(self, collector: Collector, metering: list[Input]) -> Iterator[Records]:
        """Options records about the templates of this session; over streams each is sent once."""
        sent = frozenset(ident for ident in collector.sent_templates if not self._outgoing.templates[ident].options)
        session, before = self._known.get(collector, (0, frozenset()))
        new = sent - before if collector.reliable and session == collector.connects else sent
        self._known[collector] = collector.connects, sent
        templates = [self._outgoing.templates[ident] for ident in sorted(new)]
        made: Iterable[Records | None] = (
            statements.flow_keys(self._outgoing, templates), statements.element_types(self._outgoing, templates),
            self._names() if metering and statements.tells_interfaces(templates) else None,
        )  # fmt: skip
        yield from (records for records in made if records is not None)

    def _names(self) -> Records | None:
        return statements.interface_names(self._outgoing, dict(socket.if_nameindex()))
