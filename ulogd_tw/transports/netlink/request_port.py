"""A netlink socket that asks the kernel, and has its answer, before it begins to read."""

from __future__ import annotations

import errno
from typing import Any

from ulogd_tw.core.errors import MessageError
from ulogd_tw.transports.errors import NetlinkError
from ulogd_tw.transports.netlink import nlmsg
from ulogd_tw.transports.netlink.port import ANSWER_OCTETS, NetlinkPort

EARLY = 1000
"""Datagrams that are kept until the reading starts."""


class RequestPort(NetlinkPort):
    """A netlink socket that can send a request while it is opened, so that a refusal is known at once."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._early: list[bytes] = []

    def close(self) -> None:
        """Close at once, with whatever is in the socket."""
        self._close()

    def ask(self, kind: int, flags: int, payload: bytes) -> None:
        """Send a request, with an acknowledgement, before `start`. `NetlinkError` when the kernel refuses.

        The kernel answers before the send returns. Messages before the answer are kept.
        """
        self._sequence += 1
        try:
            self._socket.send(nlmsg.message(kind, flags, self._sequence, payload))
            while True:
                octets = self._socket.recv(2 * ANSWER_OCTETS)
                code = self._answer(octets)
                if code is None:
                    # Beyond the bound they are lost, which their sequence numbers tell. A socket that was handed on
                    # may hold as many as its buffer takes.
                    self._early += [octets] * (self.adopted or len(self._early) < EARLY)
                elif code:
                    raise NetlinkError(-code)
                else:
                    return
        except NetlinkError:
            raise
        except OSError as error:
            raise NetlinkError(error.errno or errno.EIO, str(error)) from error

    def _answer(self, octets: bytes) -> int | None:
        """The code with which the request is answered, None for any other datagram."""
        messages, _ = nlmsg.split([octets])
        for message in messages.octets():
            try:
                control = nlmsg.control(message)
            except MessageError:
                continue
            if control.kind == nlmsg.ERROR and control.sequence == self._sequence:
                return control.code
        return None

    def tell(self, kind: int, flags: int, payload: bytes) -> None:
        """Send a request whose answer does not matter; nothing where the socket is closed."""
        if self._socket is not None:
            try:
                self._socket.send(nlmsg.message(kind, flags, 0, payload))
            except OSError as error:
                self.log.warn("netlink request not sent: {why}", why=error.strerror)
