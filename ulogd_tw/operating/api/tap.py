"""Rows that pass an instance, as a stream of JSON lines for as long as the client reads."""

from __future__ import annotations

from typing import Any

from twisted.python.failure import Failure
from twisted.web import server

from ulogd_tw.core.keys import nearest
from ulogd_tw.match import MatchError, parse
from ulogd_tw.operating.api.answers import Page, Question, Refused, refuse
from ulogd_tw.operating.api.streaming import Stream
from ulogd_tw.operating.taps import Choice, LiveTap
from ulogd_tw.plugins.filters.match import port_of

MOST_TAPS = 8
"""Maximum number of taps through one door."""


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
        stream.begin(b"")
        stream.tap.begin()

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


class _Stream(Stream):
    """The way of one tap's lines to its client. A slow client pauses the tap, not the stack."""

    tap: LiveTap

    def __init__(self, page: TapPage, request: Any) -> None:
        super().__init__(request, page.view.clock)
        self._page = page

    def closed(self) -> None:
        """Nothing of it stays in the graph."""
        self.tap.stop()
        self._page.taps.discard(self)

    def pauseProducing(self) -> None:
        super().pauseProducing()
        self.tap.paused = True

    def resumeProducing(self) -> None:
        super().resumeProducing()
        self.tap.paused = False
