"""A collector over TLS over TCP (RFC 7011 section 11)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

from ulogd_tw.exporting.settings import Settings
from ulogd_tw.exporting.tcp import StreamCollector
from ulogd_tw.transports.tls.credentials import Credentials, Files
from ulogd_tw.transports.tls.sender import TlsSender
from ulogd_tw.transports.url import Url


class Secured:
    """The common part of collectors over TLS and DTLS."""

    _credentials: Credentials
    _say: Callable[..., None]

    def _tell_of_files(self, text: str) -> None:
        self._say(f"tls {text}", "TLS: {what}", what=text)

    def read_files(self) -> Self:
        """Before `open`; itself. Raises StartError."""
        self._credentials.opened()
        return self

    def reopen(self) -> None:
        self._credentials.reload()


class TlsCollector(Secured, StreamCollector):
    """A collector over TCP with TLS; nothing is sent before it has accepted our certificate, and we its own."""

    def __init__(self, url: Url, settings: Settings, files: Files, peer_name: str, settle: float) -> None:
        self._credentials = Credentials(files, False, (peer_name,), self._tell_of_files)
        self._settle_seconds = settle
        super().__init__(url, settings)

    def _sender(self) -> TlsSender:
        settings = self.settings
        self._tls = TlsSender(
            self.url, settings.reactor, settings.reconnect, self._connected, self.send_waiting, self._lost,
            self._failed, self._credentials, self._settle_seconds,
        )  # fmt: skip
        return self._tls

    def figures(self) -> dict[str, Any]:
        return super().figures() | {"errors": dict(self._tls.errors), "tls": self._tls.protocol}
