"""Files that are continued after a kill or a crash."""

import errno
import json
import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.unit.packets.stacks import raw
from tests.unit.packets.wire import udp
from tests.unit.writing.text_rows import batch_of, plugin
from ulogd_tw.core.errors import StartError
from ulogd_tw.core.options import Options
from ulogd_tw.core.resolve import Recipe
from ulogd_tw.packets.capture import Capture
from ulogd_tw.plugins.outputs.gprint import GPRINT
from ulogd_tw.plugins.outputs.json import JSON
from ulogd_tw.plugins.outputs.oprint import OPRINT
from ulogd_tw.plugins.outputs.pcap import PCAP
from ulogd_tw.writing import tails, text


def row(number):
    """A batch of one row."""
    return batch_of([{"orig.ip.saddr": f"192.0.2.{number}", "orig.l4.sport": str(1000 + number)}])


class TextTests(SynchronousTestCase):
    """Lines of text."""

    def setUp(self):
        self.path = Path(self.mktemp())

    def write(self, class_, *numbers):
        """Write rows in a run of their own; its output."""
        options = {"timestamp": False} if class_ is not OPRINT else {}
        out = plugin(class_, self.path, **options)
        for number in numbers:
            self.assertIsNone(out.write(row(number)))
        out.stop()
        return out

    def cuts(self, class_):
        """Cut a file of two rows after each of its octets; (length, its lines after a row of the next run, errors)."""
        self.write(class_, 1, 2)
        whole = self.path.read_bytes()
        for length in range(1, len(whole) + 1):
            self.path.write_bytes(whole[:length])
            out = self.write(class_, 3)
            yield whole, length, self.path.read_bytes(), out.counters.errors["cut"]

    def test_json(self):
        """Every line is an object, no whole row is lost, and the row of the next run stands on a line of its own."""
        for whole, length, found, errors in self.cuts(JSON):
            ports = [json.loads(line)["orig.l4.sport"] for line in found.splitlines()]
            ends = [place for place, octet in enumerate(whole) if octet == ord("\n")]
            rows = sum(length >= end for end in ends)
            self.assertEqual([1001, 1002][:rows] + [1003], ports, length)
            self.assertEqual(int(length not in {*ends, *(end + 1 for end in ends)}), errors, length)

    def test_lines(self):
        """What stands behind the last line break is removed."""
        for whole, length, found, errors in self.cuts(GPRINT):
            kept = whole[: whole.rfind(b"\n", 0, length) + 1]
            self.assertEqual(kept, found[: len(kept)])
            self.assertEqual(1, found[len(kept) :].count(b"\n"))
            self.assertEqual(int(len(kept) != length), errors)

    def test_records_of_lines(self):
        """Of OPRINT the whole record goes, with its boundary."""
        for whole, length, found, errors in self.cuts(OPRINT):
            if errors:
                first = whole.index(b"===>", 4)
                self.assertEqual(whole[: first if length >= first + 20 else 0], found[: found.rindex(b"===>")])

    def test_not_ours(self):
        """An end without a line break that is longer than any of ours stays, and the next row begins a line."""
        self.path.write_bytes(b"a\n" + b"x" * (tails.LONGEST + 5))
        out = self.write(GPRINT, 3)
        self.assertEqual([1, tails.LONGEST + 5], list(map(len, self.path.read_bytes().split(b"\n")[:2])))
        self.assertEqual(0, out.counters.errors["cut"])

    def test_not_a_file(self):
        """Pipes and devices have no end to look at."""
        os.mkfifo(self.path)
        reading = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)
        self.addCleanup(os.close, reading)
        self.write(JSON, 3)
        self.assertEqual(1003, json.loads(os.read(reading, 1000))["orig.l4.sport"])

    def test_reopen_within_a_line(self):
        """SIGHUP while a line is written in part: neither file has a part of it, the new one has all of it."""
        out = plugin(JSON, self.path, timestamp=False)
        out.write(row(1))
        real, left = os.write, [10]

        def write(fd, octets):
            if not left[0]:
                raise OSError(errno.EAGAIN, "busy")
            part, left[0] = octets[: left[0]], 0
            return real(fd, part)

        self.patch(text.os, "write", write)
        done = out.write(row(2))
        self.assertNoResult(done)
        rotated = self.path.rename(self.path.with_suffix(".1"))
        self.patch(text.os, "write", real)
        out.reopen()
        self.successResultOf(done)
        out.stop()
        found = [[json.loads(line)["orig.l4.sport"] for line in open(path)] for path in (rotated, self.path)]
        self.assertEqual([[1001], [1002]], found)


class CaptureTests(SynchronousTestCase):
    """Capture files."""

    packets = [udp("192.0.2.1", "198.51.100.1", (number, 53), b"x" * number) for number in range(3)]

    def write(self, format_, *packets):
        """Write packets in a run of their own; its output."""
        out = PCAP("out", Options(PCAP.all_options(), {"file": str(self.path), "format": format_}))
        for name in ("raw.pkt", "raw.pktlen", "oob.time.sec", "oob.time.usec"):
            out.sources.add(name, [Recipe((name,))])
        out.open()
        if packets:
            times = [1] * len(packets)
            out.write(raw(list(packets), **{"oob_time.sec": times, "oob_time.usec": times}))
        out.stop()
        return out

    def read(self):
        """The packets in the file."""
        found = Capture().feed(self.path.read_bytes())
        places = zip(found.starts.tolist(), found.lengths.tolist(), strict=True)
        return [found.octets[start : start + size].tobytes() for start, size in places]

    def test_cuts(self):
        """Cut after each of its octets: what was whole stays, what the next run writes can be read."""
        for format_ in ("pcap", "pcapng"):
            self.path = Path(self.mktemp())
            self.write(format_)
            heads = self.path.stat().st_size
            self.write(format_, self.packets[0])
            ends = [heads, self.path.stat().st_size]
            if format_ == "pcapng":  # the second run has begun a section of its own
                ends[0] += heads
            whole = self.path.read_bytes()
            for length in range(1, len(whole) + 1):
                self.path.write_bytes(whole[:length])
                out = self.write(format_, self.packets[2])
                self.assertEqual([*self.packets[: int(length >= ends[1])], self.packets[2]], self.read(), length)
                self.assertLessEqual(out.counters.errors["cut"], int(length < ends[1]))
                if ends[0] < length < ends[1]:
                    self.assertEqual(1, out.counters.errors["cut"])

    def test_damaged(self):
        """A capture that nobody can read from some place on is set aside, and a new one begun."""
        for format_, after in (("pcap", 24), ("pcapng", 48)):
            self.path = Path(self.mktemp())
            self.write(format_, *self.packets)
            octets = bytearray(self.path.read_bytes())
            octets[after + 4 : after + 12] = b"\xff" * 8
            for name in (".damaged", ".damaged1"):
                self.path.write_bytes(octets)
                out = self.write(format_, self.packets[1])
                self.assertEqual((1, [self.packets[1]]), (out.counters.errors["cut"], self.read()))
                self.assertEqual(octets, Path(str(self.path) + name).read_bytes())

    def test_another_file(self):
        """A file of something else is refused, and stays."""
        for format_ in ("pcap", "pcapng"):
            self.path = Path(self.mktemp())
            self.path.write_text("something\n")
            self.assertRaises(StartError, self.write, format_, self.packets[0])
            self.assertEqual("something\n", self.path.read_text())
