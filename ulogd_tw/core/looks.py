"""A look at a number that grows, to know how fast it does."""

from __future__ import annotations

from typing import NamedTuple


class Look(NamedTuple):
    """The last look: its time, the number, and the growth a second since the look before; None at the first one."""

    at: float
    counted: int
    rate: float | None
