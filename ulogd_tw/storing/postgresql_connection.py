"""Connections to PostgreSQL that show the password to the intended server only, and do not wait for ever.

The server chooses the form of the password. A false server, on the network or on the host, asks for the clear text.
That is refused unless the way is safe: a Unix socket, or TLS with a verified certificate. This module is a driver for
`adbapi`: it has `connect`. It loads psycopg, which is an extra.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from typing import Any

import psycopg
from psycopg import conninfo, errors, pq

from ulogd_tw.storing.passwords import password_of

apilevel, threadsafety, paramstyle = "2.0", 1, "pyformat"

logging.getLogger("psycopg").setLevel(logging.ERROR)
"""It warns of each connection that is given up in a COPY; the output says what counts."""
VERIFIED = ("verify-ca", "verify-full")
"""Values of sslmode with which the server proves who it is."""
LEAST_LIBPQ = 160000
"""The first libpq with `require_auth`."""
HIDDEN = "!password"
"""`require_auth` for any way but the password in clear text."""


class BoundedConnection(psycopg.Connection[Any]):
    """A connection of psycopg on which the server must answer, or take octets, within `answer_s` seconds."""

    answer_s: float | None = None

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        """As psycopg has it, with the bound. Raises `psycopg.OperationalError` beyond it."""
        try:
            return super().wait(gen, interval, self.answer_s if timeout is None else timeout)
        except errors._WaitTimeout:
            self.cut()  # else the end of a COPY would wait once more
            raise psycopg.OperationalError(f"no answer within {self.answer_s:g} s") from None

    def cut(self) -> None:
        """Shut the socket: a thread that waits for it gets an error at once."""
        with contextlib.suppress(OSError, psycopg.Error):
            held = socket.socket(fileno=os.dup(self.fileno()))
            with held:
                held.shutdown(socket.SHUT_RDWR)


def safe(parameters: dict[str, Any]) -> bool:
    """Whether these parameters lead over Unix sockets, or to servers with a verified certificate."""
    hosts = str(parameters.get("host") or "").split(",")
    local = all(host.startswith(("/", "@")) for host in hosts) and not parameters.get("hostaddr")
    return local or parameters.get("sslmode") in VERIFIED


def guarded(parameters: dict[str, Any]) -> dict[str, Any]:
    """The parameters, for a libpq that never sends the password in clear text to a server without proof.

    Raises `psycopg.NotSupportedError` where the libpq is too old to refuse.
    """
    secret = parameters.get("password") or os.environ.get("PGPASSWORD") or parameters.get("passfile")
    if safe(parameters) or parameters.get("require_auth"):
        return parameters
    if pq.version() >= LEAST_LIBPQ:
        return parameters | {"require_auth": HIDDEN}
    if secret:
        raise psycopg.NotSupportedError(
            f"libpq {pq.version() // 10000} would send the password in clear text to any server that asks for it"
        )
    return parameters | {"passfile": os.devnull}  # else it would take one from ~/.pgpass


def parsed(text: str) -> dict[str, Any]:
    """The parameters of a connection string of libpq. Raises `psycopg.ProgrammingError`."""
    return dict(conninfo.conninfo_to_dict(text))


def connect(answer_s: float | None = None, pass_file: str = "", **parameters: Any) -> BoundedConnection:
    """A connection in autocommit mode, made of libpq's parameters. `pass_file`: a file with the password."""
    if pass_file:
        parameters["password"] = password_of(pass_file).decode()
    made = BoundedConnection.connect(autocommit=True, prepare_threshold=None, **guarded(parameters))
    made.answer_s = answer_s
    return made
