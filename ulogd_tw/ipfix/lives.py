"""Where the Messages of one life of an exporter have come to, so that a restart can be seen (see `restarts`)."""

from __future__ import annotations

from dataclasses import dataclass

from ulogd_tw.ipfix.sequence import FAR, MASK

SAME_UPTIME = 10_000
"""Milliseconds by which uptimes of one life may differ from the time between the Messages."""


@dataclass(slots=True)
class Place:
    """Where the Messages of one life have come to: Sequence Number, Export Time, and of NetFlow v9 the uptime (ms).

    `arrived` is when that Message was received (s).
    """

    number: int
    exported: int
    uptime: int = -1
    arrived: float = 0.0

    def leads_to(self, message: Place) -> bool:
        """Whether the uptime of a Message is that of this life, by either clock; it wraps after 2**32 ms."""
        grown = message.uptime - self.uptime
        return _near(grown - (message.exported - self.exported) * 1000) or _near(
            grown - round((message.arrived - self.arrived) * 1000)
        )

    def distance(self, message: Place) -> int | None:
        """How far the number of a Message is ahead of this one; None where it does not go on from here."""
        ahead = (message.number - self.number) & MASK
        return ahead if ahead <= FAR and (self.uptime < 0 or self.leads_to(message)) else None


def _near(ms: int) -> bool:
    """Whether a difference of uptimes is none, modulo 2**32."""
    return (ms + SAME_UPTIME) & MASK <= 2 * SAME_UPTIME


@dataclass(slots=True, eq=False)
class Life:
    """The life of the exporter of one domain: how long it has run without a restart.

    place     the last Message in sequence; for IPFIX only while there is a suspect
    suspect   the last Message of a possible new life; None while there is no doubt
    began     Export Time of the first Message of the new life
    certain   whether the uptime started again, not only the numbers
    former    the last place of the life before this one, while some of its templates have not come again
    alarms    doubts without a restart
    turns     suspects of this doubt that were followed by something else
    """

    place: Place
    suspect: Place | None = None
    began: int = 0
    certain: bool = False
    former: Place | None = None
    alarms: int = 0
    turns: int = 0

    def clock_set(self, step: float) -> None:
        """Our clock was set by so many seconds: Messages arrived so much later or earlier by it."""
        for place in (self.place, self.suspect, self.former):
            if place is not None:
                place.arrived += step
