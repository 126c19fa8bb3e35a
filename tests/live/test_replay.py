"""Captures and IPFIX files as batch jobs: `twistd ulogd` reads them, writes everything, and ends."""

import csv
import json
import socket
import sqlite3
import subprocess
import sys
from collections import Counter
from pathlib import Path

from twisted.trial.unittest import TestCase

from tests.live.service import temporary, unaccounted
from tests.live.test_softflowd import TwoCollectors, export
from tests.support import TOP, Daemon, require_program, shared_path, wait_until

CONFIG = """
[global]
logfile="stdout"
stats_file="{dir}/stats.json"
stop_timeout=1
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


TWISTD = (Path(sys.executable).with_name("twistd"),)


class Job(TestCase):
    """A configuration that ends by itself."""

    timeout = 120

    def job(self, stacks, inputs, program=TWISTD):
        """Run it to its end; its directory and what it said. Its rows must add up."""
        directory = temporary("replay")
        config = directory / "replay.conf"
        lines = "\n".join(f"stack={stack}" for stack in stacks)
        config.write_text(CONFIG.format(dir=directory, stacks=lines, inputs=inputs))
        words = [*program, "-n", "--pidfile=", "ulogd", "--config", config]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, cwd=TOP)
        self.assertEqual(0, done.returncode, done.stdout[-3000:] + done.stderr)
        self.assertEqual({}, unaccounted(json.loads((directory / "stats.json").read_text())["instances"]))
        return directory, done.stdout


class ReplayTests(Job):
    """The captures of the corpus as their projects have them."""

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

    def test_slow_output(self):
        """An output that is slower than stop_timeout is waited for: every record is written."""
        files = [path for _, path, _ in self.captures()]
        directory, said = self.job(
            ["cap1:PCAPIN,json1:JSON"],
            '[cap1]\nfile="' + " ".join(map(str, files)) + '"\nexit=1\n',
            (sys.executable, "-c", SLOW),
        )
        counters = json.loads((directory / "stats.json").read_text())["instances"]
        self.assertGreater(counters["cap1"]["rows_received"], 10)
        self.assertEqual({}, counters["json1"]["dropped"], said[-2000:])
        self.assertEqual(counters["cap1"]["rows_received"], len((directory / "flows.json").read_text().splitlines()))


SLOW = """
from twisted.internet import reactor, task
from twisted.scripts.twistd import run
from ulogd_tw.plugins.outputs.json import JSON
write = JSON.write
JSON.write = lambda self, batch: task.deferLater(reactor, 1.2, write, self, batch)
run()
"""
"""twistd, where each write of JSON takes longer than stop_timeout."""


class CapturedTests(TwoCollectors, Job):
    """What nfcapd is sent, captured by tcpdump on their way and replayed."""

    def export(self, path, port, version):
        """softflowd exports, and tcpdump writes what it sends; a last datagram elsewhere shows that all is written."""
        captured, end = path.with_name(f"exports{version}.pcap"), b"the end of the capture"
        words = ["tcpdump", "-i", "lo", "-U", "--immediate-mode", "-Z", "root", "-w", captured]
        words += ["udp", "and", "(", "port", str(port), "or", "port", "9", ")"]
        with (
            Daemon(words, lambda d: "listening on" in d.output()),
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last,
        ):
            export(path, port, version)
            last.sendto(end, ("127.0.0.1", 9))
            wait_until(lambda: end in captured.read_bytes(), what="the capture")
        self.port = port

    def collector(self, folder, version, datagrams):
        """The totals of the capture, of the same as pcapng, and with nanoseconds: all the same."""
        (editcap,) = require_program("editcap")
        captured, found = folder / f"exports{version}.pcap", []
        for form in ("pcap", "pcapng", "nsecpcap"):
            path = captured.with_suffix(f".{form}2")
            subprocess.run([editcap, "-F", form, captured, path], check=True, timeout=30)
            directory, _ = self.job(
                ["cap1:PCAPIN,json1:JSON", "cap1:PCAPIN,agg1:AGGREGATE,db1:SQLITE3"],
                f'[cap1]\nfile="{path}"\nports="{self.port}"\nexit=1\n',
            )
            rows = [json.loads(line) for line in (directory / "flows.json").read_text().splitlines()]
            found.append([row for row in rows if row["record_kind"] == "data"])
            with sqlite3.connect(directory / "sums.sqlite3") as database:
                sums = database.execute("select sum(flows), sum(packets), sum(octets) from sums").fetchone()
            packets, octets = ("dPkts", "dOctets") if version == 5 else ("packetDeltaCount", "octetDeltaCount")
            totals = tuple(sum(row[name] for row in found[-1]) for name in (packets, octets))
            self.assertEqual((len(found[-1]), *totals), sums)
        self.assertEqual(found[0], found[1])
        self.assertEqual(found[0], found[2])
        totals = {}
        for row in found[0]:
            figures = totals.setdefault(row["prot" if version == 5 else "protocolIdentifier"], [0, 0, 0])
            for place, value in enumerate((1, row[packets], row[octets])):
                figures[place] += value
        return totals

    def test_totals_equal_those_of_nfcapd(self):
        """IPFIX, v9 and v5."""
        self.compare("softflowd")
