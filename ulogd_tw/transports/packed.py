"""A netlink socket whose datagrams hold many messages each, and which asks the kernel before it reads."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ulogd_tw.core.errors import MessageError
from ulogd_tw.transports import nlmsg
from ulogd_tw.transports.errors import NetlinkError
from ulogd_tw.transports.netlink import NetlinkPort
from ulogd_tw.transports.slab import Slab

DATAGRAM_OCTETS = 67584
"""The longest datagram: a packet of 64 KiB with its attributes, which have up to 2 KiB with a connection."""
DATAGRAMS_A_READ = 256
"""Memory is used only where datagrams have been."""
EARLY = 1000
"""Datagrams that are kept until the reading starts."""

Packed = Callable[[np.ndarray, np.ndarray, np.ndarray], None]
"""Takes octets (uint8), and where messages lie in them: starts and lengths, in order."""


class PackedPort(NetlinkPort):
    """A netlink socket for messages that come many in a datagram.

    `messages` is called with the octets of each read and where the messages in them are; they are valid only until it
    returns. `lost` is called with datagrams.
    """

    def __init__(self, messages: Packed, lost: Callable[[int], None], **keywords: Any) -> None:
        keywords.setdefault("count", DATAGRAMS_A_READ)
        keywords.setdefault("stride", DATAGRAM_OCTETS)
        super().__init__(self._no_event, lost, **keywords)
        self.messages = messages
        self._early: list[bytes] = []

    def _no_event(self, messages: nlmsg.Messages) -> None:
        raise AssertionError("all datagrams are taken whole")

    def start(self) -> None:
        """Begin to read."""
        if self._early:
            # Always less than a read, and once.
            self._whole(*_in_rows(self._early))
            self._early = []
        super().start()

    def close(self) -> None:
        """Close at once, with whatever is in the socket."""
        self._close()

    def _received(self, slab: Slab) -> None:
        rows, lengths = slab.rows[: slab.n], slab.lengths
        good = (slab.names.view(np.uint32)[:, 1] == 0) & ~slab.truncated
        if not good.all():
            senders = slab.names.view(np.uint32)[:, 1]
            self.strangers += int(np.count_nonzero(senders))
            self.broken += int(np.count_nonzero(slab.truncated & (senders == 0)))
            lengths = np.where(good, lengths, 0)
        self._whole(rows, lengths)

    def _whole(self, rows: np.ndarray, lengths: np.ndarray) -> None:
        """Hand on the messages of datagrams; netlink's own are for us."""
        starts, sizes, broken = nlmsg.places(rows, lengths)
        self.broken += broken
        octets = rows.reshape(-1)
        kinds = octets.view(np.uint16).take((starts >> 1) + 2)
        ours = kinds < nlmsg.FIRST_TYPE
        if ours.any():
            for at, size in zip(starts[ours].tolist(), sizes[ours].tolist(), strict=True):
                self._own(octets[at : at + size].tobytes())
            starts, sizes = starts[~ours], sizes[~ours]
        if len(starts):
            self.messages(octets, starts, sizes)

    def _own(self, octets: bytes) -> None:
        """A message of netlink itself; the end of a datagram's messages (DONE) is one, too."""
        try:
            self._control(nlmsg.control(octets))
        except MessageError:
            self.broken += 1

    # --- requests ---------------------------------------------------------------------------------------------------

    def ask(self, kind: int, flags: int, payload: bytes) -> None:
        """Send a request, with an acknowledgement, before `start`. `NetlinkError` when the kernel refuses.

        The kernel has answered by the time that the request is sent. What comes before the answer is kept.
        """
        self._sequence += 1
        try:
            self._socket.send(nlmsg.message(kind, flags, self._sequence, payload))
            while True:
                octets = self._socket.recv(DATAGRAM_OCTETS)
                code = self._answer(octets)
                if code is None:
                    # Beyond the bound they are lost, which their sequence numbers tell.
                    self._early += [octets] * (len(self._early) < EARLY)
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


def _in_rows(datagrams: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
    messages = nlmsg.in_rows(list(datagrams))
    return messages.rows, messages.lengths
