"""Questions about flows to a running service: rows in files, rows that wait and open intervals, each counted once."""

import json
import time

import duckdb
from twisted.trial.unittest import SynchronousTestCase

from tests.live.service import Service
from ulogd_tw.operating.commands.service import Service as Asked

STACKS = [
    "demo1:DEMO,flows1:PARQUET",
    "demo1:DEMO,agg2s:AGGREGATE,flows2s:PARQUET",
    "demo1:DEMO,agg2s:AGGREGATE,alone1:PARQUET",
]
CONFIG = """
[demo1]
rate=500
seconds=9

[flows1]
directory="{dir}/flows"
flush=1

[agg2s]
key="sourceAddress"
interval=2
time=flow
lateness=2

[flows2s]
directory="{dir}/2s"
flush=1

[alone1]
directory="{dir}/alone"
flush=3

[store:flows]
outputs="flows1,flows2s"
question_log="{dir}/questions"
"""


class RunningTests(SynchronousTestCase):
    """A service with a store of flows, its roll-up, and a roll-up by itself."""

    def ask(self, store, **question):
        """The rows of an answer, and its end."""
        body = {"store": store, "format": "events"} | question
        events = [json.loads(line) for line in self.asked.posted_lines("stores/flows", body)]
        return [row for event in events for row in event.get("rows", ())], events[-1]["end"]

    def total(self, store):
        """(flows, octets) of a store."""
        rows, end = self.ask(store, sums=["flows", "octets"], total=True)
        self.assertEqual([], end["notes"])
        return tuple(rows[0])

    def emitted(self):
        """Rows of DEMO so far; the answer may be a second old."""
        return self.asked.get("counters", instance="demo1")["instances"]["demo1"]["rows_emitted"]

    def test_each_row_once(self):
        """At any moment the answer has as many flows as there were, in files or not; at the end those in files."""
        with Service(STACKS, CONFIG, settings='control_socket="{dir}/control"') as service:
            self.asked = Asked(f"{service.directory}/control")
            service.wait_for("demo1", "rows_emitted", 500)
            for _ in range(4):
                before = self.emitted()
                found = [(store, self.total(store)[0]) for store in ("flows", "alone1")]
                time.sleep(1.1)
                after = self.emitted()
                for store, flows in found:
                    self.assertTrue(before <= flows <= after, (store, before, flows, after))
            service.wait_for("demo1", "rows_emitted", 4500)
            ended = [self.total("flows"), self.total("alone1")]
            groups = [self.ask(store, by=["sourceAddress"])[0] for store in ("flows", "alone1")]
        with duckdb.connect() as database:
            (stored,) = database.sql(
                f"SELECT count(*), sum(octets) FROM read_parquet('{service.directory}/flows/*/*/*.parquet')"
            ).fetchall()
        self.assertEqual([stored, stored], ended)
        self.assertEqual(groups[0], groups[1])
        asked = (service.directory / "questions").read_text().splitlines()
        self.assertEqual((6, "flows"), (len(asked), json.loads(asked[0])["question"]["store"]))
