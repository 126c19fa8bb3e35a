"""What the log says in place of Twisted."""

import json
import os
import sys
import tempfile
import time

from twisted.internet.address import IPv4Address
from twisted.logger import Logger, _logger, formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from ulogd_tw import log_lines
from ulogd_tw.core.options import Options
from ulogd_tw.global_options import GLOBAL_OPTIONS
from ulogd_tw.logs import LogFile, OutOfDescriptors


class OutOfDescriptorsTests(SynchronousTestCase):
    """Twisted's lines for each connection without a descriptor, as twisted.internet.tcp writes them."""

    def test_once_a_minute(self):
        """One line for all of them, with their number since the last one, an address and a way out."""
        said, now = [], [0.0]
        self.patch(OutOfDescriptors, "log", Logger("x", observer=lambda event: said.append(formatEvent(event))))
        self.patch(time, "monotonic", lambda: now[0])
        observer = OutOfDescriptors()
        tcp = Logger("twisted.internet.tcp", observer=observer)
        for place in ("192.0.2.1", "192.0.2.2", "192.0.2.3"):
            tcp.info("EMFILE encountered; releasing reserved file descriptor.")
            tcp.info("EMFILE recovery: Closed socket from {address}", address=IPv4Address("TCP", place, 9))
            tcp.info("Re-reserving EMFILE recovery file descriptor.")
        self.assertEqual(1, len(said))
        now[0] = 61.0
        tcp.info("EMFILE recovery: Closed socket from {address}", address=("192.0.2.4", 9))
        self.assertEqual(2, len(said))
        self.assertIn("connections were closed (3), the last from 192.0.2.4", said[1])
        self.assertIn("LimitNOFILE", said[1])


def journal_stream(file):
    """The value of JOURNAL_STREAM where systemd has connected the journal to this file."""
    found = os.fstat(file.fileno())
    return f"{found.st_dev}:{found.st_ino}"


class LogFormatTests(SynchronousTestCase):
    """Lines on standard output: for people, for the journal, and JSON."""

    def log(self, call, journal=False, **values):
        """What stands in standard output after `call` has logged."""
        with tempfile.TemporaryFile("w+") as file:
            self.patch(sys, "stdout", file)
            self.patch(globalLogPublisher, "addObserver", lambda observer: None)
            self.patch(os, "environ", {"JOURNAL_STREAM": journal_stream(file) if journal else "8:1"})
            observer = LogFile(Options(GLOBAL_OPTIONS, values)).open()
            call(Logger("ulogd_tw.test", observer=observer))
            file.seek(0)
            return file.read()

    def test_people(self):
        """Time, namespace and level stand before the text; later lines are moved in."""
        said = self.log(lambda log: log.warn("{a}\nb", a="x"))
        self.assertRegex(said, r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4} \[ulogd_tw.test#warn\] x\n\tb\n$")

    def test_journal(self):
        """Priorities of syslog(3) before each line, no time; Twisted's own lines are debug."""

        def call(log):
            log.debug("d")
            log.info("i")
            log.warn("w\n\nv")
            log.error("e")
            log.critical("c")
            log.info("")
            Logger("twisted.internet.protocol", observer=log.observer).info("Starting factory")

        said = self.log(call, True, loglevel=1)
        self.assertEqual("<7>d\n<6>i\n<4>w\n<4>v\n<3>e\n<2>c\n<7>Starting factory\n", said)
        self.assertNotIn("factory", self.log(call, True))

    def test_failure(self):
        """Each line of a traceback has the priority of the error."""
        said = self.log(lambda log: log.failure("start", Failure(ValueError("odd"))), True).splitlines()
        self.assertGreater(len(said), 2)
        self.assertTrue(all(line.startswith("<2>") for line in said), said)
        self.assertIn("ValueError: odd", said[-1])

    def test_json(self):
        """One object a line, with the fields of our own, in UTC."""

        def call(log):
            log.warn("{n} lost\nat {peer}", n=3, peer="é", ratio=float("nan"), other=object())

        self.patch(_logger, "time", lambda: 1.5)
        line = self.log(call, log_format="json")
        self.assertEqual(1, line.count("\n"))
        expected = {"time": "1970-01-01T00:00:01.500Z", "level": "warn", "part": "ulogd_tw.test"}
        expected |= {"text": "3 lost\nat é", "fields": {"n": 3, "peer": "é"}}
        self.assertEqual(expected, json.loads(line))
        self.assertEqual(expected, json.loads(self.log(call, True, log_format="json").removeprefix("<4>")))

    def test_syslog(self):
        """Messages have the priority of their level, in both formats."""
        said = []
        self.patch(log_lines.syslog, "openlog", lambda *_: None)
        self.patch(log_lines.syslog, "syslog", lambda *words: said.append(words))
        for form in ("text", "json"):
            log = Logger("ulogd_tw.test", observer=log_lines.SyslogLines(form))
            log.error("a\nb")
        self.assertEqual([(3, "[ulogd_tw.test#error] a"), (3, "\tb")], said[:2])
        self.assertEqual([3, "a\nb"], [said[2][0], json.loads(said[2][1])["text"]])


class ComplaintTests(SynchronousTestCase):
    """Errors before there is a log."""

    def test_complaint(self):
        """With the priority of an error in the journal, as they are on a terminal."""
        with tempfile.TemporaryFile("w+") as file:
            self.patch(os, "environ", {"JOURNAL_STREAM": journal_stream(file)})
            self.assertEqual("<3>a\n<3>b", log_lines.complaint("a\nb", file))
            self.patch(os, "environ", {})
            self.assertEqual("a\nb", log_lines.complaint("a\nb", file))
