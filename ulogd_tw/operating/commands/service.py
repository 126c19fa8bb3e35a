"""The running service as its commands see it: HTTP requests over the Unix socket `control_socket`."""

from __future__ import annotations

import argparse
import http.client
import json
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

from ulogd_tw.core.errors import UlogdError
from ulogd_tw.operating.commands.errors import AskError, NothingFound, Refused, Unreachable

PATIENCE_S = 60.0
"""For so long the answer to a query may take; the service ends it before."""
LOOK_S = 15.0
"""For so long a look may take: its answer is made in slices while rows come."""
_API = "/api/v1/"


class _Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str, timeout: float | None) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Service:
    """A service by the path of its socket. Every method raises `AskError` where there is no answer, or a bad one."""

    def __init__(self, path: str) -> None:
        self.path = path

    def get(self, resource: str, **query: object) -> Any:
        """The JSON of a resource, such as ``status``; query arguments of None are left out."""
        return self._asked("GET", _url(resource, query), patience=LOOK_S)

    def post(self, resource: str, body: Any = None, patience: float = PATIENCE_S) -> Any:
        """The JSON answered to a POST."""
        return self._asked("POST", _url(resource, {}), body, patience)

    def lines(self, resource: str, **query: object) -> Iterator[bytes]:
        """The lines of a stream, each as soon as it is there; a quiet stream is waited for."""
        connection = _Connection(self.path, LOOK_S)
        with self._faults():
            answer = self._sent(connection, "GET", _url(resource, query))
        yield from self._lines(connection, answer)

    def posted_lines(self, resource: str, body: Any) -> Iterator[bytes]:
        """The lines answered to a POST, each as soon as it is there. The service bounds the time of its answer."""
        connection = _Connection(self.path, None)
        with self._faults():
            answer = self._sent(connection, "POST", _url(resource, {}), body)
        yield from self._lines(connection, answer)

    def _lines(self, connection: _Connection, answer: http.client.HTTPResponse) -> Iterator[bytes]:
        with self._faults():
            if answer.status != 200:
                self._read(answer)
            if connection.sock is not None:
                connection.sock.settimeout(None)
        with _Closing(connection):
            while True:
                with self._faults():
                    line = answer.readline()
                if not line:
                    return
                yield line

    def _asked(self, method: str, url: str, body: Any = None, patience: float = PATIENCE_S) -> Any:
        connection = _Connection(self.path, patience)
        with self._faults(), _Closing(connection):
            return self._read(self._sent(connection, method, url, body))

    @staticmethod
    def _sent(connection: _Connection, method: str, url: str, body: Any = None) -> http.client.HTTPResponse:
        octets = None if body is None else json.dumps(body).encode()
        connection.request(method, url, octets, {"Content-Type": "application/json"} if octets else {})
        return connection.getresponse()

    @staticmethod
    def _read(answer: http.client.HTTPResponse) -> Any:
        """The JSON of an answer; an answer with an error is raised."""
        text = answer.read()
        try:
            found = json.loads(text)
        except ValueError:
            found = {"error": text.decode("utf-8", "replace").strip() or answer.reason}
        if 200 <= answer.status < 300:
            return found
        said = found.get("error") if isinstance(found, dict) else None
        if answer.status == http.client.CONFLICT and isinstance(found, dict):
            raise Refused(said or "the service refuses", found)
        kind = NothingFound if answer.status == http.client.NOT_FOUND else AskError
        raise kind(str(said or f"the service answers {answer.status} {answer.reason}"))

    def _faults(self) -> _Faults:
        return _Faults(self.path)


class _Faults:
    """Turns faults of the connection into `Unreachable`."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, TimeoutError):
            raise Unreachable(f"{self._path}: the service does not answer; is it stopped, or very busy?") from None
        if isinstance(error, http.client.HTTPException):
            raise Unreachable(f"{self._path}: the service has stopped, or something else listens there") from None
        if isinstance(error, OSError):
            text = error.strerror or str(error)
            raise Unreachable(f"{self._path}: {text}; does the service run, as this user or root?") from None


class _Closing:
    """Closes a connection at the end of a block."""

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        self._connection.close()


def _url(resource: str, query: dict[str, object]) -> str:
    given = {name: value for name, value in query.items() if value is not None}
    return _API + resource + ("?" + urlencode(given) if given else "")


def of(given: argparse.Namespace) -> Service:
    """The service that a command line means: by its socket, or by its configuration."""
    if given.socket:
        return Service(given.socket)
    from ulogd_tw.config import default_path

    return Service(socket_of(getattr(given, "configfile", None) or default_path()))


def socket_of(path: str) -> str:
    """The control socket in a configuration. Raises `Unreachable`."""
    from ulogd_tw import config as configuration
    from ulogd_tw import global_options

    try:
        options, _ = configuration.load(path).read("global", global_options.GLOBAL_OPTIONS, "[global]")
    except (UlogdError, OSError) as error:
        raise Unreachable(str(error)) from None
    found = global_options.control_socket(options)
    if not found:
        raise Unreachable(f"{path} has no control_socket= in [global]; set it, or give the socket with -s")
    return found
