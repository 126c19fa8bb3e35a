"""Turns total counters of repeatedly reported flows into the increase since the previous report.

The amounts are in columns of their own (`ADDED`), which `summing` uses in place of the counters.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import numpy as np

from ulogd_tw.aggregation.group_table import ADDED
from ulogd_tw.aggregation.remembered_totals import RememberedFlows, RowTotals
from ulogd_tw.core.amounts import Amount, Amounts, amount
from ulogd_tw.core.batch import Batch
from ulogd_tw.core.flow_end import ACTIVE
from ulogd_tw.core.hashes import of_rows
from ulogd_tw.core.keys import SUMS
from ulogd_tw.core.quantities import QUANTITIES
from ulogd_tw.core.resolve import Find, Found

START, END, REASON = "flowStartMilliseconds", "flowEndMilliseconds", "flowEndReason"
EVENT = "ct.event"
UPTIME, FLOW_ID = "flowStartSysUpTime", "flowId"
_TUPLE = ("sourceAddress", "destinationAddress", "protocolIdentifier")
_PORTS = ("sourceTransportPort", "destinationTransportPort")


class Totals:
    """Replaces the totals of records by their increase. The last totals of at most `most` flows are remembered."""

    asks: tuple[str, ...] = ()
    """The keys that identify flows, and those about their end."""

    def __init__(self, find: Find, amounts: Amounts, most: int) -> None:
        self._find = find
        self._amounts = amounts
        self._secret = np.uint64(secrets.randbits(64))
        self._flows = RememberedFlows(most)
        self.joined = 0
        """Rows of flows that had begun before the first row came: what they had counted until then is left out."""
        self.assumed = 0
        """Rows taken for later records of a flow although nothing but its key says so."""

    @property
    def nbytes(self) -> int:
        """Octets of memory in use."""
        return self._flows.nbytes

    def differenced(self, batch: Batch) -> Batch:
        """The batch, with `ADDED` where it has totals."""
        if not self._amounts.carried(batch).totals:
            return batch
        found = ((place, self._amounts.of(batch, place)) for place in range(len(SUMS)))
        chosen = {place: amount for place, amount in found if amount is not None and amount.totals is not None}
        if not chosen:
            return batch
        most = self._flows.at_once
        if batch.n <= most:
            return self._differenced(batch, chosen)
        parts = [np.arange(first, min(first + most, batch.n)) for first in range(0, batch.n, most)]
        return Batch.joined([
            self._differenced(batch.take(part), {place: amount.take(part) for place, amount in chosen.items()})
            for part in parts
        ])  # fmt: skip

    def _differenced(self, batch: Batch, chosen: dict[int, Amount]) -> Batch:
        """As `differenced`, for no more rows than are remembered at once; `chosen` are the amounts of each row."""
        raise NotImplementedError

    def _totals(self, batch: Batch, chosen: dict[int, Amount]) -> dict[int, RowTotals]:
        """The totals that rows have, also beside a delta: they are what later totals are compared with."""
        found = {}
        for place, amount_ in chosen.items():
            counters = [counter for counter in QUANTITIES[place].counters if counter.total]
            totals = amount(self._find, batch, counters)
            if totals is not None and totals.totals is not None:
                found[place] = RowTotals(totals.values, totals.totals, amount_)
        return found

    def _column(self, batch: Batch, name: str, nothing: int) -> np.ndarray:
        """The values of a key as uint64, `nothing` where there is none."""
        found = self._find(batch, name)
        if found is None:
            return np.full(batch.n, nothing, np.uint64)
        values = found.numbers.astype(np.uint64)
        if found.missing is not None:
            values[found.missing] = nothing
        return values

    def _identity(self, batch: Batch, names: tuple[str, ...]) -> np.ndarray:
        """A hash of the flow of each row."""
        return of_rows((self._find(batch, name) for name in names), batch.n, self._secret)


class Differences(Totals):
    """totals=difference: each total counts what it is more than the one before it.

    A flow is known by the exporter and its domain, and by addresses, ports, protocol, interface, VLAN, flow id and
    direction as far as records have them. Its totals begin anew where one is smaller than before, where the flow
    started after the last record's end, and after a record that was its last.
    """

    IDENTITY = ("exporter", "exporter_port", "observationDomainId", FLOW_ID, *_TUPLE, *_PORTS, "ingressInterface",
                "vlanId", "flowDirection")  # fmt: skip
    asks = (*IDENTITY, START, END, REASON)

    def __init__(self, find: Find, amounts: Amounts, most: int) -> None:
        super().__init__(find, amounts, most)
        self._since: int | None = None
        """When the first row came, milliseconds."""

    def differenced(self, batch: Batch) -> Batch:
        if self._since is None:
            self._since = int(batch.now * 1000)
        return super().differenced(batch)

    def _differenced(self, batch: Batch, chosen: dict[int, Amount]) -> Batch:
        totals = self._totals(batch, chosen)
        runs = self._flows.runs(self._identity(batch, self.IDENTITY))
        starts = runs.sorted(self._column(batch, START, 0))
        ends = runs.sorted(self._column(batch, END, int(batch.now * 1000)))
        reasons = runs.sorted(self._column(batch, REASON, 0))
        final = (reasons != 0) & (reasons != ACTIVE)
        joins = runs.unseen & (reasons == ACTIVE) & (starts < np.uint64(self._since or 0)) & (starts > 0)
        runs.begin_anew((starts > runs.ended_before(ends)) | ~runs.first & np.roll(final, 1))
        runs.begin_anew(runs.fallen(totals))
        self.joined += int(np.count_nonzero(joins))
        runs.note_ends(ends)
        added = {place: runs.differences(place, total, joins, final) for place, total in totals.items()}
        columns = {ADDED[place]: values for place, values in added.items()}
        return batch.with_columns(columns, _masks(chosen))


class RepeatedTotals(Totals):
    """totals=auto: only totals that are surely, or most likely, repeated become differences; others are added whole.

    A record continues the one before it if both have the same exporter, domain and template, the same complete flow
    key, flow id and start of the flow (as far as the template has them), and no total decreased. Records without ports
    may belong to many flows. A record with fewer totals that ends before an earlier one of its flow came late: its
    totals are contained in those of the earlier one. Conntrack reports the end of a connection once. A flowEndReason
    ends the totals of a flow, but for 2, active timeout: some exporters go on with the same totals, others (YAF) with a
    new start and totals from 0. Without ports that cannot be told: a later record contains those with 2.
    """

    IDENTITY = ("exporter", "observationDomainId", "templateId", *_TUPLE, *_PORTS, "ipClassOfService",
                "ipDiffServCodePoint", "flowLabelIPv6", "icmpTypeCodeIPv4", "icmpTypeCodeIPv6", "ingressInterface",
                "flowDirection", "vlanId", "dot1qVlanId", "dot1qCustomerVlanId", "layer2SegmentId", "ingressVRFID",
                "sourceMacAddress", "destinationMacAddress", "lineCardId", "engineType", "engineId",
                "observationPointId", "meteringProcessId")  # fmt: skip
    asks = (*IDENTITY, FLOW_ID, UPTIME, START, END, REASON, EVENT)

    def _differenced(self, batch: Batch, chosen: dict[int, Amount]) -> Batch:
        compared, reasons = self._have(batch, _PORTS) & ~self._has(batch, EVENT), self._column(batch, REASON, 0)
        interim = ~compared & (reasons == ACTIVE)
        compared &= np.logical_or.reduce([amount_.totals for amount_ in chosen.values() if amount_.totals is not None])
        rows, hashes = self._compared(batch, np.flatnonzero(compared), (reasons != 0) & (reasons != ACTIVE))
        added = {place: amount_.values for place, amount_ in chosen.items()}
        if len(rows):
            part = batch if len(rows) == batch.n else batch.take(rows)
            some = {place: amount_.take(rows) for place, amount_ in chosen.items()}
            for place, values in self._of_flows(part, hashes, some):
                added[place] = added[place].copy()
                added[place][rows] = values
        columns = {ADDED[place]: values for place, values in added.items()}
        return batch.with_columns(columns, _masks(chosen, interim if interim.any() else None))

    def _compared(self, batch: Batch, rows: np.ndarray, final: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of these rows those to compare, and the hashes of their flows; `final` rows only if something came before."""
        ended = final[rows]
        if not len(rows) or (ended.all() and not self._flows.nbytes):
            return rows[:0], np.zeros(0, np.uint64)
        part = batch if len(rows) == batch.n else batch.take(rows)
        hashes = self._identity(part, (*self.IDENTITY, FLOW_ID, self._start(batch)))
        if ended.any():
            kept = ~ended | self._flows.remembers(hashes) | np.isin(hashes, hashes[~ended])
            rows, hashes = rows[kept], hashes[kept]
        return rows, hashes

    def _start(self, batch: Batch) -> str:
        """The start of flows by a clock that does not jitter, if there is one."""
        return UPTIME if self._find(batch, UPTIME) is not None else START

    def _of_flows(
        self, batch: Batch, hashes: np.ndarray, chosen: dict[int, Amount]
    ) -> Iterator[tuple[int, np.ndarray]]:  # fmt: skip
        """The amount of each row of these flows, for each counter."""
        totals, runs = self._totals(batch, chosen), self._flows.runs(hashes)
        sure = runs.sorted(self._has(batch, FLOW_ID) | self._has(batch, self._start(batch)))
        ends = np.where(sure, runs.sorted(self._column(batch, END, 0)), np.uint64(0))
        totals = runs.without(totals, runs.behind(totals, runs.ended_earlier(ends)))
        reasons = runs.sorted(self._column(batch, REASON, 0))
        final = (reasons != 0) & (reasons != ACTIVE)
        runs.begin_anew(runs.fallen(totals) | ~runs.first & np.roll(final, 1))
        self.assumed += int(np.count_nonzero(~runs.anew & ~sure & (reasons == 0)))
        runs.note_latest(ends)
        for place, total in totals.items():
            yield place, runs.differences(place, total, final=final)
        runs.forget(final)

    def _have(self, batch: Batch, names: tuple[str, ...]) -> np.ndarray:
        """The rows that have all of these keys."""
        return np.logical_and.reduce([self._has(batch, name) for name in names])

    def _has(self, batch: Batch, name: str) -> np.ndarray:
        """The rows that have a key."""
        found: Found | None = self._find(batch, name)
        if found is None or found.missing is None:
            return np.full(batch.n, found is not None)
        return ~found.missing


def _masks(chosen: dict[int, Amount], interim: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Masks of the rows that add nothing to a sum: rows without the counter, and totals contained in a later record."""
    masks = {}
    for place, amount_ in chosen.items():
        missing = amount_.missing
        if interim is not None and amount_.totals is not None:
            left_out = interim & amount_.totals
            missing = left_out if missing is None else missing | left_out
        if missing is not None and missing.any():
            masks[ADDED[place].name] = missing
    return masks


KINDS: dict[str, type[Totals]] = {"auto": RepeatedTotals, "difference": Differences}
"""By the option totals; with totals=last a flow's last record says all."""
EVERY_ASK = {name: kind.asks for name, kind in KINDS.items()}
