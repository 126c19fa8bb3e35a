"""Follows the Sequence Numbers of one Observation Domain: losses, late Messages, restarts."""

from __future__ import annotations

from typing import Any

MASK = 0xFFFFFFFF
HALF = 1 << 31
"""A number further ahead than this is behind: numbers wrap."""
FAR = 1 << 24
"""A number further off than these 16.8 million records is no loss but another count.

At 250,000 records a second it is a minute without anything: then the peer has started anew, or the number is forged.
"""
FASTEST = 250_000
"""Records a second that an exporter may have sent while we did not run."""
MOST_GAPS = 16
"""Number of gaps remembered, so that late Messages are subtracted from the losses."""


class Sequence:
    """Sequence Numbers count Data Records, Options Data Records included, modulo 2**32 (RFC 7011 section 3.1).

    `expected` is the next number, or -1 if unknown: before the first Message, and after one with an unknown number of
    records. An unlikely number is accepted only when the next Message continues it (section 11.6). `last` is the number
    of the last Message in sequence, -1 before the first. `deferred` are Messages (`session.DeferredMessage`) with
    records not counted yet, and the Messages after them, in order.
    """

    __slots__ = ("expected", "last", "deferred", "_held", "_gaps", "_suspect", "_told", "_resumed", "_most", "_away")

    def __init__(self) -> None:
        self.expected = self.last = -1
        self.deferred: list[Any] = []
        self._held = -1
        self._gaps: list[tuple[int, int]] = []
        self._suspect = (-1, -1)
        self._told = False
        self._resumed, self._most = -1, FAR
        self._away = (0, 0)
        """The gap of the time between two runs of ours: its first number, and its length."""

    def resume_at(self, number: int, seconds: float) -> None:
        """Go on from the number that an earlier run of ours expected, so many seconds ago."""
        self.expected = self._resumed = number
        self._most = min(max(FAR, int(seconds * FASTEST)), HALF - 1)

    @property
    def resumed(self) -> bool:
        """Whether nothing has come since `resume_at`."""
        return self.expected >= 0 and self.expected == self._resumed

    def away(self, number: int) -> bool:
        """Whether a Message of this number came, or is missing, in the gap between two runs of ours."""
        start, length = self._away
        return (number - start) & MASK < length

    def follow(self, number: int, rows: int) -> tuple[int, str]:
        """Take a Message with this number and so many records.

        Gives the rows that are lost by it (negative: they came late, and were counted as lost) and what is odd:
        ``"sequence_gap"``, ``"restart_gap"`` (between two runs of ours), ``"sequence_duplicate"`` (an old number that
        fills no gap), ``"sequence_reset"``, or "".
        """
        if self.expected < 0:
            self.expected = (number + rows) & MASK
            return 0, ""
        ahead = (number - self.expected) & MASK
        resumed = self.resumed
        if ahead <= (self._most if resumed else FAR):
            if ahead:
                self._gaps = [*self._gaps[1 - MOST_GAPS :], (self.expected, ahead)]
            if ahead and resumed:
                self._away, self._resumed = (self.expected, ahead), -1
            self.expected = (number + rows) & MASK
            return ahead, ("restart_gap" if resumed else "sequence_gap") if ahead else ""
        near = MASK + 1 - ahead <= FAR
        if near and (late := self._taken_back(number, rows)) is not None:
            return -late, ""
        if rows == 0:
            return 0, ""  # a template that came late, or twice, says nothing about records
        if (number, self.expected) == self._suspect:
            self.expected = (number + rows) & MASK
            self._gaps = []
            return 0, "" if self._told else "sequence_reset"
        # Valid only as long as nothing comes that continues the old count.
        self._suspect = ((number + rows) & MASK, self.expected)
        self._told = not near
        return 0, "sequence_duplicate" if near else "sequence_reset"

    def fills_gap(self, number: int) -> bool:
        """Whether a Message of this number came late: it was counted as lost."""
        return any((number - start) & MASK < length for start, length in self._gaps)

    def pause(self) -> None:
        """Expect no number until `resume`: a Message is waiting whose records are not counted yet."""
        self._held, self.expected = self.expected, -1

    def resume(self) -> None:
        """Expect again what was expected before `pause`."""
        self.expected = self._held

    def unknown(self) -> None:
        """The number of received records is unknown: accept the next number."""
        self.expected = -1

    def _taken_back(self, number: int, rows: int) -> int | None:
        """The rows of a late Message that some gap had counted as lost; None when its number is in no gap."""
        for index, (start, length) in enumerate(self._gaps):
            offset = (number - start) & MASK
            if offset < length:
                late = min(rows, length - offset)
                rest = [(start, offset), ((number + late) & MASK, length - offset - late)]
                self._gaps[index : index + 1] = [gap for gap in rest if gap[1]]
                return late
        return None
