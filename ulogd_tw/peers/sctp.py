"""The options of SCTP that COLLECTOR and IPFIX have in common."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ulogd_tw.core.errors import StartError
from ulogd_tw.core.options import Option, number, one_of, seconds, words

SCTP_OPTIONS = (
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


def sctp_mistakes(config: Any, only_given: bool = False) -> Iterator[tuple[str, str]]:
    """What cannot be right in the options; `only_given`: of the section of one collector, which has a few of them."""
    if config.encapsulation_port is not None and not 0 <= config.encapsulation_port <= 65535:
        yield "encapsulation_port", f"{config.encapsulation_port} is not a port (1 to 65535, or 0)"
    if (config.sctp_streams or 1) > 65535:
        yield "sctp_streams", f"{config.sctp_streams} is more than 65535"
    if only_given:
        return
    if not 1 <= config.sctp_retransmissions <= 255:
        yield "sctp_retransmissions", f"{config.sctp_retransmissions} is not between 1 and 255"
    for name in ("sctp_heartbeat", "sctp_rto_max"):
        if not 0.1 <= getattr(config, name) <= 3600:
            yield name, "must be between 0.1 and 3600 seconds"


def sctp_options(config: Any, streams: int, inbound_streams: int, encapsulation_port: int | None = None) -> Any:
    """`transports.sctp.Options` of a plugin. Raises StartError where SCTP cannot be had in this way."""
    # Only who uses SCTP pays for reading the declarations of usrsctp (60 ms).
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
