"""An answer that goes on for as long as its client reads. A slow client is paused, and given up after a while."""

from __future__ import annotations

from typing import Any

SLOW_SECONDS = 60.0
"""A client that takes nothing for so long is given up."""


class Stream:
    """The way to one client: a push producer of its request. A subclass has `closed`; `paused` while it is slow."""

    paused = False

    def __init__(self, request: Any, clock: Any) -> None:
        self._request, self._clock = request, clock
        self._slow: Any = None
        self._is_closed = False

    def begin(self, head: bytes) -> None:
        """Send the first octets, so that the client sees the answer. It is bounded by its page, not by the door."""
        self._request.notifyFinish().addErrback(lambda _: self.close())
        self._request.registerProducer(self, True)
        self._request.write(head)
        self._request.door.live(self._request.channel)

    def write(self, octets: bytes) -> None:
        """Send octets, unless the client has gone."""
        if not self._request.gone:
            self._request.write(octets)

    def end(self) -> None:
        """The answer is whole."""
        self.close()
        if not self._request.gone:
            self._request.unregisterProducer()
            self._request.finish()

    def close(self) -> None:
        """Nothing more is sent."""
        self.resumeProducing()
        if not self._is_closed:
            self._is_closed = True
            self.closed()

    def closed(self) -> None:
        """The client has gone, or the answer is whole: called once."""

    # IPushProducer

    def pauseProducing(self) -> None:
        """The client is slow."""
        self.paused = True
        if self._slow is None:
            self._slow = self._clock.callLater(SLOW_SECONDS, self.give_up)

    def resumeProducing(self) -> None:
        """The client has read."""
        self.paused = False
        if self._slow is not None and self._slow.active():
            self._slow.cancel()
        self._slow = None

    def stopProducing(self) -> None:
        """The client has gone."""
        self.close()

    def give_up(self) -> None:
        """The client was slow for too long."""
        self._request.door.count("slow")
        self.close()
        self._request.channel.transport.abortConnection()
