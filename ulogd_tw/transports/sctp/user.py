"""Associations of SCTP in user space."""

from __future__ import annotations

import errno
import os
import random
import socket
import struct
from collections.abc import Callable
from typing import Any

from twisted.internet import error
from twisted.logger import Logger

from ulogd_tw.transports.sctp import usrsctp
from ulogd_tw.transports.sctp.association import Association, Begun, Built, Options, SCTPAddress, _Message
from ulogd_tw.transports.sctp.carriers import Carrier, Peer
from ulogd_tw.transports.sctp.stack import Stack
from ulogd_tw.transports.sctp.usrsctp import ffi

_HEAD = struct.Struct("=HHI")
_ASSOC_CHANGE = struct.Struct("=8xHHHH")
_PATH_STATE = struct.Struct("=136xII")
_FAILED_CONTEXT = struct.Struct("=12x8xI")
_BUFFER = ffi.new("char[]", 1 << 17)
_FIRST_PORT, _LAST_PORT = 49152, 65535
_SHUT_WRITING = 1
_MOST_DRAINED = 64

log = Logger()


def prepare(stack: Stack, so: Any, options: Options, packet_octets: int) -> None:
    """Set what an association inherits from its socket. Raises OSError."""
    stack.set(so, usrsctp.RECVRCVINFO, "int", 1)
    stack.set(so, usrsctp.NODELAY, "int", 1)
    init = [options.streams, options.inbound_streams, options.init_attempts, options.rto_max]
    stack.set(so, usrsctp.INITMSG, "struct sctp_initmsg", init)
    times = [0, options.rto_initial, options.rto_max, options.rto_min]
    stack.set(so, usrsctp.RTOINFO, "struct sctp_rtoinfo", times)
    stack.set(so, usrsctp.ASSOCINFO, "struct sctp_assocparams", {"max_rxt": options.retransmissions})
    flags = usrsctp.HEARTBEATS_ON | usrsctp.PMTU_FIXED
    path = {"heartbeat": options.heartbeat, "mtu": packet_octets, "flags": flags, "max_rxt": options.retransmissions}
    stack.set(so, usrsctp.PEER_ADDR_PARAMS, "struct sctp_paddrparams", path)
    stack.set(so, usrsctp.SO_SNDBUF, "int", options.send_octets, usrsctp.SOL_SOCKET)
    stack.set(so, usrsctp.SO_RCVBUF, "int", options.receive_octets, usrsctp.SOL_SOCKET)
    for kind in usrsctp.NOTIFICATIONS:
        stack.set(so, usrsctp.EVENT, "struct sctp_event", [0, kind, 1])


def _conn_address(port: int, number: int) -> Any:
    return ffi.new("struct sockaddr_conn *", [usrsctp.AF_CONN, socket.htons(port), ffi.cast("void *", number)])


class UserAssociation(Association):
    """One association over one carrier."""

    def __init__(self, stack: Stack, so: Any, carrier: Carrier, peer: Peer, ports: tuple[int, int],
                 options: Options) -> None:  # fmt: skip
        super().__init__(options)
        self._stack, self._so = stack, so
        self._carrier, self._peer, self._ports = carrier, peer, ports
        self._number = stack.hold((carrier, peer))
        self._call = _Call()
        self._full = False
        self._skips = False
        self.closed: Callable[[], None] = lambda: None

    def getPeer(self) -> SCTPAddress:
        return SCTPAddress(self._peer[0], self._ports[1], self._peer[1] or None)

    def getHost(self) -> SCTPAddress:
        host, port = self._carrier.place
        return SCTPAddress(host, self._ports[0], port or None)

    # out

    def _send(self, message: _Message) -> bool:
        spa = self._call.spa
        spa.flags = usrsctp.SNDINFO_VALID
        send = spa.send
        send.stream, send.ppid, send.context = message.stream, socket.htonl(message.ppid), message.context
        send.flags = usrsctp.UNORDERED if message.unordered else 0
        if message.answer_soon:
            send.flags |= usrsctp.SACK_IMMEDIATELY
        if message.lifetime_ms:
            spa.flags |= usrsctp.PRINFO_VALID
            spa.pr.policy, spa.pr.value = usrsctp.PR_SCTP_TTL, message.lifetime_ms
        octets = message.octets
        sent = self._stack.library.usrsctp_sendv(
            self._so, ffi.from_buffer(octets), len(octets), ffi.NULL, 0, spa, ffi.sizeof(spa[0]), usrsctp.SENDV_SPA, 0
        )
        if sent < 0:
            if ffi.errno == errno.EAGAIN:
                self._full = True
                return False
            raise OSError(ffi.errno, os.strerror(ffi.errno))
        return True

    def unacknowledged(self) -> int:
        if self._over:
            return 0
        found = self._stack.get(self._so, usrsctp.GET_SNDBUF_USE, "struct sctp_sockstat")
        return found.send_octets if found is not None else 0

    def _shut(self) -> None:
        self._stack.library.usrsctp_shutdown(self._so, _SHUT_WRITING)
        self._stack.drain()

    def _end(self, abort: bool) -> None:
        so, self._so = self._so, None
        if abort:
            self._stack.set(so, usrsctp.SO_LINGER, "struct linger", [1, 0], usrsctp.SOL_SOCKET)
        self._stack.close(so)
        self._stack.release(self._number)
        self.closed()

    # in

    def event(self) -> None:
        """The socket has something to tell. A protocol that fails loses its association, and no other."""
        try:
            self._take_events()
        except Exception:
            log.failure("an SCTP association is aborted")
            self.abortConnection()

    def _take_events(self) -> None:
        if self._over:
            return
        events = self._stack.library.usrsctp_get_events(self._so)
        if events & usrsctp.EVENT_READ:
            self._read()
        if not self._over and self._full and events & usrsctp.EVENT_WRITE:
            self._full = False
            self._room()

    def _read(self) -> None:
        call = self._call
        while not self._over and not self._paused:
            call.prepare()
            n = self._stack.library.usrsctp_recvv(
                self._so, _BUFFER, len(_BUFFER), call.name, call.name_length, call.info, call.info_length, call.kind,
                call.flags,
            )  # fmt: skip
            if n <= 0:
                self._ended(n)
                return
            octets, whole = ffi.buffer(_BUFFER, n)[:], bool(call.flags[0] & usrsctp.MSG_EOR)
            if self._skips:
                self._skips = not whole
            elif call.flags[0] & usrsctp.MSG_NOTIFICATION:
                self._skips = not whole  # the rest of it is a message that could not be sent
                self._notified(octets)
            else:
                self._came(octets, call.info.stream, socket.ntohl(call.info.ppid), whole)

    def _ended(self, n: int) -> None:
        if n == 0:
            self._finish(self._why)
        elif ffi.errno not in (errno.EAGAIN, errno.EINPROGRESS):
            self._finish(self._why or error.ConnectionLost(os.strerror(ffi.errno)))

    def _notified(self, octets: bytes) -> None:
        kind = _HEAD.unpack_from(octets)[0]
        if kind == usrsctp.ASSOC_CHANGE:
            self._changed(*_ASSOC_CHANGE.unpack_from(octets))
        elif kind == usrsctp.SEND_FAILED:
            if self._up:
                self.protocol.messageFailed(_FAILED_CONTEXT.unpack_from(octets)[0])
        elif kind == usrsctp.SENDER_DRY:
            if self._up and not self._queue and not self.unacknowledged():
                self.protocol.allAcknowledged()
        elif kind == usrsctp.SHUTDOWN_EVENT:
            if self._up:
                self.protocol.peerShutDown()
        elif kind == usrsctp.PARTIAL_DELIVERY:
            self._forget_part()
        elif kind == usrsctp.PEER_ADDR_CHANGE and self._up:
            state, _ = _PATH_STATE.unpack_from(octets)
            if state in (usrsctp.ADDRESS_AVAILABLE, usrsctp.ADDRESS_UNREACHABLE):
                self.protocol.pathChanged(self._peer[0], state == usrsctp.ADDRESS_AVAILABLE)

    def _changed(self, state: int, why: int, outbound: int, inbound: int) -> None:
        if state == usrsctp.COMM_UP:
            self.streams, self.inbound_streams = outbound, inbound
            self._established()
        elif state == usrsctp.RESTART:
            self.streams, self.inbound_streams = outbound, inbound
            self._restarted()
        elif state == usrsctp.COMM_LOST:
            self._finish(error.ConnectionLost("the association was aborted, or the peer answers no more"))
        elif state == usrsctp.CANNOT_START:
            self._finish(error.ConnectError(string="the peer does not answer, or refuses the association"))
        elif state == usrsctp.SHUTDOWN_COMPLETE:
            self._finish(None)


class _Call:
    """The arguments of calls of the library, made once."""

    def __init__(self) -> None:
        self.spa = ffi.new("struct sctp_sendv_spa *")
        self.info = ffi.new("struct sctp_rcvinfo *")
        self.info_length = ffi.new("socklen_t *")
        self.name = ffi.new("char[128]")
        self.name_length = ffi.new("socklen_t *")
        self.flags = ffi.new("int *")
        self.kind = ffi.new("unsigned int *")

    def prepare(self) -> None:
        self.info_length[0] = ffi.sizeof("struct sctp_rcvinfo")
        self.name_length[0] = 128
        self.flags[0] = 0


class Connecting(Begun, UserAssociation):
    """An association of usrsctp's that we began."""

    def __init__(self, stack: Stack, so: Any, carrier: Carrier, peer: Peer, ports: tuple[int, int],
                 options: Options, built: Built, failed: Callable[[BaseException], None]) -> None:  # fmt: skip
        super().__init__(stack, so, carrier, peer, ports, options)
        self._built, self._tell_failed = built, failed
        carrier.refused = self._refused
        self.closed = carrier.close

    def _refused(self, fault: OSError) -> None:
        """ICMP says that nobody is there; once there is an association only its own timers count."""
        if not self._up:
            self._finish(error.ConnectError(fault.errno, os.strerror(fault.errno or 0)))


def connect(stack: Stack, carrier: Carrier, peer: Peer, port: int, options: Options, clock: Any, built: Built,
            failed: Callable[[BaseException], None]) -> Connecting:  # fmt: skip
    """Begin an association with a port of a peer over a carrier of its own. Raises OSError."""
    so = stack.open(clock)
    try:
        prepare(stack, so, options, carrier.octets)
        number = stack.hold((carrier, peer))
        try:
            own = _bind(stack, so, number)
            carrier.ports.add(own)
            stack.watch(so, None)
            made = Connecting(stack, so, carrier, peer, (own, port), options, built, failed)
        finally:
            stack.release(number)
    except OSError:
        stack.close(so)
        raise
    stack.sockets[so] = made
    carrier.begin()
    where = _conn_address(port, made._number)
    if stack.library.usrsctp_connect(so, where, ffi.sizeof(where[0])) and ffi.errno != errno.EINPROGRESS:
        made._finish(OSError(ffi.errno, os.strerror(ffi.errno)))
    return made


def _bind(stack: Stack, so: Any, number: int) -> int:
    """Bind to a free port; which."""
    for _ in range(64):
        port = random.SystemRandom().randint(_FIRST_PORT, _LAST_PORT)
        where = _conn_address(port, number)
        if not stack.library.usrsctp_bind(so, where, ffi.sizeof(where[0])):
            return port
        if ffi.errno != errno.EADDRINUSE:
            break
    raise OSError(ffi.errno, os.strerror(ffi.errno))


class Listener:
    """A listening port over one or more carriers. `begin` starts to accept."""

    def __init__(self, stack: Stack, carriers: list[Carrier], port: int, options: Options, clock: Any,
                 built: Built) -> None:  # fmt: skip
        self._stack, self._carriers, self._port = stack, carriers, port
        self._options, self._built = options, built
        self._so = stack.open(clock)
        self.open: set[UserAssociation] = set()
        try:
            prepare(stack, self._so, options, min(carrier.octets for carrier in carriers))
            where = _conn_address(port, 0)
            stack.check(stack.library.usrsctp_bind(self._so, where, ffi.sizeof(where[0])))
            stack.check(stack.library.usrsctp_listen(self._so, 128))
        except OSError:
            stack.close(self._so)
            raise
        stack.watch(self._so, self)
        for carrier in carriers:
            carrier.ports.add(port)

    def getHost(self) -> SCTPAddress:
        host, port = self._carriers[0].place
        return SCTPAddress(host, self._port, port or None)

    def begin(self) -> None:
        for carrier in self._carriers:
            carrier.begin()

    def drain(self) -> None:
        """Take the packets that the kernel already holds."""
        for carrier in self._carriers:
            for _ in range(_MOST_DRAINED):  # a peer that sends without end shall not keep us
                if carrier.read(1024) < 1024:
                    break

    def event(self) -> None:
        while self._so is not None:
            name, length = ffi.new("struct sockaddr_conn *"), ffi.new("socklen_t *", 16)
            so = self._stack.library.usrsctp_accept(self._so, name, length)
            if so == ffi.NULL:
                return
            self._accept(so, int(ffi.cast("uintptr_t", name.address)), socket.ntohs(name.port))

    def _accept(self, so: Any, number: int, port: int) -> None:
        way = self._stack.way(number)
        if way is None or way[0] not in self._carriers:
            self._refuse(so)
            return
        carrier, peer = way
        association = UserAssociation(self._stack, so, carrier, peer, (self._port, port), self._options)
        self._stack.watch(so, association)
        try:
            association.protocol = self._built(association.getPeer())
        except Exception:
            log.failure("an SCTP association is refused")
        if association.protocol is None:
            association.abortConnection()
            return
        self.open.add(association)
        association.closed = lambda: self._gone(association)
        association.event()

    def _refuse(self, so: Any) -> None:
        self._stack.set(so, usrsctp.SO_LINGER, "struct linger", [1, 0], usrsctp.SOL_SOCKET)
        self._stack.close(so)

    def _gone(self, association: UserAssociation) -> None:
        self.open.discard(association)
        self._close_carriers()

    def close(self) -> None:
        """Accept no more; the carriers live until the last association has ended."""
        if self._so is not None:
            so, self._so = self._so, None
            self._stack.close(so)
            self._close_carriers()

    def _close_carriers(self) -> None:
        if self._so is None and not self.open:
            for carrier in self._carriers:
                carrier.close()
