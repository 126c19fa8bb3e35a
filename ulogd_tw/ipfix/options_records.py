"""What exporters say in options records: sampling, names of interfaces and applications, types, losses of their own.

The meaning is found from the combination of elements, never from a template's id (RFC 7011 section 4). Options records
are few, so they are read one by one: about 5 us each.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ulogd_tw.core import types
from ulogd_tw.core.batch import plain_values
from ulogd_tw.core.columns import Column
from ulogd_tw.core.counters import Counters
from ulogd_tw.core.keys import Key, registry
from ulogd_tw.ipfix.events import Events
from ulogd_tw.ipfix.exporter_info import ExporterInfo
from ulogd_tw.ipfix.layout import Found
from ulogd_tw.ipfix.limits import Kept, Limits
from ulogd_tw.ipfix.session import Domain, KnownTemplate, Session

SAMPLERS = ("selectorId", "samplerId")
"""Who samples: keys of an options record, and of the Data Records of what was sampled."""
_INTERFACES = ("scopeInterface", "ingressInterface", "egressInterface", "ingressPhysicalInterface",
               "egressPhysicalInterface")  # fmt: skip
_RATES = ("samplingInterval", "samplerRandomInterval", "samplingPacketInterval", "samplingPacketSpace", "samplingSize",
          "samplingPopulation", "samplingProbability")  # fmt: skip
_PROCESSES = ("exportingProcessId", "meteringProcessId", "exporterIPv4Address", "exporterIPv6Address")
_STATISTICS = ("exportedOctetTotalCount", "exportedMessageTotalCount", "exportedFlowRecordTotalCount",
               "ignoredPacketTotalCount", "ignoredOctetTotalCount", "notSentFlowTotalCount", "notSentPacketTotalCount",
               "notSentOctetTotalCount")  # fmt: skip
_TYPE = ("privateEnterpriseNumber", "informationElementId", "informationElementDataType",
         "informationElementSemantics", "informationElementName", "informationElementUnits")  # fmt: skip
_TEMPLATE, _DOMAIN = "templateId#2", "observationDomainId#2"
"""The names that are taken by the context of a record (see `layout.field_keys`)."""
USED = frozenset((
    *SAMPLERS, *_INTERFACES, *_RATES, *_PROCESSES, *_STATISTICS, *_TYPE, _TEMPLATE, _DOMAIN, "scopeTemplate",
    "interfaceName", "interfaceDescription", "applicationId", "applicationName", "flowKeyIndicator",
))  # fmt: skip
"""Keys of options records that are read although nothing below wants them."""
_TELLING = USED - {*SAMPLERS, *_INTERFACES, *_PROCESSES, _TEMPLATE, _DOMAIN, "scopeTemplate", "applicationId"}
"""Those that say something; the others say of what."""

LONGEST_NAME = 255
"""Octets of a name that are kept; interface descriptions of routers have up to 240."""
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")
DATA_TYPES = (
    types.OCTETS, types.UNSIGNED8, types.UNSIGNED16, types.UNSIGNED32, types.UNSIGNED64, types.SIGNED8, types.SIGNED16,
    types.SIGNED32, types.SIGNED64, types.FLOAT32, types.FLOAT64, types.BOOLEAN, types.MAC, types.STRING, types.SECONDS,
    types.MILLISECONDS, types.MICROSECONDS, types.NANOSECONDS, types.IPV4, types.IPV6, types.BASIC_LIST,
    types.SUB_TEMPLATE_LIST, types.SUB_TEMPLATE_MULTI_LIST,
)  # fmt: skip
"""By the codes of informationElementDataType (RFC 5610 section 3.1)."""
SEMANTICS = ("default", "quantity", "totalCounter", "deltaCounter", "identifier", "flags", "list", "snmpCounter",
             "snmpGauge")  # fmt: skip
UNITS = {2: "octets", 3: "packets", 4: "flows", 5: "seconds", 6: "milliseconds", 7: "microseconds", 8: "nanoseconds"}

_LOSSES = {
    "ignoredPacketTotalCount": "exporter_ignored_packets",
    "ignoredOctetTotalCount": "exporter_ignored_octets",
    "notSentPacketTotalCount": "exporter_not_sent_packets",
    "notSentOctetTotalCount": "exporter_not_sent_octets",
}
"""Total counters of what exporters lost, and the counters of ours that add them up; flows go to ``lost{exporter}``."""


def info_of(learnt: KnownTemplate) -> ExporterInfo | None:
    """What is known of the domain of a template, or else of domain 0, which stands for the whole exporter."""
    domain = learnt.domain
    if domain.info is not None:
        return domain.info
    whole = learnt.session.domains.get(domain.place - domain.number)
    return whole.info if whole is not None else None


def packets_behind(values: dict[str, Any]) -> float | None:
    """How many packets stand behind each sampled one, by the fields of a record; None where they do not say it."""
    interval, space = values.get("samplingPacketInterval"), values.get("samplingPacketSpace")
    size, population = values.get("samplingSize"), values.get("samplingPopulation")
    if interval and space is not None:
        return (interval + space) / interval
    if size and population:
        return max(population / size, 1.0)
    if probability := values.get("samplingProbability"):
        return 1 / probability if 0 < probability <= 1 else None
    rate = values.get("samplingInterval") or values.get("samplerRandomInterval") or interval
    return float(rate) if rate else None


class Options:
    """Reads options records, and keeps what they tell in their domains and sessions."""

    def __init__(self, limits: Limits, kept: Kept, counters: Counters, events: Events, new_domain: Any) -> None:
        self._limits = limits
        self._kept = kept
        self._counters = counters
        self._events = events
        self._new_domain = new_domain
        self.changes = 0
        """How often something new was told."""

    def read(
        self, learnts: Sequence[KnownTemplate], counts: Sequence[int], found: Found, keys: Sequence[Key]
    ) -> set[Session]:
        """Take the records of one layout: `counts` of each template. Gives the sessions that have new types."""
        columns, missing = found
        used = [key for key in keys if key.name in USED and key.name in columns and _readable(key)]
        if _TELLING.isdisjoint(key.name for key in used):
            return set()
        rows = _rows(used, columns, missing)
        changed = set()
        for learnt, count in zip(learnts, counts, strict=True):
            for _ in range(count):
                if self._take(learnt, next(rows)):
                    changed.add(learnt.session)
        return changed

    def sampled(self, learnt: KnownTemplate, interval: int) -> None:
        """The header of a packet of NetFlow v5 names the interval; 0 and 1: not sampled."""
        domain = learnt.domain
        if domain.info is None:
            domain.info = ExporterInfo()
        self._keep(learnt, domain.info.samplers, None, float(interval or 1))

    def _take(self, learnt: KnownTemplate, row: dict[str, Any]) -> bool:
        """One record; whether it described an element."""
        if "informationElementDataType" in row:
            return self._describe(learnt.session, row)
        domain = self._domain(learnt, row.get(_DOMAIN))
        if domain is None:
            return False
        told = domain.info
        if told is None:
            told = domain.info = ExporterInfo()
        if (factor := packets_behind(row)) is not None:
            self._keep(learnt, told.samplers, next((row[name] for name in SAMPLERS if name in row), None), factor)
        name = row.get("interfaceName") or row.get("interfaceDescription")
        interface = next((row[key] for key in _INTERFACES if key in row), None)
        if name and interface is not None:
            self._keep(learnt, told.interfaces, interface, _name(name))
        if row.get("applicationName") and row.get("applicationId"):
            self._keep(learnt, told.applications, row["applicationId"], _name(row["applicationName"]))
        if "flowKeyIndicator" in row:
            self._flow_keys(learnt, domain, row)
        if not row.keys().isdisjoint(_STATISTICS):
            self._statistics(learnt, told, row)
        return False

    def _domain(self, learnt: KnownTemplate, number: int | None) -> Domain | None:
        """The domain that a record is about: that of its Message, unless its scope names another one."""
        domain = learnt.domain
        if number is None or number == domain.number or domain.place != domain.number:
            return domain
        return learnt.session.domains.get(number) or self._new_domain(learnt.session, number)

    def _keep(self, learnt: KnownTemplate, table: dict[Any, Any], key: Any, value: Any) -> None:
        if key not in table:
            if self._kept.told >= self._limits.told:
                if not self._counters.errors["limit_told"]:
                    self._events.add("limit", learnt.session, learnt.domain.number, learnt.template.ident, "limit_told")
                self._counters.errors["limit_told"] += 1
                return
            self._kept.told += 1
        elif table[key] == value:
            return
        self.changes += 1
        table[key] = value

    def _flow_keys(self, learnt: KnownTemplate, domain: Domain, row: dict[str, Any]) -> None:
        """Which fields of a template are flow keys (RFC 7011 section 4.4)."""
        ident = row.get(_TEMPLATE, row.get("scopeTemplate"))
        about, bits = domain.templates.get(ident), row["flowKeyIndicator"]
        if about is None or bits >> len(about.template.fields):
            self._counters.errors["flow_keys"] += 1
            text = f"its flow keys are {bits:#x}, beyond its fields" if about else "flow keys of an unknown template"
            self._events.add("odd_options", learnt.session, domain.number, ident or 0, text)
            return
        self._keep(learnt, domain.info.flow_keys, ident, bits)

    def _statistics(self, learnt: KnownTemplate, told: ExporterInfo, row: dict[str, Any]) -> None:
        """Total counters of a process: what they have grown by since the last time, or since its start."""
        process = tuple((name, row[name]) for name in _PROCESSES if name in row)
        if process not in told.statistics:
            self._keep(learnt, told.statistics, process, {})
        before = told.statistics.get(process)
        if before is None:
            return
        for name in _STATISTICS:
            value = row.get(name)
            if value is None:
                continue
            grown = value - before.get(name, 0)
            before[name] = value
            grown = value if grown < 0 else grown  # the process has started again
            if name == "notSentFlowTotalCount":
                self._counters.lost["exporter"] += grown
            elif name in _LOSSES:
                self._counters.figures[_LOSSES[name]] += grown

    def _describe(self, session: Session, row: dict[str, Any]) -> bool:
        """Type and name of an element of an enterprise (RFC 5610); what is known already stays as it is."""
        pen, ident = row.get("privateEnterpriseNumber"), row.get("informationElementId")
        code, name = (
            row["informationElementDataType"],
            _name(row.get("informationElementName", b"")).decode("ascii", "replace"),
        )
        if not pen or not ident or (pen, ident) in registry.enterprise or code >= len(DATA_TYPES):
            return False
        if not _NAME.fullmatch(name):
            self._counters.errors["element_name"] += 1
            return False
        if registry.key(name) is not None or any(
            key.name == name and element != (pen, ident) for element, key in session.types.items()
        ):
            name = f"e{pen}.{name}"
        semantics = row.get("informationElementSemantics", 0)
        semantics = SEMANTICS[semantics] if semantics < len(SEMANTICS) else ""
        key = Key(name, DATA_TYPES[code], ((pen, ident),), UNITS.get(row.get("informationElementUnits"), ""), semantics)
        if session.types.get((pen, ident)) == key:
            return False
        if (pen, ident) not in session.types:
            if self._kept.told >= self._limits.told:
                self._counters.errors["limit_told"] += 1
                return False
            self._kept.told += 1
        session.types[pen, ident] = key
        self.changes += 1
        return True

    def restore_types(self, session: Session, keys: Iterable[Key]) -> None:
        """Elements that an earlier run knew."""
        for key in keys:
            if self._kept.told < self._limits.told and key.elements[0] not in session.types:
                self._kept.told += 1
                session.types[key.elements[0]] = key

    def restore(self, domain: Domain, told: ExporterInfo) -> None:
        """What an earlier run knew of a domain; nothing where it is too much."""
        if domain.info is None and self._kept.told + len(told) <= self._limits.told:
            self._kept.told += len(told)
            domain.info = told


def _name(octets: bytes) -> bytes:
    """A name as it is kept: exporters fill fixed fields up with zeros."""
    return octets.rstrip(b"\0 ")[:LONGEST_NAME]


def _readable(key: Key) -> bool:
    """Whether its values are of its type; those of an impossible size are held as octets."""
    expected = registry.key(key.name.partition("#")[0])
    return expected is None or types.compatible(expected.type, key.type)


def _rows(keys: Sequence[Key], columns: dict[str, Column], missing: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Plain rows of one key or more; a value that is missing is left out."""
    names = [key.name for key in keys]
    values = [plain_values(columns[key.name], key) for key in keys]
    masks = [missing[name].tolist() if name in missing else None for name in names]
    for place, row in enumerate(zip(*values, strict=True)):
        yield {
            name: value for name, value, mask in zip(names, row, masks, strict=True) if mask is None or not mask[place]
        }
