"""A real Prometheus scrapes the running service: every expression of rules and dashboards runs, and alerts come."""

import json
import re
import shutil
import socket
import subprocess
import urllib.parse
import urllib.request

from twisted.trial.unittest import SynchronousTestCase

from tests.live.service import Service, generate, temporary
from tests.support import TOP, Daemon, free_port, require_program, wait_until
from tests.unit.operating.test_prometheus_kit import dashboards, metrics_of, rules

STACKS = [
    "col1:COLLECTOR,agg1:AGGREGATE,json1:JSON",
    "demo1:DEMO,exp1:IPFIX",
    "raw1:PACKET,base1:BASE,flow1:FLOWCACHE,json1:JSON",
]
CONFIG = """
[col1]
listen="udp:127.0.0.1:PORT"
park=1
[agg1]
key="5tuple"
interval=3600
[json1]
file="{dir}/flows.json"
[exp1]
collectors="udp:127.0.0.1:PORT"
[raw1]
interface="lo"
[http]
listen="tcp:127.0.0.1:HTTP"
"""


class PrometheusTests(SynchronousTestCase):
    """With the files of etc/prometheus and etc/grafana."""

    def setUp(self):
        self.programs = require_program("prometheus", "promtool")
        self.udp, self.http, self.web = free_port("udp"), free_port("tcp"), free_port("tcp")
        config = CONFIG.replace("PORT", str(self.udp)).replace("HTTP", str(self.http))
        self.service = Service(STACKS, config)
        self.service.start()
        self.addCleanup(self.service.stop)

    def prometheus(self):
        """Started with the shipped files, but with seconds in place of minutes."""
        folder = temporary("prometheus")
        for path in (TOP / "etc" / "prometheus").glob("*.yml"):
            shutil.copy(path, folder)
        config = folder / "prometheus.yml"
        text = config.read_text().replace("127.0.0.1:4780", f"127.0.0.1:{self.http}").replace("15s", "1s")
        config.write_text(text)
        file = folder / "ulogd-tw.rules.yml"
        file.write_text(re.sub(r"for: \d+m", "for: 1s", file.read_text()))
        promtool = self.programs[1]
        checked = subprocess.run([promtool, "check", "config", config], capture_output=True, text=True, timeout=30)
        self.assertEqual(0, checked.returncode, checked.stdout + checked.stderr)
        argv = [self.programs[0], f"--config.file={config}", f"--storage.tsdb.path={folder}/tsdb",
                f"--web.listen-address=127.0.0.1:{self.web}"]  # fmt: skip
        server = Daemon(argv, lambda d: "ready to receive web requests" in d.output(), within=30.0, cwd=folder)
        server.start()
        self.addCleanup(server.stop)

    def ask(self, path, **words):
        """The answer of Prometheus."""
        query = urllib.parse.urlencode(words)
        with urllib.request.urlopen(f"http://127.0.0.1:{self.web}/api/v1/{path}?{query}", timeout=20) as answer:
            return json.load(answer)["data"]

    def result(self, expression):
        """The series of an expression, with the variables of Grafana replaced."""
        for name, value in (("$job", "ulogd-tw"), ("$instance", ".*"), ("$__rate_interval", "5s")):
            expression = expression.replace(name, value)
        return self.ask("query", query=expression)["result"]

    def alerts(self):
        return {alert["labels"]["alertname"] for alert in self.ask("alerts")["alerts"] if alert["state"] == "firing"}

    def test_expressions(self):
        """Each runs; each of a dashboard has a result where the service has such metrics."""
        self.prometheus()
        generate(f"127.0.0.1:{self.udp}", "-n", 3000)
        wait_until(lambda: len(self.result("rate(ulogd_rows_received_total[5s])")) > 5, 40, "two scrapes")
        for name, expression in rules().items():
            self.result(expression)
            self.assertTrue(name)
        empty = [(title, e) for title, e in dashboards() if not e.endswith("> 0") and not self.result(e)]
        there = {series["__name__"] for series in self.ask("series", **{"match[]": '{job="ulogd-tw"}'})}
        unexplained = [
            (title, e) for title, e in empty if any(name in there for name, _ in metrics_of(e)) and "== 1" not in e
        ]
        self.assertEqual([], unexplained)
        self.assertLess(len(empty), 6, empty)  # what needs conntrack or netlink
        self.assertEqual({"ulogd-tw"}, {series["metric"]["job"] for series in self.result("up == 1")})

    def test_alerts(self):
        """A Set without its template, and a service that has gone."""
        self.prometheus()
        wait_until(lambda: self.result("up == 1"), 40, "a scrape")
        self.assertEqual(set(), self.alerts())
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sets = (257).to_bytes(2, "big") + (8).to_bytes(2, "big") + bytes(4)
            head = (10).to_bytes(2, "big") + (16 + len(sets)).to_bytes(2, "big")
            sender.sendto(head + bytes(8) + (7).to_bytes(4, "big") + sets, ("127.0.0.1", self.udp))
        wait_until(lambda: "UlogdTemplateMissing" in self.alerts(), 60, "an alert of a template")
        self.service.stop()
        wait_until(lambda: "UlogdDown" in self.alerts(), 30, "an alert of the service")
