"""Unauthenticated connections: bounded in number and time, so that they lock nobody out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass
class _Waiting:
    address: str
    timer: Any


class Logins:
    """The connections before authentication, oldest first. Whoever comes is let in, and an older one has to go.

    most             of all addresses, and
    most_of_address  of one address
    seconds          for each to authenticate
    silent           whether a connection has not said a word yet: the oldest of these goes first
    end              closes one
    """

    def __init__(
        self, clock: Any, most: int, most_of_address: int, seconds: float,
        silent: Callable[[Any], bool], end: Callable[[Any], None],
    ) -> None:  # fmt: skip
        self._clock = clock
        self._most, self._most_of_address, self._seconds = most, most_of_address, seconds
        self._silent, self._end = silent, end
        self._waiting: dict[Any, _Waiting] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, connection: Any, address: str) -> None:
        """A new connection; another one ends where there would be too many."""
        of_address = [other for other, waiting in self._waiting.items() if waiting.address == address]
        if len(of_address) >= self._most_of_address:
            self._give_up(of_address)
        elif len(self._waiting) >= self._most:
            self._give_up(list(self._waiting))
        self._waiting[connection] = _Waiting(address, self._clock.callLater(self._seconds, self._drop, connection))

    def settled(self, connection: Any) -> None:
        """It has authenticated, or has gone."""
        waiting = self._waiting.pop(connection, None)
        if waiting is not None and waiting.timer.active():
            waiting.timer.cancel()

    def _give_up(self, among: list[Any]) -> None:
        self._drop(next(filter(self._silent, among), among[0]))

    def _drop(self, connection: Any) -> None:
        self.settled(connection)
        self._end(connection)
