"""SCTP as endpoints of Twisted: ``sctp:4739:interface=192.0.2.1`` listens, ``sctp:host=192.0.2.1:port=4739`` connects.

Further arguments: ``encapsulation`` (UDP port, 0: in IP), ``streams``, ``stack`` (auto, kernel, user). Factories build
`SCTPProtocol`s. Strings need the plugin in ``twisted/plugins``.
"""

from __future__ import annotations

from typing import Any

from twisted.internet import defer, interfaces
from zope.interface import implementer


def _options(encapsulation: str, streams: str, stack: str) -> Any:
    from ulogd_tw.transports.sctp import Options

    return Options(stack, int(encapsulation) if encapsulation else None, int(streams))


@implementer(interfaces.IListeningPort)
class _Port:
    """A listening endpoint, under Twisted's names."""

    def __init__(self, listener: Any) -> None:
        self._listener = listener

    def startListening(self) -> None:
        self._listener.begin()

    def stopListening(self) -> None:
        self._listener.close()

    def getHost(self) -> Any:
        return self._listener.getHost()


@implementer(interfaces.IStreamServerEndpoint)
class SCTPServerEndpoint:
    """Listens on a port. Its factory builds `SCTPProtocol`s."""

    def __init__(self, reactor: Any, port: int, interface: str, options: Any) -> None:
        self._reactor, self._port, self._interface, self._options = reactor, port, interface, options

    def listen(self, factory: Any) -> defer.Deferred[Any]:
        """Fires with the port; fails with OSError or `SctpUnavailable`."""
        from ulogd_tw.transports.sctp import listenSCTP

        listening = defer.execute(listenSCTP, self._port, factory, self._interface, self._options, self._reactor)
        return listening.addCallback(_Port)


@implementer(interfaces.IStreamClientEndpoint)
class SCTPClientEndpoint:
    """Connects to a port of a host. Its factory builds an `SCTPProtocol`."""

    def __init__(self, reactor: Any, host: str, port: int, options: Any) -> None:
        self._reactor, self._host, self._port, self._options = reactor, host, port, options

    def connect(self, factory: Any) -> defer.Deferred[Any]:
        """Fires with the protocol."""
        from ulogd_tw.transports.sctp import connectSCTP

        return connectSCTP(self._host, self._port, factory, self._options, self._reactor)


def server(reactor: Any, port: str, interface: str = "", encapsulation: str = "", streams: str = "16",
           stack: str = "auto") -> SCTPServerEndpoint:  # fmt: skip
    """The endpoint of a string."""
    return SCTPServerEndpoint(reactor, int(port), interface, _options(encapsulation, streams, stack))


def client(reactor: Any, host: str, port: str = "4739", encapsulation: str = "", streams: str = "16",
           stack: str = "auto") -> SCTPClientEndpoint:  # fmt: skip
    """The endpoint of a string."""
    return SCTPClientEndpoint(reactor, host, int(port), _options(encapsulation, streams, stack))
