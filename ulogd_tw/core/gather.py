"""How much an output gathers before it writes: rows, octets and time, whichever comes first."""

from __future__ import annotations

from dataclasses import dataclass

EVERYTHING = 1 << 62
JOIN_ROWS = 65536
"""Maximum rows of one write when waiting batches are joined: enough for a large insert, few to repeat."""
JOIN_OCTETS = 16 << 20
"""Maximum octets of batches that are joined."""


@dataclass(frozen=True, slots=True)
class Gather:
    """A write is due when so many rows or octets of memory wait, or when the oldest has waited `seconds`.

    With 0 seconds, a write takes what came in one turn of the reactor.
    """

    rows: int = EVERYTHING
    octets: int = EVERYTHING
    seconds: float = 0.0
