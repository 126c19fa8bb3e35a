"""Alert rules and dashboards: each metric in them is declared with the labels that they use, and each is documented."""

import json
import re
import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

from tests.support import TOP
from tests.unit.operating.test_metric_names import every_metric
from ulogd_tw.operating.metric_names import SERVICE

RULES = TOP / "etc" / "prometheus" / "ulogd-tw.rules.yml"
UNIT_TESTS = TOP / "etc" / "prometheus" / "ulogd-tw.test.yml"
DASHBOARDS = sorted((TOP / "etc" / "grafana").glob("*.json"))
TARGET = {"job", "instance"}
"""Labels that Prometheus adds; ours of the same name is exported_instance."""
PROCESS = {"process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds", "process_max_fds"}


def declared():
    """Name -> labels in a scrape, of every metric."""
    found = {metric.name: {"exported_instance", "plugin"} | set(metric.labels) for metric in every_metric()}
    for metric in SERVICE:
        labels = {"exported_instance" if label == "instance" else label for label in metric.labels}
        found[metric.name] = labels
        if metric.kind == "histogram":
            found |= {
                f"{metric.name}_count": labels,
                f"{metric.name}_sum": labels,
                f"{metric.name}_bucket": labels | {"le"},
            }
    found |= dict.fromkeys({"up", *PROCESS}, set())
    return {name: TARGET | labels for name, labels in found.items()}


def rules():
    """Name -> expression of each alert."""
    found = {}
    for rule in RULES.read_text().split("- alert: ")[1:]:
        expression = re.search(r"expr: (?:>-\n)?(.*?)\n +(?:for|labels):", rule, re.DOTALL)
        found[rule.split()[0]] = " ".join(expression[1].split())
    return found


def dashboards():
    """(title of the panel, expression) of each."""
    for path in DASHBOARDS:
        for panel in json.loads(path.read_text())["panels"]:
            yield from ((panel["title"], target["expr"]) for target in panel["targets"])


def metrics_of(expression):
    """(name, labels in its braces) of each metric."""
    for name, braces in re.findall(r"\b((?:ulogd|process)_\w+|up)\b(?:{([^}]*)})?", expression):
        yield name, set(re.findall(r"(\w+)\s*[=!]", braces))


class KitTests(SynchronousTestCase):
    """The files in etc/prometheus and etc/grafana."""

    def test_metrics(self):
        """Every metric in a rule or on a dashboard exists, with these labels."""
        known = declared()
        for what, expression in (*rules().items(), *dashboards()):
            found = list(metrics_of(expression))
            self.assertTrue(found, what)
            for name, labels in found:
                self.assertIn(name, known, what)
                self.assertLessEqual(labels, known[name], f"{what}: {name}")

    def test_groups(self):
        """Sums are by labels that a metric in them has."""
        known = declared()
        for what, expression in (*rules().items(), *dashboards()):
            here = set().union(*(known[name] for name, _ in metrics_of(expression)))
            for by in re.findall(r"\bby \(([^)]*)\)", expression):
                self.assertLessEqual(set(re.findall(r"\w+", by)), here, what)

    def test_every_rule_has_a_test(self):
        """Each alert is named in the unit tests for promtool, once as an alert that comes."""
        text = UNIT_TESTS.read_text()
        for name in rules():
            self.assertRegex(text, rf"alertname: {name}\n +exp_alerts:\n")

    def test_what_is_watched(self):
        """What an administrator has to hear of."""
        self.assertLessEqual(
            {"UlogdDown", "UlogdRowsDropped", "UlogdLost", "UlogdQueueFilling", "UlogdExporterSilent",
             "UlogdExporterClock", "UlogdTemplateMissing", "UlogdStackDown", "UlogdStalled"},
            set(rules()),
        )  # fmt: skip

    def test_dashboards_are_made(self):
        """The files are what the program makes."""
        sys.path.insert(0, str(TOP / "docs"))
        self.addCleanup(sys.path.remove, str(TOP / "docs"))
        import make_dashboards

        self.assertEqual({path.name: path.read_text() for path in DASHBOARDS}, make_dashboards.written())
        for path in DASHBOARDS:
            found = json.loads(path.read_text())
            self.assertEqual(len(found["panels"]), len({panel["title"] for panel in found["panels"]}))
            for panel in found["panels"]:
                for target in panel["targets"]:
                    self.assertIn('job="$job", instance=~"$instance"', target["expr"])
                    self.assertEqual([], re.findall(r"{(?!{)[^}]*[^}]}(?!})", target["legendFormat"]))

    def test_documented(self):
        """Every declared counter is in the reference."""
        text = (TOP / "docs" / "reference.md").read_text()
        names = {metric.name for metric in (*SERVICE, *every_metric())}
        self.assertEqual([], [name for name in sorted(names) if f"| `{name}` |" not in text])

    def test_promtool(self):
        """promtool reads them, and the rules pass their unit tests; where it is installed."""
        for words in (("check", "rules", RULES), ("test", "rules", UNIT_TESTS)):
            try:
                done = subprocess.run(["promtool", *words], capture_output=True, text=True, timeout=60)
            except FileNotFoundError:
                return
            self.assertEqual(0, done.returncode, done.stdout + done.stderr)
