"""Restarts of exporters over UDP: templates of a former life are not trusted until they come again.

A sysUptime (NetFlow v9) or a Sequence Number that starts again puts a domain in doubt: its templates are set aside, and
Data Sets wait as if the templates had not come. The next Message decides. If it continues the old count, the templates
are trusted again, and the waiting Sets are decoded; if it continues the new count, the exporter has restarted. If
Messages of the former count still come after that, two devices share an address.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ulogd_tw.core.counters import Counters
from ulogd_tw.core.plurals import plural
from ulogd_tw.ipfix.events import Events
from ulogd_tw.ipfix.lives import SAME_UPTIME, Life, Place
from ulogd_tw.ipfix.parking import Parking
from ulogd_tw.ipfix.sequence import HALF, MASK
from ulogd_tw.ipfix.session import Domain, Session
from ulogd_tw.ipfix.template_store import TemplateStore

_MOST_ALARMS = 3
"""Doubts of one domain that came to nothing; after them its Sequence Numbers raise none."""
_STARTING = 60
"""Seconds of uptime that a restarted exporter may have beyond the time since its last packet: clocks are not exact."""
_MOST_TURNS = 2
"""Messages in a row that go on from nowhere; then the numbers mean nothing."""


def _before(exported: int, than: int) -> bool:
    """Whether an Export Time is earlier than another one (seconds, 32 bits)."""
    return (exported - than) & MASK >= HALF


class Restarts:
    """Finds the restarts of all sessions. Counts them as ``exporter_restarts``, and Sets of a former life as late."""

    def __init__(
        self, templates: TemplateStore, parking: Parking, counters: Counters, events: Events,
        unpark: Callable[[Session, Domain], None], restarted: Callable[[Session, Domain], None],
    ) -> None:  # fmt: skip
        """`unpark` queues the waiting Data Sets of a domain with known templates; `restarted` takes restarts."""
        self._restarted = restarted
        self._unpark = unpark
        self._templates = templates
        self._parking = parking
        self._counters = counters
        self._events = events
        counters.figures.setdefault("exporter_restarts", 0)

    # Messages come

    def look(self, session: Session, domain: Domain, number: int, exported: int, now: float) -> bool:
        """Examine a Message of IPFIX with an unexpected number, or of a domain in doubt.

        False for a Message of a former life: the templates of its records are gone.
        """
        if session.reliable:
            return True
        message = Place(number, exported, -1, now)
        sequence, life = domain.sequence, domain.life
        if life is not None and life.suspect is not None:
            return self._decide(session, domain, life, message)
        if life is not None and life.former is not None and self._is_former(session, domain, life, message):
            return not _before(exported, life.began)
        if sequence.last >= 0 and self._is_odd(domain, message):
            if life is None:
                life = domain.life = Life(message)
            life.place = Place(sequence.last, domain.exported, -1, now)
            self._doubt(session, domain, life, message, False)
        elif sequence.last < 0 or (number - sequence.last) & MASK < HALF or _is_deaf(life):
            domain.goes_on(number, exported)
        return True

    def look_at_packet(
        self, session: Session, domain: Domain, number: int, exported: int, uptime: int, now: float
    ) -> bool:
        """Look at each packet of NetFlow v9. False for one of a former life."""
        life = domain.life
        if session.reliable:
            return True
        message = Place(number, exported, uptime, now)
        if life is None:
            domain.life = Life(message)
            domain.goes_on(number, exported)
            return True
        if life.suspect is not None:
            return self._decide(session, domain, life, message)
        if life.former is not None and self._is_former(session, domain, life, message):
            return not _before(exported, life.began)
        if _is_anew(life.place, message):
            self._doubt(session, domain, life, message, True)
        elif self._is_odd(domain, message):
            self._doubt(session, domain, life, message, False)
        elif (number - life.place.number) & MASK < HALF or _is_deaf(life):
            life.place = message
            domain.goes_on(number, exported)
        return True

    def in_line(self, domain: Domain, numbers: np.ndarray) -> bool:
        """Whether Messages of IPFIX with these Sequence Numbers (uint32) need no closer look."""
        last = domain.sequence.last
        return last >= 0 and not domain.doubted and not (numbers - np.uint32(last) >= HALF).any()

    def goes_on(self, session: Session, domain: Domain, words: np.ndarray, now: float) -> bool:
        """Whether packets of v9 with these headers, of one second, need no closer look; they are noted then."""
        life = domain.life
        if session.reliable:
            return True
        if life is None or life.suspect is not None or domain.doubted:
            return False
        place, uptimes, numbers = life.place, words[:, 1].astype(np.int64), words[:, 3].astype(np.int64)
        elapsed = (int(words[0, 2]) - place.exported) * 1000
        if ((uptimes - place.uptime - elapsed + SAME_UPTIME) & MASK > 2 * SAME_UPTIME).any():
            return False
        if ((numbers - place.number) & MASK >= HALF).any():
            return False
        at = furthest(words[:, 3], place.number)
        last = Place(int(numbers[at]), int(words[0, 2]), int(uptimes[at]), now)
        life.place = last
        domain.goes_on(last.number, last.exported)
        return True

    def leads_on(self, session: Session, domain: Domain, number: int, exported: int, uptime: int) -> bool:
        """Whether a packet of v9 goes on from the one before it, and needs no closer look."""
        life = domain.life
        if session.reliable:
            return True
        if life is None or life.suspect is not None or domain.doubted:
            return False
        place = life.place
        off = uptime - place.uptime - (exported - place.exported) * 1000 + SAME_UPTIME
        return off & MASK <= 2 * SAME_UPTIME and (number - place.number) & MASK < HALF

    def note(self, session: Session, domain: Domain, last: Place) -> None:
        """Packets of v9 that need no closer look were taken, up to this one."""
        if not session.reliable and domain.life is not None:
            domain.life.place = last
            domain.goes_on(last.number, last.exported)

    def _is_odd(self, domain: Domain, message: Place) -> bool:
        """Whether a Sequence Number begins anew: it is behind and fills no gap, but the Message is a later one."""
        sequence, life = domain.sequence, domain.life
        if (message.number - sequence.last) & MASK < HALF or _is_deaf(life):
            return False
        if sequence.fills_gap(message.number) or not _before(domain.exported, message.exported):
            return False
        return message.uptime < 0 or life is None or 0 < (message.uptime - life.place.uptime) & MASK < HALF

    def came_up(self, session: Session, domain: Domain, boot_ms: int, exported: int) -> None:
        """A record of this Export Time has its exporter's start (systemInitTimeMilliseconds, ms since 1970).

        Templates from before belong to a former life.
        """
        if session.reliable or not 0 < boot_ms <= (exported + 1) * 1000:
            return
        gone = [i for i, known in domain.templates.items() if 0 < (known.exported + 1) * 1000 <= boot_ms]
        for ident in gone:
            self._templates.distrust(session, domain, ident)
        if gone:
            self._counters.figures["exporter_restarts"] += 1
            self._events.add("restart", session, domain.number, 0, plural(len(gone), "template"))

    # an earlier run of ours

    def came_to(self, domain: Domain) -> Place | None:
        """Where the Messages of a domain have come to, for `restore`."""
        if domain.sequence.last < 0:
            return None
        life = domain.life
        if life is not None and life.place.uptime >= 0:
            return life.place
        return Place(domain.sequence.last, domain.exported)

    def restore(self, domain: Domain, place: Place) -> None:
        """Go on from where an earlier run of ours ended."""
        domain.goes_on(place.number, place.exported)
        if place.uptime >= 0:
            domain.life = Life(place)

    # doubt

    def _doubt(self, session: Session, domain: Domain, life: Life, message: Place, certain: bool) -> None:
        life.suspect, life.began, life.certain = message, message.exported, certain
        life.turns, life.former = 0, None
        self._templates.doubt(session, domain)

    def _decide(self, session: Session, domain: Domain, life: Life, message: Place) -> bool:
        """Another Message of a domain in doubt; False for one of a former life."""
        assert life.suspect is not None
        if _before(message.exported, life.began):
            return True  # it came late: its Sets wait with the others
        old, new = life.place.distance(message), life.suspect.distance(message)
        if old is not None and (new is None or old <= new):
            life.alarms += 1
            self._trust(session, domain, life, message)
        elif new or (new == 0 and message.uptime > life.suspect.uptime):
            self._restart(session, domain, life, message)
        elif new is None:
            life.suspect, life.turns = message, life.turns + 1
            if life.turns >= _MOST_TURNS:
                life.alarms = _MOST_ALARMS
                self._trust(session, domain, life, message)
        return True

    def _restart(self, session: Session, domain: Domain, life: Life, message: Place) -> None:
        """The exporter has restarted: what it said before its new life is left out."""
        life.former, life.place, life.suspect = life.place, message, None
        domain.goes_on(message.number, message.exported)
        self._restarted(session, domain)
        self._counters.figures["exporter_restarts"] += 1
        if late := self._parking.drop(session, domain, lambda parked: _before(parked.export_time, life.began)):
            self._counters.errors["late_data"] += late
        waiting = len(domain.doubted)
        self._events.add("restart", session, domain.number, 0, plural(waiting, "template"))

    def _is_former(self, session: Session, domain: Domain, life: Life, message: Place) -> bool:
        """Whether a Message goes on from before a restart: it came late, or the exporter was not restarted."""
        if not domain.doubted:
            life.former = None
            return False
        if _before(message.exported, life.began):
            return True
        assert life.former is not None
        here = Place(domain.sequence.last, domain.exported) if message.uptime < 0 else life.place
        old, new = life.former.distance(message), here.distance(message)
        if old is None or (new is not None and new <= old):
            return False
        life.alarms += 1
        self._trust(session, domain, life, message)
        return True

    def _trust(self, session: Session, domain: Domain, life: Life, message: Place) -> None:
        """The life before the doubt goes on with a Message: its templates are valid."""
        life.place, life.suspect, life.former = message, None, None
        domain.goes_on(message.number, message.exported)
        self._templates.trust(domain)
        self._unpark(session, domain)

    def waited(self, session: Session, domain: Domain) -> None:
        """No Message has decided for as long as Sets wait: numbers alone are then no restart."""
        life = domain.life
        if life is None or life.suspect is None or life.certain:
            return
        life.suspect = None
        self._templates.trust(domain)
        self._unpark(session, domain)


def furthest(numbers: np.ndarray, base: int) -> int:
    """Which of some Sequence Numbers (uint32), all ahead of `base`, is furthest ahead; the last one of several."""
    ahead = numbers - np.uint32(base)
    return len(ahead) - 1 - int(ahead[::-1].argmax())


def _is_deaf(life: Life | None) -> bool:
    """Whether the Sequence Numbers of a domain raise no doubt any more."""
    return life is not None and life.alarms >= _MOST_ALARMS


def _is_anew(place: Place, message: Place) -> bool:
    """Whether an uptime begins anew: the exporter has come up after its last packet.

    Uptimes that go back by less are no restart: some exporters have one for each line card.
    """
    if message.uptime == place.uptime or place.leads_to(message):
        return False
    by_exporter = 0 if _before(message.exported, place.exported) else (message.exported - place.exported) & MASK
    elapsed = max(by_exporter, message.arrived - place.arrived)
    return message.uptime <= 1000 * (elapsed + _STARTING)
