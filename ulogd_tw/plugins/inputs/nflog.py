"""NFLOG: packets logged by firewall rules, from the kernel's nfnetlink_log."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from ulogd_tw.core.batch import Batch
from ulogd_tw.core.capabilities import NET_ADMIN
from ulogd_tw.core.counters import Count, Group, Lost
from ulogd_tw.core.errors import StartError
from ulogd_tw.core.keys import Key
from ulogd_tw.core.limited import RateLimitedLog
from ulogd_tw.core.options import Option, boolean, number, octets, seconds, words
from ulogd_tw.core.paths import network_namespace
from ulogd_tw.core.plugin import RAW, Plugin
from ulogd_tw.metering.live_input import LiveInput
from ulogd_tw.netfilter import nflog
from ulogd_tw.netfilter.counts import MALFORMED, PORT
from ulogd_tw.netfilter.nflog_decoder import CONNECTION_KEYS, KEYS, Decoder
from ulogd_tw.netfilter.requests import Request
from ulogd_tw.transports.errors import NetlinkError
from ulogd_tw.transports.gathering import Terms
from ulogd_tw.transports.namespace import inside
from ulogd_tw.transports.netlink import buffers
from ulogd_tw.transports.netlink.multi_message_port import MultiMessagePort
from ulogd_tw.transports.netlink.port import GRANT

DATAGRAM = 32 << 10
"""Octets gathered by the kernel in one datagram; a single larger packet comes nevertheless."""
MOST_OF_A_PACKET = 0xFFFF
USUAL_S = 0.1
"""Seconds that packets wait for more, where no plugin below has a wish."""
LITTLE = 4 << 20
"""Size of a receive buffer that fills so fast that small batches must not wait."""
OWNERS = "/proc/net/netfilter/nfnetlink_log"


_CONNECTION = frozenset(key.name for key in CONNECTION_KEYS)


def groups(written: str) -> tuple[int, ...]:
    """Numbers of groups, 0 to 65535, with blanks or commas between. ValueError for others."""
    found = tuple(dict.fromkeys(number(word) for word in words(written)))
    for group in found:
        if not 0 <= group <= 0xFFFF:
            raise ValueError(f"{group} is not a group (0 to 65535)")
    if not found:
        raise ValueError("names no group; write numbers, such as 0 or 1,2")
    return found


TUNING = (
    Option("copy_range", octets, MOST_OF_A_PACKET, "Octets to copy of each packet; further ones are cut off."),
    Option("netlink_qthreshold", number, 0, "Number of packets that the kernel gathers before it sends them. 0: 100, "
           "or the rule's queue-threshold if it is smaller."),
    Option("netlink_qtimeout", number, 0, "Time after which the kernel sends the gathered packets in any case, in "
           "hundredths of a second. 0: 10 (0.1 s)."),
    Option("receive_buffer", octets, 0, "Octets of packets that the kernel may queue for this input; a limit, not an "
           "allocation. 0: a 32nd of the memory, at least 1M, at most 256M."),
    Option("batch_latency", seconds, None, "The longest time in seconds for which a small batch of packets waits for "
           "more, such as 0.1. Not given: as long as the outputs and filters below allow, at most 0.25 s, "
           "or 1 s above an AGGREGATE."),
    Option("network_namespace_path", network_namespace, "", "Network namespace in which packets are logged, such as "
           "/run/netns/router. Empty: the namespace of the service."),
)  # fmt: skip
"""Options for the transfer of packets from the kernel."""


class NFLOG(LiveInput):
    """Gives a row for each packet logged by the firewall: nft ``log group 5``, iptables ``-j NFLOG --nflog-group 5``.

    The packet begins with its IP header (or ARP header); the filter BASE decodes it. Only one program can read a group.
    """

    name = "NFLOG"
    capabilities = frozenset({NET_ADMIN})
    otype = RAW
    provides = (*KEYS, *CONNECTION_KEYS)
    hidden = frozenset(
        key.name for key in CONNECTION_KEYS if key.name not in ("ct.mark", "ct.id", "ct.status", "ct.zone")
    )
    counts = (
        Group("netlink", "The netlink socket.", (
            *PORT,
            Count("datagrams_lost", "datagrams", "Datagrams, of many packets each, for which there was no room."),
        )),
        Lost("kernel", "packets", "Packets missing according to the kernel's sequence numbers."),
        *MALFORMED,
    )  # fmt: skip
    options = (
        Option("group", groups, (0,), "NFLOG groups to read, with the numbers in the firewall's rules, such as 5 6."),
        Option("bind", boolean, False, "1: become also the kernel's own packet logger for IPv4, IPv6 and bridge. With "
               "group 0 this is always done."),
        Option("unbind", boolean, True, "1: with bind, replace the present logger. 0: leave it in place."),
        Option("seq_local", boolean, False, "1: give oob.seq.local, the number of the packet within its group."),
        Option("seq_global", boolean, False, "1: give oob.seq.global, the number of the packet over all groups."),
        Option("numeric_label", number, 0, "Value of the key raw.label, 0 to 255."),
        Option("attach_conntrack", boolean, False, "1: give the connection of the packet: ct.mark, ct.id, ct.status, "
               "ct.zone, and by name the other keys of NFCT."),
        Option("netlink_socket_buffer_size", octets, 0, "Raises the default of receive_buffer to at least this many "
               "octets (an option of ulogd2)."),
        Option("netlink_socket_buffer_maxsize", octets, 0, "Lowers receive_buffer to at most this many octets (an "
               "option of ulogd2). 0: no maximum."),
        *TUNING,
        Option("bufsize", number, 150000, "No effect; accepted for configurations of ulogd2. Datagrams of all sizes "
               "are read."),
    )  # fmt: skip

    def __init__(self, instance: str, config: Any = None, reactor: Any = None) -> None:
        super().__init__(instance, config, reactor)
        self._port: MultiMessagePort | None = None
        self._decoder: Decoder | None = None
        self._datagrams_lost = 0
        self._limited = RateLimitedLog(self._reactor.seconds)
        self.counters.figures["netlink"] = self._figures

    def groups(self) -> tuple[int, ...]:
        """The groups to read."""
        return self.config.group

    def decoded(self) -> frozenset[str]:
        """The keys to decode."""
        return frozenset(key.name for key in self.keys() if key.name in self.wanted)

    def buffer_octets(self) -> int:
        """The limit of the kernel's queue, by the options."""
        config = self.config
        least, most = config.netlink_socket_buffer_size, config.netlink_socket_buffer_maxsize
        return buffers.limit(config.receive_buffer, least, most)

    def system_logging(self) -> bool:
        """Whether to become the kernel's own packet logger; ulogd2 does so for group 0."""
        return self.config.bind or 0 in self.groups()

    def finished(self, batch: Batch) -> Batch:
        """The batch in the form for the plugins below."""
        return batch

    # --- checks and keys --------------------------------------------------------------------------------------------

    def mistakes(self) -> Iterator[tuple[str, str]]:
        if not 0 <= self.config.numeric_label <= 255:
            yield "numeric_label", f"{self.config.numeric_label} is not between 0 and 255"
        for name in ("netlink_qthreshold", "netlink_qtimeout"):
            if not 0 <= getattr(self.config, name) < 1 << 31:
                yield name, "must be 0 or more"

    def keys(self) -> Iterable[Key]:
        """The keys of a packet; sequence numbers and the connection if the options ask for them."""
        without = {"oob.seq.local": self.config.seq_local, "oob.seq.global": self.config.seq_global}
        yield from (key for key in KEYS if without.get(key.name, True))
        if self.config.attach_conntrack:
            yield from CONNECTION_KEYS

    # --- life -------------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Take the groups. Raises `StartError` without privilege, or if another program has one."""
        config = self.config
        wanted = self.decoded()
        self._decoder = Decoder(wanted, self.counters.errors, config.numeric_label)
        port = MultiMessagePort(
            self._received,
            self._lost,
            buffer_octets=self.buffer_octets(),
            namespace=config.network_namespace_path,
            terms=Terms.of(self, config.batch_latency, self.clock, USUAL_S),
            reactor=self._reactor,
            owner=self.instance,
        )
        port.open()
        buffers.tell(self.log, self.instance, port.effective_octets)
        terms = port.gathering.terms
        if port.effective_octets < LITTLE and terms.bound is not None:
            port.gathering.terms = replace(terms, bound=min(terms.bound, 0.005))
        self._port = port
        try:
            self._take_groups(wanted)
        except StartError:
            port.close()
            raise

    def _take_groups(self, wanted: frozenset[str]) -> None:
        if self.system_logging():
            self._become_system_logging()
        # Sequence numbers tell what was lost, so they are always there.
        flags = nflog.SEQ | nflog.SEQ_GLOBAL * ("oob.seq.global" in wanted)
        if wanted & _CONNECTION:
            flags |= nflog.CONNTRACK
        packets = wanted & {"raw.pkt", "raw.pktlen"}
        for group, newest in self._former_groups().items():
            if group in self.groups():
                self._decoder.go_on(group, newest)
            else:
                self._give_back(group)
        for group in self.groups():
            flags = self._take_group(group, flags, min(self.config.copy_range, MOST_OF_A_PACKET) if packets else 0)

    def _take_group(self, group: int, flags: int, copied: int) -> int:
        """Take one group; returns the flags known to the kernel."""
        config = self.config
        request = nflog.bind(
            group,
            copy_octets=copied,
            flags=flags,
            buffer_octets=DATAGRAM,
            threshold=config.netlink_qthreshold,
            timeout_cs=config.netlink_qtimeout or 10,
            ours=group in self._former_groups(),
        )
        try:
            self._ask(request)
        except NetlinkError as error:
            if flags & nflog.CONNTRACK and error.number == errno.EOPNOTSUPP:
                self.log.warn(
                    "{instance}: attach_conntrack: this kernel cannot attach the connection to a packet, so its keys "
                    "are missing; it needs the module nf_conntrack_netlink, and CONFIG_NETFILTER_NETLINK_GLUE_CT",
                    instance=self.instance,
                )
                return self._take_group(group, flags & ~nflog.CONNTRACK, copied)
            raise self._refused(f"group {group}", error) from error
        return flags

    def _become_system_logging(self) -> None:
        for family in nflog.SYSTEM_FAMILIES:
            try:
                if self.config.unbind:
                    self._ask(nflog.system_logging(family, False))
                self._ask(nflog.system_logging(family, True))
            except NetlinkError as error:
                if error.number in (errno.EPERM, errno.EACCES):
                    raise self._refused("system logging", error) from error
                self.log.warn(
                    "{instance}: bind: family {family}: {why}",
                    instance=self.instance, family=family, why=error,
                )  # fmt: skip

    def _ask(self, request: Request) -> None:
        self._port.ask(request.kind, request.flags, request.payload)

    def _refused(self, what: str, error: NetlinkError) -> StartError:
        owner = self._owner(what.removeprefix("group "))
        # EPERM says either, 6.18 never EBUSY.
        if owner or error.number == errno.EBUSY:
            return StartError(f"{what} is in use by another program{owner}", "only one program can read a "
                              "group; set another group here and in the rules")  # fmt: skip
        if error.number in (errno.EPERM, errno.EACCES):
            return StartError(f"{what}: {error}", f"this needs CAP_NET_ADMIN: {GRANT}")
        if error.number == errno.EINVAL:
            return StartError(f"{what}: {error}", "modprobe nfnetlink_log, if the kernel lacks it")
        return StartError(f"{what}: {error}")

    def taken(self, running: Iterable[Plugin]) -> Iterator[tuple[str, str]]:
        """Groups that another program reads."""
        ours = [one.config for one in running if isinstance(one, NFLOG)]
        where = self.config.network_namespace_path
        have = {group for one in ours if one.network_namespace_path == where for group in one.group}
        for group in self.config.group:
            if group not in have and (owner := self._owner(str(group))):
                yield "group", f"group {group} is in use by another program{owner}"

    def _owner(self, group: str) -> str:
        """The owner of a group, as far as the kernel shows it: a netlink port, mostly the process's number."""
        try:
            with inside(self.config.network_namespace_path), open(OWNERS, encoding="ascii") as lines:
                for line in lines:
                    fields = line.split()
                    if fields[0] == group:
                        return f" (netlink port {fields[1]}, mostly the number of its process)"
        except (OSError, IndexError):
            pass
        return ""

    def begin(self) -> None:
        self._port.start()

    def catch_up(self) -> None:
        if self._port is not None:
            self._port.catch_up()

    def stop(self) -> Any:
        """Give the groups back, read the packets still held by the kernel, then close."""
        if self._port is None:
            return None
        if not self._port.handed_on:
            for group in self.groups():
                self._give_back(group)
        return self._port.stop().addCallback(lambda _: self._tell_successor())

    def _tell_successor(self) -> None:
        """Note the groups and their last numbers, where another owner goes on with the socket."""
        assert self._port is not None
        self._port.note(**{f"group {group}": self._newest(group) for group in self.groups()})

    def _give_back(self, group: int) -> None:
        request = nflog.unbind(group)
        self._port.tell(request.kind, request.flags, request.payload)

    def _newest(self, group: int) -> int:
        """The last number of a group; -1 where it is not known."""
        sequence = self._decoder.sequences.get(group) if self._decoder is not None else None
        return -1 if sequence is None or sequence.newest is None else sequence.newest

    def _former_groups(self) -> dict[int, int]:
        """The groups that the socket has from its former owner, with their last numbers."""
        if not self._port.adopted:
            return {}
        if not self._port.notes:  # of a process that was killed
            return dict.fromkeys(self.groups(), -1)
        noted = {what.removeprefix("group "): newest for what, newest in self._port.notes.items() if "group " in what}
        return {int(group): newest for group, newest in noted.items()}

    # --- packets ----------------------------------------------------------------------------------------------------

    def _received(self, octets: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> None:
        try:
            self._give(octets, starts, lengths)
        except Exception as error:
            self.fault(error)

    def _give(self, octets: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> None:
        counters = self.counters
        counters.messages_received += len(starts)
        counters.octets_received += int(lengths.sum())
        batches = self._decoder.decode(octets, starts, lengths, self.clock())
        if missing := self._decoder.lost():
            self._count_lost(missing)
        for batch in batches:
            counters.rows_received += batch.n
            self.emit(self.finished(batch))

    def _lost(self, datagrams: int) -> None:
        """The kernel dropped datagrams; sequence numbers give the number of packets."""
        self._datagrams_lost += datagrams

    def _count_lost(self, n: int) -> None:
        self.counters.lost["kernel"] += n
        self._limited.add(
            self.log.error, "kernel", n,
            "{instance}: the kernel dropped packets ({n}), because its queue of {octets} octets was full; "
            "increase receive_buffer", instance=self.instance, octets=self._port.effective_octets,
        )  # fmt: skip

    def _figures(self) -> dict[str, int]:
        port = self._port
        if port is None:
            return {}
        return {
            "queue_octets": port.effective_octets,
            "overruns": port.overruns,
            "datagrams_lost": self._datagrams_lost,
            "strangers": port.strangers,
            "broken_datagrams": port.broken,
        }
