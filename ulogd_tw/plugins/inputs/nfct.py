"""NFCT: the flows of this host, from the events of the kernel's connection tracking."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from twisted.logger import Logger

from ulogd_tw.core.batch import Batch
from ulogd_tw.core.options import Option, boolean, number, octets, seconds, text, words
from ulogd_tw.core.plugin import ALL, FLOW, Input
from ulogd_tw.netfilter.accept import Accept, networks
from ulogd_tw.netfilter.conntrack import KEYS, Decoder
from ulogd_tw.netfilter.ctnetlink import (
    DESTROY,
    GROUP_DESTROY,
    GROUP_NEW,
    GROUP_UPDATE,
    NEW,
    UPDATE,
)  # fmt: skip
from ulogd_tw.transports.namespace import inside
from ulogd_tw.transports.netlink import NetlinkPort
from ulogd_tw.transports.nlmsg import Messages

SYSCTLS = Path("/proc/sys/net/netfilter")
_GROUPS = {NEW: GROUP_NEW, UPDATE: GROUP_UPDATE, DESTROY: GROUP_DESTROY}
_COUNTERS = tuple(f"{side}.raw.{what}" for side in ("orig", "reply") for what in ("pktlen", "pktcount"))
_TIMES = tuple(f"flow.{edge}.{part}" for edge in ("start", "end") for part in ("sec", "usec")) + (
    "flowStartMilliseconds", "flowEndMilliseconds",
)  # fmt: skip
_SILENCE_S = 30.0
"""Seconds without any event after which we look whether the kernel follows connections at all."""
_UNNEEDED = "accepted and not needed: no table of flows is kept, since the kernel tells the start with the end"


def protocols(text: str) -> tuple[int, ...]:
    """Protocols by number or by name as in /etc/protocols, with blanks or commas between. ValueError for others."""
    found = []
    for word in words(text):
        try:
            found.append(int(word) if word.isdecimal() else socket.getprotobyname(word))
        except OSError:
            raise ValueError(f"{word!r} is no protocol of /etc/protocols") from None
        if found[-1] > 255:
            raise ValueError(f"{word!r} is no protocol number")
    return tuple(found)


class NFCT(Input):
    """Gives a row for each flow that ends, with the kernel's counters and its start and end time.

    With `hash_enable=0` flows that begin (and with bit 2 of `event_mask` those that change) have rows too; ct.event
    tells which: 1 begins, 2 changes, 4 ends.
    """

    name = "NFCT"
    otype = FLOW
    provides = KEYS
    hidden = frozenset(
        {"flowStartMilliseconds", "flowEndMilliseconds", "postNATSourceAddress", "postNATDestinationAddress",
         "postNAPTSourceTransportPort", "postNAPTDestinationTransportPort", "ct.use", "ct.timeout", "ct.secctx",
         "observationTimeMilliseconds", "ct.tcp.wscale.orig", "ct.tcp.wscale.reply", "ct.tcp.flags.orig",
         "ct.tcp.flags.reply"}
    )  # fmt: skip
    options = (
        Option("event_mask", number, NEW | DESTROY, "events to follow: 1 flow begins, 2 changes, 4 ends, added up"),
        Option("hash_enable", boolean, True, "1: rows only for flows that end; 0: for every event of event_mask"),
        Option("receive_buffer", octets, 256 << 20, "octets of events that the kernel may queue for us; a limit, not "
               "an allocation"),
        Option("netlink_socket_buffer_size", octets, 0, "raises receive_buffer to at least this"),
        Option("netlink_socket_buffer_maxsize", octets, 0, "raises receive_buffer to at least this"),
        Option("reliable", boolean, False, "1: the kernel keeps an ended flow until its event is delivered, and may "
               "drop packets of new flows meanwhile"),
        Option("batch_latency", seconds, 0.02, "seconds that a small batch waits to grow"),
        Option("accept_src_filter", networks, (), "follow only flows from these networks (original direction)"),
        Option("accept_dst_filter", networks, (), "follow only flows to these networks (original direction)"),
        Option("accept_proto_filter", protocols, (), "follow only these protocols, by name or number"),
        Option("network_namespace_path", text, "", "follow this network namespace, /run/netns/NAME, instead of ours"),
        Option("pollinterval", number, 0, "seconds between dumps instead of events (not there yet)"),
        Option("hash_buckets", number, 8192, _UNNEEDED),
        Option("hash_max_entries", number, 32768, _UNNEEDED),
        Option("netlink_resync_timeout", number, 60, _UNNEEDED),
    )  # fmt: skip
    log = Logger()

    def __init__(self, instance: str, config: Any = None, reactor: Any = None) -> None:
        super().__init__(instance, config)
        if reactor is None:
            from twisted.internet import reactor
        self._reactor = reactor
        self._port: NetlinkPort | None = None
        self._decoder: Decoder | None = None
        self._accept = Accept()
        self._loss_said = float("-inf")
        self._loss_unsaid = 0
        self._silent_since: float | None = None
        self.counters.more["netlink"] = self._figures

    # --- checks -----------------------------------------------------------------------------------------------------

    def mistakes(self) -> Iterator[tuple[str, str]]:
        if self.config.pollinterval:
            yield "pollinterval", "polling is not there yet; leave it out: events tell of every flow when it ends"
        if self.config.event_mask & ~(NEW | UPDATE | DESTROY):
            yield "event_mask", f"{self.config.event_mask} has bits other than 1, 2 and 4"
        elif not self.groups():
            yield "event_mask", (
                f"{self.config.event_mask} gives no row; "
                + ("with hash_enable=1 rows come of bit 4 only" if self.config.event_mask else "4 gives ended flows")
            )

    def groups(self) -> list[int]:
        """The multicast groups whose events become rows; the kernel need not make others for us."""
        events = (DESTROY,) if self.config.hash_enable else (NEW, UPDATE, DESTROY)
        return [_GROUPS[event] for event in events if self.config.event_mask & event]

    def _preflight(self) -> None:
        """One warning about all settings of the kernel that take away what is wanted."""
        wrong = []
        if not (SYSCTLS / "nf_conntrack_acct").exists():
            self.log.warn(
                "{instance}: connection tracking is not loaded, so there are no flows yet; a firewall rule with "
                "'ct state' (nft) or modprobe nf_conntrack loads it", instance=self.instance,
            )  # fmt: skip
            return
        checks = (
            ("nf_conntrack_acct", "0", "packets and octets are not counted", _COUNTERS),
            ("nf_conntrack_timestamp", "0", "start times are not kept", _TIMES),
            ("nf_conntrack_events", "0", "no events are sent at all", ()),
            ("nf_conntrack_events", "2", "flows that began before this start are never reported", ()),
        )
        for name, bad, what, keys in checks:
            if (not keys or any(key in self.wanted for key in keys)) and _sysctl(name) == bad:
                wrong.append((what, f"net.netfilter.{name}=1"))
        if wrong:
            self.log.warn(
                "{instance}: {what}; for flows that begin from then on this helps: sysctl -w {settings}",
                instance=self.instance,
                what=", ".join(what for what, _ in wrong),
                settings=" ".join(setting for _, setting in wrong),
            )

    # --- life -------------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Join the groups. Raises `StartError` without privilege."""
        old = max(self.config.netlink_socket_buffer_size, self.config.netlink_socket_buffer_maxsize)
        if 0 < old < self.config.receive_buffer:
            self.log.info(
                "{instance}: a buffer of {ours} octets is used instead of {old}; receive_buffer sets it",
                instance=self.instance, ours=self.config.receive_buffer, old=old,
            )  # fmt: skip
        config = self.config
        self._accept = Accept(config.accept_src_filter, config.accept_dst_filter, config.accept_proto_filter)
        wanted = self.wanted if self.wanted is ALL else self.wanted | self._accept.keys
        self._decoder = Decoder(wanted, self.counters.errors)
        port = NetlinkPort(
            self._received,
            self._lost,
            groups=self.groups(),
            buffer_octets=max(old, self.config.receive_buffer),
            reliable=self.config.reliable,
            namespace=self.config.network_namespace_path,
            pause_s=self.config.batch_latency,
            reactor=self._reactor,
        )
        port.open()
        self._port = port
        # Only now: joining the groups may have loaded the modules that have these settings.
        with inside(self.config.network_namespace_path):
            self._preflight()

    def begin(self) -> None:
        self._port.start()

    def wake(self, now: float) -> float | None:
        """Look once, some time after the start, whether anything comes; say why not where the kernel shows it."""
        if self._silent_since is None:
            self._silent_since = now
            return _SILENCE_S
        with inside(self.config.network_namespace_path):
            followed = _sysctl("nf_conntrack_count")
        if not self.counters.messages_received and followed == "0":
            self.log.warn(
                "{instance}: no flow for {seconds:.0f} s, and the kernel follows no connection: it does so only where "
                "a firewall rule asks for it, such as: nft 'add table inet ct; add chain inet ct c {{ type filter hook "
                "output priority 0; }}; add rule inet ct c ct state new counter'",
                instance=self.instance, seconds=_SILENCE_S,
            )  # fmt: skip
        return None

    def stop(self) -> Any:
        """Read what the kernel still holds for us, then close."""
        return self._port.stop() if self._port is not None else None

    # --- events -----------------------------------------------------------------------------------------------------

    def _received(self, messages: Messages) -> None:
        try:
            self._give(messages)
        except Exception as error:
            self.fault(error)

    def _give(self, messages: Messages) -> None:
        self.counters.messages_received += len(messages)
        self.counters.octets_received += int(messages.lengths.sum())
        for batch in self._decoder.decode(messages.rows, messages.lengths, self._reactor.seconds()):
            self.counters.rows_received += batch.n
            if self._accept.keys:
                batch = self._accepted(batch)
            if batch.n:
                self.emit(batch)

    def _accepted(self, batch: Batch) -> Batch:
        kept = batch.take(self._accept.rows(batch))
        self.counters.rows_filtered += batch.n - kept.n
        if self.wanted is ALL or self._accept.keys <= self.wanted:
            return kept
        return kept.select([name for name in kept.schema if name in self.wanted])

    def _lost(self, n: int) -> None:
        self.counters.lost["kernel"] += n
        self._loss_unsaid += n
        if self._reactor.seconds() - self._loss_said >= 60:
            self.log.error(
                "{instance}: the kernel dropped {n} events because its queue of {octets} octets was full; "
                "receive_buffer makes it larger", instance=self.instance, n=self._loss_unsaid,
                octets=self._port.effective_octets,
            )  # fmt: skip
            self._loss_said, self._loss_unsaid = self._reactor.seconds(), 0

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


def _sysctl(name: str) -> str:
    """The setting, empty where it cannot be read (a container may hide it)."""
    try:
        return (SYSCTLS / name).read_text().strip()
    except OSError:
        return ""
