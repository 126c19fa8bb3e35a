"""The running service asked by `ulogd-tw query` and `ulogd-tw top`, while flows come."""

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.live.service import Service, generate
from tests.support import free_port, wait_until

CONFIG = """
[col1]
listen="udp:127.0.0.1:{port}"
[agg1]
key="5tuple"
interval=3600
[json1]
file="{dir}/flows.json"
"""


def command(*words):
    """What the command prints, and its status."""
    program = Path(sys.executable).with_name("ulogd-tw")
    done = subprocess.run([program, *words], capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout, done.stderr


class QueryTests(SynchronousTestCase):
    """Both commands."""

    def test_query(self):
        """SQL gives the sums of what came; as a table, CSV and JSON; the busiest come first in top."""
        port = free_port("udp")
        config = CONFIG.replace("{port}", str(port))
        with Service(["col1:COLLECTOR,agg1:AGGREGATE,json1:JSON"], config, settings='query_socket="{dir}/ask"') as run:
            generate(f"127.0.0.1:{port}", "-n", 20_000)
            run.wait_for("agg1", "rows_merged", 20_000)
            file = ("-c", run.config)
            text = "select sum(flows) flows, sum(octets) octets, count(*) n from agg1"
            status, found, said = command("query", *file, "-f", "json", text)
            self.assertEqual(0, status, said)
            sums = json.loads(found)
            self.assertEqual(20_000, sums["flows"])
            status, found, _ = command("query", *file, "-f", "csv", "select * from agg1 order by octets desc limit 5")
            rows = list(csv.DictReader(io.StringIO(found)))
            self.assertEqual(5, len(rows))
            self.assertRegex(rows[0]["sourceAddress"], r"^\d+\.\d+\.\d+\.\d+$")
            status, found, said = command("top", "-s", run.directory / "ask", "--once", "-n", "3")
            self.assertEqual((0, 6), (status, len(found.splitlines())), said)
            self.assertIn(rows[0]["sourceAddress"], found.splitlines()[3])
            status, _, said = command("query", *file, "select * from agg2")
            self.assertEqual((2, True), (status, "there are agg1" in said), said)
            status, found, _ = command("query", *file, "-f", "json", "select * from agg1 where octets < 0")
            self.assertEqual((1, ""), (status, found))
        status, _, said = command("query", *file, "select 1 from agg1")
        self.assertEqual(2, status)
        self.assertIn("does the service run", said)
        wait_until(lambda: (run.directory / "flows.json").exists())
        rows = [json.loads(line) for line in (run.directory / "flows.json").read_text().splitlines()]
        self.assertEqual((sums["n"], sums["octets"]), (len(rows), sum(row["octets"] for row in rows)))
