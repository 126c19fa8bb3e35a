"""The transports that there are: a module of this package each, and one line here."""

from __future__ import annotations

from collections.abc import Iterable

from ulogd_tw.core.options import Option
from ulogd_tw.peers.dtls import Dtls
from ulogd_tw.peers.sctp import Sctp
from ulogd_tw.peers.tcp import Tcp
from ulogd_tw.peers.tls import Tls
from ulogd_tw.peers.transport import Transport
from ulogd_tw.peers.udp import Udp
from ulogd_tw.transports import url

_ALL: tuple[Transport, ...] = (
    Udp(),
    Tcp(),
    Tls(),
    Dtls(),
    Sctp(),
)
TRANSPORTS: dict[str, Transport] = {transport.scheme: transport for transport in _ALL}
"""By scheme, in the order of their options."""
SCHEMES = " and ".join((", ".join([*TRANSPORTS][:-1]), [*TRANSPORTS][-1]))
"""For texts: udp, tcp, tls, dtls and sctp."""


def options_of(side: str) -> Iterable[Option]:
    """The options `listening`, `exporting` or `section` of all transports; one that several share is there once."""
    found = (option for transport in TRANSPORTS.values() for option in getattr(transport, side))
    return {option.name: option for option in found}.values()


def parse(text: str) -> url.Url:
    """The URL that a user has written. Raises ValueError with the reason."""
    return url.parse(text, {scheme: transport.port for scheme, transport in TRANSPORTS.items()})
