"""The places for connections of one transport, and the choice of a connection that makes room when all are taken."""

from __future__ import annotations

import resource
from itertools import islice
from typing import Any

from ulogd_tw.core.largest import Largest
from ulogd_tw.ipfix.exporters import LIMIT_OF_ADDRESS, LIMIT_SESSIONS
from ulogd_tw.ipfix.newcomers import Newcomers
from ulogd_tw.ipfix.session import Session

_LOOKED_AT = 32
"""Number of connections of an address examined to find one that makes room."""
_OTHER_FILES = 256
"""File descriptors for everything but connections: files, databases, listening sockets, exporters."""
_LEAST = 16


class Places:
    """Connections by address, bounded in number and for each address.

    A further connection replaces one without records, of the address with the most such connections; else the longest
    silent one of the address with the most connections, if it has more than the newcomer's address.
    """

    def __init__(self, most: int, most_of_address: int) -> None:
        self._most = most
        self._most_of_address = most_of_address
        self._hosts: dict[object, str] = {}
        self._by_host: dict[str, dict[object, Session]] = {}
        self._sizes: Largest[str] = Largest()
        self._newcomers: Newcomers[Any] = Newcomers()

    def __len__(self) -> int:
        return len(self._hosts)

    def room_for(self, host: str) -> object | None:
        """None where there is a place; else the connection that has to go for it, or a word: which limit is reached."""
        own = self._by_host.get(host, {})
        if len(own) >= self._most_of_address:
            idle = (one for one, session in islice(own.items(), _LOOKED_AT) if not session.has_given)
            return next(idle, LIMIT_OF_ADDRESS)
        if len(self) < self._most:
            return None
        if (newcomer := self._newcomers.next_to_go(host)) is not None:
            return newcomer
        largest = self._sizes.largest()
        if largest is None or self._sizes[largest] <= len(own) + 1:
            return LIMIT_SESSIONS
        others = self._by_host[largest]
        return min(others, key=lambda one: others[one].last_received)

    def take(self, connection: object, host: str, session: Session) -> None:
        """A connection has a place."""
        self._hosts[connection] = host
        self._by_host.setdefault(host, {})[connection] = session
        self._sizes.add(host)
        self._newcomers.enter(connection, host, session)

    def leave(self, connection: object) -> None:
        """A connection gives its place back, if it has one."""
        host = self._hosts.pop(connection, None)
        if host is None:
            return
        self._sizes.remove(host)
        self._newcomers.leave(connection)
        del self._by_host[host][connection]
        if not self._by_host[host]:
            del self._by_host[host]


def places_by_descriptors(most: int, transports: int) -> int:
    """How many connections each of so many transports can have, `most` at best: each needs a file descriptor.

    The process takes as many as it may (RLIMIT_NOFILE).
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = most * transports + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY:
        return most
    return min(most, max((soft - _OTHER_FILES) // max(transports, 1), _LEAST))
