"""IPFIX: an Exporting Process (RFC 7011): flows to any number of collectors, over UDP, DTLS, TCP, TLS and SCTP."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from twisted.internet import defer, reactor
from twisted.logger import Logger

from ulogd_tw.core.batch import Batch
from ulogd_tw.core.errors import StartError
from ulogd_tw.core.options import Option, number, octets, one_of, positive, seconds, text, words
from ulogd_tw.core.paths import input_file
from ulogd_tw.core.plugin import ALL, FLOW, PACKET, SUM, Output
from ulogd_tw.core.states import DOWN, OK, SPOOLING, State
from ulogd_tw.exporting import flow_records, kept_sequences
from ulogd_tw.exporting.anonymise import prefix_preserving, read_key, truncating
from ulogd_tw.exporting.collector import Collector
from ulogd_tw.exporting.counts import EXPORTER
from ulogd_tw.exporting.directions import KEYS
from ulogd_tw.exporting.distribution import Distribution
from ulogd_tw.exporting.flow_records import FlowRecords
from ulogd_tw.exporting.kept_sequences import KeptSequences
from ulogd_tw.exporting.message_spool import MessageSpool, place_of
from ulogd_tw.exporting.options_records import OptionsReporter
from ulogd_tw.exporting.routing import HASHED, MODES, Routing
from ulogd_tw.exporting.rules import ADDRESSES, EXPORT_TO, MARKS
from ulogd_tw.exporting.settings import Settings
from ulogd_tw.ipfix import wire_format
from ulogd_tw.ipfix.message import MAX_LENGTH
from ulogd_tw.ipfix.netflow.packet import TEMPLATE5
from ulogd_tw.peers import SCHEMES, TRANSPORTS, options_of, targets

_LEAST_MTU = 256
_OF_NETFLOW5 = (flow_records.AUTO, flow_records.UNIFLOW)
_AT_ONCE = 4096
"""Rows encoded in one step: their data stays in the processor's cache, which is three times as fast."""


class IPFIX(Output):
    """Sends flows as IPFIX records to one or more collectors.

    The end of a connection (NFCT) becomes two records with the same flowId: the original direction, and the reply if it
    had packets. Other conntrack events are left out. A row without a reply becomes one record. A missing value is left
    out of the record, never sent as 0. The templates are listed under "Templates of the exporter" in the reference.

    Each collector has its own connection, queue and counters, and no collector waits for another. A full queue drops
    its oldest messages; when all queues are full, inputs are paused instead. With mode=failover the first reachable
    collector gets every flow. With mode=balance each collector gets a share of the flows, both directions of a flow
    together. In both modes, messages waiting for an unreachable collector go to another one.

    With spool=, messages that waited for a collector for a second or two are saved in IPFIX files, in a directory for
    each collector. They are sent when the collector is back, also after a restart or a kill.
    """

    name = "IPFIX"
    itype = PACKET | FLOW | SUM
    uses = ("orig.ip.saddr", "orig.ip.daddr")
    may_use = KEYS
    counts = EXPORTER
    options = (
        Option("collectors", words, (), "Collectors to send to, SCHEME:HOST:PORT with the schemes "
               f"{SCHEMES}, or names of sections [collector:NAME]. Without PORT 4739 (tls and dtls 4740). Example: "
               "tcp:192.0.2.1:4739 udp:[2001:db8::1]:2055"),
        Option("mode", one_of(*MODES), "all", "all: each collector gets every flow; failover: the first collector of "
               "the list that is reachable gets every flow; balance: each flow goes to one collector, chosen by its "
               "addresses, ports and protocol, and stays there when another collector leaves or returns."),
        Option("fields", text, flow_records.AUTO, flow_records.MEANING),
        Option("version", one_of("10", "9", "5"), "10", "10: IPFIX; 9 and 5: NetFlow v9 and v5, over UDP only, for "
               "collectors without IPFIX. v5 carries only IPv4, and a missing counter is 0."),
        Option("oid", number, 1, "Observation Domain ID. In NetFlow v9 it is the Source ID, in v5 the engine type and "
               "engine ID."),
        Option("flush", seconds, 1.0, "Seconds after which an incomplete message is sent."),
        Option("reconnect", seconds, 60.0, "Seconds between two attempts to connect. RFC 7011 asks for a minute or "
               "more by default."),
        Option("template_refresh", seconds, 60.0, "Seconds after which templates are sent again over UDP. A restarted "
               "collector cannot read records for up to this time."),
        Option("template_packets", number, 0, "Number of datagrams after which templates are sent again over UDP, in "
               "addition to template_refresh. 0: by time only."),
        Option("mtu", positive, None, "Maximum octets of a packet over UDP, or of a message over TCP and SCTP. Not "
               "given: over UDP the MTU of the route, at most 1500, or 512 where it is unknown; over TCP and SCTP "
               "16384, or 1400 over SCTP with sctp_lifetime."),
        Option("collector_octets", octets, 64 << 20, "Octets of messages that may wait for one collector. Beyond it "
               "the oldest are dropped and counted as queue_full."),
        Option("send_template", one_of("once", "always", "never"), "once", "once: send templates at the beginning of a "
               "session, and over UDP again after template_refresh; always: before every message; never: not at all."),
        Option("options_interval", seconds, 60.0, "Seconds between options records to each collector, with the "
               "sampling (1 in 1), the numbers of exported and lost records, the keys of flows, and the types of "
               "enterprise elements. The first follows this time after the session began. 0: never."),
        Option("anonymise", one_of("no", "truncate", "cryptopan"), "no", "Anonymisation of all addresses except the "
               "exporters'. truncate: only a prefix is kept; cryptopan: each address is replaced by another, always "
               "the same, and shared prefixes stay shared. Packet contents are then left out."),
        Option("anonymise_prefix4", number, 24, "Bits of an IPv4 address kept by anonymise=truncate."),
        Option("anonymise_prefix6", number, 48, "Bits of an IPv6 address kept by anonymise=truncate."),
        Option("anonymise_key", input_file, "", "File with the key for anonymise=cryptopan, 64 hexadecimal digits; "
               "made by: openssl rand -hex 32"),
        Option("spool_size", octets, 1 << 30, "Octets of files in spool for each collector. Beyond it the oldest are "
               "dropped and counted as spool_size."),
        Option("spool_age", seconds, 86400.0, "Seconds after which a file in spool is dropped and counted as "
               "spool_age."),
        Option("spool_rate", positive, 20_000, "Maximum number of records a second sent from spool, in addition to new "
               "records."),
        *options_of("exporting"),
        Option("host", text, "", "Address of one collector, with port and proto; ulogd2's form of collectors."),
        Option("port", positive, 4739, "Port of host."),
        Option("proto", one_of("tcp", "udp", "sctp"), "tcp", "Transport protocol to host."),
    )  # fmt: skip
    section_options = targets.SECTION
    reactor: Any = reactor
    clock = staticmethod(time.time)
    log = Logger()

    def __init__(self, instance: str, config: Any = None) -> None:
        super().__init__(instance, config)
        self.collectors: list[Collector] = []
        self._anonymous: Callable[[Batch], Batch] = lambda batch: batch
        self._flushed = 0.0
        self._waiter: defer.Deferred[None] | None = None
        self._state: Path | None = None
        self._former: dict[str, int] = {}
        self._sequences: KeptSequences | None = None
        self.counters.figures["collectors"] = lambda: {str(c.url): c.figures() for c in self.collectors}

    @cached_property
    def flows(self) -> FlowRecords:
        """Makes the records, and keeps every template used so far."""
        forms = {"10": lambda now: wire_format.IPFIX, "9": wire_format.NetFlow9, "5": wire_format.NetFlow5}
        form = forms[self.config.version]
        found = FlowRecords(self.counters, self.find, flow_records.parse(self.config.fields), form(self.clock()))
        if found.form.version == TEMPLATE5.ident:
            found.outgoing.templates[TEMPLATE5.ident] = TEMPLATE5
        return found

    def state(self) -> State:
        """With mode=all every collector must be there, else one of them; what is for absent ones may go to the disk."""
        away = [collector for collector in self.collectors if collector.obstacle()]
        reasons = tuple(collector.obstacle() for collector in away)
        if not away or self.config.mode != "all" and len(away) < len(self.collectors):
            return State(OK, reasons)
        return State(SPOOLING if all(collector.spool for collector in away) else DOWN, reasons)

    @property
    def copies(self) -> bool:
        """Whether received records can be copied as they came."""
        return self.flows.copies and self.config.anonymise == "no"

    # options

    def mistakes(self) -> Iterator[tuple[str, str]]:
        config = self.config
        yield from targets.mistakes(config)
        try:
            flow_records.parse(config.fields)
        except ValueError as error:
            yield "fields", str(error)
        if config.anonymise == "cryptopan" and not config.anonymise_key:
            yield "anonymise_key", "must name a file with the key; openssl rand -hex 32 makes one"
        for option, most in (("anonymise_prefix4", 32), ("anonymise_prefix6", 128)):
            if not 0 <= getattr(config, option) <= most:
                yield option, f"{getattr(config, option)} is not a number of bits (0 to {most})"
        if config.version != "10":
            yield from self._mistakes_of_netflow()
        if not 1 <= config.oid <= 0xFFFFFFFF:
            yield "oid", f"{config.oid} is not an Observation Domain ID of flows (1 to 4294967295)"
        if config.mtu is not None and not _LEAST_MTU <= config.mtu <= MAX_LENGTH:
            yield "mtu", f"{config.mtu} is not between {_LEAST_MTU} and {MAX_LENGTH}"
        if config.port > 65535:
            yield "port", f"{config.port} is not a port (1 to 65535)"
        for transport in TRANSPORTS.values():
            yield from transport.exporting_mistakes(config)
        if config.flush <= 0:
            yield "flush", "must be more than 0, such as 1"

    def patience(self) -> float | None:
        return self.config.flush

    def requests_of(self, above: frozenset[str] | None) -> Any:
        asked = self.flows.requests(above)
        if asked is ALL:
            return ALL
        needed = [EXPORT_TO]
        if any(own.networks for own in self.config.sections.values()):
            needed += ADDRESSES
        if any(own.marks for own in self.config.sections.values()):
            needed += MARKS
        if self.config.mode == "balance":
            needed += HASHED
        return dict.fromkeys(needed, False) | asked

    def _mistakes_of_netflow(self) -> Iterator[tuple[str, str]]:
        config = self.config
        if any(not TRANSPORTS[target.url.scheme].netflow for target in targets.targets(config, sound=True)):
            yield "version", f"NetFlow v{config.version} works over UDP only"
        if config.spool:
            yield "spool", f"spool files hold IPFIX, unreadable for collectors of NetFlow v{config.version}"
        if config.fields == flow_records.BIFLOW or config.version == "5" and config.fields not in _OF_NETFLOW5:
            yield "fields", f"NetFlow v{config.version} cannot carry fields={config.fields}"

    # start and stop

    def open(self) -> None:
        """Begin to connect. An unreachable collector is no fault: its messages wait."""
        config = self.config
        if config.anonymise == "truncate":
            self._anonymous = truncating(config.anonymise_prefix4, config.anonymise_prefix6).batch
        elif config.anonymise == "cryptopan":
            self._anonymous = prefix_preserving(read_key(config.anonymise_key)).batch
        settings = Settings(
            self.reactor, self.clock, config.oid, self.flows.outgoing.templates, config.collector_octets, config.mtu,
            config.reconnect, config.send_template, config.template_refresh, config.template_packets, self.flows.form,
        )  # fmt: skip
        found = targets.targets(config)
        self.collectors = [TRANSPORTS[target.url.scheme].collector(target, settings, config) for target in found]
        for collector in self.collectors:
            collector.drained = self._room
            if directory := self._spool_directory():
                self._open_spool(collector, directory)
        if self._state is not None:
            self._sequences = KeptSequences(str(self._state / "sequences"), self.collectors, self._former)
        for collector in self.collectors:
            collector.open()
        self._routing = Routing(config.mode, self.collectors, [target.rule for target in found])
        self._distribution = Distribution(self.collectors, self.flows.form)
        self._reporter = OptionsReporter(
            self.flows.outgoing, self.flows.form, config.oid, self.counters.dropped.total, self.inputs
        )
        self._flushed = self.reactor.seconds()
        self.flows.form.keep(self.clock())

    def keep_state(self, directory: Path, every: float) -> None:
        """Sequence Numbers of datagram collectors go to a file, and waiting messages to a spool unless there is one."""
        self._state = directory
        try:
            self._former = kept_sequences.load(str(directory / "sequences"))
        except (OSError, ValueError) as error:
            self.counters.errors["state"] += 1
            self.log.error("{instance}: {path} is not used: {error}; Sequence Numbers begin at 0",
                           instance=self.instance, path=str(directory / "sequences"), error=error)  # fmt: skip

    def kept(self) -> dict[str, Any]:
        if self._state is None:
            return {}
        return {"sequences": str(self._state / "sequences"), "spool": self._spool_directory()}

    def spool_places(self, state: Path | None) -> Iterable[Path]:
        if directory := self._directory(state):
            yield from (place_of(directory, self.instance, target.url) for target in targets.targets(self.config))

    def _spool_directory(self) -> str:
        """Where messages wait for a collector that is away; empty: in memory only."""
        return self._directory(self._state)

    def _directory(self, state: Path | None) -> str:
        if self.config.spool or state is None or self.config.version != "10":
            return self.config.spool
        return str(state / "spool")

    def _open_spool(self, collector: Collector, directory: str) -> None:
        config = self.config
        spool = MessageSpool.of(directory, self.instance, collector.url, config.spool_size, config.spool_age)
        try:
            spool.open(self.clock(), self.reactor.seconds())
        except OSError as error:
            raise StartError(f"spool {directory}: {error}", "make it writable for the user of the service") from None
        collector.spool, collector.spool_rate = spool, config.spool_rate

    @property
    def _tells(self) -> bool:
        config = self.config
        return config.options_interval > 0 and config.send_template != "never" and config.version != "5"

    def reopen(self) -> None:
        for collector in self.collectors:
            collector.reopen()

    def stop(self) -> defer.Deferred[Any]:
        """Send all messages; fires when all collectors are closed, each within a bound of its own."""
        self.flush()
        stopping = [collector.stop() for collector in self.collectors]
        return (
            defer.gatherResults(stopping, consumeErrors=True)
            .addCallback(lambda _: self._let_go())
            .addBoth(self._stopped)
        )

    def _stopped(self, result: Any) -> Any:
        sequences, self._sequences = self._sequences, None
        if sequences is not None:
            sequences.close()
        return result

    def clock_set(self, now: float, step: float) -> None:
        """The uptime of NetFlow goes on; so the flows that wait have times of the new clock."""
        self.flows.form.clock_set(step)

    def wake(self, now: float) -> float:
        if self.reactor.seconds() - self._flushed >= self.config.flush:
            self._flushed = self.reactor.seconds()
            self.flush()
            self.flows.form.keep(now)
        self._routing.move()
        for collector in self.collectors:
            collector.keep(now)
            collector.poll(now)
            if self._tells and collector.options_due(self.config.options_interval):
                self._reporter.report(collector, now)
        return min(self.config.flush, 1.0)

    # rows

    def write(self, batch: Batch) -> defer.Deferred[None] | None:
        """Encode all rows and queue them. A Deferred if every collector is full; it fires when one has room."""
        for start in range(0, batch.n, _AT_ONCE):
            part = batch if batch.n <= _AT_ONCE else batch.take(slice(start, start + _AT_ONCE))
            left = part.n
            for group, rows in self._routing.split(self.flows.find, part):
                left -= rows.n
                for records in self.flows.records(self._anonymous(rows)):
                    self.counters.figures["records_encoded"] += len(records)
                    self._distribution.add(records, group)
            self.counters.rows_filtered += left
        if names := self.flows.newly_left_out():
            self.log.info(flow_records.LEFT_OUT, instance=self.instance, names=", ".join(names))
        if self._routing.full:
            self._waiter = defer.Deferred()
            return self._waiter
        for collector in self.collectors:
            collector.trim()
        return None

    def flush(self) -> None:
        """Send incomplete messages too."""
        self._distribution.flush()

    def _room(self) -> None:
        """A collector has room again."""
        if self._waiter is not None and not self._routing.full:
            self._let_go()

    def _let_go(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter.callback(None)
