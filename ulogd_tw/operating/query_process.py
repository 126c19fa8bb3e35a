"""The service's side of the processes that run queries: started when asked, warm for a while, ended when they take too
long. One query costs the reactor a copy of its columns, a slice in a turn."""

from __future__ import annotations

import json
import os
import pickle
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

from twisted.internet import defer, protocol
from twisted.internet.interfaces import IPullProducer
from zope.interface import implementer

from ulogd_tw.errors import QueryError
from ulogd_tw.operating.query_child import Request

MOST_AT_ONCE = 2
"""Maximum number of queries that run."""
MOST_WAITING = 8
"""Maximum number of queries that wait for one of these."""
IDLE_SECONDS = 60.0
"""So long a process waits for the next query."""
_REAP_SECONDS = 0.01
_LEAVE_SECONDS = 0.1
_MARGIN = 1 << 20
"""Octets of an answer beyond its maximum: the names of its columns."""
_BEGIN = (
    "import json, sys; sys.path[:] = sys.argv[3:]; from ulogd_tw.operating.{module} import main; "
    "main(int(sys.argv[1]), *json.loads(sys.argv[2]))"
)
_ENVIRONMENT = {"MALLOC_ARENA_MAX": "1", "OPENBLAS_NUM_THREADS": "1", "LANG": "C.UTF-8"}
Slices = Iterator[bytes]


def start(memory: int) -> tuple[Any, socket.socket]:
    """A new process of `query_child`, and the socket to it. Raises OSError."""
    return spawn("query_child", [memory], _ENVIRONMENT)


def spawn(module: str, arguments: list[Any], environment: dict[str, str]) -> tuple[Any, socket.socket]:
    """A new process in `main` of a module beside this one, and the socket to it. Raises OSError.

    `main` gets the id of this process, and the arguments.
    """
    ours, theirs = socket.socketpair()
    path = (os.path.abspath(str(place)) for place in sys.path)
    begin = _BEGIN.replace("{module}", module)
    words = [sys.executable, "-I", "-c", begin, str(os.getpid()), json.dumps(arguments), *path]
    kept = {name: os.environ[name] for name in ("TZ", "LD_LIBRARY_PATH") if name in os.environ}
    try:
        with theirs:
            process = subprocess.Popen(
                words,
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=environment | kept,
            )
    except OSError:
        ours.close()
        raise
    ours.setblocking(False)
    return process, ours


@implementer(IPullProducer)
class Child(protocol.Protocol):
    """One process. `gone` is called when it can take no more queries."""

    transport: Any

    def __init__(self, process: Any, clock: Any, gone: Callable[[Child], None]) -> None:
        self._process, self._clock, self._gone = process, clock, gone
        self._slices: Slices | None = None
        self._parts: list[bytes] = []
        self._octets = self._most = 0
        self._asked: defer.Deferred[bytes] | None = None
        self._timer: Any = None
        self.alive = True
        self.ended: defer.Deferred[None] = defer.Deferred()

    def ask(self, request: Request, slices: Slices, seconds: float) -> defer.Deferred[bytes]:
        """The answer as JSON. Fails with `QueryError`."""
        self._parts, self._octets, self._most = [], 0, request.most_octets + _MARGIN
        asked = self._asked = defer.Deferred(lambda _: self.end("the query was given up"))
        self._wait(seconds, self.end, f"the query had no result within query_timeout={seconds:g} seconds; ask for less")
        self._slices = slices
        self.transport.write(pickle.dumps(request, 5))
        self.transport.registerProducer(self, False)
        return asked

    def rest(self) -> None:
        """Wait for the next query, for a while."""
        self._wait(IDLE_SECONDS, self.end, "")

    def end(self, reason: str) -> None:
        """End the process, whatever it does."""
        self.alive = False
        self._gone(self)
        self._process.kill()
        self._fail(reason)
        if self.connected:
            self.transport.abortConnection()

    def resumeProducing(self) -> None:
        """Write the next slice, when the process has taken the last."""
        assert self._slices is not None
        try:
            part = next(self._slices, None)
        except Exception as error:
            self._fail(error)
            self.end("")
            return
        self.transport.write(pickle.dumps(None) if part is None else part)
        if part is None:
            self._copied()

    def stopProducing(self) -> None:
        """The connection ends."""
        self._copied()

    def dataReceived(self, data: bytes) -> None:
        self._parts.append(data)
        self._octets += len(data)
        if data.endswith(b"\n"):
            self._answered(b"".join(self._parts))
        elif self._octets > self._most:
            self.end("the answer is too large")

    def connectionLost(self, reason: Any = protocol.connectionDone) -> None:
        self.alive = False
        self._gone(self)
        self._reap(_REAP_SECONDS)

    def _answered(self, answer: bytes) -> None:
        asked, self._asked = self._asked, None
        early = self._slices is not None
        self._finish()
        found = json.loads(answer) if answer.startswith(b'{"error": ') else {}
        if early or found.get("ends"):  # it does not listen: what was not copied is still on its way
            self.end("")
        if asked is not None:
            asked.errback(QueryError(found["error"])) if found else asked.callback(answer)

    def _fail(self, reason: str | Exception) -> None:
        asked, self._asked = self._asked, None
        self._finish()
        if asked is not None and not asked.called:
            asked.errback(QueryError(reason) if isinstance(reason, str) else reason)

    def _finish(self) -> None:
        self._parts = []
        self._wait(None)
        self._copied()

    def _copied(self) -> None:
        """No slice is left, or the rest is not wanted."""
        slices, self._slices = self._slices, None
        if slices is not None:
            self.transport.unregisterProducer()
            slices.close()  # type: ignore[attr-defined]

    def _wait(self, seconds: float | None, what: Any = None, *words: Any) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None if seconds is None else self._clock.callLater(seconds, what, *words)

    def _reap(self, seconds: float) -> None:
        """Take note of the end of the process. One that goes on without its socket is ended."""
        if self._process.poll() is None:
            if seconds > _LEAVE_SECONDS:
                self._process.kill()
            self._clock.callLater(seconds, self._reap, 2 * seconds)
            return
        self._fail(death(self._process.returncode))
        self.ended.callback(None)


def death(status: int) -> str:
    """Why a process gives no answer."""
    if status >= 0:
        return f"the process of the query ended with status {status}"
    return f"the query has ended its process ({signal.Signals(-status).name}); the service goes on"


class Children:
    """Some processes for many queries. `begin` starts one: see `start`."""

    def __init__(self, clock: Any, memory: int, seconds: float, begin: Callable[[int], Any] = start) -> None:
        self._clock, self._memory, self._seconds, self._begin = clock, memory, seconds, begin
        self._turns = defer.DeferredSemaphore(MOST_AT_ONCE)
        self._children: list[Child] = []
        self._idle: list[Child] = []

    def ask(self, prepare: Callable[[], tuple[Request, Slices]]) -> defer.Deferred[bytes]:
        """The answer as JSON; `prepare` begins the copy when it is this query's turn. Fails with `QueryError`."""
        if len(self._turns.waiting) >= MOST_WAITING:
            return defer.fail(QueryError(f"{MOST_WAITING} other queries wait already; ask again later"))
        return self._turns.run(self._ask, prepare)

    def stop(self) -> defer.Deferred[Any]:
        """End all processes; the queries fail."""
        for child in tuple(self._children):
            child.end("the service stops")
        return defer.DeferredList([child.ended for child in self._children])

    def _ask(self, prepare: Callable[[], tuple[Request, Slices]]) -> defer.Deferred[bytes]:
        request, slices = prepare()
        child = self._idle.pop() if self._idle else self._new()
        return child.ask(request, slices, self._seconds).addBoth(self._done, child)

    def _new(self) -> Child:
        try:
            process, connection = self._begin(self._memory)
        except OSError as error:
            raise QueryError(f"{sys.executable}: {error.strerror}; a query needs a process of its own") from None
        child = Child(process, self._clock, self._gone)
        factory = protocol.Factory.forProtocol(lambda: child)
        factory.noisy = False
        with connection:
            self._clock.adoptStreamConnection(connection.fileno(), socket.AF_UNIX, factory)
        self._children.append(child)
        child.ended.addCallback(lambda _: self._children.remove(child))
        return child

    def _done(self, result: Any, child: Child) -> Any:
        if child.alive:
            child.rest()
            self._idle.append(child)
        return result

    def _gone(self, child: Child) -> None:
        if child in self._idle:
            self._idle.remove(child)
