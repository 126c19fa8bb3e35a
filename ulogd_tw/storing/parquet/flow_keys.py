"""The keys that a flow store has where none are chosen, and the order of its rows."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from ulogd_tw.core import types
from ulogd_tw.core.keys import known
from ulogd_tw.storing.stored_columns import END, START

FLOW_KEYS = (
    "exporter", "observationDomainId", "sourceAddress", "destinationAddress", "protocolIdentifier",
    "sourceTransportPort", "destinationTransportPort", "icmpTypeCodeIPv4", "icmpTypeCodeIPv6", "tcpControlBits",
    "ipClassOfService", "octets", "packets", "reply_octets", "reply_packets", START, END, "flowEndReason",
    "flowDirection", "sampling_factor", "ingressInterface", "egressInterface", "vlanId", "bgpSourceAsNumber",
    "bgpDestinationAsNumber", "postNATSourceAddress", "postNATDestinationAddress", "postNAPTSourceTransportPort",
    "postNAPTDestinationTransportPort", "natEvent", "firewallEvent", "portRangeStart", "portRangeEnd",
    "portRangeStepSize", "portRangeNumPorts", "natInstanceID", "ingressVRFID", "ct.mark", "ct.zone",
)  # fmt: skip
"""Of flows, where they have them: a column without values takes next to no room."""
_TIMES = {START: "first_ms", END: "last_ms"}
"""What an AGGREGATE calls the times."""
_OF_INTERVALS = "interval_start"


def default_keys(above: Collection[str] | None) -> tuple[str, ...]:
    """The keys of flows, or all keys of an AGGREGATE. `above`: the keys that there are, None where any may come."""
    if above is not None and _OF_INTERVALS in above:
        return (*sorted(set(above) - set(_TIMES.values())), START, END)
    return FLOW_KEYS


def default_order(keys: Sequence[str], nat: bool) -> tuple[str, ...]:
    """The columns by which rows are sorted: the addresses, in a NAT log the address and port that others saw."""
    if nat and "postNATSourceAddress" in keys:
        return tuple(key for key in ("postNATSourceAddress", "postNAPTSourceTransportPort") if key in keys)
    addresses = [name for name in keys if _address(name) and name not in ("exporter", "exporterAddress")]
    return tuple(addresses[:2]) or tuple(keys[:1])


def _address(name: str) -> bool:
    key = known(name.partition("/")[0].partition("@")[0])
    return key is not None and key.type in (types.ADDRESS, types.IPV4, types.IPV6)
