"""PWSNIFF: names and passwords that FTP and POP3 send in the clear."""

from __future__ import annotations

import re

import numpy as np

from ulogd_tw.core.batch import Batch
from ulogd_tw.core.columns import Octets, strings
from ulogd_tw.core.keys import Key, ulogd_keys
from ulogd_tw.core.plugin import PACKET, Filter
from ulogd_tw.core.resolve import Found

PORTS = (21, 110)
"""FTP's control connection and POP3."""
_WORDS = {
    "pwsniff.user": re.compile(rb"(?i)USER ([^ \r\n]+)[ \r\n]"),
    "pwsniff.pass": re.compile(rb"(?i)PASS ([^ \r\n]+)[ \r\n]"),
}
_IPV6_OCTETS, _TCP_OCTETS = 40, 20


class PWSNIFF(Filter):
    """Passes TCP packets to the ports of FTP (21) and POP3 (110), with the user name and password inside.

    Other packets are filtered. A packet without USER or PASS has no value for that key; of several commands in a packet
    the last one counts. The filter of ulogd2 2.0.8 passes no packet at all.
    """

    name = "PWSNIFF"
    itype = otype = PACKET
    provides = ulogd_keys(*_WORDS)
    uses = ("raw.pkt", "tcp.dport")
    may_use = ("tcp.offset", "ip.ihl")

    def process(self, batch: Batch) -> Batch | None:
        port, packets = self.find(batch, "tcp.dport"), self.find(batch, "raw.pkt")
        if port is None or packets is None:
            return None
        chosen = np.isin(port.numbers, PORTS)
        if port.missing is not None:
            chosen &= ~port.missing
        rows = np.flatnonzero(chosen)
        if not len(rows):
            return None
        payloads = self._payloads(batch.take(rows), strings(packets.values).take(rows).plain())
        added: dict[Key, Octets] = {}
        missing: dict[str, np.ndarray] = {}
        for key in self.provides:
            if key.name in self.wanted:
                # A Python step for each packet of these control connections.
                found = [_last(_WORDS[key.name], payload) for payload in payloads]
                added[key] = Octets.of(value or b"" for value in found)
                missing[key.name] = np.array([value is None for value in found])
        return batch.take(rows).with_columns(added, missing)

    def _payloads(self, batch: Batch, packets: Octets) -> list[bytes]:
        """The octets after the headers, including IPv6 extension headers."""
        words = self._number(batch, "tcp.offset", _TCP_OCTETS // 4) + self._number(batch, "ip.ihl", _IPV6_OCTETS // 4)
        return [packet[start:] for packet, start in zip(packets.to_list(), (4 * words).tolist(), strict=True)]

    def _number(self, batch: Batch, name: str, default: int) -> np.ndarray:
        found: Found | None = self.find(batch, name)
        if found is None:
            return np.full(batch.n, default)
        values = found.numbers.astype(np.int64)
        return values if found.missing is None else np.where(found.missing, default, values)


def _last(word: re.Pattern[bytes], payload: bytes) -> bytes | None:
    """The argument of the last command of this name."""
    found = word.findall(payload)
    return found[-1] if found else None
