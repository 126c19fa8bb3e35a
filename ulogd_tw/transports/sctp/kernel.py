"""Associations of the kernel's own SCTP (RFC 6458, one-to-one style), which alone can have several addresses."""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Callable
from typing import Any

from twisted.internet import error
from twisted.internet.interfaces import IReadDescriptor, IReadWriteDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from ulogd_tw.transports.descriptors import descriptors, name_of_bound
from ulogd_tw.transports.sctp.association import Association, Begun, Built, Options, SCTPAddress, _Message
from ulogd_tw.transports.stream_listener import bind_all
from ulogd_tw.transports.url import Url

PROTOCOL = 132
_RTOINFO, _ASSOCINFO, _INITMSG, _NODELAY, _PEER_ADDR_PARAMS, _EVENTS, _STATUS = 0, 1, 2, 3, 9, 11, 14
_RECVRCVINFO, _BINDX_ADD = 32, 100
_SNDINFO, _RCVINFO, _PRINFO = 2, 3, 5
_UNORDERED, _SACK_IMMEDIATELY, _PR_TTL = 1, 8, 0x10
_MSG_NOTIFICATION, _MSG_EOR = 0x8000, 0x80
_ASSOC_CHANGE, _PEER_ADDR_CHANGE, _SEND_FAILED, _SHUTDOWN_EVENT, _PARTIAL_DELIVERY, _SENDER_DRY = (
    0x8001, 0x8002, 0x8003, 0x8005, 0x8006, 0x8009)  # fmt: skip
_COMM_UP, _COMM_LOST, _RESTART, _SHUTDOWN_COMPLETE, _CANNOT_START = range(5)
_ADDRESS_AVAILABLE, _ADDRESS_UNREACHABLE = 0, 1
_SUBSCRIBED = bytes((0, 1, 1, 1, 0, 1, 1, 0, 0, 1))
"""struct sctp_event_subscribe: association, address, send_failure, shutdown, partial_delivery, sender_dry."""
_HEARTBEATS_ON = 1
_SO_MEMINFO, _MEMINFO_WMEM_QUEUED = 55, 5
_AT_ONCE = 256


def has_sctp() -> bool:
    """Whether this kernel has SCTP; asking may load its module."""
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, PROTOCOL).close()
    except OSError:
        return False
    return True


def _prepare(made: socket.socket, options: Options) -> None:
    """Set what an association inherits from its socket. Raises OSError."""
    made.setblocking(False)
    init = struct.pack("=HHHH", options.streams, options.inbound_streams, options.init_attempts, options.rto_max)
    made.setsockopt(PROTOCOL, _INITMSG, init)
    made.setsockopt(PROTOCOL, _NODELAY, 1)
    made.setsockopt(PROTOCOL, _RECVRCVINFO, 1)
    made.setsockopt(PROTOCOL, _EVENTS, _SUBSCRIBED)
    times = struct.pack("=iIII", 0, options.rto_initial, options.rto_max, options.rto_min)
    made.setsockopt(PROTOCOL, _RTOINFO, times)
    made.setsockopt(PROTOCOL, _ASSOCINFO, struct.pack("=iHHIII", 0, options.retransmissions, 0, 0, 0, 0))
    path = struct.pack("=i128sIHIII", 0, b"", options.heartbeat, options.retransmissions, 0, 0, _HEARTBEATS_ON)
    made.setsockopt(PROTOCOL, _PEER_ADDR_PARAMS, path.ljust(152, b"\0"))
    made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, options.send_octets)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, options.receive_octets)


def _add_addresses(made: socket.socket, addresses: tuple[str, ...]) -> None:
    """Further own addresses, with the port of the first. Raises OSError."""
    port, packed = made.getsockname()[1], b""
    for address in addresses:
        if ":" in address:
            octets = socket.inet_pton(socket.AF_INET6, address)
            packed += struct.pack("=H", socket.AF_INET6) + struct.pack("!HI16sI", port, 0, octets, 0)
        else:
            packed += struct.pack("=H", socket.AF_INET) + struct.pack("!H4s8x", port, socket.inet_aton(address))
    if packed:
        made.setsockopt(PROTOCOL, _BINDX_ADD, packed)


@implementer(IReadWriteDescriptor)
class KernelAssociation(Association):
    """One association on a socket of its own."""

    def __init__(self, made: socket.socket, reactor: Any, options: Options) -> None:
        super().__init__(options)
        self._socket = made
        self._reactor = reactor
        self._writing = False
        self._skips = False
        self.closed: Callable[[], None] = lambda: None

    def getPeer(self) -> SCTPAddress:
        try:
            return SCTPAddress(*self._socket.getpeername()[:2])
        except OSError:
            return self._peer

    def getHost(self) -> SCTPAddress:
        return SCTPAddress(*self._socket.getsockname()[:2])

    _peer = SCTPAddress("", 0)

    def fileno(self) -> int:
        return self._socket.fileno()

    def logPrefix(self) -> str:
        return "sctp"

    def begin(self) -> None:
        self._reactor.addReader(self)

    # out

    def _send(self, message: _Message) -> bool:
        flags = _UNORDERED * message.unordered | _SACK_IMMEDIATELY * message.answer_soon
        info = struct.pack("=HHIII", message.stream, flags, socket.htonl(message.ppid), message.context, 0)
        told = [(PROTOCOL, _SNDINFO, info)]
        if message.lifetime_ms:
            told.append((PROTOCOL, _PRINFO, struct.pack("=HxxI", _PR_TTL, message.lifetime_ms)))
        try:
            self._socket.sendmsg([message.octets], told, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            if not self._writing:
                self._writing = True
                self._reactor.addWriter(self)
            return False
        return True

    def unacknowledged(self) -> int:
        if self._over:
            return 0
        memory = self._socket.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, 36)
        return struct.unpack_from("=I", memory, 4 * _MEMINFO_WMEM_QUEUED)[0]

    def doWrite(self) -> None:
        self._writing = False
        self._reactor.removeWriter(self)
        self._room()

    def _shut(self) -> None:
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError as fault:
            self._finish(fault)

    def _end(self, abort: bool) -> None:
        self._reactor.removeReader(self)
        self._reactor.removeWriter(self)
        self._peer = self.getPeer()
        if abort:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("=ii", 1, 0))
        self._socket.close()
        self.closed()

    # in

    def pauseProducing(self) -> None:
        super().pauseProducing()
        self._reactor.removeReader(self)

    def resumeProducing(self) -> None:
        if self._paused and not self._over:
            self._reactor.addReader(self)
        super().resumeProducing()

    def doRead(self) -> None:
        self._read()

    def _read(self) -> None:
        for _ in range(_AT_ONCE):
            if self._over or self._paused:
                return
            try:
                octets, told, flags, _ = self._socket.recvmsg(1 << 17, 256)
            except BlockingIOError:
                return
            except OSError as fault:
                self._finish(self._why or fault)
                return
            whole = bool(flags & _MSG_EOR)
            if self._skips:
                self._skips = not whole
            elif flags & _MSG_NOTIFICATION:
                self._skips = not whole
                self._notified(octets)
            elif not octets:
                self._finish(self._why)
            else:
                info = next((data for _, kind, data in told if kind == _RCVINFO), bytes(28))
                stream, ppid = struct.unpack_from("=HxxxxxxI", info)
                self._came(octets, stream, socket.ntohl(ppid), whole)

    def connectionLost(self, reason: Failure) -> None:
        """The reactor has seen an error on the socket: the association is over, or was refused."""
        number = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) if self.fileno() >= 0 else 0
        self._finish(self._why or (OSError(number, os.strerror(number)) if number else reason.value))

    def _notified(self, octets: bytes) -> None:
        kind = struct.unpack_from("=H", octets)[0]
        if kind == _ASSOC_CHANGE:
            self._changed(*struct.unpack_from("=8xHHHH", octets))
        elif not self._up:
            return
        elif kind == _SEND_FAILED:
            self.protocol.messageFailed(struct.unpack_from("=24xI", octets)[0])
        elif kind == _SENDER_DRY:
            if not self._queue and not self.unacknowledged():
                self.protocol.allAcknowledged()
        elif kind == _SHUTDOWN_EVENT:
            self.protocol.peerShutDown()
        elif kind == _PARTIAL_DELIVERY:
            self._forget_part()
        elif kind == _PEER_ADDR_CHANGE:
            state = struct.unpack_from("=136xi", octets)[0]
            if state in (_ADDRESS_AVAILABLE, _ADDRESS_UNREACHABLE):
                self.protocol.pathChanged(_host(octets[8:136]), state == _ADDRESS_AVAILABLE)

    def _changed(self, state: int, why: int, outbound: int, inbound: int) -> None:
        if state == _COMM_UP:
            self.streams, self.inbound_streams = outbound, inbound
            self._established()
        elif state == _RESTART:
            self.streams, self.inbound_streams = outbound, inbound
            self._restarted()
        elif state == _COMM_LOST:
            # Unsent messages are reported after it: the end of the socket comes last.
            self._why = error.ConnectionLost("the association was aborted, or the peer answers no more")
        elif state == _SHUTDOWN_COMPLETE:
            self._finish(self._why)  # who began the shutdown gets no end of file (6.1)
        elif state == _CANNOT_START:
            self._finish(error.ConnectError(string="the peer does not answer, or refuses the association"))


def _host(name: bytes) -> str:
    """The address in a struct sockaddr_storage."""
    family = struct.unpack_from("=H", name)[0]
    if family == socket.AF_INET6:
        return socket.inet_ntop(socket.AF_INET6, name[8:24])
    return socket.inet_ntoa(name[4:8])


class Connecting(Begun, KernelAssociation):
    """An association of the kernel's that we began."""

    def __init__(self, made: socket.socket, reactor: Any, options: Options, built: Built,
                 failed: Callable[[BaseException], None]) -> None:  # fmt: skip
        super().__init__(made, reactor, options)
        self._built, self._tell_failed = built, failed


def connect(host: str, port: int, options: Options, reactor: Any, built: Built,
            failed: Callable[[BaseException], None]) -> Connecting:  # fmt: skip
    """Begin an association. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM, PROTOCOL)
    try:
        _prepare(made, options)
        if options.addresses:
            made.bind((options.addresses[0], 0))
            _add_addresses(made, options.addresses[1:])
        result = made.connect_ex((host, port))
        if result not in (0, errno.EINPROGRESS):
            raise OSError(result, os.strerror(result))
    except OSError:
        made.close()
        raise
    association = Connecting(made, reactor, options, built, failed)
    association._peer = SCTPAddress(host, port)
    association.begin()
    return association


@implementer(IReadDescriptor)
class _Port:
    """One listening socket."""

    def __init__(self, made: socket.socket, reactor: Any, options: Options, built: Built) -> None:
        self._socket, self._reactor = made, reactor
        self._options, self._built = options, built
        self.open: set[KernelAssociation] = set()
        descriptors.opened(name_of_bound(made), self)

    def fileno(self) -> int:
        return self._socket.fileno()

    def logPrefix(self) -> str:
        return "sctp"

    def connectionLost(self, reason: Any) -> None:
        self.close()

    def place(self) -> tuple[str, int]:
        return self._socket.getsockname()[:2]

    def doRead(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                made, _name = self._socket.accept()
            except OSError:
                return
            self._accept(made)

    def _accept(self, made: socket.socket) -> None:
        made.setblocking(False)
        association = KernelAssociation(made, self._reactor, self._options)
        association._peer = association.getPeer()
        association.inbound_streams, association.streams = struct.unpack_from(
            "=16xHH", made.getsockopt(PROTOCOL, _STATUS, 176)
        )
        association.protocol = self._built(association.getPeer())
        if association.protocol is None:
            association.abortConnection()
            return
        self.open.add(association)
        association.closed = lambda: self.open.discard(association)
        association.begin()
        association._established()

    def close(self) -> None:
        if self._socket.fileno() >= 0:
            self._reactor.removeReader(self)
            self._socket.close()


class KernelListener:
    """A listening port: one socket, or one for IPv4 and one for IPv6 where no host is named."""

    def __init__(self, host: str, port: int, options: Options, reactor: Any, built: Built) -> None:
        self._reactor = reactor
        self._ports: list[_Port] = []
        for made in bind_all(Url("sctp", host, port), socket.SOCK_STREAM, PROTOCOL):
            self._ports.append(_Port(made, reactor, options, built))
            try:
                _prepare(made, options)
                _add_addresses(made, options.addresses)
                made.listen(128)
            except OSError:
                self.close()
                raise

    @property
    def open(self) -> set[KernelAssociation]:
        return set().union(*(port.open for port in self._ports))

    def getHost(self) -> SCTPAddress:
        return SCTPAddress(*self._ports[0].place())

    def begin(self) -> None:
        for port in self._ports:
            self._reactor.addReader(port)

    def drain(self) -> None:
        """Accept waiting associations, and read their messages."""
        for port in self._ports:
            port.doRead()
            for association in list(port.open):
                association.doRead()

    def close(self) -> None:
        for port in self._ports:
            port.close()
