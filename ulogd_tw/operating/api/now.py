"""What passes now, as server-sent events for as long as the client listens."""

from __future__ import annotations

from typing import Any

from twisted.python.failure import Failure
from twisted.web import server

from ulogd_tw.operating.api.answers import Page, Question, Refused, refuse
from ulogd_tw.operating.now import Now

MOST_LISTENERS = 64
"""Maximum number of clients that listen."""
SLOW_SECONDS = 60.0
"""A client that takes nothing for so long is given up."""


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
        _Listener(self, request).begin()


class _Listener:
    """One client. While it is slow, it misses looks."""

    def __init__(self, page: NowPage, request: Any) -> None:
        self._page, self._request = page, request
        self._slow: Any = None
        self._paused = False

    def begin(self) -> None:
        """Send the head, then each look."""
        self._page.listeners.add(self)
        self._request.notifyFinish().addErrback(lambda _: self._close())
        self._request.registerProducer(self, True)
        self._request.write(b"retry: 3000\n\n")
        self._request.door.live(self._request.channel)
        self._page.now.listen(self._take)

    def _take(self, text: bytes) -> None:
        if not (self._paused or self._request.gone):
            self._request.write(b"data: " + text + b"\n\n")

    def _close(self) -> None:
        self._page.now.leave(self._take)
        self._page.listeners.discard(self)
        self.resumeProducing()

    # IPushProducer

    def pauseProducing(self) -> None:
        """The client is slow."""
        self._paused = True
        if self._slow is None:
            self._slow = self._page.view.clock.callLater(SLOW_SECONDS, self._give_up)

    def resumeProducing(self) -> None:
        """The client has read."""
        self._paused = False
        if self._slow is not None and self._slow.active():
            self._slow.cancel()
        self._slow = None

    def stopProducing(self) -> None:
        """The client has gone."""
        self._close()

    def _give_up(self) -> None:
        """The client was slow for too long."""
        self._slow = None
        self._request.door.count("slow")
        self._close()
        self._request.channel.transport.abortConnection()
