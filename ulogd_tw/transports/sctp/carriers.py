"""Carriers of SCTP packets in user space: UDP (RFC 6951), or IP itself (protocol 132, needs CAP_NET_RAW)."""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IReadDescriptor
from zope.interface import implementer

from ulogd_tw.transports.stream_listener import bind_socket

IPPROTO_SCTP = 132
_AT_ONCE = 64
"""Packets of one wake-up; more stay in the kernel, so that other sockets get their turn."""
_BUFFER = 8 << 20
_SO_RCVBUFFORCE = 33
_IP_PKTINFO, _IPV6_RECVPKTINFO, _IPV6_PKTINFO = 8, 49, 50
_IP_MTU_DISCOVER, _IPV6_MTU_DISCOVER, _PMTUDISC_DONT = 10, 23, 0
_ENDED_BY = (errno.ECONNREFUSED, errno.ENOPROTOOPT, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EACCES, errno.EPERM)

Peer = tuple[str, int, bytes]
"""Address, UDP port (0 over IP), and our address that it sends to, as struct in_pktinfo or in6_pktinfo."""
Received = Callable[["Carrier", Peer, bytes], None]


@implementer(IReadDescriptor)
class Carrier:
    """One socket. `ports` are the SCTP ports that it is for: over IP every program sees the packets of all others."""

    kind = socket.SOCK_DGRAM
    protocol = 0
    headers = 8
    """Octets before a packet, without those of IP."""

    def __init__(self, made: socket.socket, reactor: Any, received: Received) -> None:
        self.ports: set[int] = set()
        self.refused: Callable[[OSError], None] = lambda fault: None
        self._socket = made
        self._reactor = reactor
        self._received = received
        self._six = made.family == socket.AF_INET6
        self._only: Peer | None = None
        _settle(made, self._six)

    @classmethod
    def bind(cls, host: str, port: int, reactor: Any, received: Received) -> Carrier:
        """For a listener: bound to an address. Raises OSError."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        if cls.protocol == 0:
            return cls(bind_socket(family, cls.kind, host, port), reactor, received)
        made = socket.socket(family, cls.kind, cls.protocol)
        try:
            made.bind((host, 0))
        except OSError:
            made.close()
            raise
        return cls(made, reactor, received)

    @classmethod
    def connect(cls, host: str, port: int, reactor: Any, received: Received) -> Carrier:
        """For one peer: it gets nothing from others, and hears that the peer has no such port. Raises OSError."""
        made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, cls.kind, cls.protocol)
        try:
            made.connect((host, port))
        except OSError:
            made.close()
            raise
        carrier = cls(made, reactor, received)
        carrier._only = (host, port, b"")
        return carrier

    @property
    def place(self) -> tuple[str, int]:
        """Our address and UDP port."""
        return self._socket.getsockname()[:2]

    @property
    def octets(self) -> int:
        """Octets of a packet that an Ethernet frame takes."""
        return (1500 - (40 if self._six else 20) - self.headers) & ~3

    def begin(self) -> None:
        self._reactor.addReader(self)

    def fileno(self) -> int:
        return self._socket.fileno()

    def logPrefix(self) -> str:
        return "sctp"

    def connectionLost(self, reason: Any) -> None:
        """The reactor has seen an error: for a datagram socket it is a report by ICMP, and reading goes on."""
        if self._socket.fileno() >= 0:
            if number := self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                self._tell_refused(OSError(number, os.strerror(number)))
            self._reactor.addReader(self)

    def doRead(self) -> None:
        self.read(_AT_ONCE)

    def read(self, most: int) -> int:
        """Take up to so many packets; how many there were."""
        for count in range(most):
            try:
                packet, told, _, name = self._socket.recvmsg(65536, 64)
            except BlockingIOError:
                return count
            except OSError as fault:
                if self._socket.fileno() < 0:
                    return count
                self._tell_refused(fault)
                continue
            if (packet := self._body(packet)) and self._is_ours(packet):
                self._received(self, self._only or self._peer(name, told), packet)
        return most

    def _peer(self, name: tuple[Any, ...], told: list[Any]) -> Peer:
        return name[0], name[1] if self.kind == socket.SOCK_DGRAM else 0, told[0][2] if told else b""

    def _body(self, packet: bytes) -> bytes:
        return packet

    def _is_ours(self, packet: bytes) -> bool:
        return len(packet) >= 12

    def send(self, packet: bytes, peer: Peer) -> None:
        """A packet without room in the kernel is sent again by the stack, as if the network had lost it."""
        try:
            if self._only is not None:
                self._socket.send(packet)
            elif peer[2]:
                option = (socket.IPPROTO_IPV6, _IPV6_PKTINFO) if self._six else (socket.IPPROTO_IP, _IP_PKTINFO)
                self._socket.sendmsg([packet], [(*option, self._source(peer[2]))], 0, peer[:2])
            else:
                self._socket.sendto(packet, peer[:2])
        except OSError as fault:
            if fault.errno in _ENDED_BY:
                self._tell_refused(fault)

    def _tell_refused(self, fault: OSError) -> None:
        """Later: the stack, which is sending just now, must not be called."""
        self._reactor.callLater(0, self.refused, fault)

    def _source(self, told: bytes) -> bytes:
        """Control data to make the kernel answer from the address that the peer sent to."""
        if self._six:
            return told
        index, local, _ = struct.unpack("=i4s4s", told)
        return struct.pack("=i4s4s", 0, local, bytes(4))

    def close(self) -> None:
        if self._socket.fileno() >= 0:
            self._reactor.removeReader(self)
            self._socket.close()


class UdpCarrier(Carrier):
    """SCTP packets within UDP."""


class RawCarrier(Carrier):
    """SCTP packets in IP; for a kernel without SCTP, which would answer them itself."""

    kind = socket.SOCK_RAW
    protocol = IPPROTO_SCTP
    headers = 0

    def _body(self, packet: bytes) -> bytes:
        return packet if self._six else packet[(packet[0] & 15) * 4 :]

    def _is_ours(self, packet: bytes) -> bool:
        return len(packet) >= 12 and int.from_bytes(packet[2:4], "big") in self.ports


def _settle(made: socket.socket, six: bool) -> None:
    made.setblocking(False)
    try:
        made.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
    except PermissionError:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
    # A path narrower than Ethernet cuts the packets: the stack in user space hears no ICMP.
    if six:
        made.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PMTUDISC_DONT)
        made.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVPKTINFO, 1)
    else:
        made.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_DONT)
        made.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)


def carrier_kind(encapsulation_port: int) -> type[Carrier]:
    """UDP, or IP where the port is 0."""
    return UdpCarrier if encapsulation_port else RawCarrier


def remedy(fault: OSError, port: int) -> str:
    """The advice for a carrier that cannot be opened."""
    if fault.errno == errno.EPERM:
        return "SCTP in IP needs CAP_NET_RAW; encapsulation_port=9899 does without"
    if fault.errno == errno.EADDRINUSE:
        return f"another program has UDP port {port}, which carries SCTP: ss -lunp 'sport = :{port}'"
    return os.strerror(fault.errno or 0)
