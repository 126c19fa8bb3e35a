"""Lines of text to a peer in datagrams, one line each: over UDP, or to a Unix socket."""

from __future__ import annotations

import errno
import socket
from typing import Any

from twisted.internet import defer, protocol

from ulogd_tw.transports import names
from ulogd_tw.writing.remote import Remote
from ulogd_tw.writing.text import BUSY, RETRY, TURN, Sink, TextOutput

NETWORK_DOWN = {errno.ECONNREFUSED, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EPERM, errno.EACCES}
"""Errors of a UDP socket that concern one datagram only."""


class LineByLine(Sink):
    """One datagram a line. A line too long for a datagram is dropped as ``too_long``."""

    def send(self, line: bytes | memoryview) -> bool:
        """Send a line with its end; False if it must wait."""
        raise NotImplementedError

    def send_waiting(self) -> bool:
        until = self.clock.seconds() + TURN
        assert self.rest is not None
        while line := self.rest.record():
            if not self.send(line):
                return False
            self.rest.sent(len(line))
            if self.clock.seconds() > until:
                self.later(0)
                return False
        return True

    def too_long(self, peer: str) -> None:
        self.fault("too_long", "{peer}: a line is longer than a datagram: dropped", peer=peer)
        self.output.counters.dropped["too_long"] += 1


class Datagrams(LineByLine, Remote, protocol.DatagramProtocol):
    """UDP: about 0.2 M lines a second, one system call each.

    The kernel reports an absent peer only with the next datagram; the earlier rows count as written.
    """

    noisy = False
    transport: Any = None

    def __init__(self, output: TextOutput, peer: str, host: str, port: int, reactor: Any) -> None:
        super().__init__(output, peer)
        self.host = host
        self.port = port
        self.reactor = reactor
        self._address = ""
        self._looking: Any = None

    @defer.inlineCallbacks
    def attempt(self) -> Any:
        found = names.numeric(self.host, self.port, socket.SOCK_DGRAM)
        if found is None:
            (found, *_) = yield names.lookup(self.reactor, self.host, self.port, socket.SOCK_DGRAM)
            self._follow()
        self._connect(found[1][0])

    def _connect(self, address: str) -> None:
        self._address = address
        self.reactor.listenUDP(0, self, interface="::" if ":" in address else "", maxPacketSize=65536)
        self.transport.connect(address, self.port)

    def _follow(self) -> None:
        if not self._closing:
            self._looking = self.clock.callLater(names.AGAIN, self._look_again)

    def _look_again(self) -> None:
        """Look the name up again; where nobody answers, its host is taken to be where it was."""
        self._looking = None
        looked = names.lookup(self.reactor, self.host, self.port, socket.SOCK_DGRAM)
        looked.addCallbacks(self._compare, lambda _: None).addCallback(lambda _: self._follow())

    def _compare(self, addresses: list[names.Address]) -> None:
        """Go where the name is now, if that is elsewhere."""
        if not self._closing and self._address not in [where[0] for _, where in addresses]:
            self.transport.stopListening()
            self._connect(addresses[0][1][0])

    def send_waiting(self) -> bool:
        return self.up and super().send_waiting()

    def send(self, line: bytes | memoryview) -> bool:
        try:
            self.transport.write(bytes(line))
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.ENOBUFS):
                self.later(BUSY)
                return False
            if error.errno in NETWORK_DOWN:
                self.fault("connection", "{peer}: {error}", peer=self.peer, error=error.strerror)
                self.output.counters.dropped["write"] += 1
            else:  # Twisted's MessageLengthError has no errno
                self.too_long(self.peer)
        return True

    def connectionRefused(self) -> None:
        """ICMP reported an unused port: an earlier datagram is lost."""
        self.fault("connection", "{peer}: no program listens there", peer=self.peer)

    def close(self) -> Any:
        super().close()
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None
        return self.transport.stopListening() if self.transport is not None else None


class UnixDatagrams(LineByLine):
    """Datagrams to another process's Unix socket: about 0.3 M lines a second, without line ends.

    While nobody listens or the socket is full, rows wait for the next attempt.
    """

    def __init__(self, output: TextOutput, path: str) -> None:
        super().__init__(output)
        self.path = path
        self._socket: socket.socket | None = None

    def open(self) -> None:
        """Connects with the first line: an unreachable peer does not prevent the start."""

    def reopen(self) -> None:
        self._disconnect()

    def _disconnect(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def close(self) -> defer.Deferred[None] | None:
        self._disconnect()
        return None

    def send(self, line: bytes | memoryview) -> bool:
        try:
            if self._socket is None:
                self._socket = _connected(self.path)
            self._socket.send(line[:-1])
        except BlockingIOError:
            self.later(BUSY)
            return False
        except OSError as error:
            if error.errno != errno.EMSGSIZE:
                self._missed(error)
                return False
            self.too_long(self.path)
        return True

    def _missed(self, error: OSError) -> None:
        self._disconnect()
        self.trouble = f"{self.path}: {error.strerror}"
        self.fault("connection", "{path}: {error}; its rows wait; next attempt every {retry} s",
                   path=self.path, error=error.strerror, retry=RETRY)  # fmt: skip
        self.later(RETRY)


def _connected(path: str) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        made.connect(path)
    except OSError:
        made.close()
        raise
    return made
