"""A netlink socket whose datagrams hold many messages each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ulogd_tw.core.errors import MessageError
from ulogd_tw.transports.netlink import nlmsg
from ulogd_tw.transports.netlink.request_port import RequestPort
from ulogd_tw.transports.slab import Slab

DATAGRAM_OCTETS = 67584
"""The longest datagram: a packet of 64 KiB with its attributes, which have up to 2 KiB with a connection."""
DATAGRAMS_A_READ = 256
"""Memory is used only where datagrams have been."""
Packed = Callable[[np.ndarray, np.ndarray, np.ndarray], None]
"""Takes octets (uint8), and where messages lie in them: starts and lengths, in order."""


class MultiMessagePort(RequestPort):
    """A netlink socket for messages that come many in a datagram.

    `messages` is called with octets and where the messages of a read are in them; these octets are nobody else's.
    `lost` is called with datagrams.
    """

    def __init__(self, messages: Packed, lost: Callable[[int], None], **keywords: Any) -> None:
        keywords.setdefault("count", DATAGRAMS_A_READ)
        keywords.setdefault("stride", DATAGRAM_OCTETS)
        super().__init__(self._no_event, lost, **keywords)
        self.messages = messages

    def _no_event(self, messages: nlmsg.Messages) -> None:
        raise AssertionError("all datagrams are taken whole")

    def start(self) -> None:
        """Begin to read."""
        if self._early:
            early, self._early = self._early, []
            self._whole([np.frombuffer(octets + bytes(-len(octets) % 4), np.uint8) for octets in early])
        super().start()

    def _received(self, slab: Slab) -> None:
        strange, cut = slab.names.view(np.uint32)[:, 1] != 0, slab.truncated
        self.strangers += int(np.count_nonzero(strange))
        self.broken += int(np.count_nonzero(cut & ~strange))
        rows, lengths = slab.rows, (slab.lengths + 3) & ~3
        good = (~strange & ~cut).nonzero()[0]
        self._whole([rows[i, :length] for i, length in zip(good.tolist(), lengths[good].tolist(), strict=True)])

    def _whole(self, datagrams: list[np.ndarray]) -> None:
        """Hand on the messages of datagrams; netlink's own are for us."""
        octets, starts, sizes, broken = nlmsg.places(datagrams)
        self.broken += broken
        ours = octets.view(np.uint16).take((starts >> 1) + 2) < nlmsg.FIRST_TYPE
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
