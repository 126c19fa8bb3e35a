"""Outputs to named pipes: with no reader, with one that goes, with the next one."""

import os
import signal
import struct

from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.unit.packets.stacks import raw
from tests.unit.plugins.outputs.test_gprint import number_lines, numbers
from tests.unit.writing.text_rows import plugin
from ulogd_tw.core.errors import StartError
from ulogd_tw.core.options import Options
from ulogd_tw.core.resolve import Recipe
from ulogd_tw.plugins.outputs.gprint import GPRINT
from ulogd_tw.plugins.outputs.pcap import PCAP
from ulogd_tw.writing import text

PCAP_HEAD = struct.pack("=IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 101)
"""Of a capture of IP packets; the fifth number, which is the longest packet, may be another one."""


class Pipe:
    """A named pipe and its readers."""

    def __init__(self, case):
        self.path = case.mktemp()
        os.mkfifo(self.path)

    def reader(self):
        """A new reader, which does not wait."""
        return os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)


def everything(reader):
    """What is in the pipe."""
    found = b""
    while True:
        try:
            octets = os.read(reader, 1 << 16)
        except BlockingIOError:
            return found
        if not octets:
            return found
        found += octets


class PipeTests(SynchronousTestCase):
    """Lines to a named pipe, by a clock that the test turns."""

    def setUp(self):
        before = signal.signal(signal.SIGPIPE, signal.SIG_IGN)  # tests of commands set it to its default
        self.addCleanup(signal.signal, signal.SIGPIPE, before)
        self.pipe = Pipe(self)

    def test_no_reader(self):
        """The start does not wait; the rows do, until somebody reads."""
        out = plugin(GPRINT, self.pipe.path)
        waiting = out.write(numbers(1, 3))
        out.clock.advance(text.RETRY)
        self.assertNoResult(waiting)
        reader = self.pipe.reader()
        out.clock.advance(text.RETRY)
        self.successResultOf(waiting)
        self.assertEqual("".join(number_lines(1, 3)).encode(), everything(reader))
        out.stop()
        os.close(reader)

    def test_reader_goes(self):
        """Rows that come while nobody reads wait for the next reader, which begins with a whole line."""
        reader = self.pipe.reader()
        out = plugin(GPRINT, self.pipe.path)
        waiting = out.write(numbers(1, 20000))
        self.assertNoResult(waiting)  # more than a pipe holds
        os.read(reader, 1000)
        os.close(reader)
        out.clock.advance(text.BUSY)
        reader = self.pipe.reader()
        found = b""
        for _ in range(100):
            out.clock.advance(text.RETRY)
            found += everything(reader)
            if waiting.called:
                break
        lines = found.decode().splitlines(keepends=True)
        self.assertGreater(len(lines), 10000)
        self.assertEqual(number_lines(1, 20000)[-len(lines) :], lines)
        out.stop()
        os.close(reader)

    def test_stop_without_reader(self):
        """What waits goes back to the queue."""
        out = plugin(GPRINT, self.pipe.path)
        waiting = out.write(numbers(1, 3))
        out.stop()
        self.failureResultOf(waiting)
        self.assertEqual([], out.clock.getDelayedCalls())

    def test_device_without_reader(self):
        """A file that cannot be opened for another reason keeps the stack from starting."""
        os.unlink(self.pipe.path)
        os.mkdir(self.pipe.path)
        self.assertRaises(StartError, plugin, GPRINT, self.pipe.path)


class CapturePipeTests(TestCase):
    """A capture to a named pipe on the reactor."""

    timeout = 120

    async def test_each_reader_has_a_head(self):
        """Also where the reader changed while no packet came."""
        self.patch(text, "RETRY", 0.01)
        pipe = Pipe(self)
        first = pipe.reader()
        out = PCAP("pcap1", Options(PCAP.all_options(), {"file": pipe.path}))
        out.sources.add("raw.pkt", [Recipe(("raw.pkt",))])
        out.open()
        out.write(raw([b"E123"]))
        one = everything(first)
        os.close(first)
        await deferLater(reactor, 0.05)
        second = pipe.reader()
        await deferLater(reactor, 0.05)
        out.write(raw([b"E456"]))
        await deferLater(reactor, 0.05)
        two = everything(second)
        os.close(second)
        out.stop()
        for found, packet in ((one, b"E123"), (two, b"E456")):
            self.assertEqual(24 + 16 + 4, len(found))
            self.assertEqual((PCAP_HEAD[:16], PCAP_HEAD[20:]), (found[:16], found[20:24]))
            self.assertEqual(packet, found[-4:])
