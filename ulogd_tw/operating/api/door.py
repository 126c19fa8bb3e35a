"""A door: where clients come in, bounded in number, size and time, with a look at each request before its page."""

from __future__ import annotations

from collections import Counter
from typing import Any

from twisted.internet import error, protocol, reactor
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web import http, resource, server

from ulogd_tw.core.limited import RateLimit
from ulogd_tw.operating.api.answers import Refused, refuse
from ulogd_tw.operating.logins import Logins

MOST_WAITING = 128
"""Maximum number of connections without a whole request; from then on the longest silent one has to go."""
MOST_ANSWERS = 16
"""Maximum number of answers under way."""
MOST_OCTETS = 1 << 16
"""Maximum octets of the body of a request."""
REQUEST_SECONDS = 15
"""So long a client may take for a request, and may stay without one."""
ANSWER_SECONDS = 60
"""So long a client may take to read an answer, once it is made."""
_log = Logger()
_HEADERS = (
    ("Server", "ulogd-tw"),
    ("Cache-Control", "no-store"),
    ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
)


class Connection(http.HTTPChannel):
    """One connection of a door. `asking` is true while a request is answered."""

    site: Any
    transport: Any
    asking = False

    def connectionMade(self) -> None:
        super().connectionMade()
        self.site.waiting.add(self, getattr(self.transport.getPeer(), "host", ""))
        self.site.connections.add(self)

    def dataReceived(self, data: bytes) -> None:
        """Take octets. A fault costs the connection only, and fills no log."""
        try:
            super().dataReceived(data)
        except Exception as fault:
            self.site.fault(fault)
            self.transport.abortConnection()

    def allContentReceived(self) -> None:
        self.site.waiting.settled(self)
        super().allContentReceived()

    def requestDone(self, request: Any) -> None:
        self.site.answered(self)
        super().requestDone(request)
        if self.persistent and not self.asking:
            self.site.waiting.settled(self)
            self.site.waiting.add(self, getattr(self.transport.getPeer(), "host", ""))

    def _respondToBadRequestAndDisconnect(self) -> None:
        self.site.count("malformed")
        super()._respondToBadRequestAndDisconnect()

    def connectionLost(self, reason: Any = protocol.connectionDone) -> None:
        if reason.check(error.ConnectionDone, error.ConnectionLost, error.ConnectionAborted) is None:
            self.site.count("tls")
        self.site.connections.discard(self)
        self.site.waiting.settled(self)
        self.site.answered(self)
        super().connectionLost(reason)


class Request(server.Request):
    """A request: its body is bounded, and the door looks at it before its page does."""

    channel: Any
    gone = False
    content_types: list[bytes] = []
    """The headers Content-Type, which are not among the others."""
    known = True
    """Whether it has proven who it is; the door looks at it."""
    defaultContentType = b"application/json"
    _octets = 0

    def __init__(self, *words: Any, **named: Any) -> None:
        super().__init__(*words, **named)
        self.door: Door = self.channel.site
        """The door through which it came; a client that has gone has no channel any more."""

    def handleContentChunk(self, data: bytes) -> None:
        """Take a part of the body; too large a one ends the connection."""
        self._octets += len(data)
        if self._octets > MOST_OCTETS:
            if not self.gone:
                self.gone = True
                self.door.count("too_large")
                self.channel.transport.write(b"HTTP/1.1 413 Content Too Large\r\nConnection: close\r\n\r\n")
                self.channel.loseConnection()
            return
        super().handleContentChunk(data)

    def gotLength(self, length: int | None) -> None:
        """Refuse a body that says itself to be too large, before it comes."""
        super().gotLength(length)
        if length is not None and length > MOST_OCTETS:
            self.requestHeaders.removeHeader(b"Expect")  # nothing is to continue
            self._octets = length
            self.handleContentChunk(b"")

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """Take a whole request. Twisted would read the body of a form, and fail at an odd Content-Type."""
        self.content_types = list(self.requestHeaders.getRawHeaders(b"Content-Type", []))
        self.requestHeaders.removeHeader(b"Content-Type")
        super().requestReceived(command, path, version)

    def process(self) -> None:
        """Answer it, if the door lets it in."""
        if self.gone:
            return
        try:
            self.door.enter(self.channel)
            self._check_headers()
            self.door.admit(self)
        except Exception:  # refused, or a fault of ours, which costs this request only
            self.prepath, self.postpath = [], []
            self._head()
            refuse(self, Failure())
            return
        super().process()

    def _check_headers(self) -> None:
        """All headers must be readable as text. Raises `Refused`."""
        for name, values in self.requestHeaders.getAllRawHeaders():
            try:
                (name + b"".join(values)).decode()
            except UnicodeDecodeError:
                text = f"the header {name.decode('ascii', 'backslashreplace')} is no text in UTF-8"
                raise Refused(400, "header", text) from None

    def _head(self) -> None:
        for name, value in self.door.headers:
            self.setHeader(name, value)

    def render(self, resrc: Any) -> None:
        """Let the page answer; its headers are those of the door."""
        self._head()
        super().render(resrc)

    def connectionLost(self, reason: Any) -> None:
        """The client has gone; a page still at work writes nothing."""
        self.gone = True
        super().connectionLost(reason)


class Door(server.Site):
    """What all doors have in common. `refused` counts requests without an answer by reason."""

    requestFactory = Request
    noisy = False
    headers = _HEADERS

    def __init__(self, root: resource.Resource, clock: Any = reactor) -> None:
        super().__init__(root, reactor=clock)
        self.timeOut = None  # `waiting` and `hurry` look after that, and log nothing
        self.protocol = Connection  # type: ignore[assignment]
        self.refused: Counter[str] = Counter()
        self.requests = 0
        self.connections: set[Connection] = set()
        self._clock = clock
        self.limit = RateLimit()
        self._busy: dict[Connection, Any] = {}
        self.waiting = Logins(clock, MOST_WAITING, MOST_WAITING, REQUEST_SECONDS, lambda _: True, self._too_slow)

    def startFactory(self) -> None:
        """There is no log of requests, so nothing to prepare."""

    def stopFactory(self) -> None:
        """Nothing was prepared."""

    def log(self, request: Any) -> None:
        """Requests are not logged, but counted."""

    def count(self, reason: str) -> None:
        """A request is refused."""
        self.refused[reason] += 1

    def fault(self, fault: Exception) -> None:
        """A request has met a fault of ours: counted, and logged at most once a minute."""
        self.count("fault")
        if self.limit.take(type(fault).__name__, self._clock.seconds()):
            _log.failure("a request", Failure(fault))

    def enter(self, connection: Connection) -> None:
        """An answer begins. Raises `Refused` where too many are under way."""
        self.requests += 1
        if len(self._busy) >= MOST_ANSWERS:
            raise Refused(503, "busy", f"{MOST_ANSWERS} requests are being answered; ask again in a second")
        connection.asking = True
        self._busy[connection] = None

    def hurry(self, connection: Connection) -> None:
        """Its answer is made; the client may take some time to read it, not for ever."""
        if self._busy.get(connection, connection) is None:
            self._busy[connection] = self._clock.callLater(ANSWER_SECONDS, self._too_slow, connection)

    def live(self, connection: Connection) -> None:
        """Its answer goes on for as long as the client listens: it is none of those that are bounded here."""
        self._busy.pop(connection, None)

    def answered(self, connection: Connection) -> None:
        """Its answer is written, or it has gone."""
        connection.asking = False
        timer = self._busy.pop(connection, None)
        if timer is not None and timer.active():
            timer.cancel()

    def admit(self, request: Any) -> None:
        """Look at a request before its page. Raises `Refused`."""

    def admit_private(self, request: Any) -> None:
        """Look at a request of a private page. Raises `Refused`."""

    def login(self, request: Any, token: str) -> None:
        """Begin a session. Raises `Refused`."""
        raise Refused(404, "path", "whoever reaches this socket needs no session")

    def _too_slow(self, connection: Connection) -> None:
        if connection.requests:
            self.count("slow")
        connection.transport.abortConnection()

    def close(self) -> None:
        """End all connections."""
        for connection in list(self.connections):
            connection.transport.abortConnection()
