"""PERPACKET: the mean octets of a flow's packets. A template of a filter that adds a key."""

import numpy as np

from ulogd_tw.core import types
from ulogd_tw.core.keys import Key
from ulogd_tw.core.options import Option, number
from ulogd_tw.core.plugin import ALL, FLOW, PACKET, Filter

PER_PACKET = Key("octets_per_packet", types.FLOAT64, (), "octets")
_NEEDED = ("octetDeltaCount", "packetDeltaCount")


class PERPACKET(Filter):
    """Adds the key octets_per_packet, and drops rows below a minimum."""

    name = "PERPACKET"
    itype = otype = PACKET | FLOW
    provides = (PER_PACKET,)
    options = (Option("least", number, 0, "Minimum of octets_per_packet, such as 64. 0: keep all rows."),)

    def mistakes(self):
        """(option, text) for each wrong value: printed by --check with the line of the option."""
        if self.config.least < 0:
            yield "least", f"{self.config.least} must be 0 or more"

    def requests(self, wanted):
        """The keys needed: none if no plugin below wants the new key, so that none are decoded in vain."""
        asked = self.config.least or wanted is ALL or PER_PACKET.name in wanted
        return dict.fromkeys(_NEEDED, True) if asked else {}

    def process(self, batch):
        """A new batch: columns are shared, so they are never changed in place."""
        octets, packets = (self.find(batch, name) for name in _NEEDED)
        if octets is None or packets is None:
            return batch
        counted = packets.filled(0)
        missing = counted == 0
        if octets.missing is not None:
            missing |= octets.missing
        values = octets.filled(0) / np.maximum(counted, 1)
        batch = batch.with_columns({PER_PACKET: values}, {PER_PACKET.name: missing} if missing.any() else None)
        return batch.take(~missing & (values >= self.config.least)) if self.config.least else batch
