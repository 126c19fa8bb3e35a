"""Patience, handed up as keys are: each instance says how long a row may wait above it, and inputs get the smallest.

A wish of an aggregate holds for the rows above it, whatever is below: it keeps them anyway. Any other filter passes on
the smallest wish of those below. Beside the wishes go the ends of intervals, which no wait may cross.
`requests.hand_up_patience` is the pass.
"""

from __future__ import annotations

from dataclasses import dataclass

AT_ONCE = 0.0
"""The wish of a reader who looks at the rows as they come."""
SOON = 0.25
"""The wish of another program that reads the rows as they come."""
LONG = 1.0
"""The wish of a file or a database: nobody misses its last second."""
_PART = 10
"""An interval of an aggregate has so many waits at least."""


def of_interval(seconds: float) -> float:
    """The wish of an instance that keeps rows for so long."""
    return min(seconds / _PART, LONG)


@dataclass(frozen=True, slots=True)
class Ends:
    """Intervals by the time of arrival: they end `late` seconds after the multiples of `every` seconds in UTC."""

    every: float
    late: float = 0.0

    def next(self, now: float) -> float:
        """Seconds until the next end."""
        return self.every - (now - self.late) % self.every


@dataclass(frozen=True, slots=True)
class Wish:
    """How long rows may wait above a node (None: nobody says), and the ends of intervals below.

    kept   whether aggregates keep all of the rows anyway, so that nobody sees them wait
    """

    seconds: float | None = None
    ends: frozenset[Ends] = frozenset()
    kept: bool = False

    def and_(self, other: Wish) -> Wish:
        """Both: the shorter wait, all ends."""
        said = [wish for wish in (self, other) if wish.seconds is not None]
        seconds = min((wish.seconds for wish in said if wish.seconds is not None), default=None)
        return Wish(seconds, self.ends | other.ends, bool(said) and all(wish.kept for wish in said))
