"""Attempts to reach a peer, one at a time and not too often, until one succeeds or nobody wants it any more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet import defer
from twisted.python.failure import Failure


class Attempts:
    """Calls `connect` until its Deferred succeeds; attempts begin at least `apart` seconds from each other.

    `failed` is called with the reason where one was in vain. `connect` may succeed after `stop`: see `stopped`.
    """

    def __init__(
        self, clock: Any, apart: float, connect: Callable[[], defer.Deferred[Any]], failed: Callable[[str], None]
    ) -> None:
        self.stopped = False
        self._clock = clock
        self._apart = apart
        self._connect, self._failed = connect, failed
        self._present: defer.Deferred[Any] | None = None
        self._last = float("-inf")
        self._next: Any = None

    @property
    def under_way(self) -> bool:
        """Whether an attempt has neither succeeded nor failed yet."""
        return self._present is not None

    def begin(self) -> None:
        """The next attempt, at once."""
        self._next = None
        self._last = self._clock.seconds()
        self._present = self._connect()
        self._present.addErrback(self._refused)

    def _refused(self, failure: Failure) -> None:
        self._present = None
        if not self.stopped:
            self._failed(failure.getErrorMessage())
            self.again()

    def succeeded(self) -> None:
        """The attempt has led to a connection; told by the connection, which may be there before the Deferred fires."""
        self._present = None

    def again(self) -> None:
        """The next attempt, when it is time."""
        wait = self._last + self._apart - self._clock.seconds()
        self._next = self._clock.callLater(max(wait, 0), self.begin)

    def stop(self) -> None:
        """No more attempts; one that is under way is broken off."""
        self.stopped = True
        if self._next is not None:
            self._next.cancel()
            self._next = None
        if self._present is not None:
            self._present.cancel()
