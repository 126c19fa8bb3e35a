"""Reads options records of exporters: sampling, names of things, types, start times, losses.

The meaning is found from the combination of elements, never from a template's id (RFC 7011 section 4). Options records
are few, so they are read one by one: about 5 us each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from ulogd_tw.core import types
from ulogd_tw.core.batch import plain_values
from ulogd_tw.core.columns import Column
from ulogd_tw.core.counters import Counters
from ulogd_tw.core.keys import NETFLOW9, NETFLOW9_SCOPE, Key, registry
from ulogd_tw.core.plugin import ALL
from ulogd_tw.ipfix import element_types, scopes, told_names
from ulogd_tw.ipfix.events import Events
from ulogd_tw.ipfix.exporter_info import BOOT, ExporterInfo
from ulogd_tw.ipfix.layout import Found, field_keys
from ulogd_tw.ipfix.limits import Kept, Limits
from ulogd_tw.ipfix.scopes import Scope
from ulogd_tw.ipfix.session import Domain, KnownTemplate, Session
from ulogd_tw.ipfix.template import Field, Template

_PROCESSES = ("exportingProcessId", "meteringProcessId", "exporterIPv4Address", "exporterIPv6Address")
_STATISTICS = ("exportedOctetTotalCount", "exportedMessageTotalCount", "exportedFlowRecordTotalCount",
               "ignoredPacketTotalCount", "ignoredOctetTotalCount", "notSentFlowTotalCount", "notSentPacketTotalCount",
               "notSentOctetTotalCount")  # fmt: skip
_SELECTORS = ("selectorId", *(f"selectorId#{n}" for n in range(2, 6)))
_TELLING = frozenset((*scopes.RATES, *_STATISTICS, *element_types.USED, *told_names.NAMES, BOOT, "flowKeyIndicator",
                      "selectionSequenceId"))  # fmt: skip
"""Keys with data; the other keys are scopes."""
USED = _TELLING | scopes.KEYS | told_names.USED
"""Keys of options records that are read although nothing below wants them."""

_CHANGING = _TELLING.difference(_STATISTICS)


def tells(template: Template) -> bool:
    """Whether records of a template say something that changes how others are read: rates, names, types."""
    return bool(template.scopes) and any(key.name.partition("#")[0] in _CHANGING for key in _keys_of(template))


def _keys_of(template: Template) -> list[Key]:
    return [registry.element(field.pen, field.ident) for field in template.fields]


_LOSSES = {
    "ignoredPacketTotalCount": "exporter_ignored_packets",
    "ignoredOctetTotalCount": "exporter_ignored_octets",
    "notSentPacketTotalCount": "exporter_not_sent_packets",
    "notSentOctetTotalCount": "exporter_not_sent_octets",
}
"""Total counters of losses of exporters, and our counters of their sums; flows go to ``lost{exporter}``."""
_NOT_FOUND = ("rates_unmatched", "sampling_unmatched", "sampling_ambiguous", "names_unmatched", "names_ambiguous",
              "start_unknown")  # fmt: skip


class Options:
    """Reads options records, and keeps what they tell in their domains and sessions."""

    def __init__(
        self, limits: Limits, kept: Kept, counters: Counters, events: Events,
        new_domain: Callable[[Session, int], Domain | None],
    ) -> None:  # fmt: skip
        self._limits = limits
        self._kept = kept
        self._counters = counters
        self._events = events
        self._new_domain = new_domain
        self.changes = 0
        """Number of changes by options records."""
        self.identities: frozenset[str] = frozenset()
        """By what rates were ever told: the columns of records that have to be read for that."""
        for name in (*_LOSSES.values(), *_NOT_FOUND, "counts_saturated"):
            counters.figures.setdefault(name, 0)

    def read(
        self, learnts: Sequence[KnownTemplate], counts: Sequence[int], exported: Sequence[int], found: Found,
        keys: Sequence[Key],
    ) -> set[Session]:  # fmt: skip
        """Take the records of one layout: `counts` of each template, `exported` at these times (s).

        Gives the sessions that have new types.
        """
        columns, missing = found
        used = [key for key in keys if key.name in USED and key.name in columns and _readable(key)]
        if _TELLING.isdisjoint(key.name for key in used):
            return set()
        scope_keys = _scope_keys(learnts[0].template)
        rows = _rows(used, columns, missing)
        changed = set()
        for learnt, count, second in zip(learnts, counts, exported, strict=True):
            for _ in range(count):
                if self._take(learnt, next(rows), scope_keys, second):
                    changed.add(learnt.session)
        return changed

    def sampled(self, learnt: KnownTemplate, interval: int) -> None:
        """The header of a packet of NetFlow v5 names the interval; 0 and 1: not sampled."""
        self._keep(learnt, _info(learnt.domain).rates, (), float(interval or 1))

    def _take(self, learnt: KnownTemplate, row: dict[str, Any], scope_keys: Sequence[str], exported: int) -> bool:
        """One record; whether it described an element."""
        if element_types.DATA_TYPE in row:
            return self._describe(learnt, row)
        domain = self._domain(learnt, row.get(scopes.DOMAIN))
        if domain is None:
            return False
        info = _info(domain)
        if (rate := scopes.packets_behind(row)) is not None:
            self._rate(learnt, info, row, scope_keys, rate, exported)
        elif "selectionSequenceId" in row:
            self._note((("sequence", row["selectionSequenceId"]),))
            selectors = tuple(row[name] for name in _SELECTORS if name in row)
            self._keep(learnt, info.sequences, row["selectionSequenceId"], selectors)
        self._names(learnt, info, row)
        if row.get(BOOT):
            self._keep(learnt, info.times, BOOT, row[BOOT])
        if "flowKeyIndicator" in row:
            self._flow_keys(learnt, domain, info, row)
        if not row.keys().isdisjoint(_STATISTICS):
            self._statistics(learnt, info, row)
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
        learnt.session.lookups.clear()
        table[key] = value

    def _forget(self, learnt: KnownTemplate, table: dict[Any, Any], key: Any) -> None:
        """The exporter takes an item back."""
        if key in table:
            del table[key]
            self._kept.told -= 1
            self.changes += 1
            learnt.session.lookups.clear()

    def _rate(
        self, learnt: KnownTemplate, info: ExporterInfo, row: dict[str, Any], scope_keys: Sequence[str], rate: float,
        exported: int,
    ) -> None:  # fmt: skip
        """A sampling rate, for the rows of its scope; also for those of its own process."""
        found = scopes.scope_of(row, scope_keys)
        if found is None:
            self._counters.figures["rates_unmatched"] += 1
            text = f"a sampling rate by {', '.join(scope_keys)} is not used"
            self._events.once("odd_options", learnt.session, learnt.domain.number, learnt.template.ident, text)
            return
        scope, process = found
        of_processes = [scopes.ordered(dict((*(p for p in scope if p[0] != "exporter"), part))) for part in process
                        if part[0] in scopes.COLUMNS]  # fmt: skip
        if not rate:
            for gone in (scope, *of_processes):
                self._forget(learnt, info.rates, gone)
            return
        self._note(scope, process)
        if scope in info.rates or self._kept.told < self._limits.told:
            self._keep(learnt, info.rates, scope, info.agreed(scope, process, rate, exported))
        for own in of_processes:
            self._keep(learnt, info.rates, own, rate)

    def _note(self, *found: Scope) -> None:
        """Records have to be asked for these identities from now on."""
        named = {name for scope in found for name, _ in scope}
        if not named <= self.identities:
            self.identities |= named

    def _names(self, learnt: KnownTemplate, info: ExporterInfo, row: dict[str, Any]) -> None:
        for kind in told_names.KINDS:
            said = [told_names.cleaned(row[key]) for key in kind.names if key in row]
            thing = next((row[key] for key in kind.things if key in row), None)
            if said and thing is not None and thing != b"":
                thing, name = told_names.form(kind.kind, thing), next(filter(None, said), None)
                names = info.names.setdefault(kind.kind, {})
                if name is not None:
                    self._keep(learnt, names, thing, name)
                else:
                    self._forget(learnt, names, thing)

    def _flow_keys(self, learnt: KnownTemplate, domain: Domain, info: ExporterInfo, row: dict[str, Any]) -> None:
        """The flow keys among the fields of a template (RFC 7011 section 4.4)."""
        ident = row.get("templateId#2", row.get("scopeTemplate", 0))
        about, bits = domain.templates.get(ident), row["flowKeyIndicator"]
        if about is None or bits >> len(about.template.fields):
            self._counters.errors["flow_keys"] += 1
            text = f"its flow keys are {bits:#x}, beyond its fields" if about else "flow keys of an unknown template"
            self._events.add("odd_options", learnt.session, domain.number, ident or 0, text)
            return
        self._keep(learnt, info.flow_keys, ident, bits)

    def _statistics(self, learnt: KnownTemplate, info: ExporterInfo, row: dict[str, Any]) -> None:
        """Total counters of a process: what they have grown by since the last time, or since its start."""
        process = tuple((name, row[name]) for name in _PROCESSES if name in row)
        if process not in info.statistics:
            self._keep(learnt, info.statistics, process, {})
        before = info.statistics.get(process)
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

    def _describe(self, learnt: KnownTemplate, row: dict[str, Any]) -> bool:
        """Type and name of an element of an enterprise (RFC 5610); what is known already stays as it is."""
        described = element_types.described(row, learnt.session.types)
        if isinstance(described, str):
            self._counters.errors[described] += 1
        if not isinstance(described, Key):
            return False
        changes = self.changes
        self._keep(learnt, learnt.session.types, described.elements[0], described)
        return self.changes != changes

    # what was not found

    def unscaled(self, learnt: KnownTemplate, unknown: int, unclear: int) -> None:
        """Rows without a sampling rate although their exporter sent some, and rows with several possible rates."""
        for kind, rows in (("sampling_unmatched", unknown), ("sampling_ambiguous", unclear)):
            if rows:
                self._counters.figures[kind] += rows
                self._events.once(kind, learnt.session, learnt.domain.number, learnt.template.ident)

    def unnamed(self, learnt: KnownTemplate, what: str, unknown: int, unclear: int) -> None:
        """Rows with a thing that was given no name although others of its kind were, or several names."""
        for kind, rows in (("names_unmatched", unknown), ("names_ambiguous", unclear)):
            if rows:
                self._counters.figures[kind] += rows
                self._events.once(kind, learnt.session, learnt.domain.number, 0, what)

    def stopped(self, counts: int) -> None:
        """Counts that stopped at the largest number when they were multiplied."""
        self._counters.figures["counts_saturated"] += counts

    def odd_times(self, rows: int) -> None:
        """Rows with a time that was made of others and cannot be."""
        self._counters.errors["value"] += rows

    def undated(self, learnt: KnownTemplate, rows: int) -> None:
        """Rows whose uptimes could not be made absolute, as domains of the exporter tell different starts of it."""
        self._counters.figures["start_unknown"] += rows
        self._events.once("start_unknown", learnt.session, learnt.domain.number)

    def forget_start(self, session: Session, domain: Domain) -> None:
        """An exporter has restarted: uptimes no longer count from the start reported for this domain."""
        infos = [each.info for each in session.domains.values() if each.info is not None]
        own = [domain.info] if domain.info is not None and domain.info.times else infos
        for info in own:
            self._kept.told -= len(info.times)
            info.times.clear()
        session.lookups.clear()

    # over a restart of ours, and where sessions become one

    def restore_types(self, session: Session, keys: Iterable[Key]) -> None:
        """Elements that an earlier run knew."""
        for key in keys:
            if self._kept.told < self._limits.told and key.elements[0] not in session.types:
                self._kept.told += 1
                session.types[key.elements[0]] = key

    def restore(self, session: Session, domain: Domain, info: ExporterInfo) -> None:
        """The data of an earlier run about a domain; nothing if it is too much."""
        if domain.info is None and self._kept.told + len(info) <= self._limits.told:
            self._note(*info.rates, *((("sequence", 0),) for _ in info.sequences))
            self._kept.told += len(info)
            domain.info = info
            session.lookups.clear()

    def merge(self, session: Session, mine: Domain, other: Domain) -> None:
        """The data of `other` holds for `mine`, which takes the missing items."""
        if other.info is None:
            return
        info, before = _info(mine), len(_info(mine)) + len(other.info)
        info.complete(other.info)
        self._kept.told -= before - len(info)
        other.info = None
        session.lookups.clear()


def _info(domain: Domain) -> ExporterInfo:
    if domain.info is None:
        domain.info = ExporterInfo()
    return domain.info


_FIELD_TYPES = {f"v9scope{ident}": ident for ident in (10, 14, 48, 58, 61, 95, 137, 138, 141, 142, 143, 144, 145, 149,
                                                       234, 235, 243, 252, 253, 301, 302)}  # fmt: skip
"""Scopes beyond the five of RFC 3954 section 6.1, for which exporters take field types (ipt_NETFLOW)."""
USED |= frozenset(_FIELD_TYPES)
_TAKEN = {"observationDomainId": scopes.DOMAIN, "templateId": "templateId#2"}


def _plain_name(name: str) -> str:
    """The key that a scope of NetFlow v9 stands for."""
    if name not in _FIELD_TYPES:
        return name
    found = registry.element(NETFLOW9, _FIELD_TYPES[name]).name
    return _TAKEN.get(found, found)


def _scope_keys(template: Template) -> list[str]:
    """The keys of the scope fields of an options template; fewer where v9 has none."""
    fields: tuple[Field, ...] = template.fields[: template.scopes]
    if any(field.pen == NETFLOW9 for field in fields):  # an options template of v9 without a scope
        fields = tuple(field for field in fields if field.pen == NETFLOW9_SCOPE)
    return [_plain_name(key.name) for key in field_keys(fields, ALL) if key is not None]


def _readable(key: Key) -> bool:
    """Whether its values are of its type; those of an impossible size are held as octets."""
    expected = registry.key(key.name.partition("#")[0])
    return expected is None or types.compatible(expected.type, key.type)


def _rows(keys: Sequence[Key], columns: dict[str, Column], missing: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Plain rows of one key or more; a value that is missing is left out."""
    names = [_plain_name(key.name) for key in keys]
    values = [_values(columns[key.name], key) for key in keys]
    masks = [missing[key.name].tolist() if key.name in missing else None for key in keys]
    for place, row in enumerate(zip(*values, strict=True)):
        yield {
            name: value for name, value, mask in zip(names, row, masks, strict=True) if mask is None or not mask[place]
        }


def _values(column: Column, key: Key) -> list[Any]:
    """Values as Python has them; numbers in scopes of NetFlow v9 are held as octets."""
    found = plain_values(column, key)
    if key.name in _FIELD_TYPES and registry.element(NETFLOW9, _FIELD_TYPES[key.name]).type.integer:
        return [int.from_bytes(value, "big") for value in found]
    return found
