"""Rows that are in no file yet say what they say in a file."""

from pathlib import Path

import duckdb
import numpy as np
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support import given
from tests.unit.flows.nat_files import number, write
from tests.unit.flows.test_who_had import INSIDE, MINUTE, OTHER, OUTSIDE, T, block, nat44, nfct
from ulogd_tw.core.batch import Batch, Schema
from ulogd_tw.core.keys import known
from ulogd_tw.flows.nat_batches import direct, open_connections, waiting_rows
from ulogd_tw.flows.nat_rows import Question
from ulogd_tw.flows.nat_store import NatStore
from ulogd_tw.flows.who_had import ENDED, OPEN, answers

NOW = (T + 10 * MINUTE) / 1000


def batch(rows, now=NOW):
    """A batch of these rows; all addresses of a key are of one family."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns, missing = {}, {}
    for name in names:
        values = [row.get(name) for row in rows]
        absent = np.array([value is None for value in values])
        if known(name).type.kind in ("ipv4", "address"):
            found = np.array([number(v) & 0xFFFF_FFFF if v else 0 for v in values], np.uint32)
        elif known(name).type.kind == "ipv6":
            found = np.array([divmod(number(v), 1 << 64) if v else (0, 0) for v in values], np.uint64)
        else:
            found = np.array([value or 0 for value in values], known(name).type.array_dtype)
        columns[name] = found
        if absent.any():
            missing[name] = absent
    return Batch(Schema([known(name) for name in names]), columns, missing, n=len(rows), now=now)


def question(at=T, port=4000, address=OUTSIDE, within=0):
    """Who had the outside address?"""
    return Question(number(address), port, at, within)


HOST = st.sampled_from([INSIDE, OTHER])
ROW = st.one_of(
    st.builds(nfct, st.integers(0, 99), st.integers(100, 200), HOST, st.integers(4000, 4002)),
    st.builds(nat44, st.integers(0, 200), st.integers(0, 18), HOST, st.integers(3999, 4001)),
    st.builds(block, st.integers(0, 200), st.integers(16, 17), st.integers(3990, 4001), portRangeEnd=st.just(4001)),
    st.builds(nat44, st.integers(0, 200), st.none(), firewallEvent=st.integers(0, 5), flowEndReason=st.just(2)),
)  # fmt: skip


class WaitingTests(SynchronousTestCase):
    """Rows on their way into a file."""

    @given(st.lists(ROW, min_size=1, max_size=8), st.integers(0, 250), st.sampled_from([4000, None]))
    def test_as_in_a_file(self, rows, at, port):
        """A batch gives the answers that a file of the same rows gives."""
        asked = question(T + at, port)
        path = Path(self.mktemp()).absolute()
        with duckdb.connect() as connection:
            files = [write(connection, path, rows)]
            store = NatStore(lambda text: connection.execute(text).fetchall())
            in_file = answers(store.rows(lambda: files, asked), asked)
        self.assertEqual(in_file, answers(waiting_rows(batch(rows), direct, asked), asked))

    def test_no_end(self):
        """A row without an end is of the time of its arrival."""
        row = nfct(0, 0) | {"flowEndMilliseconds": None}
        (answer,) = answers(waiting_rows(batch([row]), direct, question(T + 1)), question(T + 1))
        self.assertEqual((T, T + 10 * MINUTE), (answer.start, answer.end))

    def test_prefix(self):
        """IPv6 addresses."""
        row = {
            "sourceIPv6Address": "fd00::1", "postNATSourceIPv6Address": "2001:db8::1", "natEvent": 4,
            "observationTimeMilliseconds": T, "postNAPTSourceTransportPort": 4000,
        }  # fmt: skip
        asked = question(T, 4000, "2001:db8::1")
        self.assertEqual(
            [number("fd00::1")], [a.inside for a in answers(waiting_rows(batch([row]), direct, asked), asked)]
        )


class OpenTests(SynchronousTestCase):
    """Entries of the kernel's table."""

    def asked(self, row, at):
        found = answers(open_connections(batch([row]), question(at)), question(at))
        return [(a.inside, a.start, a.end, a.state) for a in found]

    def test_start(self):
        """From its start to now, and it is open."""
        row = nfct(0, 0) | {"ct.event": 1, "flowEndMilliseconds": None}
        self.assertEqual([(number(INSIDE), T, None, OPEN)], self.asked(row, T + MINUTE))
        self.assertEqual([], self.asked(row, T - 1))

    def test_start_not_known(self):
        """Without the kernel's time stamps, nobody knows since when."""
        row = nfct(10 * MINUTE, 0) | {"flowEndMilliseconds": None}
        self.assertEqual([(number(INSIDE), None, None, OPEN)], self.asked(row, T + MINUTE))

    def test_with_a_report(self):
        """A connection with interim rows is one answer, and open; with its last row it has ended."""
        live = list(open_connections(batch([nfct(0, 0) | {"flowEndMilliseconds": None}]), question()))
        report = list(waiting_rows(batch([nfct(0, MINUTE, flowEndReason=2)]), direct, question()))
        end = list(waiting_rows(batch([nfct(0, 2 * MINUTE)]), direct, question()))
        self.assertEqual([OPEN], [a.state for a in answers(report + live, question())])
        self.assertEqual(
            [(T + 2 * MINUTE, ENDED)], [(a.end, a.state) for a in answers(report + end + live, question())]
        )
