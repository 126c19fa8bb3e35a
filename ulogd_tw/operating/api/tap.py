"""Rows that pass an instance, as a stream of JSON lines for as long as the client reads."""

from __future__ import annotations

from typing import Any

from twisted.python.failure import Failure
from twisted.web import server

from ulogd_tw.core.keys import nearest
from ulogd_tw.match import MatchError, parse
from ulogd_tw.operating.api.answers import Page, Question, Refused, refuse
from ulogd_tw.operating.taps import Choice, LiveTap
from ulogd_tw.plugins.filters.match import port_of

MOST_TAPS = 8
"""Maximum number of taps through one door."""
SLOW_SECONDS = 60.0
"""A client that takes nothing for so long is given up."""


class TapPage(Page):
    """The rows that leave an instance, or reach an output, one object a line; `tap` is a member of notes alone."""

    path = "/api/v1/tap"
    parameters = ("instance", "match", "rows")
    private = True
    kind = "application/jsonl"

    def __init__(self, view: Any) -> None:
        super().__init__(view)
        self.taps: set[_Stream] = set()

    def get(self, question: Question) -> Any:
        """The stream writes its answer itself."""
        raise NotImplementedError

    def render(self, request: Any) -> Any:
        """Begin a stream, or refuse it."""
        try:
            self._begin(request, Question(self.checked(request), {}, request))
        except Refused:
            refuse(request, Failure())
        return server.NOT_DONE_YET

    def _begin(self, request: Any, question: Question) -> None:
        ident = self._instance(question.parameters.get("instance", ""))
        choice = _choice(question.parameters.get("match", ""))
        rows = question.number("rows", 0) or None
        if len(self.taps) >= MOST_TAPS:
            raise Refused(503, "busy", f"{MOST_TAPS} others look at rows already; end one of them")
        request.setResponseCode(200)
        request.setHeader("Content-Type", self.kind)
        if request.method == b"HEAD":
            request.finish()
            return
        stream = _Stream(self, request)
        stream.tap = LiveTap(lambda: self.view.graph, ident, choice, rows, stream.write, stream.end, self.view.clock)
        self.taps.add(stream)
        stream.begin()

    def _instance(self, ident: str) -> str:
        have = [node.ident for node in self.view.graph.nodes]
        if ident not in have:
            near = nearest(ident, have)
            hint = f"did you mean {near}?" if near else f"there are {', '.join(have)}"
            raise Refused(404, "instance", f"there is no instance {ident}; {hint}")
        return ident


def _choice(expression: str) -> Choice | None:
    """The rows of an expression of MATCH; None for all. Raises `Refused`."""
    if not expression.strip():
        return None
    try:
        return Choice(parse(expression, {}, port_of))
    except MatchError as error:
        raise Refused(400, "match", f"{error}\n{expression}\n{' ' * (error.column - 1)}^") from None


class _Stream:
    """The way of one tap's lines to its client. A slow client pauses the tap, not the stack."""

    tap: LiveTap

    def __init__(self, page: TapPage, request: Any) -> None:
        self._page = page
        self._request = request
        self._slow: Any = None

    def begin(self) -> None:
        """Send the head, so that the client sees that it looks; then rows."""
        self._request.notifyFinish().addErrback(lambda _: self._close())
        self._request.registerProducer(self, True)
        self._request.write(b"")
        self.tap.begin()

    def write(self, lines: bytes) -> None:
        """Send lines."""
        if not self._request.gone:
            self._request.write(lines)

    def end(self) -> None:
        """The tap is at its end."""
        self._close()
        if not self._request.gone:
            self._request.unregisterProducer()
            self._request.finish()

    def _close(self) -> None:
        """Nothing of it stays in the graph."""
        self.tap.stop()
        self._page.taps.discard(self)
        self.resumeProducing()

    # IPushProducer

    def pauseProducing(self) -> None:
        """The client is slow."""
        self.tap.paused = True
        if self._slow is None:
            self._slow = self._page.view.clock.callLater(SLOW_SECONDS, self.give_up)

    def resumeProducing(self) -> None:
        """The client has read."""
        self.tap.paused = False
        if self._slow is not None and self._slow.active():
            self._slow.cancel()
        self._slow = None

    def stopProducing(self) -> None:
        """The client has gone."""
        self._close()

    def give_up(self) -> None:
        """The client was slow for too long."""
        self._request.door.count("slow")
        self._close()
        self._request.channel.transport.abortConnection()
