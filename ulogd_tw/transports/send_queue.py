"""The octets of a stream connection not yet at its peer: in Twisted's buffer, and in the kernel's."""

from __future__ import annotations

import array
import fcntl
import os
import select
import socket
import termios
from typing import Any


class SendQueue:
    """The two buffers of one connection. It still answers after Twisted has closed the socket, until `close`.

    Twisted closes its socket before reporting it; a copy of the file descriptor still gives the acknowledged octets.
    """

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self.handle = transport.getHandle() if hasattr(transport, "getHandle") else None
        """The socket; None for a transport in memory."""
        self._unix = self.handle is not None and self.handle.family == socket.AF_UNIX
        self._twin: int | None = None if self.handle is None else os.dup(self.handle.fileno())

    @property
    def buffered(self) -> int:
        """Octets not yet given to the kernel by Twisted, which has no public name for them."""
        transport = self._transport
        return len(transport.dataBuffer) - transport.offset + transport._tempDataLen

    def in_kernel(self) -> int | None:
        """Octets that the kernel has and the peer's has not (SIOCOUTQ), our FIN included; None where nobody knows.

        Over a Unix socket: that the peer has not read, at least; nobody knows where it has gone with some unread.
        """
        if self._twin is None or self._unix and self._hung_up(self._twin):
            return None
        waiting = array.array("i", [0])
        try:
            fcntl.ioctl(self._twin, termios.TIOCOUTQ, waiting)  # the same number as SIOCOUTQ
        except OSError:
            return None
        return waiting[0]

    @staticmethod
    def _hung_up(number: int) -> bool:
        poll = select.poll()
        poll.register(number, select.POLLRDHUP)
        return bool(poll.poll(0))

    def close(self) -> None:
        """Let go of the socket."""
        if self._twin is not None:
            os.close(self._twin)
            self._twin = None
