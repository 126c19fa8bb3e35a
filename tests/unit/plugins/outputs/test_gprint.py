"""GPRINT: ulogd2's lines, and the file beneath them: rotated, full, kept whole."""

import os
from pathlib import Path

import numpy as np
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.support import shared_path
from tests.unit.writing.disk import disk_with
from tests.unit.writing.text_rows import GOLDEN, batch_of, in_zone, plugin, printed
from ulogd_tw.core.batch import Batch, Schema
from ulogd_tw.core.errors import StartError, UlogdError
from ulogd_tw.core.keys import known
from ulogd_tw.core.plugin import ALL
from ulogd_tw.plugins.outputs.gprint import GPRINT
from ulogd_tw.writing import text

LINE = (
    "timestamp=2026/11/23-00:10:39,orig.ip.saddr=10.77.0.1,orig.ip.daddr=10.77.0.2,orig.ip.protocol=6,orig.l4.sport=19999,"
    "orig.l4.dport=5999,orig.raw.pktlen=60,orig.raw.pktcount=1,ct.id=3204679213,flow.start.sec=1795392639"
)
"""The beginning of ulogd2's first line in golden/out/flow_gprint.log."""


def pairs(line):
    """The keys and values of a line; of a repeated key the first."""
    found = {}
    for member in line.split(","):
        name, _, value = member.partition("=")
        found.setdefault(name, value)
    return found


def mended(row):
    """The row with the addresses that ulogd2 should have printed."""
    return {name: row.get(f"{name}.str", value) for name, value in row.items()}


def numbers(first, n):
    """A batch of `n` rows: a port and its double."""
    keys = [known("sourceTransportPort"), known("octetDeltaCount")]
    ports = np.arange(first, first + n)
    found = {keys[0].name: ports.astype(np.uint16), keys[1].name: (ports * 2).astype(np.uint64)}
    return Batch(Schema(keys), found, n=n, now=0.0)


def number_lines(first, n):
    """How these rows look."""
    return [f"sourceTransportPort={i},octetDeltaCount={2 * i}\n" for i in range(first, first + n)]


class FormatTests(SynchronousTestCase):
    """The lines."""

    def setUp(self):
        in_zone(self, "UTC")

    def test_a_line_of_ulogd2(self):
        """The octets of ulogd2's line, with the time of output first."""
        row = pairs(LINE)
        del row["timestamp"]
        self.assertEqual(printed(self, GPRINT, [batch_of([row], 1795392639.9)], timestamp=True), LINE + "\n")

    def test_golden(self):
        """Each line that ulogd2 wrote for flows, packets and accounting comes out alike, with IPv6 addresses right."""
        for name in ("flow_ip2str_gprint.log", "pkt_gprint.log", "acct_gprint.log", "pkt_seq_gprint.log"):
            rows = [mended(pairs(line)) for line in shared_path(*GOLDEN, name).read_text().splitlines()]
            for row in rows:
                row.pop("timestamp", None)
            found = printed(self, GPRINT, [batch_of([row]) for row in rows])
            self.assertEqual(found.splitlines(), [",".join(f"{k}={v}" for k, v in row.items()) for row in rows])
            alike = [row for row in rows if row.keys() == rows[0].keys() and "::" not in str(row)]
            many = printed(self, GPRINT, [batch_of(alike * 40)])
            self.assertEqual(many.splitlines(), [",".join(f"{k}={v}" for k, v in row.items()) for row in alike] * 40)

    def test_raw_keys(self):
        """ulogd2's raw keys are left out; octets of IPFIX are hexadecimal; copies for key@instance are left out."""
        batch = batch_of([{"raw.pkt": b"\1\2", "oob.prefix": "x y", "mplsTopLabelStackSection": b"\xab\0\1"}])
        mark = known("oob.mark")
        batch = batch.with_columns({mark.named("oob.mark@in1"): np.zeros(1, np.uint32)})
        self.assertEqual(printed(self, GPRINT, [batch]), "oob.prefix=x y,mplsTopLabelStackSection=700416\n")

    def test_missing(self):
        """A key without a value is left out of that row."""
        batch = numbers(1, 3)
        gone = {"sourceTransportPort": np.array([True, False, False])}
        batch = Batch(batch.schema, batch.columns, gone, n=3, now=0.0)
        lines = number_lines(1, 3)
        lines[0] = "octetDeltaCount=2\n"
        self.assertEqual(printed(self, GPRINT, [batch]), "".join(lines))

    def test_asks_for_every_key(self):
        self.assertIs(GPRINT("g").requests(frozenset()), ALL)


class FileTests(SynchronousTestCase):
    """The file beneath a printing output."""

    def setUp(self):
        self.path = Path(self.mktemp())

    def test_appends(self):
        """What is in the file stays."""
        self.path.write_text("old\n")
        out = plugin(GPRINT, self.path)
        out.write(numbers(1, 1))
        self.assertEqual(self.path.read_text(), "old\n" + "".join(number_lines(1, 1)))
        out.stop()

    def test_cannot_open(self):
        """A folder that is not there is said with the path."""
        self.assertIn("no/such", str(self.assertRaises(StartError, plugin, GPRINT, "no/such/file")))

    def test_reopen(self):
        """After SIGHUP rows go to a new file of the name; the renamed one has the old rows."""
        out = plugin(GPRINT, self.path)
        out.write(numbers(1, 1))
        old = self.path.rename(self.path.with_suffix(".1"))
        out.write(numbers(2, 1))
        out.reopen()
        out.write(numbers(3, 1))
        out.stop()
        self.assertEqual(old.read_text(), "".join(number_lines(1, 2)))
        self.assertEqual(self.path.read_text(), "".join(number_lines(3, 1)))

    def test_reopen_that_fails(self):
        """The file that is open stays in use, and that is said."""
        out = plugin(GPRINT, self.path)
        out.sink.path = "no/such/file"
        out.reopen()
        out.write(numbers(1, 1))
        out.stop()
        self.assertEqual(self.path.read_text(), "".join(number_lines(1, 1)))
        self.assertEqual(out.counters.errors["reopen"], 1)

    def test_full_disk(self):
        """Rows wait while the device is full, and are given back to the queue at a stop."""
        out = plugin(GPRINT, "/dev/full")
        waiting = out.write(numbers(1, 3))
        self.assertNoResult(waiting)
        out.clock.advance(1)
        out.clock.advance(1)
        self.assertEqual(out.counters.errors["write"], 3)
        self.assertNoResult(waiting)
        out.stop()
        self.failureResultOf(waiting, UlogdError)
        self.assertEqual(out.counters.dropped.total(), 0)
        self.assertEqual(out.clock.getDelayedCalls(), [])

    def test_disk_full_within_a_line(self):
        """The part of a line is taken back at once; with room again every line is there once."""
        out = plugin(GPRINT, self.path)
        lines = number_lines(10, 50)
        left = disk_with(self, len(lines[0]) * 20 + 7)
        waiting = out.write(numbers(10, 50))
        self.assertEqual(self.path.read_text(), "".join(lines[:20]))
        left[0] = len(lines[0]) * 10 + 1
        out.clock.advance(1)
        self.assertNoResult(waiting)
        self.assertEqual(self.path.read_text(), "".join(lines[:30]))
        left[0] = 1 << 20
        out.clock.advance(1)
        self.successResultOf(waiting)
        self.assertEqual(self.path.read_text(), "".join(lines))
        out.stop()

    def test_rotated_while_full(self):
        """The rows that wait go to the new file at once, as whole lines."""
        out = plugin(GPRINT, self.path)
        lines = number_lines(10, 50)
        left = disk_with(self, len(lines[0]) * 20 + 7)
        waiting = out.write(numbers(10, 50))
        old = self.path.rename(self.path.with_suffix(".1"))
        left[0] = 1 << 20
        out.reopen()
        self.successResultOf(waiting)
        self.assertEqual([old.read_text(), self.path.read_text()], ["".join(lines[:20]), "".join(lines[20:])])
        out.stop()

    def test_stopped_while_full(self):
        """Where part of a batch is written, the rest is dropped and counted, since nothing may be there twice."""
        out = plugin(GPRINT, self.path)
        lines = number_lines(10, 50)
        disk_with(self, len(lines[0]) * 20 + 7)
        waiting = out.write(numbers(10, 50))
        out.stop()
        self.successResultOf(waiting)
        self.assertEqual(self.path.read_text(), "".join(lines[:20]))
        self.assertEqual(dict(out.counters.dropped), {"write": 30})

    def test_pipe_that_is_full(self):
        """A reader that does not read delays the rows, not the reactor; every line arrives whole."""
        os.mkfifo(self.path)
        reader = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)
        self.addCleanup(os.close, reader)
        out = plugin(GPRINT, self.path)
        waiting = out.write(numbers(1, 20000))
        self.assertNoResult(waiting)
        found = b""
        for _ in range(100):
            found += os.read(reader, 1 << 20)
            out.clock.advance(text.BUSY)
            if waiting.called:
                break
        found += os.read(reader, 1 << 20)
        self.assertEqual(found.decode(), "".join(number_lines(1, 20000)))
        self.assertEqual(out.counters.errors.total(), 0)
        out.stop()


class SyncTests(TestCase):
    """sync=2."""

    def test_on_disk(self):
        """The rows count as written when the disk has them; a stop waits for that."""
        path = Path(self.mktemp())
        synced = []
        real = os.fdatasync
        self.patch(text.os, "fdatasync", lambda fd: (synced.append(path.read_text()), real(fd)))
        out = plugin(GPRINT, path, sync=2)
        waiting = out.write(numbers(1, 2))
        done = out.stop()
        return waiting.addCallback(lambda _: done).addCallback(
            lambda _: self.assertEqual(synced, ["".join(number_lines(1, 2))])
        )
