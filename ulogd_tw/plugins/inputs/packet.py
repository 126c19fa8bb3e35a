"""PACKET: captures packets on network interfaces, as they are on the wire."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
from twisted.internet import defer
from twisted.logger import Logger

from ulogd_tw.core import columns
from ulogd_tw.core.batch import Batch, Schema
from ulogd_tw.core.capabilities import NET_ADMIN, NET_RAW
from ulogd_tw.core.columns import Column, Pieces
from ulogd_tw.core.counters import Count, Gauge, Lost
from ulogd_tw.core.errors import StartError
from ulogd_tw.core.keys import Key, ulogd_keys
from ulogd_tw.core.limited import RateLimitedLog
from ulogd_tw.core.options import Option, boolean, number, octets, one_of, seconds, text, unsigned32, words
from ulogd_tw.core.paths import network_namespace
from ulogd_tw.core.plugin import RAW, Input
from ulogd_tw.transports import bpf
from ulogd_tw.transports.bpf import Program
from ulogd_tw.transports.gathering import Terms
from ulogd_tw.transports.packet import OUTGOING, PacketPort, Ring

_AF_INET, _AF_INET6, _AF_BRIDGE = 2, 10, 7
_FAMILIES = {0x0800: _AF_INET, 0x86DD: _AF_INET6}
_ETHER, _LOOPBACK = 1, 772
_OF_IP = (519, 768, 769, 776, 0xFFFE)
"""ARPHRD of devices with packets beginning with IP: raw IP, tunnels, and devices without a type (tun, WireGuard)."""
_LINKTYPES = {_ETHER: 1, _LOOPBACK: 1} | dict.fromkeys(_OF_IP, 101)
"""ARPHRD -> LINKTYPE."""
USUAL_S = 0.1
"""Seconds that packets wait for more, where no plugin below has a wish."""

ETHERNET = 1
"""The link type of most interfaces (DLT_EN10MB), to check a filter before an interface is open."""


class PACKET(Input):
    """Captures packets on network interfaces, for BASE and the plugins below it.

    Packets come through a ring shared with the kernel (TPACKET_V3), with their link header and VLAN tags. Packets
    dropped by the kernel because the ring was full are counted as lost. On the loopback interface each packet comes
    once, as received.
    """

    name = "PACKET"
    capabilities = frozenset({NET_ADMIN, NET_RAW})
    otype = RAW
    provides = ulogd_keys("raw.pkt", "raw.pktlen", "raw.pktcount", "raw.linktype", "oob.time.sec", "oob.time.usec",
                          "oob.family", "oob.protocol", "oob.ifindex_in", "oob.ifindex_out", "oob.in",
                          "oob.out")  # fmt: skip
    hidden = frozenset({"raw.pktcount", "raw.linktype"})
    counts = (
        Gauge("ring_octets", "octets", "Size of the rings."),
        Count("ring_full", "occasions", "Times that a ring was full."),
        Lost("kernel", "packets", "Packets that the kernel dropped because a ring was full."),
    )
    options = (
        Option("interface", words, None, "Interfaces to read, such as eth0 eth1.", mandatory=True),
        Option("direction", one_of("both", "in", "out"), "both", "in: packets that arrive; out: packets sent by this "
               "host; both: all."),
        Option("filter", text, "", 'Filter in the language of tcpdump, such as "tcp port 443". It needs libpcap, and '
               "sees packets without their VLAN tag. Empty: all packets."),
        Option("snaplen", unsigned32, 262144, "Maximum number of octets taken of a packet; for flows 128 are enough."),
        Option("promiscuous", boolean, False, "1: read also packets for other hosts."),
        Option("ring", octets, 64 << 20, "Octets of kernel memory for the packet ring of each interface."),
        Option("batch_latency", seconds, None, "The longest time in seconds for which packets wait for more, such as "
               "0.1. Not given: as long as the outputs and filters below allow, at most 0.25 s, "
           "or 1 s above an AGGREGATE."),
        Option("fanout", number, 0, "Number of a fanout group, 1 to 65535: processes with the same number share the "
               "packets of an interface, and all packets of a flow go to one process. 0: no group."),
        Option("network_namespace_path", network_namespace, "",
               "Network namespace of the interfaces, such as /run/netns/router. Empty: the namespace of the service."),
    )  # fmt: skip

    def __init__(self, instance: str, config: Any = None, reactor: Any = None) -> None:
        super().__init__(instance, config)
        self._reactor = reactor
        self.ports: list[PacketPort] = []
        self.log = Logger()
        self._keys: tuple[Key, ...] = ()
        self._limited = RateLimitedLog(time.monotonic)
        self.counters.figures["ring_octets"] = lambda: sum(port.ring_octets for port in self.ports)
        self.counters.figures["ring_full"] = lambda: sum(port.frozen for port in self.ports)

    def mistakes(self) -> Iterator[tuple[str, str]]:
        config = self.config
        if config.interface is not None and not config.interface:
            yield "interface", "must name an interface, such as eth0; ip link lists them"
        for name in config.interface or ():
            if len(name.encode()) > 15:
                yield "interface", f"{name} is too long for the name of an interface; ip link lists them"
        if not 0 <= config.fanout <= 0xFFFF:
            yield "fanout", f"{config.fanout} is not a group (1 to 65535, 0 for none)"
        if config.ring > 1 << 31:
            yield "ring", "must be at most 2G"
        if config.batch_latency is not None and not 0.001 <= config.batch_latency <= 10:
            yield "batch_latency", "must be from 1 ms to 10 s"

    def obstacles(self) -> Iterator[tuple[str, str, bool]]:
        """The interfaces are there, where they are ours."""
        yield from super().obstacles()
        for name in self.config.interface if not self.config.network_namespace_path else ():
            if not os.path.exists(f"/sys/class/net/{name}"):
                yield "interface", f"there is no interface {name}; ip link lists them", False
        if self.config.filter:
            try:
                bpf.compiled(self.config.filter, ETHERNET, self.config.snaplen)
            except StartError as error:  # another kind of link may take it
                yield "filter", f"{error}", False

    # --- life -------------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Make the rings. Raises `StartError` without privilege, without the interface, or without a needed libpcap."""
        config = self.config
        self._keys = tuple(key for key in self.provides if key.name in self.wanted)
        terms = Terms.of(self, config.batch_latency, time.time, USUAL_S)
        for name in config.interface:
            port = PacketPort(
                name, self._received, self._lost,
                ring_octets=config.ring, terms=terms, program=partial(self._program, name),
                promiscuous=config.promiscuous, outgoing=config.direction != "in", fanout=config.fanout or None,
                namespace=config.network_namespace_path, reactor=self._reactor, owner=self.instance,
            )  # fmt: skip
            try:
                port.open()
            except StartError:
                self.stop()
                raise
            self.ports.append(port)

    def _program(self, name: str, device: int) -> Program:
        if device not in _LINKTYPES:
            raise StartError(f"interface {name}: devices of type {device} cannot be read",
                             "use an Ethernet, loopback or IP device")  # fmt: skip
        link = bpf.ETHERNET if _LINKTYPES[device] == 1 else bpf.RAW
        return bpf.compiled(self.config.filter, link, self.config.snaplen)

    def begin(self) -> None:
        for port in self.ports:
            port.start()

    def catch_up(self) -> None:
        for port in self.ports:
            port.catch_up()

    def stop(self) -> defer.Deferred[Any]:
        """Emit the packets in the rings, and close them."""
        return defer.gatherResults([port.stop() for port in self.ports], consumeErrors=True)

    # --- packets ----------------------------------------------------------------------------------------------------

    def _received(self, port: PacketPort, ring: Ring) -> None:
        try:
            self._give(port, ring)
        except Exception as error:
            self.fault(error)

    def _give(self, port: PacketPort, ring: Ring) -> None:
        sent = ring.heads["kind"] == OUTGOING
        keep = None
        if self.config.direction == "out":
            keep = sent
        elif port.device == _LOOPBACK:
            keep = ~sent
        if keep is not None and not keep.all():
            rows = np.flatnonzero(keep)
            if not len(rows):
                return
            ring = Ring(ring.octets, ring.starts[rows], ring.lengths[rows], ring.heads[rows])
            sent = sent[rows]
        counters = self.counters
        counters.messages_received += len(ring)
        counters.rows_received += len(ring)
        counters.octets_received += int(ring.heads["wire"].sum())
        self.emit(self._batch(port, ring, sent))

    def _batch(self, port: PacketPort, ring: Ring, sent: np.ndarray) -> Batch:
        found: dict[Key, Column] = {}
        missing: dict[str, np.ndarray] = {}
        for key in self._keys:
            absent = {"in": sent, "out": ~sent}.get(key.name.rsplit(".", 1)[1].removeprefix("ifindex_"))
            if absent is not None and absent.any():
                if absent.all():
                    continue
                missing[key.name] = absent
            found[key] = self._column(key, port, ring)
        schema = Schema(tuple(found))
        held = {key.name: column for key, column in found.items()}
        return Batch(schema, held, missing, n=len(ring), now=time.time())

    def _column(self, key: Key, port: PacketPort, ring: Ring) -> Column:
        n, name, heads = len(ring), key.name, ring.heads
        if name == "raw.pkt":
            return Pieces(ring.octets, ring.starts, ring.lengths)
        if name in _FROM:
            return heads[_FROM[name]].astype(np.uint32)
        if name == "oob.time.usec":
            return heads["nanoseconds"] // np.uint32(1000)
        if name == "oob.protocol":
            return heads["protocol"].astype(np.uint16)
        if name == "oob.family":
            protocol = heads["protocol"]
            family = np.full(n, _AF_BRIDGE, np.uint8)
            for kind, number_ in _FAMILIES.items():
                family[protocol == kind] = number_
            return family
        value = {"raw.pktcount": 1, "raw.linktype": _LINKTYPES[port.device], "oob.ifindex_in": port.index,
                 "oob.ifindex_out": port.index, "oob.in": os.fsencode(port.interface),
                 "oob.out": os.fsencode(port.interface)}[name]  # fmt: skip
        return columns.repeated(value, n, key.type.dtype)

    def _lost(self, n: int) -> None:
        self.counters.lost["kernel"] += n
        self._limited.add(
            self.log.error, "kernel", n, "{instance}: the kernel dropped packets ({n}), because the ring was full; "
            "increase ring, or take fewer octets with snaplen or fewer packets with filter", instance=self.instance,
        )  # fmt: skip


_FROM = {"oob.time.sec": "seconds", "raw.pktlen": "wire"}
