"""IPFIX over TCP (RFC 7011 section 10.4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ulogd_tw.peers.target import Target
from ulogd_tw.peers.transport import Entrance, Transport
from ulogd_tw.transports.protocols import Listener
from ulogd_tw.transports.url import Url

if TYPE_CHECKING:
    from ulogd_tw.collecting.reception import Reception
    from ulogd_tw.exporting.collector import Collector
    from ulogd_tw.exporting.settings import Settings
    from ulogd_tw.transports.stream_listener import StreamConnection


class Tcp(Transport):
    """Connections."""

    scheme = "tcp"

    def entrance(self, reception: Reception, config: Any) -> Entrance:
        return _Entrance(reception)

    def collector(self, target: Target, settings: Settings, config: Any) -> Collector:
        from ulogd_tw.exporting.tcp import StreamCollector

        return StreamCollector(target.url, settings)


class _Entrance(Entrance):
    def __init__(self, reception: Reception) -> None:
        self._reception = reception

    def bind(self, url: Url) -> Sequence[Listener]:
        from ulogd_tw.transports.stream_listener import StreamListener

        return StreamListener.bind(url, self._connected)

    def _connected(self, connection: StreamConnection) -> None:
        from ulogd_tw.collecting.stream_session import StreamSession

        self._reception.connected(connection, StreamSession, "tcp")
