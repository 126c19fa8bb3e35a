"""Finds the rows of a batch that a database refuses with an error about the whole statement.

A trigger, a generated column or a procedure may fail for some rows with any error, and the batch would wait for ever.
Rows are to blame only where something goes through: another row of the batch, or one that was written before.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ulogd_tw.core.columns import take
from ulogd_tw.storing.columns import Values

PROBED = 32
"""Rows that are tried one by one to see whether the table takes any."""

Try = Callable[[Values, int], Exception | None]
"""Inserts some rows and takes them back; the error, where they are not taken."""


def part(values: Values, rows: np.ndarray) -> Values:
    """The values of some rows, by their numbers."""
    return [(target, None if found is None else replace(
        found, values=take(found.values, rows), missing=None if found.missing is None else found.missing[rows]
    )) for target, found in values]  # fmt: skip


class Sifting:
    """One batch that is sifted. `bad`: the refused rows by number, with the error of each."""

    def __init__(self, values: Values, n: int, attempt: Try) -> None:
        self._values = values
        self._try = attempt
        self.n = n
        self.bad: dict[int, Exception] = {}

    def run(self, takes_others: Callable[[], bool]) -> None:
        """Find the bad rows. Raises the error where nothing shows that the table takes rows.

        `takes_others`: whether a row goes through that is known to be good.
        """
        self._look_for_one_taken(takes_others)
        self._halve(np.arange(self.n))

    def good(self) -> np.ndarray:
        """The numbers of the other rows."""
        return np.setdiff1d(np.arange(self.n), np.fromiter(self.bad, np.int64, len(self.bad)))

    def _look_for_one_taken(self, takes_others: Callable[[], bool]) -> None:
        rows = np.unique(np.linspace(0, self.n - 1, PROBED).astype(np.int64))
        first = None
        for row in rows.tolist():
            error = self._attempt(np.array([row]))
            if error is None:
                return
            first = first or error
        if first is not None and not takes_others():
            raise first

    def _attempt(self, rows: np.ndarray) -> Exception | None:
        return self._try(part(self._values, rows), len(rows))

    def _halve(self, rows: np.ndarray) -> None:
        error = self._attempt(rows)
        if error is None:
            return
        if len(rows) == 1:
            self.bad[int(rows[0])] = error
            return
        middle = len(rows) // 2
        self._halve(rows[:middle])
        self._halve(rows[middle:])
