"""The counters of the running service for Prometheus: families of metrics, and their text in slices.

The families are made from the declarations in `core.counters`, so a new counter is there by itself.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Iterable, Iterator
from typing import Any

from prometheus_client import ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from ulogd_tw import __version__
from ulogd_tw.core.histogram import Histogram
from ulogd_tw.core.states import WORDS
from ulogd_tw.operating.exporter_metrics import GROWING, NAMES
from ulogd_tw.operating.metric_names import BEFORE, SERVICE, Metric, samples

SAMPLES_AT_ONCE = 200
"""Samples in one slice of the text; 200 take 2 ms."""
_OWN = ("instance", "plugin")


class ServiceCollector(Collector):
    """All families, for a registry of prometheus_client."""

    def __init__(self, view: Any) -> None:
        self._view = view

    def collect(self) -> Iterator[Family]:
        """All of them at once."""
        return (family for family in families(self._view) if family is not None)


class _Only(Collector):
    """One family as a registry."""

    def __init__(self, family: Family) -> None:
        self._family = family

    def collect(self) -> Iterable[Family]:
        return [self._family]


def text(view: Any) -> Iterator[bytes]:
    """The text of a scrape, in slices."""
    for family in families(view):
        if family is None:
            yield b""
        else:
            yield from _written(family)


def _written(family: Family) -> Iterator[bytes]:
    """One family; the lines with its text and type stand before the first slice only."""
    whole = family.samples
    for at in range(0, max(len(whole), 1), SAMPLES_AT_ONCE):
        family.samples = whole[at : at + SAMPLES_AT_ONCE]
        octets = generate_latest(_Only(family))
        yield (
            octets
            if not at
            else b"".join(line for line in octets.splitlines(keepends=True) if not line.startswith(b"# "))
        )


def families(view: Any) -> Iterator[Family | None]:
    """Every family; None between them is a place to pause."""
    yield from _service(view)
    yield from _alerts(view)
    yield from _queues(view)
    yield from _exporters(view)
    yield from _counters(view)
    yield from ProcessCollector(registry=None).collect()


def _service(view: Any) -> Iterator[Family]:
    """The service as a whole, and its doors."""
    yield _of_service("build_info", [((__version__, platform.python_version()), 1)])
    yield _of_service("start_time_seconds", [((), view.since)])
    states: dict[str, str] = {}  # the same line may be there twice; a series may not
    for stack in view.readiness()["stacks"]:
        states[stack["text"]] = max(states.get(stack["text"], WORDS[0]), stack["state"], key=WORDS.index)
    numbers = [((text, word), int(word == now)) for text, now in states.items() for word in WORDS]
    yield _of_service("stack_state", numbers)
    if getattr(view.ulogd.settings, "state_dir", ""):
        yield _of_service("state_kept", [((), int(not view.state_fault))])
    yield _of_service("left_behind_rows", [((one.instance, one.kind), one.rows) for one in view.left_behind])
    yield _of_service("events_total", [((kind,), n) for kind, n in view.ulogd.events.counts.items()])
    doors = view.doors.items()
    yield _of_service("http_requests_total", [((name,), door.requests) for name, door in doors])
    refused = [((name, reason), n) for name, door in doors for reason, n in door.refused.items()]
    yield _of_service("http_refused_total", refused)
    yield _of_service("http_connections", [((name,), len(door.connections)) for name, door in doors])


def _alerts(view: Any) -> Iterator[Family]:
    """The rules and their receivers."""
    alerts = getattr(view.ulogd, "alerts", None)
    rules = [] if alerts is None else alerts.listed()["rules"]
    for name in ("firing", "pending", "beyond"):
        yield _of_service(f"alerts_{name}", [((rule["name"],), rule[name]) for rule in rules])
    each = [(rule["name"], receiver) for rule in rules for receiver in rule["receivers"]]
    yield _of_service("alerts_sent_total", [((name, r["name"]), r["sent"]) for name, r in each])
    lost = [((name, r["name"], reason), n) for name, r in each for reason, n in r["lost"].items()]
    yield _of_service("alerts_lost_total", lost)
    yield _of_service("alerts_rows_unseen_total", [] if alerts is None else [((), alerts.rows_unseen)])


def _queues(view: Any) -> Iterator[Family]:
    """The queues before outputs, and the lateness of the reactor."""
    if view.stalls is not None:
        yield _of_histograms("reactor_stall_seconds", [((), view.stalls.late)])
    now = time.monotonic()
    queues = [((queue.node.ident, queue.output.name), queue) for queue in getattr(view.ulogd, "queues", ())]
    yield _of_histograms("batch_latency_seconds", [(own, queue.waits.latency) for own, queue in queues])
    yield _of_service("queue_oldest_seconds", [(own, queue.waits.oldest(now)) for own, queue in queues])
    yield _of_service("queue_rows_limit", [(own, queue.most_rows) for own, queue in queues])
    yield _of_service("queue_bytes", [(own, queue.octets) for own, queue in queues])
    yield _of_service("queue_bytes_limit", [(own, queue.most_octets) for own, queue in queues])


def _exporters(view: Any) -> Iterator[Family | None]:
    """The numbers of each exporter."""
    found: dict[Any, dict[str, float]] = {}
    for numbers in view.exporter_numbers.of(view.graph):
        yield None
        found = numbers or found
    for name in NAMES:
        family = _of_service(f"exporter_{name}" + ("_total" if name in GROWING else ""), ())
        for number, (key, sums) in enumerate(found.items()):
            family.add_metric(key, sums[name])  # type: ignore[attr-defined]
            if number % SAMPLES_AT_ONCE == SAMPLES_AT_ONCE - 1:
                yield None
        yield family


def _of_histograms(name: str, values: Iterable[tuple[tuple[str, ...], Histogram]]) -> Family:
    metric = next(metric for metric in SERVICE if metric.name == BEFORE + name)
    family = HistogramMetricFamily(metric.name, metric.text, labels=metric.labels)
    for labels, histogram in values:
        family.add_metric(labels, histogram.buckets(), histogram.sum)
    return family


def _of_service(name: str, values: Iterable[tuple[tuple[str, ...], float]]) -> Family:
    """The family of a metric of `SERVICE`, with its numbers by labels."""
    metric = next(metric for metric in SERVICE if metric.name == BEFORE + name)
    family = made(metric, ())
    for labels, value in values:
        family.add_metric(labels, value)  # type: ignore[attr-defined]
    return family


def _counters(view: Any) -> Iterator[Family | None]:
    """The counters of all instances, by metric."""
    found: dict[str, Family] = {}
    for node in view.graph.nodes:
        own = (node.ident, node.plugin.name)
        for metric, labels, value in samples(node.plugin.counters):
            family = found.get(metric.name)
            if family is None:
                family = found[metric.name] = made(metric)
            family.add_metric((*own, *labels), value)  # type: ignore[attr-defined]
        yield None
    yield from found.values()


def made(metric: Metric, own: tuple[str, ...] = _OWN) -> Family:
    """An empty family; `own` are the labels before those of the metric."""
    if metric.kind == "counter":
        return CounterMetricFamily(metric.name.removesuffix("_total"), metric.text, labels=(*own, *metric.labels))
    return GaugeMetricFamily(metric.name, metric.text, labels=(*own, *metric.labels))
