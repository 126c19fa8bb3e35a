"""Names of services by port and protocol, in the format of /etc/services."""

from __future__ import annotations

import re

import numpy as np

from ulogd_tw.core.entries import entries
from ulogd_tw.core.protocols import PROTOCOLS
from ulogd_tw.naming.errors import NamesError
from ulogd_tw.naming.labels import Texts

_PORT = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?(?:/(.+))?", re.ASCII)
_WITH_PORTS = ("tcp", "udp", "dccp", "sctp", "udplite")


class Services:
    """The code of each port under each protocol, and the names behind the codes."""

    def __init__(self) -> None:
        self._row = np.zeros(256, np.intp)
        self._tables = [np.zeros(1 << 16, np.int32)]
        self._names: dict[bytes, int] = {b"": 0}
        self.labels = Texts([b""])

    def add(self, name: bytes, first: int, last: int, protocol: int) -> None:
        """Add a name for ports without one: the first of several names counts, as with getservbyport."""
        if not self._row[protocol]:
            self._row[protocol] = len(self._tables)
            self._tables.append(np.zeros(1 << 16, np.int32))
        code = self._names.setdefault(name, len(self._names))
        ports = self._tables[self._row[protocol]][first : last + 1]
        ports[ports == 0] = code

    def finish(self) -> Services:
        """Prepare for `codes`."""
        self._together = np.array(self._tables)
        self.labels = Texts(list(self._names))
        return self

    def codes(self, ports: np.ndarray, protocols: np.ndarray) -> np.ndarray:
        """The code of each row; 0 for no name."""
        real = True
        if ports.dtype.itemsize > 2 or protocols.dtype.itemsize > 1:  # wider than such a field can be
            real = (ports <= 0xFFFF) & (protocols <= 0xFF)
            ports, protocols = np.where(real, ports, 0), np.where(real, protocols, 0)
        return np.where(real, self._together[self._row[protocols], ports], np.int32(0))


def read(octets: bytes) -> Services:
    """The services of a file: NAME PORT/PROTOCOL or PORT/PROTOCOL NAME on each line, with blanks or commas between.

    A port may be a range (6000-6063/tcp); without a protocol the name holds for every protocol with ports. Raises
    `NamesError`.
    """
    found = Services()
    for number, line in entries(octets):
        words = line.replace(",", " ").split()
        if not words:
            continue
        name, ports = (words[1], words[0]) if len(words) > 1 and _PORT.fullmatch(words[0]) else (words * 2)[:2]
        match = _PORT.fullmatch(ports)
        if match is None or len(words) < 2:
            raise NamesError(f"{line!r} is not a service such as: https 443/tcp", number)
        first, last = int(match[1]), int(match[2] or match[1])
        if first > last or last > 0xFFFF:
            raise NamesError(f"{ports}: ports are 0 to 65535", number)
        for protocol in _protocols(match[3], number):
            found.add(name.encode("utf-8", "surrogateescape"), first, last, protocol)
    return found.finish()


def _protocols(name: str | None, line: int) -> list[int]:
    if name is None:
        return [PROTOCOLS[each] for each in _WITH_PORTS]
    number = int(name) if name.isdecimal() else PROTOCOLS.get(name.lower(), 256)
    if number > 255:
        raise NamesError(f"{name} is not a known protocol", line)
    return [number]
