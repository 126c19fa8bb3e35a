"""Names for Prometheus of the declared counters: base units, `_total` behind what only grows, labels for each part.

A figure's own name stays recognizable: `rows_received` is `ulogd_rows_received_total`, `octets_received` is
`ulogd_received_bytes_total`. Reasons are labels: `dropped.queue_full` is `ulogd_dropped_total{reason="queue_full"}`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ulogd_tw.core.counters import (
    NUMBERS,
    REASONS,
    ByReason,
    Count,
    Counters,
    Declared,
    Dropped,
    Fault,
    Figure,
    Group,
    Lost,
    Missing,
    Reason,
    Text,
)

BEFORE = "ulogd_"
_TEXTS = {
    Dropped: "Rows that were received and given up, by reason.",
    Lost: "Rows, messages or events that never reached the instance, by reason.",
    Missing: "Records that did not arrive, by reason; late records are subtracted.",
    Fault: "Faults by reason.",
}


@dataclass(frozen=True)
class Metric:
    """One metric: its name as in a scrape, its kind, its text, and its labels beyond instance and plugin.

    The kind is `counter`, `gauge` or `histogram`.
    """

    name: str
    kind: str
    text: str
    labels: tuple[str, ...] = ()


_OWN = ("instance", "plugin")
_EXPORTER = (*_OWN, "exporter")
SERVICE = (
    Metric(BEFORE + "build_info", "gauge", "Version of ulogd_tw and of Python.", ("version", "python")),
    Metric(BEFORE + "start_time_seconds", "gauge", "When the service started, in seconds since 1970."),
    Metric(
        BEFORE + "stack_state",
        "gauge",
        "1 for the state of the stack's output: ok, spooling or down.",
        ("stack", "state"),
    ),
    Metric(BEFORE + "state_kept", "gauge", "With state_dir: 1 while it can be written, 0 while state is not kept."),
    Metric(
        BEFORE + "left_behind_rows",
        "gauge",
        "Rows of instances that are in no stack any more: rows in a spool, rows in groups of an AGGREGATE, records for "
        "a collector, and rows lost when an earlier run was killed.",
        ("instance", "kind"),
    ),
    Metric(BEFORE + "events_total", "counter", "Events of the service and of exporters, by kind.", ("kind",)),
    Metric(
        BEFORE + "reactor_stall_seconds",
        "histogram",
        "How much later than asked for a timer comes, looked at ten "
        "times a second: whatever holds the reactor holds everything.",
    ),
    Metric(
        BEFORE + "batch_latency_seconds",
        "histogram",
        "Time from the queue before an output until its rows are written, for each batch.",
        _OWN,
    ),
    Metric(
        BEFORE + "queue_oldest_seconds",
        "gauge",
        "How long the oldest row before an output has waited.",
        _OWN,
    ),
    Metric(
        BEFORE + "queue_rows_limit",
        "gauge",
        "The option queue_rows of an output; ulogd_rows_waiting is beside it.",
        _OWN,
    ),
    Metric(BEFORE + "queue_bytes", "gauge", "Memory of the rows in the queue before an output.", _OWN),
    Metric(BEFORE + "queue_bytes_limit", "gauge", "The option queue_octets of an output.", _OWN),
    Metric(BEFORE + "exporter_messages_total", "counter", "Messages of an exporter.", _EXPORTER),
    Metric(BEFORE + "exporter_records_total", "counter", "Records of an exporter.", _EXPORTER),
    Metric(BEFORE + "exporter_malformed_total", "counter", "Messages of an exporter that make no sense.", _EXPORTER),
    Metric(
        BEFORE + "exporter_missing",
        "gauge",
        "What did not come of an exporter, by its sequence numbers; one that comes late after all is taken back.",
        _EXPORTER,
    ),
    Metric(BEFORE + "exporter_templates", "gauge", "Templates that an exporter has announced.", _EXPORTER),
    Metric(BEFORE + "exporter_silent_seconds", "gauge", "Seconds since an exporter was last heard.", _EXPORTER),
    Metric(
        BEFORE + "exporter_clock_wrong",
        "gauge",
        "1 while the clock of an exporter is off by more than clock_skew.",
        _EXPORTER,
    ),
    Metric(BEFORE + "alerts_firing", "gauge", "Keys for which an alert fires.", ("alert",)),
    Metric(
        BEFORE + "alerts_pending", "gauge", "Keys for which the condition of an alert is true, within for=.", ("alert",)
    ),
    Metric(BEFORE + "alerts_beyond", "gauge", "Keys of an alert beyond max_alerts at the last look.", ("alert",)),
    Metric(BEFORE + "alerts_sent_total", "counter", "Messages that a receiver has taken.", ("alert", "receiver")),
    Metric(
        BEFORE + "alerts_lost_total",
        "counter",
        "Messages that no receiver has taken, by reason.",
        ("alert", "receiver", "reason"),
    ),
    Metric(BEFORE + "alerts_rows_unseen_total", "counter", "Rows that came too fast for the rules of alerts."),
    Metric(BEFORE + "http_requests_total", "counter", "Requests that came through a door.", ("door",)),
    Metric(BEFORE + "http_refused_total", "counter", "Requests without an answer, by reason.", ("door", "reason")),
    Metric(BEFORE + "http_connections", "gauge", "Open connections.", ("door",)),
)
"""Metrics of the service as a whole; their labels are all that they have."""

Sample = tuple[Metric, tuple[str, ...], float]
"""A metric, the values of its labels, and its number."""


def _kind(figure: Figure) -> str:
    return "counter" if isinstance(figure, Count) and not isinstance(figure, Missing) else "gauge"


def _name(figure: Figure, before: str) -> str:
    """The words of a figure with its unit last where that is a base unit of Prometheus."""
    words = [*before.split("_"), *figure.name.split("_")] if before else figure.name.split("_")
    if figure.unit == "octets":
        words = [word for word in words if word != "octets"] + ["bytes"]
    elif figure.unit == "seconds":
        words = [word for word in words if word != "seconds"] + ["seconds"]
    return BEFORE + "_".join(words) + ("_total" if _kind(figure) == "counter" else "")


def reason_metric(kind: type[Reason]) -> Metric:
    """The metric of all reasons of a kind: `dropped`, `lost`, `missing` or `errors`."""
    if kind is Missing:
        return Metric(BEFORE + "missing", "gauge", _TEXTS[Missing], ("reason",))
    return Metric(f"{BEFORE}{kind.of}_total", "counter", _TEXTS[kind], ("reason",))


def metric(declared: Declared, before: str = "", labels: tuple[str, ...] = ()) -> Metric | None:
    """The metric of a figure, or of a counter split by reason; None for a text that is no state."""
    if isinstance(declared, ByReason):
        word = f"{before}_{declared.name}" if before else declared.name
        return Metric(f"{BEFORE}{word}_total", "counter", declared.meaning, (*labels, "reason"))
    assert isinstance(declared, Figure)
    if isinstance(declared, Text):
        if declared.name != "state":
            return None
        return Metric(f"{BEFORE}{before}_state", "gauge", f"{declared.meaning} 1 for its state.", (*labels, "state"))
    return Metric(_name(declared, before), _kind(declared), declared.meaning, labels)


def _inside(group: Group, before: str, labels: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """Words before the names of a group's parts, and their labels."""
    word = group.each or group.name
    return f"{before}_{word}" if before else word, (*labels, group.each) if group.each else labels


def metrics(declared: Iterable[Declared], before: str = "", labels: tuple[str, ...] = ()) -> Iterator[Metric]:
    """All metrics of these declarations, for the reference."""
    for part in declared:
        if isinstance(part, Reason):
            yield reason_metric(Missing if isinstance(part, Missing) else kind_of(part))
        elif isinstance(part, Group):
            yield from metrics(part.parts, *_inside(part, before, labels))
        elif found := metric(part, before, labels):
            yield found


def kind_of(reason: Reason) -> type[Reason]:
    """`Dropped`, `Lost` or `Fault`."""
    return next(kind for kind in REASONS if isinstance(reason, kind))


def samples(counters: Counters) -> Iterator[Sample]:
    """Every number of an instance now; declared reasons are there from the start, with 0."""
    found = counters.as_dict()
    for number in NUMBERS:
        yield Metric(_name(number, ""), _kind(number), number.meaning), (), found[number.name]
    missing = {reason.name for reason in counters.reasons if isinstance(reason, Missing)}
    for kind in REASONS:
        declared = {reason.name: 0 for reason in counters.reasons if isinstance(reason, kind)}
        for name, value in (declared | found[kind.of]).items():
            yield reason_metric(Missing if kind is Lost and name in missing else kind), (name,), value
    for figure in counters.declared:
        if figure.name in found:
            yield from _values(figure, found[figure.name], "", (), ())


def _values(
    part: Declared, value: Any, before: str, labels: tuple[str, ...], given: tuple[str, ...]
) -> Iterator[Sample]:
    """The numbers of one declared figure."""
    if isinstance(part, Group):
        inside, more = _inside(part, before, labels)
        groups: Mapping[str, Any] = value if part.each else {"": value}
        for label, members in groups.items() if isinstance(groups, Mapping) else ():
            for inner in part.parts:
                if isinstance(members, Mapping) and inner.name in members:
                    name = (*given, label) if part.each else given
                    yield from _values(inner, members[inner.name], inside, more, name)
        return
    found = metric(part, before, labels)
    if found is None:
        return
    if isinstance(part, ByReason):
        yield from ((found, (*given, reason.name), value.get(reason.name, 0)) for reason in part.parts)
    elif isinstance(part, Text):
        yield found, (*given, str(value)), 1
    elif isinstance(value, int | float):
        yield found, given, value
