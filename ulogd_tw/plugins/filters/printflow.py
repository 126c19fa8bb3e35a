"""PRINTFLOW: a flow as one line of text."""

from __future__ import annotations

import numpy as np

from ulogd_tw.core.batch import Batch
from ulogd_tw.core.keys import ulogd_keys
from ulogd_tw.core.lines import Field
from ulogd_tw.core.phrases import Phrase, Words, strings, value
from ulogd_tw.core.plugin import FLOW, Filter, Wanted
from ulogd_tw.kernels.rows import Choice

_SIDE = ("ip.saddr", "ip.daddr", "ip.protocol", "l4.sport", "l4.dport", "raw.pktcount", "raw.pktlen")
_EVENTS = Choice((b"", b"[NEW]", b"[UPDATE]", b"", b"[DESTROY]"))
_NAMED_EVENT = np.array([bool(word) for word in _EVENTS.texts])
_NAMED = {6: b"TCP", 17: b"UDP", 1: b"ICMP", 50: b"ESP", 51: b"AH"}
_PROTOCOLS = Choice([b"PROTO=" + _NAMED.get(number, b"%d" % number) for number in range(256)])


class PRINTFLOW(Filter):
    """Gives the key print: a flow as one line of text, for LOGEMU and SYSLOG.

    The format is ulogd2's ([DESTROY] ORIG: SRC= DST= PROTO=TCP SPT= DPT= PKTS= BYTES= , REPLY: ...), with ICMP type and
    code in the right order (ulogd2 swaps them). IP2STR is not needed.
    """

    name = "PRINTFLOW"
    itype = otype = FLOW
    provides = ulogd_keys("print")
    uses = ("orig.ip.protocol",)
    may_use = (
        *(f"{side}.{name}" for side in ("orig", "reply") for name in _SIDE if (side, name) != ("orig", "ip.protocol")),
        "icmp.type", "icmp.code", "ct.event",
    )  # fmt: skip

    def requests(self, wanted: Wanted) -> dict[str, bool]:
        return super().requests(wanted) if "print" in wanted else {}

    def process(self, batch: Batch) -> Batch:
        if "print" not in self.wanted:
            return batch
        found: list[Field] = []
        if event := self.find(batch, "ct.event"):
            codes = np.where(event.values < len(_EVENTS.texts), event.values, 0).astype(np.intp)
            found += self._where(Words(_EVENTS, codes, event.missing), _NAMED_EVENT[codes])
        found += [Phrase([b"ORIG:"]), *self._side(batch, "orig")]
        found += [Phrase([b", REPLY:"]), *self._side(batch, "reply")]
        return batch.with_columns({self.provides[0]: strings(found, batch.n, b" ", b" ")})

    def _side(self, batch: Batch, side: str) -> list[Field]:
        """The text of one direction."""
        found: list[Field] = []
        for piece, name in ((b"SRC=", "ip.saddr"), (b"DST=", "ip.daddr")):
            if address := self.find(batch, f"{side}.{name}"):
                found.append(value(address, piece))
        if protocol := self.find(batch, f"{side}.ip.protocol"):
            found.append(Words(_PROTOCOLS, protocol.values, protocol.missing))
            ported = (protocol.values == 6) | (protocol.values == 17)
            for piece, name in ((b"SPT=", "l4.sport"), (b"DPT=", "l4.dport")):
                if port := self.find(batch, f"{side}.{name}"):
                    found += self._where(value(port, piece), ported)
            for piece, name in ((b"TYPE=", "icmp.type"), (b"CODE=", "icmp.code")):
                if number := self.find(batch, name):
                    found += self._where(value(number, piece), protocol.values == 1)
        for piece, name in ((b"PKTS=", "raw.pktcount"), (b"BYTES=", "raw.pktlen")):
            if count := self.find(batch, f"{side}.{name}"):
                found.append(value(count, piece))
        return found

    def _where(self, field: Field, rows: np.ndarray) -> list[Field]:
        """A field present in some rows only."""
        missing = ~rows if field.missing is None else ~rows | field.missing
        field.missing = missing if missing.any() else None
        return [field] if rows.any() else []
