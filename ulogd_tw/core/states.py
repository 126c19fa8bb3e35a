"""How an output is: whether its rows arrive, wait on the disk, or wait in memory because nothing takes them."""

from __future__ import annotations

from typing import NamedTuple

OK, SPOOLING, DOWN = "ok", "spooling", "down"
"""`ok`: rows are taken. `spooling`: they go to the disk for now. `down`: nothing takes them; they wait in memory."""
WORDS = (OK, SPOOLING, DOWN)


class State(NamedTuple):
    """The state of an output, and why it is not `ok`."""

    word: str = OK
    reasons: tuple[str, ...] = ()


FINE = State()


def down(*reasons: str) -> State:
    """`down` with the reasons that are texts; `ok` where none is."""
    found = tuple(reason for reason in reasons if reason)
    return State(DOWN, found) if found else FINE
