"""Log lines at most once a minute for each kind, with the number of lines left out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ulogd_tw.core.bounded import Bounded

SILENCE_S = 60.0
"""Seconds between two lines of a kind."""
MOST_KINDS = 1000
"""Kinds that are remembered; peers' addresses may be part of a kind."""


class RateLimit:
    """Whether it is time for a line of a kind. Times are seconds of any clock; one that goes back forgets the past."""

    def __init__(self, most_lines: int = 0) -> None:
        self._most_lines = most_lines
        """Lines of all kinds together in a minute; 0: any number."""
        self._minute, self._lines = float("-inf"), 0
        self._kinds: Bounded[str, tuple[float, int]] = Bounded(MOST_KINDS)
        self.left_out = 0
        """Lines left out because of `most_lines`."""

    def take(self, kind: str, now: float, amount: int = 1) -> int:
        """The amount since the last line of this kind, `amount` included; 0 if no line is due."""
        since, before = self._kinds.get(kind, (float("-inf"), 0))
        total = before + amount
        if 0 <= now - since < SILENCE_S:
            self._kinds[kind] = since, total
            return 0
        if self._most_lines and not self._room(now):
            self.left_out += 1
            return 0
        self._kinds[kind] = now, 0
        return total

    def _room(self, now: float) -> bool:
        if not 0 <= now - self._minute < SILENCE_S:
            self._minute, self._lines = now, 0
        self._lines += 1
        return self._lines <= self._most_lines


def left_out(count: int) -> str:
    """The part of a line about similar lines left out; `count` is from `take`."""
    return f" ({count - 1} more since the last time)" if count > 1 else ""


class RateLimitedLog:
    """Writes lines with a method of a logger, such as ``log.warn``; each kind at most once a minute."""

    def __init__(self, clock: Callable[[], float], most_lines: int = 0) -> None:
        self._clock = clock
        self.limit = RateLimit(most_lines)

    def say(self, write: Callable[..., None], kind: str, form: str, **fields: Any) -> bool:
        """Write a line with the number of similar lines left out; returns whether it was written."""
        count = self.limit.take(kind, self._clock())
        if count:
            write(form + "{more}", more=left_out(count), **fields)
        return count > 0

    def add(self, write: Callable[..., None], kind: str, amount: int, form: str, **fields: Any) -> bool:
        """Write a line whose field `n` is the sum of all amounts since the last one; whether it was written."""
        total = self.limit.take(kind, self._clock(), amount)
        if total:
            write(form, n=total, **fields)
        return total > 0
