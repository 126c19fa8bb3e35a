"""Names of hosts, looked up in threads of their own, so that a silent name server delays nothing else.

The reactor's threads write files and wait for disks. These threads may hang as long as the C library waits for its name
servers (20 s and more), so they are daemons, and a stop does not wait for them.
"""

from __future__ import annotations

import socket
import threading
from functools import cache
from typing import Any

from twisted.internet import defer, threads
from twisted.internet._resolver import GAIResolver
from twisted.python.threadpool import ThreadPool

_MOST = 64
"""Names looked up at once; each hangs in a thread while no name server answers."""
AGAIN = 60.0
"""Seconds after which an unconnected peer is looked up again."""

Address = tuple[int, Any]
"""Family and socket address."""


class _Daemon(threading.Thread):
    """A thread that no exit waits for."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options | {"daemon": True})


class _NamePool(ThreadPool):
    """Threads that a process may leave behind when it ends."""

    threadFactory = _Daemon


@cache
def _pool() -> ThreadPool:
    pool = _NamePool(0, _MOST, "names")
    pool.start()
    return pool


def install(reactor: Any) -> None:
    """Let the endpoints of Twisted look up names here too."""
    reactor.installNameResolver(GAIResolver(reactor, _pool))


def numeric(host: str, port: int, kind: int) -> Address | None:
    """The address that a host is written as; None for a name."""
    try:
        return addresses(host, port, kind, socket.AI_NUMERICHOST)[0]
    except OSError:
        return None


def addresses(host: str, port: int, kind: int, flags: int = 0) -> list[Address]:
    """All addresses of a host, the best one first. Raises OSError; waits for name servers."""
    return [(family, where) for family, _, _, _, where in socket.getaddrinfo(host, port, 0, kind, 0, flags)]


def lookup(reactor: Any, host: str, port: int, kind: int) -> defer.Deferred[list[Address]]:
    """The same in a thread."""
    return threads.deferToThreadPool(reactor, _pool(), addresses, host, port, kind)
