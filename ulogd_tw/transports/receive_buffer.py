"""The receive buffer of a socket, as large as it may be."""

from __future__ import annotations

import socket

SO_RCVBUFFORCE = 33
MOST = 0x3FFFFFFF
"""The kernel keeps the double in an int."""
_LIMIT = "/proc/sys/net/core/rmem_max"


def enlarge(sock: socket.socket, octets: int) -> int:
    """Ask for a buffer; returns what the kernel gives, which is the double, for its own overhead.

    Beyond net.core.rmem_max it takes CAP_NET_ADMIN. A socket from a process that had it keeps its larger buffer.
    """
    octets = min(octets, MOST)
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, octets)
    except PermissionError:
        if min(2 * octets, _most()) > sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, octets)
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)


def _most() -> int:
    """What the kernel gives without privilege."""
    try:
        with open(_LIMIT, encoding="ascii") as file:
            return 2 * int(file.read())
    except (OSError, ValueError):
        return 2 * MOST
