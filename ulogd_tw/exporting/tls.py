"""A collector over TLS over TCP (RFC 7011 section 11)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

from ulogd_tw.exporting.collector import Settings
from ulogd_tw.exporting.targets import Target
from ulogd_tw.exporting.tcp import StreamCollector
from ulogd_tw.peers.tls import opened
from ulogd_tw.transports.tls.credentials import Credentials
from ulogd_tw.transports.tls.sender import TlsSender


class Secured:
    """What collectors over TLS and DTLS have in common; `_credentials` are those of a target."""

    _credentials: Credentials
    _say: Callable[..., None]

    def _tell_of_files(self, text: str) -> None:
        self._say(f"tls {text}", "TLS: {what}", what=text)

    def read_files(self) -> Self:
        """Before `open`; itself. Raises StartError."""
        opened(self._credentials)
        return self

    def reopen(self) -> None:
        self._credentials.reload()


class TlsCollector(Secured, StreamCollector):
    """A collector over TCP with TLS; nothing is sent before it has accepted our certificate, and we its own."""

    def __init__(self, target: Target, settings: Settings, settle: float) -> None:
        self._credentials = Credentials(target.files(), False, (target.peer_name,), self._tell_of_files)
        self._settle_seconds = settle
        super().__init__(target.url, settings)

    def _sender(self) -> TlsSender:
        settings = self.settings
        return TlsSender(
            self.url, settings.reactor, settings.reconnect, self._connected, self.pump, self._lost, self._failed,
            self._credentials, self._settle_seconds,
        )  # fmt: skip

    def figures(self) -> dict[str, Any]:
        return super().figures() | {"errors": dict(self.sender.errors), "tls": self.sender.protocol}
