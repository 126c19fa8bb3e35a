"""SYSLOG: datagrams as libc's syslog(3) makes them, and a log that is away."""

import os
import re
import socket
import syslog as libc
import time
from pathlib import Path

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.writing.text_rows import ByName, batch_of
from ulogd_tw.core.options import Options
from ulogd_tw.plugins.outputs import syslog
from ulogd_tw.plugins.outputs.syslog import SYSLOG


class Log(ByName, SYSLOG):
    """In such a stack."""


class SyslogTests(SynchronousTestCase):
    """A log at a socket of the test's."""

    def setUp(self):
        self.path = os.path.join("/tmp", f"utw{os.getpid()}.log")
        self.addCleanup(lambda: Path(self.path).unlink(missing_ok=True))

    def listen(self):
        """The log comes up."""
        log = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        log.bind(self.path)
        log.settimeout(5)
        self.addCleanup(log.close)
        return log

    def output(self, **options):
        made = Log("out", Options(SYSLOG.all_options(), {"socket": self.path} | options), Clock())
        made.open()
        self.addCleanup(made.stop)
        return made

    def rows(self, *texts, second=1_700_000_000):
        return batch_of([{"print": text, "oob.time.sec": second} for text in texts])

    def test_datagrams(self):
        """A row each, with priority, time, name and process."""
        log, out = self.listen(), self.output(facility="LOG_LOCAL3", level="LOG_DEBUG")
        self.assertIsNone(out.write(self.rows("IN=eth0 OUT=", "IN= OUT=eth1")))
        when = time.strftime("%b %e %H:%M:%S", time.localtime(1_700_000_000))
        expected = [f"<159>{when} ulogd[{os.getpid()}]: {text}" for text in ("IN=eth0 OUT=", "IN= OUT=eth1")]
        self.assertEqual(expected, [log.recv(4096).decode() for _ in range(2)])

    def test_numbers(self):
        """Those of the C library, for every word; and the day of the month as it writes it."""
        for names in (syslog.FACILITIES, syslog.LEVELS):
            for name, number in names.items():
                self.assertEqual(getattr(libc, name), number << 3 if names is syslog.FACILITIES else number)
        for second in range(1_698_700_000, 1_701_400_000, 86_400):
            self.assertEqual(time.strftime("%b %e %H:%M:%S", time.localtime(second)), SYSLOG.stamp(second).decode())

    def test_away(self):
        """Rows wait for a log that is not there, or has gone; none is lost."""
        out = self.output()
        done = []
        out.write(self.rows("one", "two")).addCallback(done.append)
        self.assertEqual({"connection": 1}, dict(out.counters.errors))
        log = self.listen()
        out.clock.advance(1.0)
        self.assertEqual([None], done)
        self.assertTrue(log.recv(4096).endswith(b": one") and log.recv(4096).endswith(b": two"))
        log.close()
        os.unlink(self.path)
        out.write(self.rows("three")).addCallback(done.append)
        log = self.listen()
        out.clock.advance(1.0)
        self.assertEqual([None, None], done)
        self.assertTrue(log.recv(4096).endswith(b": three"))

    def test_full(self):
        """A log that does not read makes rows wait; the order stays."""
        log, out = self.listen(), self.output()
        done = []
        texts = [f"{n:06d}" for n in range(3000)]
        out.write(self.rows(*texts)).addCallback(done.append)
        found = []
        while len(found) < len(texts):
            found.append(re.search(rb": (\d+)$", log.recv(4096))[1].decode())
            if not done:
                out.clock.advance(1.0)
        self.assertEqual((texts, [None]), (found, done))

    def test_too_long(self):
        """One that no datagram holds is dropped and counted; the next goes out."""
        log, out = self.listen(), self.output()
        self.assertIsNone(out.write(self.rows("x" * 1_000_000, "short")))
        self.assertEqual({"too_long": 1}, dict(out.counters.dropped))
        self.assertTrue(log.recv(4096).endswith(b": short"))
