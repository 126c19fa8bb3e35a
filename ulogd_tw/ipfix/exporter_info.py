"""The options data of an exporter, by Observation Domain."""

from __future__ import annotations

from collections.abc import Sized
from typing import Any

from ulogd_tw.ipfix import told_names
from ulogd_tw.ipfix.scopes import Process, Scope

_MOST_PROCESSES = 8
"""Processes that tell a rate of one scope and are remembered."""
BOOT = "systemInitTimeMilliseconds"


class ExporterInfo:
    """The options data of one Observation Domain.

    rates       packets behind each sampled one, by scope; None if processes of one scope report different rates
    sequences   selectors of a Selection Sequence (RFC 5476 section 6.5.1), by its id
    names       names by kind (`told_names.KINDS`), by the number or octets of the thing
    times       the start of the exporter (ms since 1970), under `BOOT`
    flow_keys   by template id: the flow keys among its fields, as bits
    statistics  total counters by their process
    """

    __slots__ = ("rates", "sequences", "names", "times", "flow_keys", "statistics", "_tellers")

    def __init__(self) -> None:
        self.rates: dict[Scope, float | None] = {}
        self.sequences: dict[int, tuple[int, ...]] = {}
        self.names: dict[str, dict[int | bytes, bytes]] = {}
        self.times: dict[str, int] = {}
        self.flow_keys: dict[int, int] = {}
        self.statistics: dict[tuple, dict[str, int]] = {}
        self._tellers: dict[Scope, dict[Process, tuple[float, int]]] = {}

    def __len__(self) -> int:
        tables: list[Sized] = [self.rates, self.sequences, self.times, self.flow_keys, self.statistics]
        return sum(map(len, [*tables, *self.names.values()]))

    @property
    def factor(self) -> float:
        """How many packets stand behind one, where a record names no sampler; 1 where that is not clear."""
        for scope in ((), WHOLE):
            if scope in self.rates:
                return self.rates[scope] or 1.0
        rates = {rate for scope, rate in self.rates.items() if len(scope) == 1 and scope[0][0] == "sampler"}
        return (rates.pop() or 1.0) if len(rates) == 1 else 1.0

    def agreed(self, scope: Scope, process: Process, rate: float, exported: int) -> float | None:
        """The rate of a scope after a process has reported one at this Export Time; None if processes disagree.

        A process with another id replaces the former one, as after a restart (softflowd's id is that of its Unix
        process). Two processes that report in the same second, or by turns, exist together.
        """
        told = self._tellers.setdefault(scope, {})
        latest = next(reversed(told), None)
        before = told.pop(process, None)
        together = latest not in (None, process) and (before is not None or told[latest][1] == exported)
        told[process] = rate, exported
        if len(told) > _MOST_PROCESSES:
            del told[next(iter(told))]
        return rate if not together or len({value for value, _ in told.values()}) == 1 else None

    def complete(self, other: ExporterInfo) -> None:
        """Take what another one has and this one has not."""
        for name in ("rates", "sequences", "times", "flow_keys", "statistics"):
            mine = getattr(self, name)
            mine |= getattr(other, name) | mine
        for kind, names in other.names.items():
            self.names[kind] = names | self.names.get(kind, {})


WHOLE: Scope = (("exporter", 0),)
"""The scope of what is true of all domains of an exporter."""


def plain(info: ExporterInfo) -> dict[str, Any]:
    """As JSON has it, for keeping it over a restart."""
    return {
        "rates": [([list(part) for part in scope], rate) for scope, rate in info.rates.items()],
        "sequences": list(info.sequences.items()),
        "names": {kind: [(_plain(of), name.decode("latin-1")) for of, name in names.items()]
                  for kind, names in info.names.items()},
        "times": info.times,
        "flow_keys": list(info.flow_keys.items()),
        "statistics": [([list(part) for part in process], dict(v)) for process, v in info.statistics.items()],
    }  # fmt: skip


def restored(saved: dict[str, Any]) -> ExporterInfo:
    """The result of `plain`, also in the form of the version before scopes were kept."""
    info = ExporterInfo()
    for scope, rate in saved.get("rates", ()):
        info.rates[tuple((name, int(value)) for name, value in scope)] = None if rate is None else float(rate)
    for sampler, rate in saved.get("samplers", ()):
        info.rates[() if sampler is None else (("sampler", sampler),)] = float(rate)
    info.sequences = {int(ident): tuple(selectors) for ident, selectors in saved.get("sequences", ())}
    names = saved.get("names")
    if names is None:
        names = {"interface": saved["interfaces"], "application": saved["applications"]}
    for kind, of_kind in names.items():
        info.names[kind] = {told_names.form(kind, _thing(of)): name.encode("latin-1") for of, name in of_kind}
    info.times = {name: int(value) for name, value in saved.get("times", {}).items()}
    info.flow_keys = dict(saved["flow_keys"])
    info.statistics = {tuple(tuple(part) for part in process): dict(v) for process, v in saved["statistics"]}
    return info


def _plain(thing: int | bytes) -> int | str:
    return thing if isinstance(thing, int) else thing.hex()


def _thing(saved: int | str) -> int | bytes:
    return saved if isinstance(saved, int) else bytes.fromhex(saved)
