"""One way for IPFIX between exporter and collector: its scheme, its options and checks, and both of its ends."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ulogd_tw.core.options import Option
from ulogd_tw.peers.target import Target
from ulogd_tw.transports.protocols import Listener
from ulogd_tw.transports.url import Url

if TYPE_CHECKING:
    from ulogd_tw.collecting.reception import Reception
    from ulogd_tw.exporting.collector import Collector
    from ulogd_tw.exporting.settings import Settings

Mistakes = Iterator[tuple[str, str]]
"""Pairs of an option and what is wrong with it."""


class Availability(NamedTuple):
    """A finding of `doctor` about a transport not available on every machine."""

    there: bool
    found: str
    remedy: str = ""


class Entrance:
    """Where the exporters of one COLLECTOR come in by one scheme; made once, however many URLs it has."""

    @property
    def handshakes(self) -> int | None:
        """Handshakes that have not ended; None where the transport has none."""
        return None

    def bind(self, url: Url) -> Sequence[Listener]:
        """Bound listeners for a URL. Raises OSError, and StartError where the transport cannot be had here."""
        raise NotImplementedError

    def reload(self) -> None:
        """SIGHUP: read files anew."""


class Transport:
    """All the program needs to know of a scheme. Making one does no I/O; heavy modules are imported at their use."""

    scheme = ""
    port = 4739
    """IANA's port for IPFIX over it (RFC 7011 sections 10.2.1, 10.3.4, 10.4.1)."""
    netflow = False
    """Whether NetFlow v9 and v5 are sent over it too."""
    listening: tuple[Option, ...] = ()
    """Options of COLLECTOR."""
    exporting: tuple[Option, ...] = ()
    """Options of the output IPFIX."""
    section: tuple[Option, ...] = ()
    """Options of a section ``[collector:NAME]``."""

    def listening_mistakes(self, config: Any, used: bool) -> Mistakes:
        """The mistakes in its options of a COLLECTOR; `used`: whether a URL of its scheme is listened on."""
        yield from ()

    def exporting_mistakes(self, config: Any) -> Mistakes:
        """The mistakes in its options of an exporter, whether or not a collector has its scheme."""
        yield from ()

    def target_mistakes(self, target: Target) -> Mistakes:
        """The mistakes in the options of one collector of its scheme; see `Target.placed`."""
        yield from ()

    def entrance(self, reception: Reception, config: Any) -> Entrance:
        """The end of a COLLECTOR with these options. Raises StartError."""
        raise NotImplementedError

    def collector(self, target: Target, settings: Settings, config: Any) -> Collector:
        """The end of an exporter with these options. Raises StartError."""
        raise NotImplementedError

    def availability(self) -> Availability | None:
        """Whether this machine has it; None where every machine does."""
        return None
