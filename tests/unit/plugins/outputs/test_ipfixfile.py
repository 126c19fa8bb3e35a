"""IPFIXFILE: files by time and size, what is in them, full disks, stops and signals."""

import struct
from pathlib import Path

import numpy as np
from twisted.internet import defer
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.exporting.doubles import V4, Reader, flows
from tests.unit.ipfix.wire import Collected, a_set, message, options_template, template, without_context
from tests.unit.writing.disk import disk_with
from ulogd_tw.core.batch import Batch, Schema
from ulogd_tw.core.columns import Coded
from ulogd_tw.core.errors import StartError, UlogdError
from ulogd_tw.core.keys import known
from ulogd_tw.core.options import Options
from ulogd_tw.core.plugin import ALL
from ulogd_tw.core.resolve import Provided
from ulogd_tw.ipfix import record_encoder
from ulogd_tw.plugins.outputs.ipfixfile import IPFIXFILE

START = 1790000040.0
"""14:14:00 UTC, the beginning of a minute."""


def numbers(first, n):
    """A batch of `n` rows: a port and its double."""
    keys = [known("sourceTransportPort"), known("octetDeltaCount")]
    ports = np.arange(first, first + n)
    found = {keys[0].name: ports.astype(np.uint16), keys[1].name: (ports * 2).astype(np.uint64)}
    return Batch(Schema(keys), found, n=n, now=0.0)


class IPFIXFILECase(SynchronousTestCase):
    """With a folder, and a world whose time the test turns; jobs for the thread are done at once."""

    def setUp(self):
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.world = Clock()
        self.world.advance(START)

    def output(self, pattern="f-%H%M%S.ipfix", **options):
        """An open output."""
        world = self.world

        class Tested(IPFIXFILE):
            reactor = world
            clock = staticmethod(world.seconds)
            in_thread = staticmethod(defer.execute)
            join_s = 0

        values = {"file": f"{self.folder}/{pattern}", "rotate_interval": 60.0} | options
        made = Tested("file1", Options(IPFIXFILE.all_options(), values))
        self.assertEqual([], list(made.mistakes()))
        self.successResultOf(made.open())
        return made

    def write(self, output, *batches):
        """Write them; the pause after each is over at once."""
        for batch in batches:
            waiting = output.write(batch)
            self.world.advance(0)
            self.successResultOf(waiting)

    def files(self):
        return sorted(path.name for path in self.folder.iterdir())

    def read(self, name):
        """The file through the independent reader, which checks lengths and numbers."""
        reader = Reader()
        reader.stream((self.folder / name).read_bytes())
        self.assertEqual(([], b"", 0), (reader.gaps, reader._rest, reader.unreadable))
        return reader

    def ports(self, name):
        return [record[7] for _, record in self.read(name).records]


class RotationTests(IPFIXFILECase):
    """When a file ends, and what it is called."""

    def test_by_time(self):
        """Intervals begin at multiples of rotate_interval; a file ends with its own, also when no row comes."""
        out = self.output()
        self.world.advance(59.5)
        self.write(out, numbers(1, 3))
        self.assertEqual(["f-141400.ipfix.part"], self.files())
        out.wake(0)
        self.assertEqual(["f-141400.ipfix.part"], self.files())
        self.world.advance(0.5)
        out.wake(0)
        self.assertEqual(["f-141400.ipfix"], self.files())
        self.world.advance(130)
        self.write(out, numbers(4, 3))
        self.world.advance(50)
        self.write(out, numbers(7, 3))
        self.assertEqual(["f-141400.ipfix", "f-141700.ipfix", "f-141800.ipfix.part"], self.files())
        self.successResultOf(out.stop())
        names = self.files()
        self.assertEqual([[1, 2, 3], [4, 5, 6], [7, 8, 9]], [self.ports(name) for name in names])

    def test_every_file_stands_alone(self):
        """FI-2: Templates before their data, sequence numbers from 0, export times of the moment, in every file."""
        out = self.output(domain=7)
        for _ in range(3):
            self.write(out, numbers(1, 3), numbers(4, 3))
            self.world.advance(61)
        self.successResultOf(out.stop())
        self.assertEqual(3, len(self.files()))
        for place, name in enumerate(self.files()):
            reader = self.read(name)
            self.assertEqual([1, 2, 3, 4, 5, 6], [record[7] for _, record in reader.records])
            data = reader.kinds[1]
            self.assertEqual([[2], data, data], reader.kinds)
            self.assertEqual([0, 0, 3], [header["sequence"] for header in reader.headers])
            self.assertEqual({(int(START) + 61 * place, 7)}, {(h["time"], h["domain"]) for h in reader.headers})

    def test_by_size(self):
        """No file is larger than rotate_size; every row is in one of them."""
        out = self.output(rotate_size=200_000, rotate_interval=0.0)
        self.write(out, numbers(0, 50_000), numbers(50_000, 10_000))
        self.successResultOf(out.stop())
        sizes = [(self.folder / name).stat().st_size for name in self.files()]
        self.assertGreater(len(sizes), 3)
        self.assertLessEqual(max(sizes), 200_000)
        self.assertEqual(list(range(60_000)), [port for name in self.files() for port in self.ports(name)])
        self.assertEqual(len(sizes), out.counters.figures["files"]())

    def test_smaller_than_a_message(self):
        """A file has at least one message."""
        out = self.output(rotate_size=100)
        self.write(out, numbers(0, 20_000))
        self.successResultOf(out.stop())
        self.assertEqual(list(range(20_000)), [port for name in self.files() for port in self.ports(name)])

    def test_sighup(self):
        """The next row begins a new file, which has a name of its own; no rows, no file."""
        out = self.output()
        out.reopen()
        self.assertEqual([], self.files())
        for first in (1, 4):
            self.write(out, numbers(first, 3))
            out.reopen()
        self.assertEqual(["f-141400.ipfix", "f-141400_01.ipfix"], self.files())
        self.assertEqual([1, 2, 3, 4, 5, 6], self.ports(self.files()[0]) + self.ports(self.files()[1]))

    def test_clock_set_back(self):
        """A file is not written outside its interval."""
        out = self.output()
        self.write(out, numbers(1, 1))
        self.world.rightNow -= 120
        self.write(out, numbers(2, 1))
        self.successResultOf(out.stop())
        self.assertEqual(["f-141200.ipfix", "f-141400.ipfix"], self.files())

    def test_templates_run_out(self):
        """Then another file begins, which numbers them anew."""
        self.patch(record_encoder, "MOST_TEMPLATES", 1)
        out = self.output()
        key = known("flowId")
        other = Batch(Schema([key]), {key.name: np.array([9], np.uint64)}, n=1, now=0.0)
        self.write(out, numbers(1, 3), other)
        self.successResultOf(out.stop())
        self.assertEqual([[1, 2, 3]], [self.ports(self.files()[0])])
        self.assertEqual([{148: 9}], [record for _, record in self.read(self.files()[1]).records])


class StartTests(IPFIXFILECase):
    """What is there at the start."""

    def test_leftover(self):
        """A file of a killed process gets its name, cut to whole messages; new rows go elsewhere."""
        out = self.output()
        self.write(out, numbers(1, 3))
        (part,) = self.folder.iterdir()
        octets = part.read_bytes()
        self.successResultOf(out.stop())
        (self.folder / "f-141400.ipfix").unlink()
        part.write_bytes(octets + octets[:31])
        out = self.output()
        self.assertEqual(octets, (self.folder / "f-141400.ipfix").read_bytes())
        self.write(out, numbers(4, 3))
        self.successResultOf(out.stop())
        self.assertEqual([1, 2, 3], self.ports("f-141400.ipfix"))
        self.assertEqual([4, 5, 6], self.ports("f-141400_01.ipfix"))

    def test_no_directory(self):
        """Said with what helps; directories of the pattern are made later."""
        made = IPFIXFILE("f", Options(IPFIXFILE.all_options(), {"file": f"{self.folder}/no/f-%H.ipfix"}))
        self.assertIn(f"mkdir -p {self.folder}/no", str(self.assertRaises(StartError, made.open)))
        out = self.output("%Y/%H/f.ipfix")
        self.write(out, numbers(1, 1))
        self.successResultOf(out.stop())
        self.assertTrue((self.folder / "2026/14/f.ipfix").exists())

    def test_mistakes(self):
        """Options that cannot be."""
        for option, value in (("file", "/tmp/"), ("rotate_interval", 0.5), ("rotate_interval", 1.5), ("domain", -1),
                              ("domain", 1 << 32)):  # fmt: skip
            made = IPFIXFILE("f", Options(IPFIXFILE.all_options(), {option: value}))
            self.assertEqual([option], [name for name, _ in made.mistakes()], value)


class DiskFullTests(IPFIXFILECase):
    """Rows wait, and nothing is there in part or twice."""

    def test_goes_on(self):
        """With room again every row is there once, in its file, which had only whole messages meanwhile."""
        out = self.output()
        self.write(out, numbers(1, 3))
        left = disk_with(self, 30)
        waiting = out.write(numbers(4, 3))
        self.assertNoResult(waiting)
        self.assertEqual([1, 2, 3], self.ports("f-141400.ipfix.part"))
        self.world.advance(1)
        self.assertNoResult(waiting)
        self.assertEqual({"write": 2}, dict(out.counters.errors))
        self.world.advance(60)
        out.wake(0)
        left[0] = 1 << 20
        self.world.advance(1)
        self.world.advance(0)
        self.successResultOf(waiting)
        self.assertEqual(["f-141400.ipfix"], self.files())
        self.assertEqual([1, 2, 3, 4, 5, 6], self.ports("f-141400.ipfix"))

    def test_stop(self):
        """A batch of which nothing is written goes back to the queue."""
        out = self.output()
        self.write(out, numbers(1, 3))
        disk_with(self, 30)
        waiting = out.write(numbers(4, 3))
        self.successResultOf(out.stop())
        self.failureResultOf(waiting, UlogdError)
        self.assertEqual([1, 2, 3], self.ports("f-141400.ipfix"))
        self.assertEqual(({}, []), (dict(out.counters.dropped), self.world.getDelayedCalls()))

    def test_stop_in_part(self):
        """Where some of a batch is in an earlier file, the rest is dropped and counted."""
        out = self.output(rotate_size=100_000, rotate_interval=0.0)
        disk_with(self, 150_000)
        waiting = out.write(numbers(0, 20_000))
        self.assertNoResult(waiting)
        self.successResultOf(out.stop())
        self.successResultOf(waiting)
        stored = [port for name in self.files() for port in self.ports(name)]
        self.assertEqual(list(range(len(stored))), stored)
        self.assertTrue(0 < len(stored) < 20_000)
        self.assertEqual({"write": 20_000 - len(stored)}, dict(out.counters.dropped))

    def test_directory_is_gone(self):
        """Files that cannot be opened are tried again."""
        out = self.output("%H/f.ipfix")
        (self.folder / "14").write_text("in the way")
        waiting = out.write(numbers(1, 3))
        self.assertNoResult(waiting)
        (self.folder / "14").unlink()
        self.world.advance(1)
        self.world.advance(0)
        self.successResultOf(waiting)
        self.successResultOf(out.stop())
        self.assertEqual([1, 2, 3], self.ports("14/f.ipfix"))


class FieldsTests(IPFIXFILECase):
    """What a row becomes, by what it is."""

    def stored(self, *batches, **options):
        out = self.output(**options)
        self.write(out, *batches)
        self.successResultOf(out.stop())
        self.out = out
        (name,) = self.files()
        return (self.folder / name).read_bytes()

    def records(self, *batches, **options):
        reader = Reader()
        reader.stream(self.stored(*batches, **options))
        return [record for _, record in reader.records]

    def test_connections(self):
        """A record for each direction, in the exporter's fields."""
        found = self.records(flows(2), flows(1, ct__event=1))
        self.assertEqual([(0, V4["a"], 1000, 10), (0, V4["a"], 1001, 10), (1, V4["b"], 2**32, 20),
                          (1, V4["b"], 2**32 + 1, 20)],
                         [(r[61], r[8], r[1], r[2]) for r in found])  # fmt: skip
        self.assertEqual({1700000000250}, {r[152] for r in found})
        self.assertEqual((1, 4), (self.out.counters.rows_filtered, self.out.counters.figures["records_encoded"]))

    def test_connections_with_all_keys(self):
        """One record a connection, with the reply as reverse elements, and the times that have elements."""
        octets = self.stored(flows(2), flows(1, ct__event=1), fields="all")
        rows = [without_context(r) for batch in Collected().batches(*_messages(octets)) for r in batch.rows()]
        self.assertEqual(2, len(rows))
        self.assertEqual(
            {"sourceIPv4Address": V4["a"], "reverseSourceIPv4Address": V4["b"], "octetTotalCount": 1000,
             "reverseOctetTotalCount": 2**32, "flowStartMilliseconds": 1700000000250, "conntrack_id": 100}.items()
            - rows[0].items(), set(),
        )  # fmt: skip
        self.assertEqual({"ct.event", "ct.tcp.state"}, self.out.outgoing.left_out)
        self.assertEqual((1, 2), (self.out.counters.rows_filtered, self.out.counters.figures["keys_left_out"]()))

    def test_uniflow_of_collected(self):
        """fields=uniflow: the exporter's fields only, of flows only."""
        others = [name for name in flows(1).schema if not name.startswith("orig.ip")]
        batch = flows(2, without=others, octetDeltaCount=5, flowId=3, samplingInterval=9)
        out = self.output(fields="uniflow")
        for name, required in out.requests_of(None).items():
            self.assertEqual(required, name in ("orig.ip.saddr", "orig.ip.daddr"))
            out.sources.add(name, Provided(batch.schema.values()).recipes(name))
        self.write(out, batch)
        self.successResultOf(out.stop())
        self.assertEqual({8, 12, 4, 1, 148}, set(self.read(self.files()[0]).records[0][1]))

    def test_asks_for_every_key(self):
        self.assertIs(ALL, IPFIXFILE("f").requests_of(None))
        self.assertIs(ALL, IPFIXFILE("f").requests_of(frozenset(("octetDeltaCount",))))

    def test_asks_for_the_keys_of_connections(self):
        """Of connections only what its records have, so that nothing else is decoded."""
        self.assertIn("ct.tcp.state", IPFIXFILE("f").requests_of(frozenset(flows(1).schema)))

    def test_options_records(self):
        """Options and data records of one schema: each as what it is."""
        keys = [known("record_kind"), known("samplingInterval")]
        kinds = Coded(np.array([0, 1, 0]), [b"data", b"options"])
        batch = Batch(
            Schema(keys), {"record_kind": kinds, "samplingInterval": np.array([1, 2, 3], np.uint32)}, n=3, now=0
        )
        found = Collected().batches(*_messages(self.stored(batch)))
        rows = [(row["record_kind"], row["samplingInterval"]) for b in found for row in b.rows()]
        self.assertEqual([(b"data", 1), (b"data", 3), (b"options", 2)], rows)

    def test_collected(self):
        """What a collector decoded, twice over: the file gives the same keys and values, and who sent them."""
        told = a_set(2, template(256, (8, 4), (1, 8), (149, 4), (1, 8), (77, 3, 4242)))
        scoped = a_set(3, options_template(300, 1, (144, 4), (41, 8)))
        data = a_set(256, *(struct.pack("!IQIQ3s", i, 2 * i, 9, 3 * i, b"abc") for i in range(5)))
        batches = Collected().batches(message(told, scoped, data, a_set(300, struct.pack("!IQ", 1, 2)), domain=77))
        found = Collected().batches(*_messages(self.stored(*batches)))
        origin = {"exporterIPv4Address": 0xC0000201, "exporterTransportPort": 5000, "originalObservationDomainId": 77,
                  "collectionTimeMilliseconds": 2_000_000}  # fmt: skip
        expected = [without_context(row) | origin for batch in batches for row in batch.rows()]
        self.assertEqual(expected, [without_context(row) for batch in found for row in batch.rows()])
        self.assertIn("observationDomainId#2", expected[0])
        self.assertIn("octetDeltaCount#2", expected[0])


def _messages(octets):
    """The messages of a file."""
    while octets:
        (length,) = struct.unpack_from("!H", octets, 2)
        yield octets[:length]
        octets = octets[length:]
