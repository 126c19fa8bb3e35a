"""Captures and IPFIX files as batch jobs: `twistd ulogd` reads them, writes everything, and ends."""

import csv
import json
import sqlite3
import subprocess
import sys
from collections import Counter
from pathlib import Path

from twisted.trial.unittest import TestCase

from tests.live.service import temporary
from tests.support import TOP, require_program, shared_path

CONFIG = """
[global]
logfile="stdout"
stats_file="{dir}/stats.json"
{stacks}
[json1]
file="{dir}/flows.json"
[db1]
db="{dir}/sums.sqlite3"
table="sums"
create=1
[agg1]
key="exporter,templateId,observationDomainId"
interval=3600
{inputs}
"""


class ReplayTests(TestCase):
    """The captures of the corpus as their projects have them."""

    timeout = 120

    def job(self, stacks, inputs):
        """Run a configuration until it ends by itself; its directory and what it said."""
        directory = temporary("replay")
        config = directory / "replay.conf"
        lines = "\n".join(f"stack={stack}" for stack in stacks)
        config.write_text(CONFIG.format(dir=directory, stacks=lines, inputs=inputs))
        twistd = Path(sys.executable).with_name("twistd")
        words = [twistd, "-n", "--pidfile=", "ulogd", "--config", config]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, cwd=TOP)
        self.assertEqual(0, done.returncode, done.stdout[-3000:] + done.stderr)
        return directory, done.stdout

    def captures(self):
        """(case, file, reference) of cases that are one capture."""
        with shared_path("corpus", "ipfix", "manifest.csv").open() as file:
            lines = list(csv.DictReader(file))
        for line in lines:
            files = line["files"].split()
            if len(files) == 1 and files[0].endswith((".pcap", ".pcapng")) and line["protocol"] != "sflow5":
                oracle = json.loads(shared_path("corpus", "ipfix", "oracle", f"{line['case']}.json").read_text())
                yield line["case"], shared_path("corpus", "ipfix", *files[0].split("/")), oracle

    def ports(self, tshark, path):
        """The ports that UDP is sent to, by tshark."""
        words = [tshark, "-r", path, "-Y", "udp", "-T", "fields", "-e", "udp.dstport", "-E", "occurrence=f"]
        return sorted(set(subprocess.run(words, capture_output=True, text=True, timeout=60).stdout.split()))

    def test_captures(self):
        """All in one job, an input each: every record of the reference decode, by template."""
        (tshark,) = require_program("tshark")
        stacks, inputs, cases, outputs = [], [], list(self.captures()), temporary("captures")
        self.assertGreater(len(cases), 10)
        for number, (_, path, _) in enumerate(cases):
            ports = " ".join(self.ports(tshark, path))
            inputs.append(f'[in{number}]\nfile="{path}"\nports="{ports}"\nexit=1\npark=0\nsession_key=strict\n')
            stacks += [f"in{number}:PCAPIN,out{number}:JSON"]
            inputs.append(f'[out{number}]\nfile="{outputs}/{number}.json"\n')
        _, said = self.job(stacks, "".join(inputs))
        self.assertNotIn("Traceback", said)
        for number, (case, _, oracle) in enumerate(cases):
            path = outputs / f"{number}.json"
            rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
            got = Counter()
            for row in rows:  # the reference has domain 0 for every engine of v5
                got[0 if row["templateId"] == 5 else row["observationDomainId"], row["templateId"]] += 1
            expected = Counter((r["domain"], r["tid"]) for r in oracle["records"])
            self.assertEqual(expected, got, case)

    def test_ipfix_file(self):
        """A file of IPFIX into an AGGREGATE and a database: what is in it is all there when the job has ended."""
        with shared_path("corpus", "ipfix", "manifest.csv").open() as file:
            line = next(
                line for line in csv.DictReader(file)
                if line["transport"] == "file" and line["files"].endswith(".ipfix") and int(line["records"]) > 50
            )  # fmt: skip
        path = shared_path("corpus", "ipfix", *line["files"].split("/"))
        directory, said = self.job(
            ["f1:IPFIXFILE,agg1:AGGREGATE,db1:SQLITE3", "f1:IPFIXFILE,json1:JSON"],
            f'[f1]\nfile="{path}"\nexit=1\n',
        )
        self.assertIn(f"{line['records']} records", said)
        self.assertEqual(int(line["records"]), len((directory / "flows.json").read_text().splitlines()))
        oracle = json.loads(shared_path("corpus", "ipfix", "oracle", f"{line['case']}.json").read_text())
        flows = sum(record["kind"] == "data" for record in oracle["records"])
        with sqlite3.connect(directory / "sums.sqlite3") as database:
            self.assertEqual((flows,), database.execute("select sum(flows) from sums").fetchone())
