"""Scopes of options records: of which flows a sampling rate speaks (RFC 7011 section 4, RFC 3954 section 6.1).

A scope is made of identities, such as a sampler or an interface: keys of the options record on the one side, columns of
Data Records on the other.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

Scope = tuple[tuple[str, int], ...]
"""Identities and their values, in the order of `ORDER`; empty where it is the whole domain."""
Process = tuple[tuple[str, int], ...]
"""Processes of the exporter that a record names."""

IDENTITIES = {
    "selectorId": "sampler",
    "samplerId": "sampler",
    "selectionSequenceId": "sequence",
    "templateId#2": "template",
    "scopeTemplate": "template",
    "scopeInterface": "interface",
    "ingressInterface": "ingress",
    "egressInterface": "egress",
    "ingressPhysicalInterface": "ingressPhysical",
    "egressPhysicalInterface": "egressPhysical",
    "scopeLineCard": "lineCard",
    "lineCardId": "lineCard",
    "portId": "port",
    "observationPointId": "point",
    "ingressVRFID": "ingressVRF",
    "egressVRFID": "egressVRF",
    "vlanId": "vlan",
    "dot1qVlanId": "vlan",
    "flowDirection": "direction",
    "commonPropertiesId": "properties",
}
"""Scope keys of options records (``#2``: the bare name is the context's)."""
PROCESSES = {"meteringProcessId": "metering", "exportingProcessId": "exporting", "scopeCache": "cache"}
"""Keys naming a process: its rate holds for the domain, and for rows naming the process."""
EXPORTER = frozenset(("scopeSystem", "exportingProcessId", "exporterIPv4Address", "exporterIPv6Address"))
"""Keys that name the exporter: a session has one Exporting Process (RFC 7011 section 2), with all its domains."""
DOMAIN = "observationDomainId#2"

_INGRESS = ("ingressInterface", "input")
_EGRESS = ("egressInterface", "output")
COLUMNS: dict[str, tuple[tuple[str, ...], ...]] = {
    "sampler": (("selectorId", "samplerId"),),
    "sequence": (("selectionSequenceId",),),
    "interface": ((*_INGRESS, "ingressPhysicalInterface"), (*_EGRESS, "egressPhysicalInterface")),
    "ingress": (_INGRESS,),
    "egress": (_EGRESS,),
    "ingressPhysical": (("ingressPhysicalInterface",),),
    "egressPhysical": (("egressPhysicalInterface",),),
    "lineCard": (("lineCardId", "engineId"),),
    "port": (("portId",),),
    "point": (("observationPointId",),),
    "ingressVRF": (("ingressVRFID",),),
    "egressVRF": (("egressVRFID",),),
    "vlan": (("vlanId", "dot1qVlanId"),),
    "direction": (("flowDirection",),),
    "properties": (("commonPropertiesId",),),
    "metering": (("meteringProcessId",),),
    "exporting": (("exportingProcessId",),),
}
"""Columns of Data Records that hold an identity: of each group the first that a record has. The second group is asked
where the first one finds nothing."""
_OWN = ("sampler", "sequence", "properties")
ORDER = (*_OWN, "template", *(name for name in COLUMNS if name not in _OWN), "cache", "exporter")
"""The most special first: the record's own ids come before the places that it passed."""
_RANK = {name: place for place, name in enumerate(ORDER)}

READ_IN_RECORDS = frozenset(name for groups in COLUMNS.values() for group in groups for name in group)
"""Columns of Data Records that a rate may ask for."""
KEYS = frozenset((*IDENTITIES, *PROCESSES, *EXPORTER, DOMAIN, *(f"selectorId#{n}" for n in range(2, 6))))
"""Keys of options records that tell their scope."""

PAIRS = (
    ("samplingPacketInterval", "samplingPacketSpace"),
    ("samplingTimeInterval", "samplingTimeSpace"),
    ("samplingFlowInterval", "samplingFlowSpacing"),
    ("flowSamplingTimeInterval", "flowSamplingTimeSpacing"),
)
"""The selected packets, and the unselected ones before the next selection (RFC 5477 section 8.2, RFC 7014 section 7).
"""
SINGLE = ("samplingInterval", "samplerRandomInterval", "samplingPacketInterval")
"""Fields that are the rate by themselves, if there is no other."""
_HASHES = ("hashOutputRangeMin", "hashOutputRangeMax", "hashSelectedRangeMin", "hashSelectedRangeMax")
"""All hashes of packets, and the selected ones (RFC 5477 section 8.3)."""
RATES = (*(name for pair in PAIRS for name in pair), *SINGLE, "samplingSize", "samplingPopulation",
         "samplingProbability", *_HASHES)  # fmt: skip


_LEAST = 2.0**-64
"""The least probability that there can be of a count of 64 bits."""
SIDES = {name: side for side, group in enumerate((_INGRESS, _EGRESS)) for name in group} | {
    "ingressPhysicalInterface": 0, "egressPhysicalInterface": 1
}  # fmt: skip
"""The flowDirection of which a column of an interface is the place (RFC 5102 section 5.6.7)."""


def packets_behind(values: Mapping[str, Any]) -> float | None:
    """How many packets stand behind each sampled one, by the fields of a record; None where they do not say it.

    0 takes back an earlier rate.
    """
    for selected, passed in PAIRS:
        interval, space = values.get(selected), values.get(passed)
        if interval and space is not None:
            return (interval + space) / interval
    size, population = values.get("samplingSize"), values.get("samplingPopulation")
    if size and population:
        return max(population / size, 1.0)
    if probability := values.get("samplingProbability"):
        return 1 / probability if _LEAST <= probability <= 1 else None
    low, high, first, last = (values.get(name, -1) for name in _HASHES)
    if 0 <= low <= first <= last <= high:
        return (high - low + 1) / (last - first + 1)
    rates = [values[name] for name in SINGLE if name in values]
    return float(next(filter(None, rates), 0)) if rates else None


def scope_of(record: Mapping[str, Any], scopes: Collection[str]) -> tuple[Scope, Process] | None:
    """The scope of an options record and the processes that it names; None where a field of its scope is not known.

    `scopes` are the keys of its scope fields.
    """
    if any(name not in EXPORTER and (name not in KEYS or name not in record) for name in scopes):
        return None
    found = {IDENTITIES[name]: record[name] for name in reversed(list(record)) if name in IDENTITIES}
    if not found and DOMAIN not in record and not EXPORTER.isdisjoint((*record, *scopes)):
        found = {"exporter": 0}
    process = {PROCESSES[name]: record[name] for name in record if name in PROCESSES}
    return ordered(found), ordered(process)


def ordered(identities: Mapping[str, int]) -> Scope:
    """A scope in the order in which it is kept."""
    return tuple(sorted(identities.items(), key=lambda item: _RANK[item[0]]))


def specificity(scope: Scope) -> tuple[int, int]:
    """Sorts the more special scopes before the others; the domain goes before the exporter."""
    if not scope:
        return _RANK["exporter"], 0
    return _RANK[scope[0][0]] + (scope[0][0] == "exporter"), -len(scope)
