"""What becomes of rows that a destination does not take: refused ones, and faults that let all wait."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

MOST_REASONS = 3
"""Reasons of refused rows in one log line."""


@dataclass(slots=True)
class Refused:
    """Rows refused by the destination because they do not fit, and the reasons.

    `at` has the number of each refused row in its write, counted over all batches, and why. `nothing`: rows left out
    because they have no value for this destination. `maybe_twice`: rows that an earlier attempt may have stored.
    """

    rows: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    nothing: int = 0
    maybe_twice: int = 0
    at: list[tuple[int, str]] = field(default_factory=list)

    def add(self, reason: str, row: int) -> None:
        """One more row, by its number."""
        self.rows += 1
        self.at.append((row, reason))
        if reason in self.reasons or len(self.reasons) < MOST_REASONS:
            self.reasons[reason] = self.reasons.get(reason, 0) + 1

    def move(self, rows: np.ndarray, since: int = 0) -> None:
        """The refused rows after the first `since` have been numbered among `rows`, the numbers of chosen rows."""
        self.at[since:] = [(int(rows[row]), reason) for row, reason in self.at[since:]]


@dataclass(frozen=True, slots=True)
class Fault:
    """The reason why rows could not be written now: one word for counters, and a remedy for the administrator.

    `transient`: the destination is away or busy, and recovers by itself.
    """

    reason: str
    remedy: str = ""
    transient: bool = False

    @property
    def of_rows(self) -> bool:
        """Whether rows may be to blame: the destination is there, and takes writes."""
        return not self.transient and self.reason not in ("full", "read_only", "disk", "stopped")
