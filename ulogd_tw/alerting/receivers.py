"""Who is told: Alertmanager, a webhook, a command. Each has a bounded queue, and tries again for a while."""

from __future__ import annotations

import json
import re
import shlex
from collections import Counter, deque
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from io import BytesIO
from typing import Any

from twisted.internet import defer, error, protocol, reactor
from twisted.logger import Logger
from twisted.web.client import Agent, FileBodyProducer, HTTPConnectionPool
from twisted.web.http_headers import Headers

from ulogd_tw.alerting.states import RESOLVED
from ulogd_tw.core.limited import RateLimitedLog

MOST_WAITING = 1000
"""Messages that wait for one receiver; a further one takes the place of the oldest."""
TRIES = 8
"""A message is given up after so many."""
FIRST_WAIT_S = 1.0
LONGEST_WAIT_S = 60.0
MOST_COMMANDS = 4
"""Commands of all rules that run at once."""
RESEND_S = 60.0
"""Alertmanager hears of a firing alert again after so long, and forgets it after four times as long."""
Message = dict[str, Any]
REASONS = ("queue_full", "refused", "given_up", "stopped")
"""Why a message did not reach its receiver."""


class Refused(Exception):
    """The receiver will not take this message: another try is of no use."""


class Receiver:
    """Messages on their way to one place, one after the other. `send` fires when one has arrived."""

    log = Logger()

    def __init__(self, name: str, send: Callable[[Message], defer.Deferred[Any]], clock: Any = reactor) -> None:
        self.name = name
        self._send, self._clock = send, clock
        self._waiting: deque[Message] = deque()
        self._busy: defer.Deferred[Any] | None = None
        self._timer: Any = None
        self._tries = 0
        self.sent = 0
        self.lost: Counter[str] = Counter(dict.fromkeys(REASONS, 0))
        """Messages that did not arrive, by reason."""
        self._said = RateLimitedLog(clock.seconds)

    @property
    def waiting(self) -> int:
        """Messages that have not arrived yet."""
        return len(self._waiting)

    def put(self, message: Message) -> None:
        """Send a message when those before it have arrived."""
        if len(self._waiting) >= MOST_WAITING:
            del self._waiting[1]  # the first is on its way
            self._lose("queue_full", f"{MOST_WAITING} messages wait")
        self._waiting.append(message)
        self._next()

    def _next(self) -> None:
        if self._busy is not None or self._timer is not None or not self._waiting:
            return
        self._tries += 1
        sending = self._busy = defer.maybeDeferred(self._send, self._waiting[0])
        sending.addCallbacks(self._arrived, self._failed)

    def _arrived(self, _: Any) -> None:
        self._busy = None
        self.sent += 1
        self._done()

    def _done(self) -> None:
        self._tries = 0
        if self._waiting:
            self._waiting.popleft()
        if self._waiting:
            self._timer = self._clock.callLater(0, self._again)

    def _failed(self, failure: Any) -> None:
        self._busy = None
        if failure.check(defer.CancelledError) and not self._waiting:
            return
        why = failure.getErrorMessage() or failure.type.__name__
        if failure.check(Refused):
            self._lose("refused", why)
            self._done()
        elif self._tries >= TRIES:
            self._lose("given_up", why)
            self._done()
        else:
            wait = min(FIRST_WAIT_S * 2 ** (self._tries - 1), LONGEST_WAIT_S)
            self._said.say(self.log.warn, "again", "alerts: {name}: {why}; it is tried again", name=self.name, why=why)
            self._timer = self._clock.callLater(wait, self._again)

    def _again(self) -> None:
        self._timer = None
        self._next()

    def _lose(self, reason: str, why: str) -> None:
        self.lost[reason] += 1
        self._said.say(self.log.error, reason, "alerts: {name}: a message is lost ({reason}): {why}",
                       name=self.name, reason=reason, why=why)  # fmt: skip

    def stop(self) -> None:
        """Give up what waits."""
        self.lost["stopped"] += len(self._waiting)
        self._waiting.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._busy is not None:
            self._busy.cancel()


class Poster:
    """Sends JSON with POST. Redirects are not followed, and answers are read only to their status."""

    def __init__(self, clock: Any = reactor) -> None:
        self._clock = clock
        self._agent = Agent(clock, connectTimeout=10, pool=HTTPConnectionPool(clock, persistent=False))

    def post(self, address: str, value: Any, timeout: float) -> defer.Deferred[None]:
        """Fires when the receiver has said that it has it. Fails with `Refused` where it will never take it."""
        body: Any = FileBodyProducer(BytesIO(json.dumps(value).encode()))
        headers = Headers({"Content-Type": ["application/json"], "User-Agent": ["ulogd_tw"]})
        asked: defer.Deferred[Any] = self._agent.request(b"POST", address.encode("ascii"), headers, body)
        asked.addCallback(self._answered)
        return asked.addTimeout(timeout, self._clock, lambda *_: _late(timeout))

    @staticmethod
    def _answered(response: Any) -> None:
        response.deliverBody(_Ignored())
        if 200 <= response.code < 300:
            return
        if 300 <= response.code < 500 and response.code not in (408, 425, 429):
            raise Refused(f"it answers with the status {response.code}")
        raise OSError(f"it answers with the status {response.code}")


class _Ignored(protocol.Protocol):
    """An answer of which nothing is kept; the connection of a long one is closed."""

    transport: Any
    _octets = 0

    def dataReceived(self, data: bytes) -> None:
        self._octets += len(data)
        if self._octets > 1 << 16 and self.transport is not None:
            self.transport.abortConnection()


def _late(timeout: float) -> Any:
    raise OSError(f"no answer within {timeout:g} seconds")


def rfc3339(seconds: float) -> str:
    """A time as Alertmanager reads it."""
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def for_alertmanager(message: Message, now: float) -> list[dict[str, Any]]:
    """The body of POST /api/v2/alerts. Names of labels have letters, digits and _ only."""
    labels = {re.sub(r"[^A-Za-z0-9_]", "_", name): value for name, value in message["labels"].items()}
    ended = message["state"] == RESOLVED
    return [
        {
            "labels": labels | {"alertname": message["rule"]},
            "annotations": {"summary": message["summary"], "value": f"{message['value']:.17g}"},
            "startsAt": rfc3339(message["since"]),
            "endsAt": rfc3339(message["ended"] if ended else now + 4 * RESEND_S),
        }
    ]


class Commands:
    """Runs the administrator's programs, `MOST_COMMANDS` at once."""

    def __init__(self, clock: Any = reactor) -> None:
        self._clock = clock
        self._room = defer.DeferredSemaphore(MOST_COMMANDS)

    def run(self, command: str, message: Message, timeout: float) -> defer.Deferred[None]:
        """Fires when the program has ended with 0."""
        words = shlex.split(command)
        return self._room.run(self._started, words, json.dumps(message).encode() + b"\n", timeout)

    def _started(self, words: list[str], text: bytes, timeout: float) -> defer.Deferred[None]:
        program = _Program(text)
        env = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
        spawn: Any = reactor.spawnProcess
        spawn(program, words[0], words, env=env, path="/")
        late = self._clock.callLater(timeout, program.end, f"{words[0]} was ended after {timeout:g} seconds")
        return program.ended.addBoth(_cancelled, late)


def _cancelled(result: Any, late: Any) -> Any:
    if late.active():
        late.cancel()
    return result


class _Program(protocol.ProcessProtocol):
    """One run. What it prints is not kept, beyond the beginning of its errors."""

    transport: Any

    def __init__(self, text: bytes) -> None:
        self._text = text
        self._errors = b""
        self._why = ""
        self.ended: defer.Deferred[None] = defer.Deferred(lambda _: self.end("the service stops"))

    def connectionMade(self) -> None:
        self.transport.write(self._text)
        self.transport.closeStdin()

    def errReceived(self, data: bytes) -> None:
        self._errors = (self._errors + data)[:200]

    def end(self, why: str) -> None:
        """Kill it; a child that it leaves behind holds nothing here."""
        self._why = why
        try:
            self.transport.signalProcess("KILL")
        except error.ProcessExitedAlready:
            return

    def processExited(self, reason: Any) -> None:
        self.transport.loseConnection()
        if reason.check(error.ProcessDone):
            self.ended.callback(None)
            return
        said = self._errors.decode("utf-8", "backslashreplace").strip()
        self.ended.errback(OSError(self._why or f"{reason.getErrorMessage()} {said}".strip()))


def receivers_of(values: Any, posts: Poster, commands: Commands, now: Callable[[], float],
                 clock: Any = reactor) -> Iterator[Receiver]:  # fmt: skip
    """The receivers of one rule."""
    timeout = values.timeout
    if values.alertmanager:
        address = values.alertmanager.rstrip("/") + "/api/v2/alerts"
        yield Receiver("alertmanager", lambda m: posts.post(address, for_alertmanager(m, now()), timeout), clock)
    if values.webhook:
        yield Receiver("webhook", lambda m: posts.post(values.webhook, m, timeout), clock)
    if values.command:
        yield Receiver("command", lambda m: commands.run(values.command, m, timeout), clock)
