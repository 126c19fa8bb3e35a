"""The addresses of the console: the page at ``/``, its files below ``/console/``."""

from __future__ import annotations

from typing import Any

from twisted.internet import defer, threads
from twisted.python.failure import Failure
from twisted.web import server

from ulogd_tw.console.files import File, Files, NoFile
from ulogd_tw.operating.api.answers import Page, Refused, headers, refuse, send

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""No script but ours, and nothing from other hosts. Plotly writes styles into its elements."""
_FILES = Files()


class _FilePage(Page):
    """Sends files, each known to a browser that has it by its entity tag."""

    def get(self, question: Any) -> Any:
        """`render` answers."""
        raise NotImplementedError

    def render(self, request: Any) -> Any:
        """Send a file, or refuse."""
        answer = defer.maybeDeferred(self._send_file, request)
        answer.addErrback(lambda failure: refuse(request, failure))
        return server.NOT_DONE_YET

    def name_of(self, request: Any) -> str:
        """The name of the file that is asked for. Raises `Refused`."""
        raise NotImplementedError

    def _send_file(self, request: Any) -> Any:
        name = self.name_of(request)
        if _FILES.has(name):
            return self._answer(request, _FILES.get(name))
        return threads.deferToThread(_FILES.get, name).addCallbacks(lambda file: self._answer(request, file), _no_file)

    def _answer(self, request: Any, file: File) -> None:
        request.setHeader("Content-Security-Policy", POLICY)
        request.setHeader("Cache-Control", "no-cache")
        request.setHeader("ETag", file.tag)
        request.setHeader("Vary", "Accept-Encoding")
        if file.tag in headers(request, "If-None-Match"):
            request.setResponseCode(304)
            request.door.hurry(request.channel)
            request.finish()
            return
        zipped = any("gzip" in given for given in headers(request, "Accept-Encoding"))
        if zipped:
            request.setHeader("Content-Encoding", "gzip")
        send(request, 200, file.kind, file.zipped if zipped else file.plain)


def _no_file(failure: Failure) -> None:
    failure.trap(NoFile)
    raise Refused(404, "path", str(failure.value))


class ConsolePage(_FilePage):
    """The console, whose views are in the parameters behind `?`."""

    path = "/"
    kind = "text/html"

    def name_of(self, request: Any) -> str:
        """The page itself; its parameters are for its scripts."""
        request.uri = request.uri.partition(b"?")[0]
        self.checked(request)
        return "index.html"


class ConsoleFiles(_FilePage):
    """The scripts and styles of the console."""

    path = "/console"
    kind = "text/javascript"

    def getChild(self, path: Any, request: Any) -> Any:
        """Files are no pages of their own."""
        return self

    def name_of(self, request: Any) -> str:
        """The name below `/console/`."""
        words = [word.decode("utf-8", "replace") for word in request.postpath]
        request.postpath = []
        self.checked(request)
        if len(words) != 1 or not words[0]:
            raise Refused(404, "path", "there is nothing here; / is the console")
        return words[0]


PAGES: tuple[type[Page], ...] = (ConsolePage, ConsoleFiles)
"""Every address of the console."""
