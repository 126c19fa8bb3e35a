"""Rows of address translation, of whatever box they come from, in one form.

Three kinds of rows say who had an outside address: a flow with its start and end (NFCT, flow records), and events: the
beginning and the end of a session, a binding or a port block (RFC 8158, Cisco NEL and NSEL, events of NFCT). In a row
of source NAT the outside address is the translated source; in one of destination NAT it is the destination before the
translation, and the inside host is the one it was translated to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

FLOW, BEGIN, END, LIVE = "f", "b", "e", "l"
"""Kinds of rows; in the order of their letters, a beginning goes before an end of the same time. LIVE: a connection in
the kernel's table."""
ACTIVE = 2
"""flowEndReason of a report of a flow that goes on."""
SOURCE, DESTINATION, NONE = "source", "destination", "none"
"""What was translated. NONE: the address is the source's own, and the row shows it."""
NAT_BEGINS, NAT_ENDS = (1, 4, 6, 8, 10, 14, 16), (2, 5, 7, 9, 11, 15, 17)
"""Values of natEvent (IANA): translations, sessions, bindings (BIB), address bindings and port blocks. Others, such as
an exhausted pool, say nothing of who had an address."""
FIREWALL_BEGINS, FIREWALL_ENDS = (1, 5), (2,)
"""Values of firewallEvent: flow created and updated; deleted. Denied flows had nothing."""
CT_BEGINS, CT_ENDS = (1,), (4,)
"""Values of ct.event."""
ADDRESS_BINDINGS = (14, 15)
MAPPED = 0xFFFF << 32
"""An IPv4 address is this number and its own 32 bits."""
UNSPECIFIED = (0, MAPPED)
"""The addresses :: and 0.0.0.0, which some exporters send where nothing is translated."""

ROLES: dict[str, tuple[str, ...]] = {
    "source": ("sourceAddress", "orig.ip.saddr", "ip.saddr", "sourceIPv4Address", "sourceIPv6Address"),
    "source_port": ("orig.l4.sport", "sourceTransportPort", "udpSourcePort", "tcpSourcePort", "udp.sport", "tcp.sport"),
    "destination": (
        "destinationAddress", "orig.ip.daddr", "ip.daddr", "destinationIPv4Address", "destinationIPv6Address",
    ),
    "destination_port": (
        "orig.l4.dport", "destinationTransportPort", "udpDestinationPort", "tcpDestinationPort", "udp.dport",
        "tcp.dport",
    ),
    "post_source": (
        "postNATSourceAddress", "postNATSourceIPv4Address", "postNATSourceIPv6Address", "reply.ip.daddr",
        "xlate_src_addr_ipv4",
    ),
    "post_source_port": ("postNAPTSourceTransportPort", "reply.l4.dport", "xlate_src_port"),
    "post_destination": (
        "postNATDestinationAddress", "postNATDestinationIPv4Address", "postNATDestinationIPv6Address",
        "reply.ip.saddr", "xlate_dst_addr_ipv4",
    ),
    "post_destination_port": ("postNAPTDestinationTransportPort", "reply.l4.sport", "xlate_dst_port"),
    "protocol": ("orig.ip.protocol", "ip.protocol", "protocolIdentifier"),
    "exporter": ("exporter",),
    "domain": ("observationDomainId",),
    "realm": ("natInstanceID", "ingressVRFID"),
    "nat_event": ("natEvent",),
    "firewall_event": ("firewallEvent", "fw_event"),
    "ct_event": ("ct.event",),
    "first": ("portRangeStart",),
    "last": ("portRangeEnd",),
    "step": ("portRangeStepSize",),
    "count": ("portRangeNumPorts",),
    "observed": ("observationTimeMilliseconds",),
    "observed_us": ("observationTimeMicroseconds",),
    "observed_ns": ("observationTimeNanoseconds",),
    "start": ("flowStartMilliseconds",),
    "end": ("flowEndMilliseconds",),
    "arrival": ("arrival",),
    "reason": ("flowEndReason",),
}  # fmt: skip
"""The columns for each datum; the first with a value counts. Those of ROLES alone are read."""
ADDRESSES = ("source", "destination", "post_source", "post_destination", "exporter")


@dataclass(frozen=True)
class Question:
    """Who had `address` (a number of 128 bits), with this port or any, at a time (ms), give or take `within`?

    Sessions are taken to last no longer than `longest`, where it matters for what may be missing.
    """

    address: int
    port: int | None
    at: int
    within: int = 5000
    longest: int = 86_400_000

    @property
    def earliest(self) -> int:
        """The first moment asked for."""
        return max(self.at - self.within, 0)

    @property
    def latest(self) -> int:
        """The last moment asked for."""
        return self.at + self.within


class NatRow(NamedTuple):
    """One row, as far as it concerns one outside address. Times in ms, addresses as numbers of 128 bits."""

    kind: str
    nat: str
    time: int
    start: int | None
    end: int | None
    exporter: int | None
    domain: int | None
    realm: int | None
    protocol: int | None
    outside: int
    port: int | None
    first: int | None
    last: int | None
    step: int
    inside: int
    inside_port: int | None
    peer: int | None
    peer_port: int | None
    goes_on: bool = False

    @property
    def place(self) -> tuple[Any, ...]:
        """What only one inside host has at a time."""
        return (
            self.exporter, self.domain, self.realm, self.nat == DESTINATION, self.protocol, self.outside, self.port,
            self.first, self.peer, self.peer_port,
        )  # fmt: skip

    def covers(self, port: int | None) -> bool:
        """Whether a question for this port concerns the row: by its port or block, or as an event without ports."""
        if port is None:
            return True
        if self.first is not None:
            last = self.first if self.last is None else self.last
            return self.first <= port <= last and (port - self.first) % self.step == 0
        return self.port == port or self.kind != FLOW and not self.port and not self.protocol


Read = Callable[[str], Any]
"""The value of a role in a row; None where it is missing."""


def nat_rows(values: Mapping[str, Any], question: Question) -> list[NatRow]:
    """What one row, by the names of `ROLES`, says of the address asked for: nothing, or one or two rows.

    Blocks of other ports are among them.
    """
    get = values.get
    kind = _kind(get)
    time = _time(get, kind)
    if kind is None or time is None:
        return []
    found = []
    if get("post_source") == question.address and get("source") is not None:
        found.append(_row(get, kind, time, _nat(get), "post_source", "source", "destination"))
    if get("destination") == question.address and _destination_translated(get):
        found.append(_row(get, kind, time, DESTINATION, "destination", "post_destination", "source"))
    return [row for row in found if row.covers(question.port) or _whole(get) or _may_end_without(row)]


def _may_end_without(row: NatRow) -> bool:
    """Whether this is an event of a block: its end may not say which block."""
    return row.kind != FLOW and row.first is not None


def _row(get: Read, kind: str, time: int, nat: str, outside: str, inside: str, peer: str) -> NatRow:
    start, first = get("start"), get("first")
    if kind != FLOW and start == time:
        start = None  # the time of the event
    step = get("step") or 1
    last = get("last")
    if last is None and first is not None and get("count"):
        last = first + (get("count") - 1) * step
    return NatRow(
        kind, nat, time, start, get("end"), get("exporter"), get("domain"), get("realm"), get("protocol"),
        get(outside), None if first is not None or _whole(get) else get(f"{outside}_port"), first, last, step,
        get(inside), get(f"{inside}_port") or None, get(peer) or None, get(f"{peer}_port") or None,
        get("reason") == ACTIVE,
    )  # fmt: skip


def _whole(get: Read) -> bool:
    """Whether a whole address is bound."""
    return get("nat_event") in ADDRESS_BINDINGS


def _nat(get: Read) -> str:
    same = get("post_source") == get("source")
    ports = get("source_port"), get("post_source_port")
    return NONE if same and (ports[1] in (None, 0, ports[0])) and get("first") is None else SOURCE


def _destination_translated(get: Read) -> bool:
    after, port = get("post_destination"), get("post_destination_port")
    if after is None or after in UNSPECIFIED:
        return False
    return after != get("destination") or bool(port) and port != get("destination_port")


def _kind(get: Read) -> str | None:
    """FLOW, BEGIN or END; None for other events."""
    for role, begins, ends in (
        ("nat_event", NAT_BEGINS, NAT_ENDS),
        ("firewall_event", FIREWALL_BEGINS, FIREWALL_ENDS),
        ("ct_event", CT_BEGINS, CT_ENDS),
    ):
        event = get(role)
        if event:
            other = FLOW if role == "ct_event" else None
            return BEGIN if event in begins else END if event in ends else other
    return FLOW


def _time(get: Read, kind: str | None) -> int | None:
    """When an event was, or a flow ended."""
    if kind == FLOW:
        return next((get(role) for role in ("end", "arrival", "start") if get(role) is not None), None)
    if get("observed") is not None:
        return get("observed")
    for role, divisor in (("observed_us", 1000), ("observed_ns", 1_000_000)):
        if get(role) is not None:
            return get(role) // divisor
    return next((get(role) for role in ("end", "arrival", "start") if get(role) is not None), None)
