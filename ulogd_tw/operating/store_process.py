"""The service's side of the processes that read stores: started when asked, kept for a while, ended when they take too
long. An answer is handed on as it comes, and only as fast as its reader takes it."""

from __future__ import annotations

import json
import os
import pickle
import socket
import sys
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from twisted.internet import defer, protocol
from twisted.internet.interfaces import IPullProducer
from zope.interface import implementer

from ulogd_tw.core.errors import UlogdError
from ulogd_tw.operating import query_process
from ulogd_tw.operating.nat_child import NatRequest
from ulogd_tw.operating.store_child import DATA, END, HEAD, VANISHED, Request

MOST_AT_ONCE = 2
"""Maximum number of questions that are answered at a time."""
MOST_WAITING = 16
"""Maximum number of questions that wait for one of these."""
IDLE_SECONDS = 600.0
"""So long a process with its footers waits for the next question."""
ATTEMPTS = 6
"""How often a question is asked whose files are merged or deleted meanwhile."""
_ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "LANG": "C.UTF-8", "MALLOC_ARENA_MAX": "4"}
Slices = Iterator[bytes]


class NoAnswer(UlogdError):
    """A question to stores without an answer; `begun`: octets of it have been given."""

    def __init__(self, text: str, begun: bool = False) -> None:
        super().__init__(text)
        self.begun = begun


class Busy(NoAnswer):
    """Too many questions wait."""


class _Again(Exception):
    """The question must be asked anew."""


class Sink(Protocol):
    """The reader of an answer."""

    def begin(self, producer: Any) -> None:
        """An answer comes; `producer` can be paused."""

    def write(self, octets: bytes) -> None:
        """Some octets of it."""


def start(memory: int, directories: tuple[str, ...]) -> tuple[Any, socket.socket]:
    """A new process of `store_child`, and the socket to it. Raises OSError."""
    threads = max(1, len(os.sched_getaffinity(0)))
    return query_process.spawn("store_child", [memory, threads, list(directories)], _ENVIRONMENT)


@implementer(IPullProducer)
class StoreChild(protocol.Protocol):
    """One process, which may read `directories`. `gone` is called when it can take no more questions."""

    transport: Any

    def __init__(self, process: Any, clock: Any, directories: tuple[str, ...], gone: Callable[[Any], None]) -> None:
        self.directories = directories
        self._process, self._clock, self._gone = process, clock, gone
        self._slices: Slices | None = None
        self._asked: defer.Deferred[dict[str, Any]] | None = None
        self._sink: Sink | None = None
        self._octets = b""
        self._begun = False
        self._timer: Any = None
        self.alive = True
        self.ended: defer.Deferred[None] = defer.Deferred()

    def ask(
        self, request: Request | NatRequest, slices: Slices, seconds: float, sink: Sink
    ) -> defer.Deferred[dict[str, Any]]:
        """The end of an answer whose octets go to `sink`. Fails with `NoAnswer`."""
        self._sink, self._begun, self._octets = sink, False, b""
        asked = self._asked = defer.Deferred(lambda _: self.end("the question was given up"))
        self._wait(seconds, self.end, f"the question had no answer within {seconds:g} seconds; ask for less, or raise "
                   "timeout= of [store:NAME]")  # fmt: skip
        self._slices = slices
        self.transport.resumeProducing()  # the reader of the last answer may have paused it until its end
        self.transport.write(pickle.dumps(request, 5))
        self.transport.registerProducer(self, False)
        return asked

    def rest(self) -> None:
        """Wait for the next question, for a while."""
        self._wait(IDLE_SECONDS, self.end, "")

    def end(self, reason: str) -> None:
        """End the process, whatever it does."""
        self.alive = False
        self._gone(self)
        self._process.kill()
        self._fail(NoAnswer(reason, self._begun))
        if self.connected:
            self.transport.abortConnection()

    # rows to it

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

    def _copied(self) -> None:
        slices, self._slices = self._slices, None
        if slices is not None:
            self.transport.unregisterProducer()
            slices.close()  # type: ignore[attr-defined]

    # frames from it

    def dataReceived(self, data: bytes) -> None:
        self._octets += data
        at = 0
        while len(self._octets) - at >= HEAD.size:
            kind, length = HEAD.unpack_from(self._octets, at)
            stop = at + HEAD.size + length
            if stop > len(self._octets):
                break
            self._frame(kind, self._octets[at + HEAD.size : stop])
            at = stop
        self._octets = self._octets[at:]

    def _frame(self, kind: bytes, octets: bytes) -> None:
        if self._asked is None or self._sink is None:
            return
        if kind == DATA:
            self._begin()
            self._sink.write(octets)
        elif kind == END:
            self._begin()
            asked = self._finished()
            asked.callback(json.loads(octets))
        elif kind == VANISHED:
            self._fail(_Again(json.loads(octets)["error"]))
        else:
            self._fail(NoAnswer(json.loads(octets)["error"], self._begun))

    def _begin(self) -> None:
        if not self._begun and self._sink is not None:
            self._begun = True
            self._sink.begin(self.transport)

    def connectionLost(self, reason: Any = protocol.connectionDone) -> None:
        self.alive = False
        self._gone(self)
        self._copied()
        self._reap(0.01)

    def _finished(self) -> Any:
        asked, self._asked, self._sink = self._asked, None, None
        self._wait(None)
        self._copied()
        return asked

    def _fail(self, error: Exception) -> None:
        asked = self._finished()
        if asked is not None and not asked.called:
            asked.errback(error)

    def _wait(self, seconds: float | None, what: Any = None, *words: Any) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None if seconds is None else self._clock.callLater(seconds, what, *words)

    def _reap(self, seconds: float) -> None:
        """Take note of the end of the process; one that goes on without its socket is ended."""
        if self._process.poll() is None:
            if seconds > 0.1:
                self._process.kill()
            self._clock.callLater(seconds, self._reap, 2 * seconds)
            return
        self._fail(NoAnswer(query_process.death(self._process.returncode), self._begun))
        self.ended.callback(None)


Prepare = Callable[[], tuple[Request | NatRequest, Slices]]


class StoreChildren:
    """Some processes for many questions. `begin` starts one: see `start`."""

    def __init__(self, clock: Any, begin: Callable[[int, tuple[str, ...]], Any] = start) -> None:
        self._clock, self._begin = clock, begin
        self._turns = defer.DeferredSemaphore(MOST_AT_ONCE)
        self._children: list[StoreChild] = []
        self._idle: list[StoreChild] = []

    def ask(self, prepare: Prepare, memory: int, seconds: float, sink: Sink) -> defer.Deferred[dict[str, Any]]:
        """The end of an answer whose octets go to `sink`. Fails with `NoAnswer`.

        `prepare` begins the copy of waiting rows when it is this question's turn.
        """
        if len(self._turns.waiting) >= MOST_WAITING:
            return defer.fail(Busy(f"{MOST_WAITING} other questions wait already; ask again later"))
        return self._turns.run(self._attempts, prepare, memory, seconds, sink)

    def stop(self) -> defer.Deferred[Any]:
        """End all processes; the questions fail."""
        for child in tuple(self._children):
            child.end("the service stops")
        return defer.DeferredList([child.ended for child in self._children])

    def _attempts(self, *words: Any) -> defer.Deferred[dict[str, Any]]:
        return defer.Deferred.fromCoroutine(self._attempt(*words))

    async def _attempt(self, prepare: Prepare, memory: int, seconds: float, sink: Sink) -> dict[str, Any]:
        for _ in range(ATTEMPTS):
            request, slices = prepare()
            child = self._child(memory, request.directories)
            try:
                return await child.ask(request, slices, seconds, sink)
            except _Again:
                continue
            finally:
                self._done(child)
        raise NoAnswer("the files of the store change all the time; ask again")

    def _child(self, memory: int, directories: tuple[str, ...]) -> StoreChild:
        """An idle process for these directories, else a new one."""
        for child in self._idle:
            if child.directories == directories:
                self._idle.remove(child)
                return child
        while len(self._children) >= MOST_AT_ONCE and self._idle:
            self._idle[0].end("")
        return self._new(memory, directories)

    def _new(self, memory: int, directories: tuple[str, ...]) -> StoreChild:
        try:
            process, connection = self._begin(memory, directories)
        except OSError as error:
            raise NoAnswer(f"{sys.executable}: {error.strerror}; a question needs a process of its own") from None
        child = StoreChild(process, self._clock, directories, self._gone)
        factory = protocol.Factory.forProtocol(lambda: child)
        factory.noisy = False
        with connection:
            self._clock.adoptStreamConnection(connection.fileno(), socket.AF_UNIX, factory)
        self._children.append(child)
        child.ended.addCallback(lambda _: self._children.remove(child))
        return child

    def _done(self, child: StoreChild) -> None:
        if child.alive:
            child.rest()
            self._idle.append(child)

    def _gone(self, child: StoreChild) -> None:
        if child in self._idle:
            self._idle.remove(child)
