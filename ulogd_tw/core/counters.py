"""The counters of an instance: declarations with unit and meaning, and the numbers.

A plugin declares in `counts` its counters beyond `GENERAL`; an engine declares them in its package's ``counts.py``, and
the plugins using it name that table. The reference, `stats_file` and the tests come from the declarations.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar


@dataclass(frozen=True)
class Figure:
    """One declared number. A `rare` one stands in `stats_file` only once there is something to count."""

    name: str
    unit: str
    meaning: str
    rare: bool = False
    kind: ClassVar[str] = ""


class Count(Figure):
    """A number that only grows while the service runs."""

    kind = "counter"


class Gauge(Figure):
    """A number of this moment, which goes up and down."""

    kind = "gauge"


class Text(Figure):
    """No number: a state or a message."""

    kind = "text"


class Reason(Count):
    """One reason of a counter that is split by reason; `of` names that counter."""

    of: ClassVar[str] = ""


class Dropped(Reason):
    """A reason of `dropped`: rows that were received and given up."""

    of = "dropped"


class Lost(Reason):
    """A reason of `lost`: rows, messages or events that never reached the instance."""

    of = "lost"


class Missing(Lost):
    """A reason of `lost` that is taken back where it comes late after all."""

    kind = "gauge"


class Fault(Reason):
    """A reason of `errors`: occasions, unless its unit is another."""

    of = "errors"


@dataclass(frozen=True)
class Group:
    """Figures under one name. With `each` they exist once for every value of this label, such as a collector."""

    name: str
    meaning: str
    parts: tuple[Declared, ...]
    each: str = ""
    rare: bool = False


@dataclass(frozen=True)
class ByReason:
    """A counter under one name, split by reason."""

    name: str
    meaning: str
    parts: tuple[Reason, ...]
    rare: bool = False


Declared = Figure | Group | ByReason

NUMBERS = (
    Count("messages_received", "messages", "Messages, packets or events read by the instance."),
    Count("octets_received", "octets", "Octets of those messages."),
    Count("rows_received", "rows", "Rows decoded, or received from the plugin above."),
    Count("rows_emitted", "rows", "Rows passed on to the plugins below."),
    Count("rows_filtered", "rows", "Rows left out by a filter or an option."),
    Count("rows_merged", "rows", "Rows added up into others."),
    Count("rows_written", "rows", "Rows written by an output."),
    Gauge("rows_waiting", "rows", "Rows in the queue before an output."),
    Count("rows_spooled", "rows", "Rows put on the disk at a stop."),
    Count("rows_unspooled", "rows", "Rows read from the disk at the start; part of rows_received."),
)  # fmt: skip
"""The numbers of every instance."""

REASONS = (Dropped, Lost, Fault)
"""The counters of every instance that are split by reason."""


class UndeclaredCounter(UserWarning):
    """Something is counted that no declaration names; it is counted all the same."""


def refuse_undeclared() -> None:
    """For tests: from now on an undeclared name is a LookupError. Otherwise it is taken, with one warning."""
    _Checked.strict = True


class _Checked:
    """Knows the declared names. A mapping that inherits from it asks `check` before it takes a new name."""

    strict = False

    def declare(self, plugin: str, what: str, names: Iterable[str] | None) -> None:
        """Take only `names` from now on; None takes every name."""
        self._where = f"{plugin}: {what}"
        self._names = None if names is None else set(names)

    def check(self, name: str) -> None:
        """Complain once about a name that is not declared."""
        if self._names is not None and name not in self._names:
            if _Checked.strict:
                raise LookupError(f"{self._where}: {name} is not declared")
            self._names.add(name)
            warnings.warn(f"{self._where}: {name} is not declared", UndeclaredCounter, stacklevel=3)

    def allow(self, name: str) -> None:
        """Declare one more name, which only the running service knows."""
        if self._names is not None:
            self._names.add(name)


class ReasonCounts(_Checked, Counter[str]):
    """Numbers by reason."""

    def __init__(self, plugin: str, what: str, names: Iterable[str] | None) -> None:
        super().__init__()
        self.declare(plugin, what, names)

    def __setitem__(self, name: str, number: int) -> None:
        if name not in self:
            self.check(name)
        super().__setitem__(name, number)


class Figures(_Checked, dict[str, Any]):
    """Further numbers of a plugin: a number, or a function giving the value for `stats_file`."""

    def __init__(self, plugin: str, declared: Mapping[str, Declared] | None) -> None:
        super().__init__()
        self.declare(plugin, "figures", declared)
        for figure in (declared or {}).values():
            if not figure.rare:
                self[figure.name] = 0

    def __setitem__(self, name: str, value: Any) -> None:
        if name not in self:
            self.check(name)
        super().__setitem__(name, value)

    def __missing__(self, name: str) -> int:
        return 0


class Counters:
    """The counters of one instance. `dropped`, `lost` and `errors` are by reason.

    `lost` counts data that never arrived (rows for IPFIX and NetFlow v5, messages for v9, events for netlink). `errors`
    counts occasions, not rows. `rows_spooled` were put on disk at a stop, `rows_unspooled` (part of `rows_received`)
    came from there at the start. An instance with rows of its own (an aggregate) sets `makes_rows`. `declared` is what
    the plugin may count beyond `NUMBERS`; None allows everything.
    """

    def __init__(self, plugin: str, makes_rows: bool = False, declared: Iterable[Declared] | None = None) -> None:
        self.plugin = plugin
        self.makes_rows = makes_rows
        self.messages_received = 0
        self.octets_received = 0
        self.rows_received = 0
        self.rows_emitted = 0
        self.rows_filtered = 0
        self.rows_merged = 0
        self.rows_written = 0
        self.rows_waiting = 0
        self.rows_spooled = 0
        self.rows_unspooled = 0
        every = None if declared is None else tuple(declared)
        self.dropped = ReasonCounts(plugin, "dropped", _reasons(every, Dropped))
        self.lost = ReasonCounts(plugin, "lost", _reasons(every, Lost))
        self.errors = ReasonCounts(plugin, "errors", _reasons(every, Fault))
        self._declared = None if every is None else {f.name: f for f in every if not isinstance(f, Reason)}
        self.declared = tuple((self._declared or {}).values())
        """The declared figures, without reasons."""
        self.reasons = tuple(figure for figure in every or () if isinstance(figure, Reason))
        """The declared reasons of `dropped`, `lost` and `errors`."""
        self.figures = Figures(plugin, self._declared)
        """Further figures of a plugin (``collectors`` of an exporter), printed as they are."""

    def fault(self, error: Exception) -> str:
        """Count an exception as an error of the name of its class, which is returned."""
        kind = type(error).__name__
        self.errors.allow(kind)
        self.errors[kind] += 1
        return kind

    def unaccounted(self) -> int:
        """Rows received less all that became of them: 0 whenever the reactor is idle."""
        emitted = 0 if self.makes_rows else self.rows_emitted
        gone = emitted + self.rows_filtered + self.rows_merged + self.rows_written
        gone += self.rows_waiting + self.rows_spooled
        return self.rows_received - gone - self.dropped.total()

    def as_dict(self) -> dict[str, Any]:
        """The form of `stats_file`."""
        found: dict[str, Any] = {"plugin": self.plugin} | {n.name: getattr(self, n.name) for n in NUMBERS}
        found |= {reason.of: dict(getattr(self, reason.of)) for reason in REASONS}
        figures = {name: value() if callable(value) else value for name, value in self.figures.items()}
        if _Checked.strict and self._declared is not None:
            for name, value in figures.items():
                _check_parts(self.plugin, self._declared[name], value)
        return found | figures


def flat(declared: Iterable[Declared], before: str = "", label: str = "") -> Iterator[tuple[str, str, Figure]]:
    """(name as in `stats_file`, label, figure) of every figure: ``dropped.max_keys``, ``netlink.overruns``."""
    for part in declared:
        if isinstance(part, ByReason):
            yield from ((f"{before}{part.name}.{reason.name}", label, reason) for reason in part.parts)
        elif isinstance(part, Group):
            name = f"{before}{part.name}." + (f"{part.each.upper()}." if part.each else "")
            yield from flat(part.parts, name, part.each or label)
        else:
            yield before + (f"{part.of}." if isinstance(part, Reason) else "") + part.name, label, part


def _reasons(declared: tuple[Declared, ...] | None, kind: type[Reason]) -> set[str] | None:
    return None if declared is None else {figure.name for figure in declared if isinstance(figure, kind)}


def _check_parts(where: str, declared: Declared, value: Any) -> None:
    """Raise LookupError where a figure has a part that is not declared. Only in tests."""
    if isinstance(declared, Figure):
        return
    parts = {part.name: part for part in declared.parts}
    for group in value.values() if isinstance(declared, Group) and declared.each else (value,):
        for name, part in group.items():
            if name not in parts:
                raise LookupError(f"{where}: {declared.name}: {name} is not declared")
            _check_parts(f"{where}: {declared.name}", parts[name], part)
