"""An SCTP association as Twisted sees it: whole messages on streams, with the ends that both kinds of stack share."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from twisted.internet import error, protocol
from twisted.internet.interfaces import IAddress
from twisted.python.failure import Failure
from zope.interface import implementer

from ulogd_tw.core.plurals import plural
from ulogd_tw.transports.errors import SctpError

ENCAPSULATION_PORT = 9899
"""UDP port of SCTP within UDP (RFC 6951 section 4)."""


@dataclass(frozen=True, slots=True)
class Options:
    """How associations behave; times in milliseconds.

    stack                ``kernel``, ``user`` (usrsctp), or ``auto``: the kernel where it can do what is asked
    encapsulation_port   UDP port of the peer (a listener's own); 0: straight in IP; None: 0 with the kernel, else 9899
    streams              outbound streams that are asked for
    inbound_streams      inbound streams that the peer may have
    rto_max              longest time between two retransmissions
    retransmissions      retransmissions in a row after which the association is lost
    init_attempts        INITs after which there is no association
    heartbeat            time between heartbeats of a silent association
    send_octets          octets that wait in the stack before `write` queues them here
    receive_octets       window that the peer is told
    addresses            further own addresses (multi-homing, kernel only)
    longest_message      octets; a peer that sends a longer one is aborted
    """

    stack: str = "auto"
    encapsulation_port: int | None = None
    streams: int = 16
    inbound_streams: int = 64
    rto_initial: int = 1000
    rto_min: int = 1000
    rto_max: int = 10_000
    retransmissions: int = 8
    init_attempts: int = 4
    heartbeat: int = 15_000
    send_octets: int = 1 << 20
    receive_octets: int = 4 << 20
    addresses: tuple[str, ...] = ()
    longest_message: int = 65535


@implementer(IAddress)
class SCTPAddress(NamedTuple):
    """Address and port of one end; `udp_port` where it is reached within UDP."""

    host: str
    port: int
    udp_port: int | None = None


class SCTPProtocol(protocol.BaseProtocol):
    """The events of an association. `transport` is an `Association`."""

    transport: Any

    def messageReceived(self, octets: bytes, stream: int, ppid: int) -> None:
        """One whole message."""

    def messageFailed(self, context: int) -> None:
        """The message written with this context was given up: its lifetime is over, or the association is.

        It may yet have arrived. May come more than once for a message.
        """

    def allAcknowledged(self) -> None:
        """The peer's stack has everything that was written."""

    def associationRestarted(self) -> None:
        """The peer has begun anew on the same ports: nothing that it said before holds (RFC 9260 section 5.2)."""

    def peerShutDown(self) -> None:
        """The peer takes no new messages; messages already written are still sent."""

    def pathChanged(self, host: str, reachable: bool) -> None:
        """Heartbeats or retransmissions tell that an address of the peer does not answer, or does so again."""

    def connectionLost(self, reason: Failure) -> None:
        """The association is over: ConnectionDone after an orderly shutdown, else ConnectionLost."""


class _Message(NamedTuple):
    octets: bytes
    stream: int
    ppid: int
    unordered: bool
    lifetime_ms: int
    context: int
    answer_soon: bool


class Association:
    """One association: the transport of an `SCTPProtocol`.

    Subclasses define `_send`, `_shut`, `_end`, `_read`, `unacknowledged`, and call the methods below for events of the
    stack.
    """

    disconnecting = False

    def __init__(self, options: Options) -> None:
        self.options = options
        self.protocol: Any = None
        """The `SCTPProtocol`, from the beginning of the association on."""
        self.streams = self.inbound_streams = 0
        """Negotiated numbers of streams, outbound and inbound."""
        self.buffered = 0
        """Octets written that the stack had no room for."""
        self._queue: deque[_Message] = deque()
        self._producer: Any = None
        self._held_back = False
        self._paused = False
        self._shutting = False
        self._part: list[bytes] = []
        self._part_octets = 0
        self._up = self._over = False
        self._why: BaseException | None = None

    # for the protocol

    def write(
        self, octets: bytes, stream: int = 0, ppid: int = 0, *, unordered: bool = False, lifetime_ms: int = 0,
        context: int = 0, answer_soon: bool = False,
    ) -> None:  # fmt: skip
        """Send one message; `lifetime_ms` 0: however long it takes (RFC 3758 otherwise).

        `answer_soon` asks the peer to acknowledge it at once (RFC 7053). Nothing happens once the association is over.
        """
        if self._over or self.disconnecting:
            return
        message = _Message(octets, stream, ppid, unordered, lifetime_ms, context, answer_soon)
        if self._queue or not self._try(message):
            self._queue.append(message)
            self.buffered += len(octets)
            if self._producer is not None and not self._held_back:
                self._held_back = True
                self._producer.pauseProducing()

    def registerProducer(self, producer: Any, streaming: bool = True) -> None:
        """Tell `producer` when the stack has no room, and when it has room again."""
        self._producer, self._held_back = producer, False

    def unregisterProducer(self) -> None:
        self._producer = None

    def pauseProducing(self) -> None:
        """Read no further: the peer's window closes and it waits."""
        self._paused = True

    def resumeProducing(self) -> None:
        if self._paused:
            self._paused = False
            self._read()

    def loseConnection(self) -> None:
        """Orderly shutdown, after all that was written; what the peer still sends is read until it is over."""
        if not self.disconnecting and not self._over:
            self.disconnecting = True
            self._shut_when_empty()

    def abortConnection(self) -> None:
        """End at once, with a notice to the peer."""
        self.disconnecting = True
        self._finish(error.ConnectionAborted())

    def unacknowledged(self) -> int:
        """More than 0 while the peer has not acknowledged all that the stack was given."""
        raise NotImplementedError

    def getPeer(self) -> SCTPAddress:
        raise NotImplementedError

    def getHost(self) -> SCTPAddress:
        raise NotImplementedError

    # for a stack

    def _send(self, message: _Message) -> bool:
        """Give it to the stack; False where it has no room. Raises OSError."""
        raise NotImplementedError

    def _shut(self) -> None:
        """Begin the orderly shutdown."""
        raise NotImplementedError

    def _end(self, abort: bool) -> None:
        """Let go of everything; `abort`: tell the peer."""
        raise NotImplementedError

    def _read(self) -> None:
        """Take what has come, unless paused."""
        raise NotImplementedError

    # events of a stack

    def _try(self, message: _Message) -> bool:
        try:
            return self._send(message)
        except OSError as fault:
            # The stack knows that the association is over, and will say so: what was not taken is given up.
            self._why = self._why or fault
            self.protocol.messageFailed(message.context)
            return True

    def _room(self) -> None:
        """The stack may have room again."""
        while self._queue and not self._over:
            if not self._try(self._queue[0]):
                return
            if self._queue:
                self.buffered -= len(self._queue.popleft().octets)
        if self.disconnecting:
            self._shut_when_empty()
        elif self._held_back and not self._queue:
            self._held_back = False
            if self._producer is not None:
                self._producer.resumeProducing()

    def _shut_when_empty(self) -> None:
        if not self._queue and not self._shutting and not self._over:
            self._shutting = True
            self._shut()

    def _established(self) -> None:
        if not self._up:
            self._up = True
            self.protocol.makeConnection(self)

    def _came(self, octets: bytes, stream: int, ppid: int, whole: bool) -> None:
        """A message, or a part of one: a stack hands out long ones in parts where its buffer is short."""
        if whole and not self._part:
            self.protocol.messageReceived(octets, stream, ppid)
            return
        self._part.append(octets)
        self._part_octets += len(octets)
        if self._part_octets > self.options.longest_message:
            self._forget_part()
            self._finish(
                SctpError(f"a message has more than {plural(self.options.longest_message, 'octet')}"), abort=True
            )
        elif whole:
            octets = b"".join(self._part)
            self._forget_part()
            self.protocol.messageReceived(octets, stream, ppid)

    def _forget_part(self) -> None:
        self._part.clear()
        self._part_octets = 0

    def _restarted(self) -> None:
        self._forget_part()
        self.protocol.associationRestarted()

    def _finish(self, why: BaseException | None, abort: bool = False) -> None:
        """The association is over: `why` is None after an orderly end."""
        if self._over:
            return
        self._over = True
        abort = abort or isinstance(why, error.ConnectionAborted)
        for message in self._queue:
            self.protocol.messageFailed(message.context)
        self._queue.clear()
        self.buffered = 0
        self._end(abort)
        if why is None:
            why = error.ConnectionDone()
        elif not isinstance(why, error.ConnectionLost | error.ConnectionAborted | error.ConnectError):
            why = error.ConnectionLost(str(why))
        if self._up:
            self.protocol.connectionLost(Failure(why))
        else:
            self._failed(why)

    def _failed(self, why: BaseException) -> None:
        """There was never an association."""


Built = Callable[[SCTPAddress], Any]


class Begun(Association):
    """What is the same in associations that we began: `built` is called when it is there, else `failed`, once."""

    _built: Built
    _tell_failed: Callable[[BaseException], None]

    def _established(self) -> None:
        if not self._up:
            self.protocol = self._built(self.getPeer())
            if self.protocol is None:
                self.abortConnection()
                return
        super()._established()

    def _failed(self, why: BaseException) -> None:
        self._tell_failed(why)
