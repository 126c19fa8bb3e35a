"""The text for Prometheus, read back by prometheus_client's own parser."""

import re
import time
from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from twisted.internet import defer
from twisted.trial.unittest import TestCase

from tests.unit.operating.api.client import asked, door_of, view_of
from tests.unit.plugins.filters.test_aggregate import AggregateCase, batch_of
from ulogd_tw import __version__
from ulogd_tw.flow import queues
from ulogd_tw.operating import prometheus


class TextTests(AggregateCase, TestCase):
    """The counters of stacks as a scrape."""

    timeout = 120

    def setUp(self):
        super().setUp()
        self.make(key="protocolIdentifier")
        self.give(batch_of([{"protocolIdentifier": n % 3, "octetDeltaCount": n} for n in range(9)]))

    def read(self, text):
        """Each sample: its value by name and labels."""
        found = {}
        for family in text_string_to_metric_families(text.decode()):
            for sample in family.samples:
                self.assertNotIn((sample.name, tuple(sorted(sample.labels.items()))), found)
                found[sample.name, tuple(sorted(sample.labels.items()))] = sample.value
        return found

    @defer.inlineCallbacks
    def test_scrape(self):
        """Numbers of each instance, with instance and plugin as labels; version and start of the service."""
        status, headers, text = yield asked(door_of(self.graph), "GET", "/metrics")
        self.assertEqual((200, True), (status, headers["content-type"].startswith("text/plain; version=0.0.4")))
        found = self.read(text)
        own = (("instance", "agg"), ("plugin", "AGGREGATE"))
        self.assertEqual(9, found["ulogd_rows_merged_total", own])
        self.assertEqual(3, found["ulogd_keys", own])
        self.assertEqual(0, found["ulogd_dropped_total", (*own, ("reason", "max_keys"))])
        ((_, labels),) = [key for key in found if key[0] == "ulogd_build_info"]
        self.assertEqual(__version__, dict(labels)["version"])

    def test_documented(self):
        """Every metric of a scrape stands in the reference, with its kind and labels."""
        page = (Path(__file__).parents[3] / "docs" / "reference.md").read_text("utf-8")
        rows = dict(re.findall(r"^\| `(ulogd_\w+)` \| (\w+ \| [^|]*) \|", page, re.M))
        for family in prometheus.ServiceCollector(view_of(self.graph)).collect():
            name = family.name + ("_total" if family.type == "counter" else "")
            if not name.startswith("process_"):
                self.assertTrue(rows[name].startswith(family.type), name)
                for sample in family.samples:
                    labels = [f"`{label}`" for label in sample.labels if label != "le"]
                    self.assertEqual(", ".join(labels), rows[name].partition(" | ")[2], name)

    def test_states(self):
        """The state of each stack; of lines that are there twice the worse one, since a series is there once."""
        text = self.graph.stacks[0].spec.text
        gone = [{"text": name, "where": "f:9", "reason": "x"} for name in (text, "a:B,c:D")]
        found = self.read(b"".join(prometheus.text(view_of(self.graph, left_out=gone))))
        states = {dict(labels)["stack"]: dict(labels)["state"] for (name, labels), value in found.items()
                  if name == "ulogd_stack_state" and value}  # fmt: skip
        self.assertEqual({text: "down", "a:B,c:D": "down"}, states)

    def test_queues(self):
        """Queues with their bounds, and how long rows waited."""
        (queue,) = queues(self.graph)
        queue.waits.come(5, time.monotonic() - 0.3)
        queue.waits.go(5, time.monotonic())
        found = self.read(b"".join(prometheus.text(view_of(self.graph, queues=[queue]))))
        own = (("instance", queue.node.ident), ("plugin", queue.output.name))
        self.assertEqual(queue.most_rows, found["ulogd_queue_rows_limit", own])
        buckets = {dict(labels)["le"]: value for (name, labels), value in found.items()
                   if name == "ulogd_batch_latency_seconds_bucket"}  # fmt: skip
        self.assertEqual((0, 1, 1), (buckets["0.25"], buckets["0.5"], buckets["+Inf"]))

    def test_slices(self):
        """Cut into slices the text is the same, each family with one head."""
        view = view_of(self.graph)
        view.since = 0
        whole = b"".join(prometheus.text(view))
        self.patch(prometheus, "SAMPLES_AT_ONCE", 2)
        cut = b"".join(prometheus.text(view))
        lines = [[line for line in text.splitlines() if b"process_" not in line] for text in (whole, cut)]
        self.assertEqual(*lines)
        heads = [line for line in cut.splitlines() if line.startswith(b"# TYPE")]
        self.assertEqual(len(heads), len(set(heads)))

    def test_registry(self):
        """The collector serves in a registry of prometheus_client."""
        made = CollectorRegistry()
        made.register(prometheus.ServiceCollector(view_of(self.graph)))
        self.assertEqual(
            9, made.get_sample_value("ulogd_rows_merged_total", {"instance": "agg", "plugin": "AGGREGATE"})
        )
