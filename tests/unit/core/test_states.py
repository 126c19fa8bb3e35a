"""The states of outputs: each destination says when nothing takes its rows, and when it does again."""

import os
from types import SimpleNamespace

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ulogd_tw.core.counters import Counters
from ulogd_tw.core.options import Options
from ulogd_tw.core.states import FINE, State, down
from ulogd_tw.plugins.outputs.ipfix import IPFIX
from ulogd_tw.writing.remote import Remote
from ulogd_tw.writing.text import PendingText, TextFile


class StateTests(SynchronousTestCase):
    """States by themselves."""

    def test_down(self):
        self.assertEqual((FINE, State("down", ("x",))), (down("", ""), down("", "x")))


class DestinationsTests(SynchronousTestCase):
    """Destinations that fail and recover."""

    def output(self):
        counters = Counters("X")
        return SimpleNamespace(instance="out1", counters=counters, clock=Clock(), cut=None, complete=None)

    def test_file(self):
        """A full disk, until a line is written."""
        output = self.output()
        sink = TextFile(output, "/dev/full")
        sink.open()
        sink.write(PendingText(iter([(b"line\n", 1)]), 1))
        self.assertEqual("/dev/full: No space left on device", sink.obstacle())
        os.close(sink.fd)
        sink.fd = os.open("/dev/null", os.O_WRONLY)
        output.clock.advance(60)
        self.assertEqual("", sink.obstacle())
        os.close(sink.fd)

    def test_pipe(self):
        """A named pipe without a reader."""
        path = self.mktemp()
        os.mkfifo(path)
        output = self.output()
        sink = TextFile(output, path)
        sink.open()
        self.assertIn("has no reader", sink.obstacle())
        reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        output.clock.advance(60)
        self.assertEqual("", sink.obstacle())
        os.close(reader)
        os.close(sink.fd)

    def test_peer(self):
        sink = Remote(self.output(), "tcp:192.0.2.1:514")
        self.assertEqual("tcp:192.0.2.1:514 is not connected", sink.obstacle())
        sink._reached(None)
        self.assertEqual("", sink.obstacle())

    def test_collectors(self):
        """mode=all needs every collector, the others need one; a spool for the absent ones is no outage."""
        for mode, away, spools, expected in (
            ("all", (False, False), False, "ok"), ("all", (True, False), False, "down"),
            ("all", (True, False), True, "spooling"), ("failover", (True, False), False, "ok"),
            ("failover", (True, True), False, "down"), ("balance", (True, True), True, "spooling"),
        ):  # fmt: skip
            output = IPFIX("exp1", Options(IPFIX.all_options(), {"collectors": ("udp:x",), "mode": mode}))
            output.collectors = [
                SimpleNamespace(obstacle=lambda gone=gone: "away" if gone else "", spool=object() if spools else None)
                for gone in away
            ]
            self.assertEqual(expected, output.state().word, (mode, away, spools))
