"""The keys of rows: names, types, units and Information Elements.

Two vocabularies meet here: ulogd2's names (``orig.ip.saddr``) and IANA's (``sourceIPv4Address``). A key is found by its
name; keys of different names are the same datum when they share an Information Element. Direction is part of the
element: the reverse of IANA element n is (29305, n) (RFC 5103 section 6.1).

The tables are read from ``data/``: IANA's registry, elements of enterprises, ulogd2's keys. Nothing is ever fetched at
run time (RFC 7012 section 7.3).
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache, cached_property
from importlib import resources

from ulogd_tw.core import types
from ulogd_tw.core.near_words import nearest as nearest
from ulogd_tw.core.types import Type

REVERSE_PEN = 29305
"""Private Enterprise Number of reverse elements (RFC 5103)."""
FIVE_TUPLE = (
    "sourceAddress",
    "destinationAddress",
    "protocolIdentifier",
    "sourceTransportPort",
    "destinationTransportPort",
)

NETFLOW9 = 1 << 32
"""Stands for an enterprise number: field types of NetFlow v9, with 40000 as an ordinary number."""
NETFLOW9_SCOPE = NETFLOW9 + 1
"""Scope types of NetFlow v9."""
NETFLOW5 = NETFLOW9 + 2
"""The fields of NetFlow v1, v5 and v7, numbered in the order of `NETFLOW5_KEYS` and `NETFLOW7_KEYS` behind them."""
SFLOW = NETFLOW9 + 3
"""Data of sFlow without an element of IANA, numbered in the order of `SFLOW_KEYS`, and
`SFLOW_RECORD_KEYS` behind them."""

Element = tuple[int, int]
"""(enterprise number, element id); enterprise 0 is IANA."""


@dataclass(frozen=True, slots=True)
class Key:
    """A name for a datum. With several `elements`, a batch has any one of them (an address of either family)."""

    name: str
    type: Type
    elements: tuple[Element, ...] = ()
    unit: str = ""
    semantics: str = ""

    def __hash__(self) -> int:
        return hash(self.name)  # which Python keeps: batches are looked up by their keys

    @property
    def element(self) -> Element | None:
        """The one Information Element of this key; for an address without family the IPv4 element."""
        return self.elements[0] if self.elements else None

    def named(self, name: str) -> Key:
        """The same datum under another name."""
        return replace(self, name=name)

    def typed(self, type_: Type) -> Key:
        """The same datum held as another type; an address given a family keeps this family's element."""
        elements = self.elements
        if type_ in (types.IPV4, types.IPV6) and len(elements) == 2:
            elements = (elements[type_ is types.IPV6],)
        return replace(self, type=type_, elements=elements)


_FAMILY_NEUTRAL = (
    ("sourceAddress", 8, 27),
    ("destinationAddress", 12, 28),
    ("ipNextHopAddress", 15, 62),
    ("bgpNextHopAddress", 18, 63),
    ("exporterAddress", 130, 131),
    ("postNATSourceAddress", 225, 281),
    ("postNATDestinationAddress", 226, 282),
)
_IPV6_OF = {v4: v6 for _, v4, v6 in _FAMILY_NEUTRAL}

CONTEXT = (
    Key("exporter", types.ADDRESS),
    Key("exporter_port", types.UNSIGNED16),
    Key("observationDomainId", types.UNSIGNED32, ((0, 149),)),
    Key("templateId", types.UNSIGNED16, ((0, 145),)),
    Key("record_kind", types.STRING),
    Key("received_ms", types.MILLISECONDS),
    Key("export_time", types.SECONDS),
)
"""Facts about a collected record beside its fields, in the order of printing."""

TOLD = (
    Key("sampling_factor", types.FLOAT64),
    Key("ingressInterfaceName", types.STRING),
    Key("egressInterfaceName", types.STRING),
    Key("ingressInterfaceDescription", types.STRING),
    Key("egressInterfaceDescription", types.STRING),
    Key("ingressVRFName", types.STRING),
    Key("egressVRFName", types.STRING),
)
"""Keys added to a record from the exporter's options records."""

SUMS = (
    Key("packets", types.UNSIGNED64, ((0, 2),), "packets", "deltaCounter"),
    Key("octets", types.UNSIGNED64, ((0, 1),), "octets", "deltaCounter"),
    Key("reply_packets", types.UNSIGNED64, ((REVERSE_PEN, 2),), "packets", "deltaCounter"),
    Key("reply_octets", types.UNSIGNED64, ((REVERSE_PEN, 1),), "octets", "deltaCounter"),
)
"""The counted quantities of a flow, under any element; see `quantities`."""

NETFLOW5_KEYS = (
    Key("srcaddr", types.IPV4, ((0, 8),)),
    Key("dstaddr", types.IPV4, ((0, 12),)),
    Key("nexthop", types.IPV4, ((0, 15),)),
    Key("input", types.UNSIGNED16, ((0, 10),)),
    Key("output", types.UNSIGNED16, ((0, 14),)),
    Key("dPkts", types.UNSIGNED32, ((0, 2),), "packets"),
    Key("dOctets", types.UNSIGNED32, ((0, 1),), "octets"),
    Key("first", types.UNSIGNED32, ((0, 22),), "milliseconds"),
    Key("last", types.UNSIGNED32, ((0, 21),), "milliseconds"),
    Key("srcport", types.UNSIGNED16, ((0, 7),)),
    Key("dstport", types.UNSIGNED16, ((0, 11),)),
    Key("tcp_flags", types.UNSIGNED8, ((0, 6),)),
    Key("prot", types.UNSIGNED8, ((0, 4),)),
    Key("tos", types.UNSIGNED8, ((0, 5),)),
    Key("src_as", types.UNSIGNED16, ((0, 16),)),
    Key("dst_as", types.UNSIGNED16, ((0, 17),)),
    Key("src_mask", types.UNSIGNED8, ((0, 9),)),
    Key("dst_mask", types.UNSIGNED8, ((0, 13),)),
)
"""The fields of a NetFlow v5 record in order, under their classic names; each has an Information Element too."""

NETFLOW7_KEYS = (
    Key("flags", types.UNSIGNED16, ((NETFLOW5, len(NETFLOW5_KEYS)),)),
    Key("router_sc", types.IPV4, ((NETFLOW5, len(NETFLOW5_KEYS) + 1),)),
)
"""Fields of a NetFlow v7 record beyond v5: flags of invalid fields, and the router bypassed by the switch."""
_CLASSIC = (*NETFLOW5_KEYS, *NETFLOW7_KEYS)

SFLOW_KEYS = tuple(
    Key(name, types.TYPES[type_], ((SFLOW, place),), unit)
    for place, (name, type_, unit) in enumerate(
        (
            ("sampleSequence", "unsigned32", ""),
            ("sampleSourceType", "unsigned8", ""),
            ("sampleSourceIndex", "unsigned32", ""),
            ("samplePool", "unsigned32", "packets"),
            ("sampleDrops", "unsigned32", ""),
            ("outputInterfaces", "unsigned32", ""),
            ("dropReason", "unsigned32", ""),
            ("ifIndex", "unsigned32", ""),
            ("ifType", "unsigned32", ""),
            ("ifSpeed", "unsigned64", "bits/s"),
            ("ifDirection", "unsigned32", ""),
            ("ifStatus", "unsigned32", ""),
            ("ifInOctets", "unsigned64", "octets"),
            ("ifInUcastPkts", "unsigned32", "packets"),
            ("ifInMulticastPkts", "unsigned32", "packets"),
            ("ifInBroadcastPkts", "unsigned32", "packets"),
            ("ifInDiscards", "unsigned32", "packets"),
            ("ifInErrors", "unsigned32", "packets"),
            ("ifInUnknownProtos", "unsigned32", "packets"),
            ("ifOutOctets", "unsigned64", "octets"),
            ("ifOutUcastPkts", "unsigned32", "packets"),
            ("ifOutMulticastPkts", "unsigned32", "packets"),
            ("ifOutBroadcastPkts", "unsigned32", "packets"),
            ("ifOutDiscards", "unsigned32", "packets"),
            ("ifOutErrors", "unsigned32", "packets"),
            ("ifPromiscuousMode", "unsigned32", ""),
            *((f"dot3Stats{name}", "unsigned32", "") for name in (
                "AlignmentErrors", "FCSErrors", "SingleCollisionFrames", "MultipleCollisionFrames", "SQETestErrors",
                "DeferredTransmissions", "LateCollisions", "ExcessiveCollisions", "InternalMacTransmitErrors",
                "CarrierSenseErrors", "FrameTooLongs", "InternalMacReceiveErrors", "SymbolErrors",
            )),
        )
    )
)  # fmt: skip
"""Keys of samples, and interface counters as in the IF-MIB and EtherLike-MIB (sFlow version 5, section 5.3)."""

SFLOW_RECORD_KEYS = tuple(
    Key(name, types.TYPES[type_], ((SFLOW, place),), unit)
    for place, (name, type_, unit) in enumerate(
        (
            ("bgpDestinationAsPath", "string", ""),
            ("bgpLocalPreference", "unsigned32", ""),
            ("destinationUserName", "string", ""),
            ("urlDirection", "unsigned32", ""),
            ("mplsOutLabels", "string", ""),
            ("mplsTunnelName", "string", ""),
            ("mplsTunnelId", "unsigned32", ""),
            ("mplsTunnelCos", "unsigned32", ""),
            ("mplsVcName", "string", ""),
            ("mplsVcId", "unsigned32", ""),
            ("mplsVcLabelCos", "unsigned32", ""),
            ("mplsFtnDescription", "string", ""),
            ("mplsFtnMask", "unsigned32", ""),
            ("mplsFecPrefixLength", "unsigned32", ""),
            ("vlanTunnel", "string", ""),
            *((f"{side}{name}", type_, "") for side in ("egress", "ingress") for name, type_ in (
                ("TunnelSourceMacAddress", "macAddress"), ("TunnelDestinationMacAddress", "macAddress"),
                ("TunnelSource", "ipv6Address"), ("TunnelDestination", "ipv6Address"),
                ("TunnelProtocol", "unsigned8"), ("InnerHeaderOffset", "unsigned32"), ("Vni", "unsigned32"),
            )),
            ("wlanBssid", "macAddress", ""),
            ("wlanVersion", "unsigned32", ""),
            ("wlanSpeed", "unsigned64", "bits/s"),
            ("wlanRsni", "unsigned32", ""),
            ("wlanRcpi", "unsigned32", ""),
            ("wlanPacketDuration", "unsigned32", "microseconds"),
            ("wlanTransmissions", "unsigned32", ""),
            ("wlanRetransmissionDuration", "unsigned32", "microseconds"),
            ("wlanPower", "unsigned32", ""),
            ("egressQueue", "unsigned32", ""),
            ("aclNumber", "unsigned32", ""),
            ("aclName", "string", ""),
            ("aclDirection", "unsigned32", ""),
            ("kernelFunction", "string", ""),
            ("transitDelay", "unsigned32", "nanoseconds"),
            ("queueDepth", "unsigned32", "octets"),
            ("hardwareTrapGroup", "string", ""),
            ("hardwareTrap", "string", ""),
            ("kernelDropReason", "string", ""),
        ),
        len(SFLOW_KEYS),
    )
)  # fmt: skip
"""Of records beside the packet in sFlow's flow samples (sflow.org, "sFlow Structure Numbers")."""

_OF_SFLOW = (*SFLOW_KEYS, *SFLOW_RECORD_KEYS)
_FORMS = {
    **dict.fromkeys(range(70, 80), types.MPLS_LABEL), 90: types.ROUTE_DISTINGUISHER, 95: types.APPLICATION_ID,
    349: types.UUID, 483: types.COMMUNITY, 486: types.EXTENDED_COMMUNITY, 489: types.LARGE_COMMUNITY,
}  # fmt: skip
"""Types of elements of IANA whose values people write in another form than others of their data type."""

_SCOPES = {1: "scopeSystem", 2: "scopeInterface", 3: "scopeLineCard", 4: "scopeCache", 5: "scopeTemplate"}
"""Scope types of NetFlow v9 (RFC 3954 section 6.1)."""

_UNKNOWN = re.compile(r"e(\d{1,10})id(\d{1,5})$")
_UNKNOWN9 = re.compile(r"v9(id|scope)(\d{1,5})$")
_NET_COLUMN = re.compile(r"(src|dst|exporter)\.net\.[A-Za-z0-9]+$")
_OCCURRENCE = re.compile(r"#\d+$")


def _table(file: str, first: str = "") -> Iterator[dict[str, str]]:
    """The rows of a table, or those that begin with `first`."""
    head, *lines = resources.files("ulogd_tw.core").joinpath("data", file).read_text("utf-8").splitlines()
    return csv.DictReader([head, *(line for line in lines if line.startswith(first))])


class Registry:
    """All known keys. Enterprise elements are read only on request."""

    @cached_property
    def iana(self) -> dict[int, Key]:
        """IANA's elements by id."""
        return {
            int(row["element_id"]): Key(
                row["name"],
                _FORMS.get(int(row["element_id"])) or types.TYPES[row["abstract_data_type"]],
                ((0, int(row["element_id"])),),
                row["units"],
                row["semantics"],
            )
            for row in _table("ipfix_elements.csv")
        }

    @cached_property
    def enterprise(self) -> dict[Element, Key]:
        """Elements of enterprises; an element with a name of IANA's is called ``e<pen>.<name>``."""
        return self._of_enterprises("")

    @cached_property
    def _reverse(self) -> dict[Element, Key]:
        """The part of `enterprise` that many stacks need: elements of the other direction (RFC 5103)."""
        return self._of_enterprises(f"{REVERSE_PEN},")

    def _of_enterprises(self, first: str) -> dict[Element, Key]:
        bare = {key.name for key in self.iana.values()}
        found = {}
        for row in _table("enterprise_elements.csv", first):
            element = (int(row["pen"]), int(row["element_id"]))
            name = f"e{element[0]}.{row['name']}" if row["name"] in bare else row["name"]
            base = self.iana.get(element[1]) if element[0] == REVERSE_PEN else None
            type_ = types.TYPES["ipv6Address" if row["type"] == "ipv6address" else row["type"]]
            if base and base.type.form and base.type.name == type_.name:
                type_ = base.type
            found[element] = Key(name, type_, (element,), base.unit if base else "", base.semantics if base else "")
        return found

    @cached_property
    def netflow9(self) -> dict[int, Key]:
        """The field types of NetFlow v9: IANA's key where the number has the same meaning, else v9's name."""
        found = dict(self.iana)
        for row in _table("netflow_v9_elements.csv"):
            ident = int(row["field_type"])
            if row["same_number_iana_name"]:
                found[ident] = self.iana[ident]
            else:
                found[ident] = Key(row["v9_name"], types.TYPES[row["type"]], ((NETFLOW9, ident),))
        return found

    @cached_property
    def netflow5(self) -> dict[Element, tuple[str, ...]]:
        """The names of NetFlow v5 for an Information Element."""
        return {key.elements[0]: (key.name,) for key in NETFLOW5_KEYS}

    @cached_property
    def ulogd(self) -> dict[str, Key]:
        """ulogd2's keys by name, with its ambiguous element numbers put right."""
        return self._named("ulogd_keys.csv")

    @cached_property
    def netfilter(self) -> dict[str, Key]:
        """The kernel's keys of a connection, beyond ulogd2's."""
        return self._named("netfilter_keys.csv")

    def _named(self, file: str) -> dict[str, Key]:
        found = {}
        for row in _table(file):
            type_ = types.TYPES[row["type"]]
            elements: tuple[Element, ...] = ()
            if row["element_id"]:
                pen, ident = int(row["pen"]), int(row["element_id"])
                elements = ((pen, ident),)
                if type_ is types.ADDRESS and ident in _IPV6_OF:
                    elements += ((pen, _IPV6_OF[ident]),)
            unit = {"pktlen": "octets", "pktcount": "packets", "usec": "microseconds", "sec": "seconds"}
            found[row["name"]] = Key(row["name"], type_, elements, unit.get(row["name"].rsplit(".", 1)[-1], ""))
        return found

    @cached_property
    def neutral(self) -> dict[str, Key]:
        """Addresses without a family, and the reverse of each."""
        found = {}
        for name, v4, v6 in _FAMILY_NEUTRAL:
            found[name] = Key(name, types.ADDRESS, ((0, v4), (0, v6)))
            reverse = "reverse" + name[0].upper() + name[1:]
            found[reverse] = Key(reverse, types.ADDRESS, ((REVERSE_PEN, v4), (REVERSE_PEN, v6)))
        return found

    @cached_property
    def _context(self) -> dict[str, Key]:
        return {key.name: key for key in (*CONTEXT, *TOLD, *SUMS)}

    @cached_property
    def _iana_by_name(self) -> dict[str, Key]:
        return {key.name: key for key in self.iana.values()}

    @cached_property
    def _reverse_by_name(self) -> dict[str, Key]:
        return {key.name: key for key in self._reverse.values()}

    @cached_property
    def _enterprise_by_name(self) -> dict[str, Key]:
        found: dict[str, Key] = {}
        scopes = (self.element(NETFLOW9_SCOPE, ident) for ident in _SCOPES)
        of_netflow9 = (key for key in self.netflow9.values() if _of_netflow9(key))
        for key in (*self.enterprise.values(), *of_netflow9, *scopes, *_CLASSIC, *_OF_SFLOW):
            other = found.get(key.name)
            if other is None and _of_netflow9(key):  # ntop's elements: the same names in capitals
                other = found.get(key.name.upper())
            found[key.name] = replace(other, name=key.name, elements=other.elements + key.elements) if other else key
        return found

    def key(self, name: str) -> Key | None:
        """The key of this name, or None. ``name#2`` is the second occurrence of an element in a record.

        ``src.net.COLUMN`` is a text from a file of the administrator, for the network of the source.
        """
        bare = _OCCURRENCE.sub("", name)
        for table in (self.ulogd, self.netfilter, self._context, self.neutral, self._iana_by_name):
            if bare in table:
                return table[bare] if bare == name else Key(name, table[bare].type)
        if _NET_COLUMN.match(name):
            return Key(name, types.STRING)
        if match := _UNKNOWN.match(bare):
            return self.element(int(match[1]), int(match[2])).named(name)
        if match := _UNKNOWN9.match(bare):
            return self.element(NETFLOW9 if match[1] == "id" else NETFLOW9_SCOPE, int(match[2])).named(name)
        found = self._reverse_by_name.get(bare) if bare.startswith("reverse") else None
        found = found or self._enterprise_by_name.get(bare)
        return found.named(name) if found else None

    def element(self, pen: int, ident: int) -> Key:
        """The key of an Information Element; an unknown one is octets named ``e<pen>id<id>``.

        `pen` may be `NETFLOW9` (unknown: ``v9id<id>``), `NETFLOW9_SCOPE` or `NETFLOW5`, too.
        """
        if pen == 0:
            found = self.iana.get(ident)
        elif pen == REVERSE_PEN:
            found = self._reverse.get((pen, ident))
        elif pen >= NETFLOW9:
            return self._netflow(pen, ident)
        else:
            found = self.enterprise.get((pen, ident))
        return found or Key(f"e{pen}id{ident}", types.OCTETS, ((pen, ident),))

    def _netflow(self, vocabulary: int, ident: int) -> Key:
        if vocabulary == NETFLOW5:
            return _CLASSIC[ident]
        if vocabulary == SFLOW:
            return _OF_SFLOW[ident]
        if vocabulary == NETFLOW9:
            return self.netflow9.get(ident) or Key(f"v9id{ident}", types.OCTETS, ((NETFLOW9, ident),))
        if ident in _SCOPES:
            return Key(_SCOPES[ident], types.UNSIGNED32, ((NETFLOW9_SCOPE, ident),))
        return Key(f"v9scope{ident}", types.OCTETS, ((NETFLOW9_SCOPE, ident),))

    def names(self) -> set[str]:
        """All known names, for suggestions."""
        tables = (
            self.ulogd, self.netfilter, self._context, self.neutral, self._iana_by_name, self._enterprise_by_name,
        )  # fmt: skip
        return {name for table in tables for name in table}


def _of_netflow9(key: Key) -> bool:
    return key.element is not None and key.element[0] == NETFLOW9


registry = Registry()
"""The table of this process; reading it costs 5 ms, the enterprises' part 10 ms more at its first use."""


@cache
def known(name: str) -> Key | None:
    """`Registry.key` of this process's registry."""
    return registry.key(name)


def ulogd_keys(*names: str) -> tuple[Key, ...]:
    """Keys by name, for the declarations of plugins; KeyError for an unknown name."""
    return tuple(_declared(name) for name in names)


def _declared(name: str) -> Key:
    if found := registry.key(name):
        return found
    raise KeyError(name)
