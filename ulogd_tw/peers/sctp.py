"""IPFIX over SCTP (RFC 7011 section 10.2).

Modules that use usrsctp are imported where they are needed: its declarations take 60 ms to read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ulogd_tw.core.errors import StartError
from ulogd_tw.core.options import Option, number, one_of, positive, seconds, words
from ulogd_tw.peers.target import Target
from ulogd_tw.peers.transport import Availability, Entrance, Mistakes, Transport
from ulogd_tw.transports.errors import SctpUnavailable
from ulogd_tw.transports.protocols import Listener
from ulogd_tw.transports.url import Url

if TYPE_CHECKING:
    from ulogd_tw.collecting.reception import Reception
    from ulogd_tw.exporting.collector import Collector
    from ulogd_tw.exporting.settings import Settings

_OPTIONS = (
    Option("encapsulation_port", number, None, "UDP port for SCTP over UDP (RFC 6951): the collector's port, given "
           "alike at collector and exporter. 0: SCTP directly over IP; without SCTP in the kernel this needs "
           "CAP_NET_RAW. Not given: directly over IP where the kernel has SCTP, else port 9899."),
    Option("sctp_stack", one_of("auto", "kernel", "user"), "auto", "Implementation of SCTP. kernel: the kernel's "
           "(modprobe sctp); user: usrsctp in this process (Debian package libusrsctp2); auto: the kernel's where it "
           "has SCTP and encapsulation_port is not used, else usrsctp."),
    Option("sctp_addresses", words, (), "Further local addresses of each association (multi-homing), such as 192.0.2.1 "
           "198.51.100.1; only with the kernel's SCTP."),
    Option("sctp_heartbeat", seconds, 15.0, "Seconds between heartbeats on an idle association."),
    Option("sctp_retransmissions", number, 8, "Number of retransmissions in a row after which an association counts as "
           "lost."),
    Option("sctp_rto_max", seconds, 10.0, "Longest time between two retransmissions, in seconds. With the defaults, a "
           "peer that vanished silently is noticed after about 65 s."),
)  # fmt: skip


class Sctp(Transport):
    """Associations of messages, by the kernel's SCTP or usrsctp."""

    scheme = "sctp"
    listening = (
        Option("sctp_streams", positive, 64, "Maximum number of streams of an exporter in an SCTP association."),
        *_OPTIONS,
    )
    exporting = (
        Option("sctp_streams", positive, 8, "Streams of an SCTP association: the first for templates, the others for "
               "data."),
        Option("sctp_lifetime", seconds, 0.0, "Seconds after which undelivered data is given up by SCTP and counted as "
               "lifetime (RFC 3758). 0: data is sent until it is delivered. Templates are never given up."),
        *_OPTIONS,
    )  # fmt: skip
    section = (
        Option("sctp_streams", positive, None, "Streams of an SCTP association. Empty: as in the exporter's section."),
        Option("encapsulation_port", number, None, "UDP port for SCTP over UDP (RFC 6951). Empty: as in the exporter's "
               "section."),
    )  # fmt: skip

    def listening_mistakes(self, config: Any, used: bool) -> Mistakes:
        yield from _mistakes(config)

    def exporting_mistakes(self, config: Any) -> Mistakes:
        yield from _mistakes(config)

    def target_mistakes(self, target: Target) -> Mistakes:
        yield from _mistakes_of_ports(target.own)

    def entrance(self, reception: Reception, config: Any) -> Entrance:
        return _Entrance(reception, _options(config, 1, config.sctp_streams))

    def collector(self, target: Target, settings: Settings, config: Any) -> Collector:
        from ulogd_tw.exporting.sctp import SctpCollector

        own = target.own
        options = _options(config, own.sctp_streams or config.sctp_streams, 1, own.encapsulation_port)
        return SctpCollector(target.url, settings, options, config.sctp_lifetime)

    def availability(self) -> Availability | None:
        from ulogd_tw.transports.sctp import kernel, usrsctp

        if kernel.has_sctp():
            return Availability(True, "in the kernel")
        try:
            usrsctp.library()
        except (SctpUnavailable, OSError) as error:
            return Availability(
                False,
                f"neither in the kernel nor through usrsctp ({error})",
                "modprobe sctp, or apt install libusrsctp2",
            )
        return Availability(True, "through usrsctp, in this process")


class _Entrance(Entrance):
    def __init__(self, reception: Reception, options: Any) -> None:
        self._reception = reception
        self._options = options

    def bind(self, url: Url) -> Sequence[Listener]:
        from ulogd_tw.transports.sctp.listen import SctpListener

        try:
            return SctpListener.bind(url, self._options, self.connected)
        except SctpUnavailable as error:
            raise StartError(f"listen on {url}: {error}") from None

    def connected(self, connection: Any) -> None:
        """An association has come up."""
        from ulogd_tw.collecting.sctp_session import SctpSession

        self._reception.connected(connection, SctpSession, "sctp")


def _mistakes(config: Any) -> Mistakes:
    yield from _mistakes_of_ports(config)
    if not 1 <= config.sctp_retransmissions <= 255:
        yield "sctp_retransmissions", f"{config.sctp_retransmissions} is not between 1 and 255"
    for name in ("sctp_heartbeat", "sctp_rto_max"):
        if not 0.1 <= getattr(config, name) <= 3600:
            yield name, "must be between 0.1 and 3600 seconds"


def _mistakes_of_ports(config: Any) -> Mistakes:
    """Of the options that the section of one collector has too."""
    if config.encapsulation_port is not None and not 0 <= config.encapsulation_port <= 65535:
        yield "encapsulation_port", f"{config.encapsulation_port} is not a port (1 to 65535, or 0)"
    if (config.sctp_streams or 1) > 65535:
        yield "sctp_streams", f"{config.sctp_streams} is more than 65535"


def _options(config: Any, streams: int, inbound_streams: int, encapsulation_port: int | None = None) -> Any:
    """`transports.sctp.Options` of a plugin. Raises StartError where SCTP cannot be had in this way."""
    from ulogd_tw.transports import sctp

    rto_max = int(config.sctp_rto_max * 1000)
    options = sctp.Options(
        config.sctp_stack, config.encapsulation_port if encapsulation_port is None else encapsulation_port, streams,
        inbound_streams, min(1000, rto_max), min(1000, rto_max), rto_max, config.sctp_retransmissions,
        heartbeat=int(config.sctp_heartbeat * 1000), addresses=tuple(config.sctp_addresses),
    )  # fmt: skip
    try:
        sctp.uses_kernel(options)
    except sctp.SctpUnavailable as error:
        raise StartError(f"SCTP cannot be used: {error}") from None
    return options
