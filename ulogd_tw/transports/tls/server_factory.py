"""Our credentials before a protocol of Twisted: TLS as for exporters, for a server that others have written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.protocols.tls import TLSMemoryBIOFactory
from zope.interface import implementer

from ulogd_tw.transports.tls.credentials import Credentials, Files


@implementer(IOpenSSLServerConnectionCreator)
class _Connections:
    """Makes OpenSSL's connections with the files as they are now."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials

    def serverConnectionForTLS(self, protocol: Any) -> SSL.Connection:
        """One connection. Twisted makes `protocol` its application data, which the callbacks of `layer` fill."""
        protocol.names = self._credentials.names
        protocol.alert = protocol.refused = None
        protocol.secured = protocol.accepted = False
        made = SSL.Connection(self._credentials.context(), None)
        made.set_accept_state()
        return made


def secured(
    factory: Any, files: tuple[str, str, str, bool], names: tuple[str, ...], say: Callable[[str], None]
) -> TLSMemoryBIOFactory:
    """The factory behind TLS; `files` are ca, cert, private_key and verify. Raises `StartError`."""
    credentials = Credentials(Files(*files), True, tuple(names), say).opened()
    connections: Any = _Connections(credentials)
    made = TLSMemoryBIOFactory(connections, False, factory)
    made.noisy = False
    return made
