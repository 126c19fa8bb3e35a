"""IPFIX over UDP (RFC 7011 section 10.3)."""

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


class Udp(Transport):
    """Datagrams, which may be lost; NetFlow and sFlow come the same way."""

    scheme = "udp"
    netflow = True

    def entrance(self, reception: Reception, config: Any) -> Entrance:
        return _Entrance(reception, config.receive_buffer)

    def collector(self, target: Target, settings: Settings, config: Any) -> Collector:
        from ulogd_tw.exporting.udp import DatagramCollector

        return DatagramCollector(target.url, settings)


class _Entrance(Entrance):
    def __init__(self, reception: Reception, buffer: int) -> None:
        self._reception, self._buffer = reception, buffer

    def bind(self, url: Url) -> Sequence[Listener]:
        from ulogd_tw.transports.udp import UdpListener

        return UdpListener.bind(url, self._reception.take_slab, self._buffer, self._reception.settings.terms)
