"""Sliding windows, ages and changes of AGGREGATE in a real service, beside the intervals of the same rows."""

import json
from collections import Counter, defaultdict
from itertools import groupby
from operator import itemgetter

from twisted.trial.unittest import SynchronousTestCase

from tests.live.service import Service, generate, temporary, unaccounted
from tests.support import free_port, wait_until

N = 30_000
CONFIG = """
[col1]
listen="udp:127.0.0.1:{port}"
[each]
key="5tuple"
interval=1
[window]
key="5tuple"
interval=1
window=3
[top]
key="5tuple"
interval=1
window=3
top=10
[age]
key="5tuple"
age=2
[change]
key="protocolIdentifier,destinationTransportPort"
change="destinationTransportPort"
interval=3600
"""
NAMES = ("each", "window", "top", "age", "change")


class WindowTests(SynchronousTestCase):
    """Three seconds of flows."""

    def test_beside_intervals(self):
        """Each window is three intervals, its top their largest; by age and by change all is told once."""
        self.folder, port = temporary("windows"), free_port("udp")
        config = CONFIG.format(port=port) + "".join(f'[j{n}]\nfile="{{dir}}/{n}.json"\n' for n in NAMES)
        config += '[raw]\nfile="{dir}/raw.json"\n'
        stacks = ["col1:COLLECTOR,raw:JSON"] + [f"col1:COLLECTOR,{n}:AGGREGATE,j{n}:JSON" for n in NAMES]
        with Service(stacks, config, directory=self.folder) as service:
            sent = generate(f"127.0.0.1:{port}", "-n", N, "-r", 10_000, "-F", 500)
            service.wait_for("col1", "rows_received", N)
            wait_until(lambda: self.flows("each") == N and self.flows("age") == N, 20, "the last rows")
            wait_until(lambda: service.counters("window")["keys"] == 0, 20, "the last window")
        self.assertEqual({}, unaccounted(service.all_counters()))
        intervals = self.by_start("each")
        self.assertGreater(len(intervals), 2)
        expected = defaultdict(Counter)
        for start, groups in intervals.items():
            for window in (start - 2, start - 1, start):
                expected[window].update(groups)
        self.assertEqual(expected, self.by_start("window"))
        for start, groups in self.by_start("top").items():
            rest = groups.pop(None)
            largest = sorted(expected[start].values(), reverse=True)[:10]
            self.assertEqual(largest, sorted(groups.values(), reverse=True))
            self.assertEqual(expected[start].total() - sum(largest), rest)
        for name in ("age", "change"):
            found = self.rows(name)
            self.assertEqual((N, sent["octets"]), (sum(r["flows"] for r in found), sum(r["octets"] for r in found)))
        runs = defaultdict(list)
        for row in self.rows("raw"):
            runs[row["protocolIdentifier"]].append((row["destinationTransportPort"], row["octetDeltaCount"]))
        expected = Counter()
        for protocol, rows in runs.items():
            for where, run in groupby(rows, key=itemgetter(0)):
                expected[protocol, where, sum(octets for _, octets in run)] += 1
        names = ("protocolIdentifier", "destinationTransportPort", "octets")
        self.assertEqual(expected, Counter(tuple(row[name] for name in names) for row in self.rows("change")))

    def rows(self, name):
        """The rows of an output."""
        path = self.folder / f"{name}.json"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def flows(self, name):
        return sum(row["flows"] for row in self.rows(name))

    def by_start(self, name):
        """{start of the interval: octets of each group}; None is the rest of top."""
        found = defaultdict(Counter)
        for row in self.rows(name):
            key = tuple(row[k] for k in sorted(row) if "Address" in k or "Port" in k or k == "protocolIdentifier")
            found[row["interval_start"]][key or None] += row["octets"]
        return found
