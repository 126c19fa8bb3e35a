"""NFCT: the flows of this host, from the events of the kernel's connection tracking."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from twisted.internet.defer import gatherResults, succeed

from ulogd_tw.core.batch import Batch
from ulogd_tw.core.capabilities import NET_ADMIN
from ulogd_tw.core.counters import Count, Gauge, Group, Lost
from ulogd_tw.core.limited import RateLimitedLog
from ulogd_tw.core.networks import networks
from ulogd_tw.core.options import MOST_ENTRIES, Option, boolean, entries, number, octets, one_of, seconds, words
from ulogd_tw.core.paths import network_namespace
from ulogd_tw.core.plugin import ALL, FLOW
from ulogd_tw.metering import conntrack_settings
from ulogd_tw.metering.conntrack_dumps import Dumps
from ulogd_tw.metering.kept_connections import KeptConnections
from ulogd_tw.metering.live_input import LiveInput
from ulogd_tw.netfilter import bpf
from ulogd_tw.netfilter.conntrack import KEYS, Decoder
from ulogd_tw.netfilter.counts import MALFORMED, PORT
from ulogd_tw.netfilter.ctnetlink import (
    DESTROY,
    GROUP_DESTROY,
    GROUP_NEW,
    GROUP_UPDATE,
    NEW,
    UPDATE,
)  # fmt: skip
from ulogd_tw.netfilter.flow_filter import FIVE_TUPLE, Accept, among
from ulogd_tw.netfilter.followed_flows import END_REASON, FOLLOWED, REPORTED, Flows, interim
from ulogd_tw.transports import own_flows
from ulogd_tw.transports.gathering import Terms
from ulogd_tw.transports.namespace import inside
from ulogd_tw.transports.netlink import buffers
from ulogd_tw.transports.netlink.nlmsg import Messages
from ulogd_tw.transports.netlink.port import NetlinkPort

_GROUPS = {NEW: GROUP_NEW, UPDATE: GROUP_UPDATE, DESTROY: GROUP_DESTROY}
_LOOK_S = 1.0
"""Seconds between two looks whether the kernel tracks connections, as long as nothing shows it."""
USUAL_S = 0.02
"""Seconds that events wait for more, where no plugin below has a wish."""
_UNNEEDED = "No effect; accepted for configurations of ulogd2."

CHECKS = 5
"""Looks at the kernel's table in an `active_timeout`: reports are a fifth late at most. Dumps bounds their share."""


def protocols(text: str) -> tuple[int, ...]:
    """Protocols by number or by name as in /etc/protocols, with blanks or commas between. ValueError for others."""
    found = []
    for word in words(text):
        try:
            found.append(min(int(word[-300:]), 256) if word.isdecimal() else socket.getprotobyname(word))
        except OSError:
            raise ValueError(
                f"{word!r} is not a protocol; write names of /etc/protocols or numbers, such as tcp or 6"
            ) from None
        if found[-1] > 255:
            raise ValueError(f"{word!r} is not a protocol number (0 to 255)")
    return tuple(found)


_ASKED = frozenset(
    {"orig.ip.saddr", "orig.ip.daddr", "orig.ip.protocol", "orig.l4.sport", "orig.l4.dport", "postNATSourceAddress",
     "postNATDestinationAddress", "postNAPTSourceTransportPort", "postNAPTDestinationTransportPort",
     "flowStartMilliseconds"}
)  # fmt: skip
"""What `NFCT.connections` gives."""


class NFCT(LiveInput):
    """Gives a row for each flow of the kernel's connection tracking at its end, with counters, start and end time.

    With `hash_enable=0` there is a row for each event: ct.event is 1 for a flow that begins, 2 for a change (bit 2 of
    `event_mask`), 4 for an end.

    Flows older than the service are read from the kernel's table, and the table is read again until they are gone. A
    flow that vanished without an event gets a row with the counters of the last reading and no end time. After a loss
    of events the table is read at once.

    With `active_timeout`, active flows get interim rows (ct.event 2, flowEndReason 2). At SIGUSR2 all flows get such a
    row, and the kernel's counters are set to 0. Every row holds the octets and packets since the flow's previous row.
    """

    name = "NFCT"
    capabilities = frozenset({NET_ADMIN})
    otype = FLOW
    provides = (*KEYS, END_REASON)
    hidden = frozenset(
        {"flowStartMilliseconds", "flowEndMilliseconds", "postNATSourceAddress", "postNATDestinationAddress",
         "postNAPTSourceTransportPort", "postNAPTDestinationTransportPort", "ct.use", "ct.timeout", "ct.secctx",
         "observationTimeMilliseconds", "ct.tcp.wscale.orig", "ct.tcp.wscale.reply", "ct.tcp.flags.orig",
         "ct.tcp.flags.reply", "octetDeltaCount", "packetDeltaCount", "reverseOctetDeltaCount",
         "reversePacketDeltaCount", "flowEndReason"}
    )  # fmt: skip
    counts = (
        Group("netlink", "The netlink socket.", PORT),
        Group("flows", "Connections that are followed, since their end may come without an event.", (
            Gauge("followed", "flows", "Flows that are kept in memory."),
            Count("beyond_max_flows", "flows", "Flows for which there was no room."),
            Count("vanished", "flows", "Flows that ended without an event, and have no end time."),
            Count("interim", "rows", "Interim rows of active flows."),
            Count("dumps", "occasions", "Readings of the kernel's table."),
            Gauge("dump_seconds", "seconds", "Duration of the last reading."),
            Count("dump_failures", "occasions", "Readings that failed; the log says why."),
        )),
        Lost("kernel", "events", "Events that the kernel dropped because its queue was full."),
        *MALFORMED,
    )  # fmt: skip
    options = (
        Option("event_mask", number, NEW | DESTROY, "Conntrack events to read, added up: 1 flow begins, 2 flow "
               "changes, 4 flow ends."),
        Option("hash_enable", boolean, True, "1: one row for each flow, at its end. 0: a row for each event of "
               "event_mask; the kernel's table is not read."),
        Option("resync", seconds, 60.0, "Seconds between readings of the kernel's table while flows may end without an "
               "event. The readings take at most 1 % of the time. 0: never read the table."),
        Option("follow", one_of("old", "all"), "old", "Flows kept in memory, so that their end is noticed even without "
               "an event. old: the flows found in the kernel's table at the start or after a loss of events; all: "
               "every flow, for about 150 octets each. Not given, with state_dir: all, so that "
               "flows are reported whose end came while the service did not run."),
        Option("max_flows", entries, 1_000_000, "Maximum number of flows kept in memory; the end of further flows is "
               "known only from events."),
        Option("active_timeout", seconds, 0.0, "Seconds after which an active flow gets an interim row, with the "
               "counts since its previous row. 0: rows at the end of flows only."),
        Option("reset", boolean, False, "1: with active_timeout, set the kernel's counters of all flows to 0 at each "
               "reading, so that a restart counts nothing twice. Other programs that read these counters see the "
               "reset."),
        Option("pollinterval", number, 0, "Seconds between readings of the kernel's table, instead of events: flows "
               "gone since the previous reading get a row. 0: use events."),
        Option("own_export", boolean, True, "0: leave out the connections over which this process exports flows, "
               "known by their sockets. Exports of other processes and hosts stay."),
        Option("sysctl", boolean, False, "1: set nf_conntrack_acct, nf_conntrack_timestamp and nf_conntrack_events to "
               "1 at the start. 0: only warn where they are off."),
        Option("receive_buffer", octets, 0, "Octets of events that the kernel may queue for this input; a limit, not "
               "an allocation. 0: a 32nd of the memory, at least 1M, at most 256M."),
        Option("netlink_socket_buffer_size", octets, 0, "Raises the default of receive_buffer to at least this many "
               "octets (an option of ulogd2)."),
        Option("netlink_socket_buffer_maxsize", octets, 0, "Lowers receive_buffer to at most this many octets (an "
               "option of ulogd2). 0: no maximum."),
        Option("reliable", boolean, False, "1: the kernel keeps an ended flow until its event is delivered. Meanwhile "
               "it may drop packets of new flows."),
        Option("batch_latency", seconds, None, "The longest time in seconds for which a small batch of events waits "
               "for more, such as 0.02. Not given: as long as the outputs and filters below allow, at most 0.25 s, "
           "or 1 s above an AGGREGATE."),
        Option("accept_src_filter", networks, (), "Networks of the source (original direction), such as 10.0.0.0/8: "
               "only flows from them are followed. Empty: all."),
        Option("accept_dst_filter", networks, (), "Networks of the destination (original direction), such as "
               "192.0.2.0/24: only flows to them are followed. Empty: all."),
        Option("accept_proto_filter", protocols, (), "Protocols to follow, by name or number, such as tcp udp; icmp "
               "and ipv6-icmp are two. Empty: all."),
        Option("network_namespace_path", network_namespace, "",
               "Network namespace to follow, such as /run/netns/router. Empty: the namespace of the service."),
        Option("hash_max_entries", number, 32768, "Raises max_flows to at least this number (an option of ulogd2)."),
        Option("hash_buckets", number, 8192, _UNNEEDED),
        Option("netlink_resync_timeout", number, 60, _UNNEEDED + " After a loss of events the table is read at once."),
    )  # fmt: skip

    def __init__(self, instance: str, config: Any = None, reactor: Any = None) -> None:
        super().__init__(instance, config, reactor)
        self._port: NetlinkPort | None = None
        self._dumps: Dumps | None = None
        self._decoder: Decoder | None = None
        self._following: Decoder | None = None
        self._accept = Accept()
        config = self.config
        self._births = config.follow == "all" and not config.pollinterval
        self._flows = self._new_flows()
        self._kept: KeptConnections | None = None
        self._vanished = self._interim = 0
        self._limited = RateLimitedLog(self._reactor.seconds)
        self._packets = 0
        """Packets of the network namespace at the start."""
        self.counters.figures["netlink"] = self._figures
        self.counters.figures["flows"] = self._table_figures

    def _new_flows(self) -> Flows:
        config = self.config
        most = min(max(config.max_flows, config.hash_max_entries), MOST_ENTRIES)
        return Flows(most, self._births, int(config.active_timeout * 1000))

    # --- checks -----------------------------------------------------------------------------------------------------

    def mistakes(self) -> Iterator[tuple[str, str]]:
        config = self.config
        if config.pollinterval < 0:
            yield "pollinterval", f"{config.pollinterval} is not a time; write seconds, or 0 for none"
        for option in ("pollinterval", "active_timeout"):
            if not config.hash_enable and getattr(config, option):
                yield option, "needs hash_enable=1; set it, or delete this line"
        if config.reset and not config.active_timeout:
            yield "reset", "needs active_timeout; set it, such as active_timeout=60"
        if config.event_mask & ~(NEW | UPDATE | DESTROY):
            yield (
                "event_mask",
                f"{config.event_mask} has bits other than 1, 2 and 4; write 4 for ended flows, 7 for all events",
            )
        elif not self.groups() and not config.pollinterval:
            yield (
                "event_mask",
                (
                    f"{config.event_mask} gives no row; "
                    + ("with hash_enable=1 only bit 4 gives rows" if config.event_mask else "4 gives ended flows")
                ),
            )

    def groups(self) -> list[int]:
        """The multicast groups with useful events; the kernel then makes no others."""
        if self.config.pollinterval:
            return []
        events: Iterable[int] = (DESTROY,) if self.config.hash_enable else (NEW, UPDATE, DESTROY)
        groups = [_GROUPS[event] for event in events if self.config.event_mask & event]
        return [GROUP_NEW, *groups] if groups and self.config.hash_enable and self._births else groups

    def _preflight(self) -> None:
        """One warning about all kernel settings that suppress wanted keys; with sysctl=1 they are set instead."""
        if not conntrack_settings.loaded():
            self.log.warn(
                "{instance}: connection tracking is not loaded, so there are no flows yet. Run: {remedy}",
                instance=self.instance, remedy=conntrack_settings.TRACKING,
            )  # fmt: skip
            return
        wrong = conntrack_settings.wrong(self.wanted, events=not self.config.pollinterval)
        if self.config.sysctl:
            wrong = [setting for setting in wrong if not self._mended(setting)]
        if wrong:
            self.log.warn(
                "{instance}: conntrack {what}. Run: sysctl -w {settings} (affects new connections)",
                instance=self.instance,
                what=", ".join(setting.what for setting in wrong),
                settings=" ".join(setting.remedy for setting in wrong),
            )

    def _mended(self, setting: conntrack_settings.Setting) -> bool:
        try:
            conntrack_settings.mend(setting)
        except OSError as error:
            self.log.warn("{instance}: {remedy}: {why}", instance=self.instance, remedy=setting.remedy,
                          why=error.strerror)  # fmt: skip
            return False
        self.log.info("{instance}: {remedy} was set", instance=self.instance, remedy=setting.remedy)
        return True

    # --- life -------------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Join the groups. Raises `StartError` without privilege."""
        config = self.config
        if self.keeps_state and not config.pollinterval and config.hash_enable and "follow" not in config.given:
            self._births = True  # only flows that are followed can be missed after a restart
            self._flows = self._new_flows()
        self._accept = Accept(config.accept_src_filter, config.accept_dst_filter, config.accept_proto_filter)
        own = frozenset() if config.own_export else frozenset(FIVE_TUPLE)
        wanted = self.wanted if self.wanted is ALL else self.wanted | self._accept.keys | own
        followed = FOLLOWED | {"ct.event"} | (REPORTED if config.active_timeout else frozenset())
        self._decoder = Decoder(wanted, self.counters.errors)
        self._following = Decoder(wanted if wanted is ALL else wanted | followed, self.counters.errors)
        if not config.pollinterval:
            least, most = config.netlink_socket_buffer_size, config.netlink_socket_buffer_maxsize
            self._open_events(buffers.limit(config.receive_buffer, least, most))
        self._open_dumps()
        # Only now: joining the groups may have loaded the modules that have these settings.
        with inside(config.network_namespace_path):
            self._preflight()
            self._packets = conntrack_settings.packets()

    def _open_events(self, buffer_octets: int) -> None:
        port = NetlinkPort(
            self._received,
            self._lost,
            groups=self.groups(),
            buffer_octets=buffer_octets,
            reliable=self.config.reliable,
            namespace=self.config.network_namespace_path,
            program=bpf.program(self._accept),
            terms=Terms.of(self, self.config.batch_latency, self.clock, USUAL_S),
            reactor=self._reactor,
            owner=self.instance,
        )
        port.open()
        self._port = port
        buffers.tell(self.log, self.instance, port.effective_octets)

    def _open_dumps(self) -> None:
        config = self.config
        reports = config.active_timeout if config.reset else config.active_timeout / CHECKS
        periods = [config.pollinterval or config.resync, reports] if config.hash_enable else []
        dumps = Dumps(
            self._flows, self._following, self._report, self._gone,
            self._port.caught_up if self._port is not None else lambda: succeed(None),
            accept=self._accepted,
            period=min((period for period in periods if period), default=None),
            learning=bool(config.pollinterval or config.active_timeout or self._births),
            asked=bool(config.pollinterval or config.active_timeout),
            zeroing=config.reset,
            namespace=config.network_namespace_path,
            reactor=self._reactor,
            clock=self.clock,
        )  # fmt: skip
        dumps.fault = lambda error: self.fault(error)
        dumps.open()
        self._dumps = dumps

    # --- what outlives it -------------------------------------------------------------------------------------------

    @property
    def continues(self) -> bool:
        return self._port is not None and self._port.adopted

    def keep_state(self, directory: Path, every: float) -> None:
        """The followed flows go to files; those of an earlier run that are gone at the first dump are reported."""
        if self.config.hash_enable:
            self._kept = KeptConnections(directory, every, self._flows, self, self._reactor)
            self._kept.begin()

    def kept(self) -> dict[str, Any]:
        return {} if self._kept is None else {"connections": str(self._kept.path), "flows": len(self._flows)}

    def begin(self) -> None:
        if self._port is not None:
            self._port.start()
        self._dumps.begin()

    def catch_up(self) -> None:
        if self._port is not None:
            self._port.catch_up()

    def read_now(self) -> None:
        """A row for each active flow; the kernel's counters restart at 0."""
        config = self.config
        self._dumps.soon(bool(config.pollinterval or config.active_timeout or self._births), zeroing=True)

    def clock_set(self, now: float, step: float) -> None:
        """Reports of active flows go on at their times."""
        if self._flows is not None:
            self._flows.clock_set(int(step * 1000))

    def wake(self, now: float) -> float | None:
        """Look whether the kernel tracks connections, until the first message or packet shows it."""
        if self.counters.messages_received:
            return None
        with inside(self.config.network_namespace_path):
            tracked = conntrack_settings.tracks(self._packets)
        if tracked is None:
            return _LOOK_S
        if not tracked:
            self.log.warn(
                "{instance}: the kernel tracks no connections, since no firewall rule needs it. Run: {remedy}",
                instance=self.instance, remedy=conntrack_settings.TRACKING,
            )  # fmt: skip
        return None

    def stop(self) -> Any:
        """Read the events still held by the kernel, then close."""
        stopping = gatherResults([part.stop() for part in (self._dumps, self._port) if part is not None])
        if self._kept is not None:
            stopping.addCallback(lambda _: self._kept.stop())
        return stopping

    # --- events -----------------------------------------------------------------------------------------------------

    def _received(self, messages: Messages) -> None:
        try:
            self._give(messages)
        except Exception as error:
            self.fault(error)

    def _give(self, messages: Messages) -> None:
        self.counters.messages_received += len(messages)
        self.counters.octets_received += int(messages.lengths.sum())
        follow = self._births or bool(self._flows)
        decoder = self._following if follow else self._decoder
        for batch in decoder.decode(messages.rows, messages.lengths, self.clock()):
            if follow and self._births:
                batch = self._without_births(batch)
            self.counters.rows_received += batch.n
            kept = self._accepted(batch)
            self.counters.rows_filtered += batch.n - kept.n
            if kept.n:
                self._emit(self._without_told(kept) if follow else kept)

    def _accepted(self, batch: Batch) -> Batch:
        """The rows accepted by the filters. The kernel filters events itself, but not its table."""
        if self._accept.keys:
            batch = batch.take(self._accept.rows(batch))
        if not self.config.own_export and (rows := among(batch, own_flows.known())).any():
            batch = batch.take(~rows)
        return batch

    def _emit(self, batch: Batch) -> None:
        """Emit rows with the wanted keys."""
        if self.wanted is not ALL and not all(name in self.wanted for name in batch.schema):
            batch = batch.select([name for name in batch.schema if name in self.wanted])
        if self.ledger is not None:
            self.ledger.receive()
        self.emit(batch)

    def _without_births(self, batch: Batch) -> Batch:
        begun = batch.columns["ct.event"] == NEW
        if not begun.any():
            return batch
        self._flows.born(self._accepted(batch.take(begun)))
        if self._flows.crowded:
            self._dumps.soon()
        return batch.take(~begun)

    def _without_told(self, batch: Batch) -> Batch:
        """Record the ends of followed flows; a flow reported before keeps only its remaining counts."""
        ends = batch.columns["ct.event"] == DESTROY
        if ends.all():
            return self._flows.ended(batch)
        if ends.any():  # hash_enable=0 keeps no flows except those of a requested dump
            self._flows.ended(batch.take(ends))
        return batch

    # --- the kernel's table -----------------------------------------------------------------------------------------

    def _gone(self, batch: Batch) -> None:
        """Emit flows that ended without an event."""
        self._vanished += batch.n
        self.counters.rows_received += batch.n
        self._emit(batch)

    def _report(self, batch: Batch) -> None:
        """Emit active flows, with the counts since their previous row."""
        if self.config.reset:
            packets = [batch.columns[name] for name in ("orig.raw.pktcount", "reply.raw.pktcount")]
            batch = batch.take((packets[0] != 0) | (packets[1] != 0))
        self._interim += batch.n
        self.counters.rows_received += batch.n
        if batch.n:
            with_reason = self.wanted is ALL or "flowEndReason" in self.wanted
            self._emit(interim(batch, int(batch.now * 1000), with_reason))

    def _table_figures(self) -> dict[str, Any]:
        dumps = self._dumps
        return {
            "followed": len(self._flows),
            "beyond_max_flows": self._flows.beyond,
            "vanished": self._vanished,
            "interim": self._interim,
            "dumps": dumps.count if dumps is not None else 0,
            "dump_seconds": round(dumps.took_s, 3) if dumps is not None else 0,
            "dump_failures": dumps.failures if dumps is not None else 0,
        }

    # --- questions --------------------------------------------------------------------------------------------------

    def connections(self, found: Callable[[Batch], None]) -> Any:
        """Read the kernel's table for a question: `found` takes its flows as they are now, with the addresses and ports
        before and after NAT, and the start.

        Fires once all events are read that the kernel had queued before. Fails with `NetlinkError`.
        """
        decoder = Decoder(_ASKED | self._accept.keys | frozenset(FIVE_TUPLE))

        def part(messages: Messages) -> None:
            for batch in decoder.decode(messages.rows, messages.lengths, self.clock()):
                if (kept := self._accepted(batch)).n:
                    found(kept)

        return self._dumps.read(part)

    # --- loss -------------------------------------------------------------------------------------------------------

    def _lost(self, n: int) -> None:
        self.counters.lost["kernel"] += n
        self._limited.add(
            self.log.error, "kernel", n,
            "{instance}: the kernel dropped events ({n}), because its queue of {octets} octets was full; "
            "increase receive_buffer", instance=self.instance, octets=self._port.effective_octets,
        )  # fmt: skip
        if self.config.hash_enable and self.config.resync and self._dumps is not None:
            self._dumps.soon()

    def _figures(self) -> dict[str, int]:
        port = self._port
        if port is None:
            return {}
        return {
            "queue_octets": port.effective_octets,
            "overruns": port.overruns,
            "strangers": port.strangers,
            "broken_datagrams": port.broken,
        }
