"""What passes now, as server-sent events for as long as the client listens."""

from __future__ import annotations

from typing import Any

from twisted.python.failure import Failure
from twisted.web import server

from ulogd_tw.operating.api.answers import Page, Question, Refused, refuse
from ulogd_tw.operating.api.streaming import Stream
from ulogd_tw.operating.now import Now

MOST_LISTENERS = 64
"""Maximum number of clients that listen."""


class NowPage(Page):
    """Rates and the largest groups of the open intervals, once a second."""

    path = "/api/v1/now"
    kind = "text/event-stream"
    private = True

    def __init__(self, view: Any) -> None:
        super().__init__(view)
        self.now = Now(view.ulogd, view.database, view.clock)
        self.listeners: set[_Listener] = set()

    def get(self, question: Question) -> Any:
        """The stream writes its answer itself."""
        raise NotImplementedError

    def render(self, request: Any) -> Any:
        """Begin a stream, or refuse it."""
        try:
            self._begin(request)
        except Refused:
            refuse(request, Failure())
        return server.NOT_DONE_YET

    def _begin(self, request: Any) -> None:
        self.checked(request)
        if len(self.listeners) >= MOST_LISTENERS:
            raise Refused(503, "busy", f"{MOST_LISTENERS} others listen already; end one of them")
        request.setResponseCode(200)
        request.setHeader("Content-Type", self.kind)
        if request.method == b"HEAD":
            request.finish()
            return
        _Listener(self, request).listen()


class _Listener(Stream):
    """One client. While it is slow, it misses looks."""

    def __init__(self, page: NowPage, request: Any) -> None:
        super().__init__(request, page.view.clock)
        self._page = page
        page.listeners.add(self)

    def listen(self) -> None:
        """Send the head, then each look."""
        self.begin(b"retry: 3000\n\n")
        self._page.now.listen(self._take)

    def _take(self, text: bytes) -> None:
        if not self.paused:
            self.write(b"data: " + text + b"\n\n")

    def closed(self) -> None:
        """Nobody looks for it any more."""
        self._page.now.leave(self._take)
        self._page.listeners.discard(self)
