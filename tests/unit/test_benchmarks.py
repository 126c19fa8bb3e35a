"""Benchmarks can be started, and their messages are what they say."""

import importlib
import pkgutil
import struct
import subprocess
import sys
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

import benchmarks
from benchmarks import measuring, sending, traffic

HEADERS = {10: 16, 9: 20}
"""Octets of the header of a message, by version (RFC 7011 section 3.1, RFC 3954 section 5.1)."""


def sets(octets):
    """(Set ID, octets) of each Set of a message of IPFIX or NetFlow v9."""
    at = HEADERS[struct.unpack_from("!H", octets)[0]]
    while at < len(octets):
        number, length = struct.unpack_from("!HH", octets, at)
        yield number, octets[at + 4 : at + length]
        at += length


class ModuleTests(SynchronousTestCase):
    """A module that is left behind by a change of another one is seen here."""

    def test_import(self):
        """Every benchmark finds what it imports."""
        for module in pkgutil.iter_modules(benchmarks.__path__):
            if module.name != "__main__":
                importlib.import_module(f"benchmarks.{module.name}")


WORK = "sum(i * i for i in range(1_500_000))"
FAMILY = f"""
import resource, subprocess, sys
{WORK}
subprocess.run([sys.executable, "-c", {WORK!r}])
used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
print(sum(u.ru_utime + u.ru_stime for u in used), flush=True)
sys.stdin.read()
"""


class MeasuringTests(SynchronousTestCase):
    """Beside what the kernel tells a process of itself."""

    def test_ended(self):
        """A process that has ended and was waited for counts too."""
        words = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        with subprocess.Popen([sys.executable, "-c", FAMILY], **words) as process:
            told = float(process.stdout.readline())
            found = measuring.cpu(process.pid)
            process.stdin.close()
        self.assertApproximates(told, found, 0.03)

    def test_lost(self):
        """A program that does not tell its rows is not said to have lost none."""
        self.assertEqual((None, 0.25), (measuring.Figures([1], [None]).lost, measuring.Figures([1, 2], [1, 0.75]).lost))

    def test_left_out(self):
        """One program that is not there does not keep the others from being measured."""

        def measure(name):
            if name == "gone":
                raise SkipTest("install: gone")
            return 1.0, None

        found, missing = measuring.in_turn(["here", "gone"], measure, 2)
        self.assertEqual(([1.0, 1.0], ["gone"]), (found["here"].values, list(missing)))


class SendingTests(SynchronousTestCase):
    """At which time a message is due."""

    def test_steady(self):
        """By the rate, the first one at once."""
        self.assertEqual((1, 0.0), sending.due(0.0, 1000, 0))
        self.assertEqual((11, 0.0), sending.due(0.01, 1000, 3))

    def test_late(self):
        """After half a second in which nothing could be sent 20 ms of it come at once, and all else later."""
        now, late = sending.due(0.6, 1000, 100)
        self.assertAlmostEqual(late, 0.48)
        self.assertEqual(now, 121)


class TrafficTests(SynchronousTestCase):
    """Messages, taken apart by the rules of the RFCs."""

    def test_sequence(self):
        """Sequence numbers count records in IPFIX and messages in NetFlow v9."""
        for make, at, expected in (
            (traffic.ipfix, 8, [0, 0, 28, 56, 84]),
            (traffic.netflow9, 12, [0, 1, 2, 3, 4]),
        ):
            self.assertEqual(expected, [struct.unpack_from("!I", octets, at)[0] for _, octets in make(112)])

    def test_exporters(self):
        """Each exporter has an address of its own and tells its template before its records."""
        seen, told = {}, set()
        for source, octets in traffic.exporters(5000, number=300, per=10):
            ((number, body),) = sets(octets)
            told.add(source) if number == 2 else self.assertIn(source, told)
            seen[source] = seen.get(source, 0) + (len(body) // 48 if number == 256 else 0)
        self.assertEqual((300, 5000), (len(seen), sum(seen.values())))
        self.assertTrue(all(source >> 16 == 0x7F01 for source in seen))

    def test_templates(self):
        """Sixteen templates, all different; the records fit them."""
        sizes, n = {}, 0
        for source, octets in traffic.templates(2400):
            for number, body in sets(octets):
                if number == 2:
                    sizes |= {(source, key): value for key, value in self.lengths(body)}
                else:
                    self.assertEqual(0, len(body) % sum(size for _, size in sizes[source, number]))
                    n += len(body) // sum(size for _, size in sizes[source, number])
        self.assertEqual((16, 16, 2400), (len(sizes), len(set(sizes.values())), n))

    def lengths(self, body):
        """(number, its fields) of each Template Record."""
        at = 0
        while at < len(body):
            number, count = struct.unpack_from("!HH", body, at)
            yield number, tuple(struct.iter_unpack("!HH", body[at + 4 : at + 4 + 4 * count]))
            at += 4 + 4 * count

    def test_strings(self):
        """Records end with a string that has its length before it (RFC 7011 section 7)."""
        told, *messages = traffic.strings(100)
        self.assertEqual((96, 65535), next(self.lengths(next(sets(told[1]))[1]))[1][-1])
        found = []
        for _, octets in messages:
            for _, body in sets(octets):
                while body:
                    length = body[48]
                    found.append(body[49 : 49 + length])
                    body = body[49 + length :]
        self.assertEqual((100, set()), (len(found), set(found) - set(traffic.APPLICATIONS)))

    def test_families(self):
        """Both families stand in each message of records, padded to four octets in NetFlow v9."""
        for version, sizes in ((9, (40, 64)), (10, (48, 72))):
            _, *messages = traffic.families(280, version)
            for _, octets in messages:
                (four, rows4), (six, rows6) = sets(octets)
                self.assertEqual((256, 257, 26, 2), (four, six, len(rows4) // sizes[0], len(rows6) // sizes[1]))
                self.assertEqual(0, len(octets) % 4)
