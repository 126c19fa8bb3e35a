"""A collector over UDP (RFC 7011 sections 8.4 and 10.3)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet import defer

from ulogd_tw.exporting.collector import STOP_SECONDS, Collector, pause
from ulogd_tw.exporting.settings import Settings
from ulogd_tw.ipfix.builder import Messages, recut
from ulogd_tw.transports.protocols import DatagramSender
from ulogd_tw.transports.udp_sender import LATER, TOO_LONG, UdpSender
from ulogd_tw.transports.url import Url

UNKNOWN_PATH_MTU = 512
"""Octets of a packet where nothing is known of the path (RFC 7011 section 10.3.3)."""
_ANSWER_SECONDS = 0.9
"""A host that has nobody listening says so (ICMP) within this time."""
MOST_PATH_MTU = 1500
"""A route's MTU is that of the first link only, and loopback's would fill a receiver's buffer with three datagrams."""

BURST, BREATH = 64, 0.001
"""Datagrams at once, and seconds until the next: they leave faster than a collector reads them, and its buffer, often
208 KB with 2.3 KB a datagram, has room for some 90."""
_SHARE = 16
"""Of a longer queue so large a part leaves at once, so that no rate is too high."""


class DatagramCollector(Collector):
    """A collector over UDP: lost datagrams are lost, and templates are repeated (section 8.4)."""

    paced = True
    """Whether datagrams leave in bursts; the sender of DTLS has its own."""

    def __init__(self, url: Url, settings: Settings) -> None:
        super().__init__(url, settings)
        self.limit = UNKNOWN_PATH_MTU - 28
        self.sender: DatagramSender = UdpSender(url, settings.reactor, self._ready, settings.reconnect, self._moved)
        self._templates_at = float("-inf")
        self._since_templates = 0
        self._refused = 0
        self._away = False
        self._left, self._burst_at = 0, float("-inf")
        self._breath: Any = None
        self.note: Callable[[int], None] = _nothing
        """Takes the next Sequence Number after each sending, to keep it over a restart."""

    @property
    def state(self) -> str:
        return "closed" if self._closed else "open" if self.sender.is_open else "looking up"

    @property
    def in_session(self) -> bool:
        return self.sender.is_open

    @property
    def full(self) -> bool:
        """Never: what has no room takes the place of the oldest."""
        return False

    @property
    def available(self) -> bool:
        return self.sender.is_open and not self._away

    def open(self) -> None:
        self.sender.open()

    def _ready(self) -> None:
        if not self.connects:
            self.connects = 1
        self._measure()
        self.send_waiting()

    def _moved(self) -> None:
        """The name has another address: a new Transport Session, whose collector knows no templates."""
        self.connects += 1
        self.sequence = self._since_templates = 0
        self.sent_templates.clear()
        self._say("moved", "the name has another address now")

    def _measure(self) -> None:
        """Set `limit` to what the path takes (UDP-1)."""
        mtu = self.sender.path_mtu() or UNKNOWN_PATH_MTU
        mtu = min(mtu, self.settings.mtu or MOST_PATH_MTU)
        self.limit = mtu - self.sender.headers

    def send_waiting(self) -> None:
        while self._queue and self.sender.is_open and not (self._away and self.spool is not None):
            if self._queue[0].length > self.limit:
                self._recut()
                continue
            if not self._room():
                break
            now = self.settings.clock()
            if not self._send_templates(self._new_templates(self._queue[0]), now):
                break
            if not self._send(self._queue[0], now):
                break
        self._after_sending()

    def _room(self) -> int:
        """Datagrams that may leave now; `send_waiting` is called again when there are none."""
        now = self.settings.reactor.seconds()
        if not self.paced:
            return len(self._queue[0].octets)
        if not 0 <= now - self._burst_at < BREATH:
            self._burst_at, self._left = now, max(BURST, self._queued_octets // (_SHARE * self.limit))
        if not self._left and self._breath is None:
            self._breath = self.settings.reactor.callLater(BREATH, self._next_burst)
        return self._left

    def _next_burst(self) -> None:
        self._breath = None
        if not self._closed:
            self.send_waiting()

    def _recut(self) -> None:
        """Cut the first messages, which were made for a wider path."""
        wide = self._take(self._queue[0].count)
        narrow = recut(wide, self.limit, self.settings.templates)
        lost = wide.all_records - sum(m.all_records for m in narrow)
        self.dropped["too_long"] += lost
        self._queue.extendleft(reversed(narrow))
        self._queued_octets += sum(m.nbytes for m in narrow)

    def _send_templates(self, templates: list[int], now: float) -> bool:
        """Send templates in messages of their own before their data, new ones twice (UDPT-2); False: not all."""
        if not templates:
            return True
        new = not self.sent_templates.issuperset(templates)
        for _ in range(2 if new else 1):
            for message in self._template_messages(templates, now):
                result = self.sender.send(message)
                if result == LATER:
                    return False
                if result == TOO_LONG:
                    self._narrow()
                    return False
                self._count_sent(1, len(message), 0)
                self.sequence += self.settings.form.counted(1, 0)
                self.note(self.sequence)
        self.sent_templates.update(templates)
        return True

    def _send(self, messages: Messages, now: float) -> bool:
        """Send the first block of the queue; False when something stopped it, and what is left stays."""
        messages = messages.part(0, 1 if self.settings.send_template == "always" else self._room())
        octets = messages.stamped(self.sequence, self.settings.domain, now)
        done, failed, result = self.sender.send_all(octets)
        self._left -= done
        if done:
            self._count_sent(done - failed, (done - failed) * messages.length, (done - failed) * messages.records)
            if failed:
                self.dropped["send_error"] += failed * messages.records
            self.sequence += self._take(done).counted
            self.note(self.sequence)
            self._since_templates += done
        if result == TOO_LONG:
            self._narrow()
        return result != LATER

    def _narrow(self) -> None:
        """A message was longer than the path takes: learn how much that is; below 512 it is dropped."""
        before, least = self.limit, UNKNOWN_PATH_MTU - self.sender.headers
        self._measure()
        if self.limit < before:
            return
        self._say("too_long", "a datagram of {n} octets is refused as too long", n=before)
        self.limit = min(before, least)
        if before <= least and self._queue:
            self._drop(self._take(1), "too_long")

    def poll(self, now: float) -> None:
        """Tell the templates again when it is time; sooner when the collector was away and may have forgotten them."""
        if not self.sender.is_open:
            return
        settings = self.settings
        due = settings.reactor.seconds() - self._templates_at >= settings.template_refresh
        due |= 0 < settings.template_packets <= self._since_templates
        refused = self.sender.errors["refused"]
        if refused != self._refused:
            self._away = True
        elif self._away and settings.reactor.seconds() - self._templates_at >= _ANSWER_SECONDS:
            self._away = False  # nobody has refused the templates that were sent again
        if (due or refused != self._refused) and self.sent_templates and settings.send_template != "never":
            self._refused = refused
            self._templates_at = settings.reactor.seconds()
            self._since_templates = 0
            self._measure()  # the path may have changed, and may take more than it did
            self._send_templates(sorted(self.sent_templates), now)
        self.last_error = self.sender.last_error
        if self.last_error:
            self._say("send", "{error}", error=self.last_error)
        self.send_waiting()

    @defer.inlineCallbacks
    def stop(self) -> Any:
        """Datagrams that find no room in the kernel's buffer are tried again for a while."""
        deadline = self.settings.reactor.seconds() + STOP_SECONDS
        self.send_waiting()
        while self._queue and self.sender.is_open and self.settings.reactor.seconds() < deadline:
            yield pause(self.settings.reactor)
            self.send_waiting()
        self._drop_rest()
        if self._breath is not None:
            self._breath.cancel()
            self._breath = None
        self.sender.close()

    def figures(self) -> dict[str, Any]:
        return super().figures() | {"errors": dict(self.sender.errors), "message_octets": self.limit}


def _nothing(sequence: int) -> None:
    pass
