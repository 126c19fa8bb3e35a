"""A sink with a peer elsewhere: attempts to reach it, with back-off, while its rows wait."""

from __future__ import annotations

from typing import Any

from twisted.internet import defer

from ulogd_tw.writing.text import Sink, TextOutput

FIRST_WAIT, LONGEST_WAIT = 1.0, 30.0
"""Seconds before the next attempt to reach a lost peer: doubled each time."""


class Remote(Sink):
    """A sink with a peer, up or down; while it is down, rows wait."""

    def __init__(self, output: TextOutput, peer: str) -> None:
        super().__init__(output)
        self.peer = peer
        self.up = False
        self._wait = FIRST_WAIT
        self._closing = False
        self._attempt: defer.Deferred[Any] | None = None
        self._next: Any = None

    def attempt(self) -> defer.Deferred[Any]:
        """Try to reach the peer; fires on success."""
        raise NotImplementedError

    def open(self) -> None:
        """An unreachable peer does not prevent the start."""
        self._next = None
        self._attempt = self.attempt()
        self._attempt.addCallbacks(self._reached, self._missed)

    def obstacle(self) -> str:
        return self.trouble if self.up else f"{self.peer} is not connected"

    def _reached(self, _: Any) -> None:
        self._attempt = None
        self._wait = FIRST_WAIT
        self.up = True
        self.log.info("{instance}: connected to {peer}", instance=self.output.instance, peer=self.peer)
        self.go_on()

    def _missed(self, failure: Any) -> None:
        self._attempt = None
        if self._closing:
            return
        self.fault(
            "connect", "{peer} cannot be reached: {error}; its rows wait, and attempts follow at up to {longest} s",
            peer=self.peer, error=failure.getErrorMessage(), longest=LONGEST_WAIT,
        )  # fmt: skip
        self.try_again()

    def try_again(self) -> None:
        """Connect after the time of the back-off."""
        if not self._closing and self._next is None and self._attempt is None:
            self._next = self.clock.callLater(self._wait, self.open)
            self._wait = min(2 * self._wait, LONGEST_WAIT)

    def close(self) -> Any:
        self._closing = True
        self.up = False
        if self._next is not None:
            self._next.cancel()
            self._next = None
        if self._attempt is not None:
            self._attempt.cancel()
        return None
