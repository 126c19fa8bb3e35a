"""How a resource answers: JSON made in slices, errors as JSON, and answers that are kept for a second."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus
from typing import Any

from twisted.internet import defer, task
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web import resource, server
from twisted.web.http import parse_qs

JSON = "application/json"
SLICE_SECONDS = 0.004
"""So long one slice of an answer may take: the reactor turns meanwhile."""
CHUNK = 1 << 16
"""Octets of an answer that are written at a time."""
KEPT_SECONDS = 1.0
"""Answers to the same question are the same for so long."""
Chunks = Iterator[bytes]
_log = Logger()


class Refused(Exception):
    """A request without an answer: its HTTP status, a reason in one word for the counter, a text for the user."""

    def __init__(self, status: int, reason: str, text: str, **more: Any) -> None:
        super().__init__(text)
        self.status, self.reason, self.more = status, reason, more


class Question:
    """The parts of a request that a page needs: its parameters, and its body as a JSON object."""

    def __init__(self, parameters: dict[str, str], body: dict[str, Any], request: Any = None) -> None:
        self.parameters, self.body, self.request = parameters, body, request

    def text(self, name: str) -> str:
        """A text of the body. Raises `Refused`."""
        value = self.body.get(name)
        if not isinstance(value, str):
            raise Refused(400, "body", f'the body must be a JSON object with the text "{name}"')
        if not value.strip():
            raise Refused(400, "body", f'the text "{name}" is empty')
        return value

    def number(self, name: str, default: int) -> int:
        """A whole number of the parameters. Raises `Refused`."""
        given = self.parameters.get(name, str(default))
        if not given.isdecimal() or len(given) > 15:
            raise Refused(400, "parameter", f"{name}={given} is not a whole number")
        return int(given)


class Page(resource.Resource):
    """One address. A subclass has `get` or `post`, which give the chunks of the answer, or a Deferred of them."""

    isLeaf = True
    path = ""
    parameters: tuple[str, ...] = ()
    """Names of the parameters behind `?`."""
    kind = JSON
    status = 200
    kept = True
    """Whether the same question has the same answer for a second."""
    private = False
    """True if only the owner of a token may ask, even on loopback: stored flows, SQL, changes of the service."""
    get: Callable[[Question], Any] | None = None
    post: Callable[[Question], Any] | None = None

    def __init__(self, view: Any) -> None:
        super().__init__()
        self.view = view
        self._answers: dict[tuple[tuple[str, str], ...], _Kept] = {}

    def getChild(self, path: Any, request: Any) -> resource.Resource:
        """What is below a page that is none itself."""
        return _Under(self)

    @property
    def methods(self) -> list[str]:
        """The methods that it takes."""
        return (["GET", "HEAD"] if self.get else []) + (["POST"] if self.post else [])

    def render(self, request: Any) -> Any:
        """Answer a request, now or later."""
        answer = defer.maybeDeferred(self._asked, request)
        answer.addCallbacks(self._send, self._failed, callbackArgs=(request,), errbackArgs=(request,))
        answer.addErrback(lambda failure: _log.failure("an answer", failure))
        return server.NOT_DONE_YET

    def _asked(self, request: Any) -> Any:
        parameters = self.checked(request)
        if request.method == b"POST":
            assert self.post is not None
            return defer.maybeDeferred(self.post, Question(parameters, body_of(request), request)).addCallback(joined)
        question = Question(parameters, {}, request)
        if self.kept:
            return self._fresh(question)
        assert self.get is not None
        return defer.maybeDeferred(self.get, question).addCallback(joined)

    def checked(self, request: Any) -> dict[str, str]:
        """The parameters of a request that this page takes. Raises `Refused`."""
        method = request.method.decode("ascii", "replace")
        if method not in self.methods:
            request.setHeader("Allow", ", ".join(self.methods))
            raise Refused(405, "method", f"{method} is not possible here; {' and '.join(self.methods)} are")
        if request.postpath and any(request.postpath):
            raise Refused(404, "path", f"there is nothing under {self.path}")
        if self.private:
            request.door.admit_private(request)
        return self._parameters(request)

    def _parameters(self, request: Any) -> dict[str, str]:
        found = {}
        for name, values in parse_qs(request.uri.partition(b"?")[2], keep_blank_values=True).items():
            word = name.decode("utf-8", "replace")
            if word not in self.parameters:
                known = ", ".join(self.parameters) or "none"
                raise Refused(400, "parameter", f"{word} is no parameter of {self.path}; there are: {known}")
            found[word] = values[-1].decode("utf-8", "replace")
        return found

    def _fresh(self, question: Question) -> defer.Deferred[bytes]:
        """The answer, or the one to the same question within the last second, also while it is being made."""
        now = self.view.clock.seconds()
        self._answers = {key: kept for key, kept in self._answers.items() if now - kept.since < KEPT_SECONDS}
        key = tuple(sorted(question.parameters.items()))
        kept = self._answers.get(key)
        if kept is None:
            assert self.get is not None
            kept = self._answers[key] = _Kept(now, defer.maybeDeferred(self.get, question).addCallback(joined))
        return kept.wait()

    def status_of(self, body: bytes) -> int:
        """The HTTP status of an answer."""
        return self.status

    def _send(self, body: bytes, request: Any) -> None:
        send(request, self.status_of(body), self.kind, body)

    def _failed(self, failure: Any, request: Any) -> None:
        refuse(request, failure)


class _Under(resource.Resource):
    """An address below that of a page."""

    isLeaf = True

    def __init__(self, page: Page) -> None:
        super().__init__()
        self._page = page

    def render(self, request: Any) -> Any:
        refuse(request, Failure(Refused(404, "path", f"there is nothing under {self._page.path}")))
        return server.NOT_DONE_YET


class _Kept:
    """An answer that several requests share, made or in the making."""

    def __init__(self, since: float, made: defer.Deferred[bytes]) -> None:
        self.since = since
        self._result: Any = None
        self._waiting: list[defer.Deferred[bytes]] = []
        made.addBoth(self._ready)

    def _ready(self, result: Any) -> None:
        self._result = result
        for waiting in self._waiting:
            waiting.callback(result)

    def wait(self) -> defer.Deferred[bytes]:
        """Fires with the answer, or fails as it did."""
        if self._result is not None:
            return defer.succeed(None).addCallback(lambda _: self._result)
        waiting: defer.Deferred[bytes] = defer.Deferred()
        self._waiting.append(waiting)
        return waiting


def headers(request: Any, name: str) -> list[str]:
    """The values of a header, each octet a character: clients may send any octets."""
    return [value.decode("latin-1") for value in request.requestHeaders.getRawHeaders(name.encode(), [])]


def refuse(request: Any, failure: Any) -> None:
    """The answer to a request that has failed: a JSON object with `error`, and the reason is counted.

    A client that has gone is not refused any more.
    """
    if request.gone:
        if failure.check(Refused) is None:
            _log.failure("a request of a client that has gone", failure)
        return
    if failure.check(Refused) is None:
        request.door.fault(failure.value)
        refused = Refused(500, "fault", "an error of the service itself; its log has the details")
    else:
        refused = failure.value
        request.door.count(refused.reason)
    send(request, refused.status, JSON, dumped({"error": str(refused)} | refused.more))


def send(request: Any, status: int, kind: str, body: bytes) -> None:
    """Write a whole answer, unless the client has gone."""
    if request.gone:
        return
    request.door.hurry(request.channel)
    request.setResponseCode(status, HTTPStatus(status).phrase.encode())
    request.setHeader("Content-Type", kind)
    request.setHeader("Content-Length", str(len(body)))
    if request.method == b"HEAD":
        request.write(b"")
        request.finish()
    elif len(body) <= CHUNK:
        request.write(body)
        request.finish()
    else:
        request.registerProducer(_Pour(request, body), False)


class _Pour:
    """Writes a long answer as fast as the client reads it, so that no more than a chunk waits in the connection."""

    def __init__(self, request: Any, body: bytes) -> None:
        self._request, self._body, self._at = request, body, 0

    def resumeProducing(self) -> None:
        chunk = self._body[self._at : self._at + CHUNK]
        self._at += len(chunk)
        self._request.write(chunk)
        if self._at >= len(self._body):
            self._request.unregisterProducer()
            self._request.finish()

    def stopProducing(self) -> None:
        self._body = b""


def body_of(request: Any) -> dict[str, Any]:
    """The JSON object in the body of a request; without a body an empty one. Raises `Refused`."""
    octets = request.content.read()
    if not octets:
        return {}
    kind = b"".join(request.content_types[:1]).partition(b";")[0].strip().lower()
    if kind != JSON.encode():
        raise Refused(415, "content_type", f"the body must be JSON, with Content-Type: {JSON}")
    try:
        found = json.loads(octets)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise Refused(400, "body", "the body must be a JSON object")
    return found


# JSON in slices


def dumped(value: Any) -> bytes:
    """A value as one line of JSON; what JSON does not have is text."""
    return json.dumps(value, default=str, separators=(",", ":")).encode() + b"\n"


def one(value: dict[str, Any]) -> Chunks:
    """A small answer."""
    yield dumped(value)


def listed(name: str, items: Iterable[Any], **before: Any) -> Chunks:
    """``{"name": [item, ...]}``, in slices; `before` are further members."""
    yield dumped(before)[:-2] + ("," if before else "").encode() + json.dumps(name).encode() + b":["
    first = True
    for some in slices(items):
        yield (b"" if first else b",\n") + b",\n".join(dumped(item)[:-1] for item in some)
        first = False
    yield b"]}\n"


def mapped(name: str, items: Iterable[tuple[str, Any]]) -> Chunks:
    """``{"name": {key: value, ...}}``, in slices."""
    yield b"{" + json.dumps(name).encode() + b":{"
    first = True
    for some in slices(items):
        lines = [json.dumps(key).encode() + b":" + dumped(value)[:-1] for key, value in some]
        yield (b"" if first else b",\n") + b",\n".join(lines)
        first = False
    yield b"}}\n"


def slices(items: Iterable[Any], seconds: float = SLICE_SECONDS) -> Iterator[list[Any]]:
    """The items in lists, each of what can be made in half of this time: writing them takes the other half."""
    some: list[Any] = []
    until = time.perf_counter() + seconds / 2
    for item in items:
        some.append(item)
        if time.perf_counter() >= until:
            yield some
            some = []
            until = time.perf_counter() + seconds / 2
    if some:
        yield some


def joined(chunks: Any) -> defer.Deferred[bytes]:
    """All chunks as one, made a slice in a turn of the reactor."""
    found: list[bytes] = []

    def step() -> Iterator[None]:
        for chunk in chunks:
            found.append(chunk)
            yield

    return task.cooperate(step()).whenDone().addCallback(lambda _: b"".join(found))
