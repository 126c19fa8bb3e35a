"""ClickHouse's HTTP interface over one connection, kept open, to the first of several servers that answers.

The client is `http.client` in the thread of the output, not Twisted's. The columns of the table are read before the
reactor runs, an insert is made of octets that this thread has just computed, and `ssl` encrypts them without the
interpreter's lock; in the reactor all stacks would wait for that. This module is a driver for `adbapi`: it has
`connect`.
"""

from __future__ import annotations

import contextlib
import http.client
import select
import socket
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from ulogd_tw.core.errors import UlogdError

Host = tuple[str, int]
_CODE = "X-ClickHouse-Exception-Code"
_MOST_TEXT = 700
"""Characters of a server's message that are kept."""
_LONGEST_ANSWER = 64 << 20
MARK = "Code: "


class ServerError(UlogdError):
    """An error that a server answered with; `code` is ClickHouse's, 0 where something else answered."""

    def __init__(self, code: int, status: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.status = status


class NoAnswer(UlogdError):
    """No server answered. `sent`: a statement may have been done. `untrusted`: no server proved its name."""

    def __init__(self, text: str, sent: bool = False, untrusted: bool = False) -> None:
        super().__init__(text)
        self.sent = sent
        self.untrusted = untrusted


@dataclass
class Way:
    """How servers are reached: all of them with the same options. `first` is the place of the one to try first."""

    hosts: Sequence[Host]
    database: str
    credentials: Callable[[], Mapping[str, bytes]] = dict
    context: Callable[[], ssl.SSLContext | None] = lambda: None
    connect_s: float = 3.0
    answer_s: float = 30.0
    first: int = 0

    def next(self) -> None:
        """Begin with the next server from now on."""
        self.first = (self.first + 1) % len(self.hosts)


class Connection:
    """A connection to one server; `host` is its place."""

    def __init__(self, way: Way) -> None:
        self.way = way
        self._http, self.host = _connected(way)
        self._headers = dict(way.credentials())

    def ask(self, statement: str, **settings: Any) -> list[list[str]]:
        """The rows of a statement, each a list of texts. Raises `ServerError` and `NoAnswer`."""
        found = self.post({"default_format": "TabSeparated", **settings}, [statement.encode()])
        lines = found.decode("utf-8", "replace").split("\n")[:-1]
        return [[_unescaped(value) for value in line.split("\t")] for line in lines]

    def insert(self, statement: str, body: Sequence[Any], encoding: str = "", **settings: Any) -> None:
        """Do an INSERT with its rows. Raises `ServerError` and `NoAnswer`."""
        self.post({"query": statement, **settings}, body, encoding)

    def post(self, arguments: Mapping[str, Any], body: Sequence[Any], encoding: str = "") -> bytes:
        """One request."""
        length = sum(map(len, body))
        headers: dict[str, str | bytes] = {**self._headers, "Content-Length": str(length)}
        if encoding:
            headers["Content-Encoding"] = encoding
        path = "/?" + urlencode({"database": self.way.database, **arguments}, quote_via=quote)
        try:
            try:
                self._http.request("POST", path, iter(body), headers)
            except (BrokenPipeError, ConnectionResetError):
                pass  # a server that does not want the rest says why
            answer = self._http.getresponse()
            text = _whole(answer)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise NoAnswer(_words(error), sent=True) from error
        if answer.status != 200 or answer.headers.get(_CODE):
            raise _error(answer.status, answer.headers.get(_CODE), text.decode("utf-8", "replace"))
        return text

    def closed_by_server(self) -> bool:
        """Whether an idle connection has been closed, as servers do after some seconds: an insert would be in doubt."""
        held = self._http.sock
        if held is None:
            return True
        poll = select.poll()
        poll.register(held, select.POLLIN)
        return bool(poll.poll(0))

    def cut(self) -> None:
        """Let a call in another thread fail at once."""
        with contextlib.suppress(OSError, AttributeError):
            self._http.sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def rollback(self) -> None:
        """Nothing: a statement is done or not."""

    commit = rollback


def _whole(answer: http.client.HTTPResponse) -> bytes:
    """The body of an answer; raises HTTPException if its end is missing, as http.client does not for a bounded read."""
    if answer.length is None and not answer.chunked:
        raise http.client.HTTPException("an answer without its length")
    text = answer.read(_LONGEST_ANSWER)
    if answer.length:
        raise http.client.IncompleteRead(text, answer.length)
    return text


def connect(way: Way) -> Connection:
    """A connection to the first server that answers. Raises `NoAnswer`."""
    return Connection(way)


def _connected(way: Way) -> tuple[http.client.HTTPConnection, int]:
    errors, untrusted, context = [], True, way.context()
    for step in range(len(way.hosts)):
        place = (way.first + step) % len(way.hosts)
        host, port = way.hosts[place]
        made = (
            http.client.HTTPConnection(host, port, timeout=way.connect_s)
            if context is None
            else http.client.HTTPSConnection(host, port, timeout=way.connect_s, context=context)
        )
        try:
            made.connect()
            made.sock.settimeout(way.answer_s or None)
        except OSError as error:
            made.close()
            untrusted &= isinstance(error, ssl.SSLCertVerificationError)
            errors.append(f"{named((host, port))}: {_words(error)}")
            continue
        way.first = place
        return made, place
    raise NoAnswer("; ".join(errors), untrusted=untrusted)


def named(host: Host) -> str:
    """A server for a log line."""
    return f"[{host[0]}]:{host[1]}" if ":" in host[0] else f"{host[0]}:{host[1]}"


def _words(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not valid: {error.verify_message}"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, http.client.RemoteDisconnected):
        return "the server closed the connection"
    return (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__


def _error(status: int, code: str | None, text: str) -> ServerError:
    text = " ".join(text.split())
    if not code and text.startswith(MARK):
        code = text.removeprefix(MARK).partition(",")[0].partition(".")[0]
    _, found, rest = text.partition("DB::Exception: ")
    text = (rest if found else text).partition(", e.what() =")[0]
    number = int(code) if code and code.isdigit() else 0
    return ServerError(number, status, text.partition(" (version ")[0][:_MOST_TEXT] or f"status {status}")


_ESCAPES = {"t": "\t", "n": "\n", "\\": "\\", "'": "'", "b": "\b", "r": "\r", "f": "\f", "0": "\0"}


def _unescaped(value: str) -> str:
    if "\\" not in value:
        return value
    parts, rest = [], iter(value)
    for letter in rest:
        parts.append(_ESCAPES.get(following := next(rest, ""), following) if letter == "\\" else letter)
    return "".join(parts)
