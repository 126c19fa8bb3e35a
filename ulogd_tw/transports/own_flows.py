"""The flows of this process's own exports, so that a meter on the same host can leave them out."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

UDP, TCP, SCTP = 17, 6, 132
REMEMBERED_S = 600.0
"""So long after its end a flow is still known: the kernel reports the end of a TCP connection minutes later."""
MOST = 1024
"""Flows that are remembered; the oldest closed one is forgotten first."""


class Flow(NamedTuple):
    """Protocol number, and the addresses (as text) and ports of our end and the peer's."""

    protocol: int
    source: str
    source_port: int
    destination: str
    destination_port: int


_known: dict[Flow, float] = {}
"""Each flow with the monotonic time of its end; infinity while it is open."""


def opened(flow: Flow) -> Flow:
    """A socket of ours talks to a peer."""
    _known.pop(flow, None)
    _known[flow] = float("inf")
    if len(_known) > MOST:
        del _known[next((known for known, end in _known.items() if end < float("inf")), next(iter(_known)))]
    return flow


def closed(flow: Flow | None) -> None:
    """The socket is closed; None does nothing."""
    if flow in _known:
        _known[flow] = time.monotonic()


def known() -> tuple[Flow, ...]:
    """The open flows, and those that ended lately."""
    limit = time.monotonic() - REMEMBERED_S
    for flow in [flow for flow, end in _known.items() if end < limit]:
        del _known[flow]
    return tuple(_known)


def between(protocol: int, ours: tuple[Any, ...], theirs: tuple[Any, ...]) -> Flow:
    """The flow between two socket addresses of IPv4 or IPv6."""
    return Flow(protocol, _plain(ours[0]), ours[1], _plain(theirs[0]), theirs[1])


def _plain(address: str) -> str:
    """Without the zone of a link-local address; IPv4 as itself where it is mapped into IPv6."""
    return address.partition("%")[0].removeprefix("::ffff:")
