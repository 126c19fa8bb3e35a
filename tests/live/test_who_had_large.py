"""who-had over five million rows of thirty days: each answer beside a scan of all rows."""

import tempfile
from itertools import islice
from pathlib import Path

import duckdb
import numpy as np
from twisted.trial.unittest import TestCase

from benchmarks import who_had
from ulogd_tw.flows.nat_answers import ask
from ulogd_tw.flows.nat_store import NatStore

ROWS, HOURS, QUESTIONS = 5_000_000, 30 * 24, 400
WITHIN = 5000
"""Milliseconds before and after the time asked for, by default."""


class LargeTests(TestCase):
    """Files of single hours, sorted as merges leave them."""

    timeout = 600

    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="utw-who-had-")
        self.addCleanup(folder.cleanup)
        self.directory = Path(folder.name) / "nat"
        self.directory.mkdir()
        who_had.make(self.directory, ROWS, HOURS, "flows")

    def columns(self):
        """Outside address and port, begin and end, inside address and port of all rows, as arrays."""
        addresses = "postNATSourceAddress", "sourceAddress"
        others = "postNAPTSourceTransportPort, flowStartMilliseconds, flowEndMilliseconds, sourceTransportPort"
        low = ", ".join(f"('0x' || right({name}::VARCHAR, 8))::UBIGINT AS {name}" for name in addresses)
        text = f"SELECT {low}, {others} FROM read_parquet('{self.directory}/*/*/*.parquet')"
        return duckdb.connect().execute(text).fetchnumpy()

    def test_beside_a_scan(self):
        """Whoever had an address and port near a time, and nobody else; half of the questions are for random ports."""
        found = self.columns()
        self.assertEqual(ROWS // HOURS * HOURS, len(found["sourceAddress"]))
        connection = duckdb.connect()
        store = NatStore(lambda text: connection.execute(text).fetchall())
        holders = 0
        for question, there in islice(who_had.questions(self.directory, HOURS, QUESTIONS, "flows"), QUESTIONS):
            rows = (
                (found["postNATSourceAddress"] == question.address & 0xFFFFFFFF)
                & (found["postNAPTSourceTransportPort"] == question.port)
                & (found["flowStartMilliseconds"] <= question.at + WITHIN)
                & (found["flowEndMilliseconds"] >= max(question.at - WITHIN, 0))
            )
            expected = {
                tuple(map(int, (found[name][row] for name in (
                    "sourceAddress", "sourceTransportPort", "flowStartMilliseconds", "flowEndMilliseconds"))))
                for row in np.flatnonzero(rows)
            }  # fmt: skip
            answer = ask(store, {"nat": self.directory}, question, question.at + 10**9, live=True)
            got = {(a.inside & 0xFFFFFFFF, a.inside_port, a.start, a.end) for a in answer.answers}
            self.assertEqual(expected, got, question)
            self.assertEqual(0 if expected else 1, answer.status)
            self.assertTrue(expected or not there)
            holders += bool(expected)
        self.assertLess(QUESTIONS // 3, holders)
        self.assertLess(holders, QUESTIONS)
