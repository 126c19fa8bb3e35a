"""Names of metrics: from every declaration, in base units, and each number under one name."""

import re

from twisted.trial.unittest import SynchronousTestCase

from ulogd_tw import registry
from ulogd_tw.core.counters import NUMBERS, Count, Counters, Dropped, Fault, Gauge, Group, Lost, Missing, Text
from ulogd_tw.exporting.counts import EXPORTER
from ulogd_tw.operating.metric_names import metrics, samples


def every_metric():
    """Each metric of each plugin."""
    for position, names in registry.BUILT_IN.items():
        for name in names:
            yield from metrics((*NUMBERS, *registry.lookup(name, position).all_counts()))


class NamesTests(SynchronousTestCase):
    """Prometheus's rules for names."""

    def test_rules(self):
        """Only what grows has `_total`; octets are bytes; no name means two kinds of metric."""
        kinds = {}
        for metric in every_metric():
            self.assertRegex(metric.name, r"^ulogd_[a-z0-9_]+$")
            self.assertEqual(metric.kind == "counter", metric.name.endswith("_total"), metric)
            self.assertEqual((metric.kind, metric.labels), kinds.setdefault(metric.name, (metric.kind, metric.labels)))
            self.assertTrue(metric.text, metric)
            unit = re.search(r"octets|seconds|bytes", metric.name.removesuffix("_total"))
            if unit and "without_octets" not in metric.name:
                self.assertTrue(metric.name.removesuffix("_total").endswith(("bytes", "seconds")), metric)

    def test_examples(self):
        """Names as users know them."""
        names = {metric.name for metric in every_metric()}
        self.assertLessEqual(
            {"ulogd_rows_received_total", "ulogd_received_bytes_total", "ulogd_rows_waiting", "ulogd_dropped_total",
             "ulogd_lost_total", "ulogd_missing", "ulogd_errors_total", "ulogd_netlink_queue_bytes",
             "ulogd_netlink_overruns_total", "ulogd_collector_sent_bytes_total", "ulogd_collector_in_spool_bytes",
             "ulogd_collector_state", "ulogd_flows_dump_seconds", "ulogd_memory_bytes"},
            names,
        )  # fmt: skip


class SamplesTests(SynchronousTestCase):
    """The numbers of one instance."""

    def found(self, counters):
        return {(metric.name, labels): value for metric, labels, value in samples(counters)}

    def test_numbers(self):
        counters = Counters("X", declared=())
        counters.rows_received, counters.octets_received = 5, 700
        found = self.found(counters)
        self.assertEqual(5, found["ulogd_rows_received_total", ()])
        self.assertEqual(700, found["ulogd_received_bytes_total", ()])
        self.assertEqual(len(NUMBERS), len(found))

    def test_reasons(self):
        """A declared reason is there with 0, so that its first occasion is an increase; exceptions are reasons too."""
        declared = Dropped("full", "rows", "."), Lost("late", "rows", "."), Missing("sequence", "rows", ".")
        counters = Counters("X", declared=(*declared, Fault("odd", "occasions", ".")))
        counters.dropped["full"] += 3
        counters.lost["sequence"] += 2
        counters.fault(ValueError())
        found = {key: value for key, value in self.found(counters).items() if key[1]}
        self.assertEqual({("ulogd_dropped_total", ("full",)): 3, ("ulogd_lost_total", ("late",)): 0,
                          ("ulogd_missing", ("sequence",)): 2, ("ulogd_errors_total", ("odd",)): 0,
                          ("ulogd_errors_total", ("ValueError",)): 1}, found)  # fmt: skip

    def test_groups(self):
        """Parts of a group, and of each collector; a text is left out unless it is a state."""
        counters = Counters("X", declared=(*EXPORTER, Group("netlink", ".", (Gauge("queue_octets", "octets", "."),
                                           Count("overruns", "occasions", "."), Text("said", "", ".")))))  # fmt: skip
        counters.figures["netlink"] = {"queue_octets": 8, "overruns": 1, "said": "x"}
        counters.figures["collectors"] = lambda: {
            "udp:192.0.2.1:4739": {"state": "open", "octets_sent": 9, "last_error": "x", "dropped": {"queue_full": 2}}
        }
        found = self.found(counters)
        url = "udp:192.0.2.1:4739"
        self.assertEqual((8, 1), (found["ulogd_netlink_queue_bytes", ()], found["ulogd_netlink_overruns_total", ()]))
        self.assertEqual(1, found["ulogd_collector_state", (url, "open")])
        self.assertEqual(9, found["ulogd_collector_sent_bytes_total", (url,)])
        self.assertEqual(2, found["ulogd_collector_dropped_total", (url, "queue_full")])
        self.assertEqual(0, found["ulogd_collector_dropped_total", (url, "lifetime")])
        self.assertEqual([], [name for name, _ in found if "said" in name or "last_error" in name])
