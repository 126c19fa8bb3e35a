"""A collector over DTLS over UDP (RFC 7011 sections 8.4, 10.3 and 11)."""

from __future__ import annotations

from typing import Any

from twisted.internet import defer

from ulogd_tw.exporting.collector import STOP_SECONDS, pause
from ulogd_tw.exporting.settings import Settings
from ulogd_tw.exporting.tls import Secured
from ulogd_tw.exporting.udp import MOST_PATH_MTU, DatagramCollector
from ulogd_tw.transports.dtls.layer import OVERHEAD
from ulogd_tw.transports.dtls.sender import DtlsSender
from ulogd_tw.transports.tls.credentials import Credentials, Files
from ulogd_tw.transports.url import Url

_RECORD = 1 << 14
"""Octets of a message that a record holds at most (RFC 6347 section 4.1)."""


class DtlsCollector(Secured, DatagramCollector):
    """A collector over DTLS: messages wait while there is no association; what the network loses is lost.

    Each association is a Transport Session, with all templates before their data.
    """

    paced = False

    def __init__(self, url: Url, settings: Settings, files: Files, peer_name: str, rehandshake: float) -> None:
        super().__init__(url, settings)
        self._credentials = Credentials(files, False, (peer_name,), self._tell_of_files, datagrams=True)
        self.sender = self._dtls = DtlsSender(
            url, settings.reactor, settings.reconnect, self._connected, self._ready, self._lost, self._failed,
            self._credentials, rehandshake,
        )  # fmt: skip
        # Nothing goes out before there is an association; what is too long for its path then is cut again.
        self.limit = min((settings.mtu or MOST_PATH_MTU) - 48 - OVERHEAD, _RECORD)
        self._why = ""
        """Why there is no association."""

    @property
    def state(self) -> str:
        if self.sender.is_open:
            return "connected"
        return "closed" if self._closed else "connecting" if self._dtls.connecting else "waiting"

    @property
    def full(self) -> bool:
        """Only while there is no association: then it is as over TCP, and else what has no room drops the oldest."""
        return not self.sender.is_open and self._queued_octets >= self.settings.queue_octets

    @property
    def available(self) -> bool:
        return self.sender.is_open or not (self.connects or self.last_error)

    def _connected(self) -> None:
        """A new Transport Session: from 0, without templates."""
        self.connects += 1
        self.sequence = self._since_templates = 0
        self.sent_templates.clear()
        self._templates_at = self.settings.reactor.seconds()
        self._refused = self.sender.errors["refused"]  # those before it
        if self.connects == 1 or self.last_error:
            self.log.info("collector {url}: connected", url=str(self.url))
        self.last_error = self._why = ""
        self._ready()

    def _lost(self, reason: str) -> None:
        self.last_error = self._why = reason
        self._say("lost", "association lost: {reason}", reason=reason)

    def _failed(self, reason: str) -> None:
        self.last_error = self._why = reason
        self._say("failed", "cannot connect: {reason}", reason=reason)

    def _measure(self) -> None:
        super()._measure()
        self.limit = min(self.limit, _RECORD)

    def poll(self, now: float) -> None:
        super().poll(now)
        self.last_error = self.sender.last_error or self._why

    @defer.inlineCallbacks
    def stop(self) -> Any:
        """As over UDP; a handshake that has begun may end."""
        deadline = self.settings.reactor.seconds() + STOP_SECONDS
        self.send_waiting()
        sender = self.sender
        while self._queue and (sender.is_open or self._dtls.connecting) and self.settings.reactor.seconds() < deadline:
            yield pause(self.settings.reactor)
            self.send_waiting()
        self._drop_rest()
        sender.close()

    def figures(self) -> dict[str, Any]:
        return super().figures() | {"tls": self._dtls.protocol}
