"""A transport that is one class and one entry of the table works at both ends: COLLECTOR and the output IPFIX."""

import errno
from collections import Counter

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.collecting.doubles import slab_of
from tests.unit.exporting.doubles import exporter, flows
from tests.unit.ipfix.wire import without_context
from ulogd_tw.core.errors import StartError
from ulogd_tw.core.options import Option, Options, text
from ulogd_tw.core.plugin import ALL
from ulogd_tw.exporting.udp import DatagramCollector
from ulogd_tw.operating.doctor import UNUSED, Machine
from ulogd_tw.peers import TRANSPORTS, Availability, Entrance, Transport, options_of, targets
from ulogd_tw.plugins.inputs.collector import COLLECTOR
from ulogd_tw.transports.udp_sender import SENT


class Memory(Transport):
    """Messages from one object to another. `ends` are those that listen, by port."""

    scheme = "memory"
    port = 7
    section = (Option("colour", text, "", "Colour of the wire: red or empty."),)

    def __init__(self):
        self.ends = {}

    def target_mistakes(self, target):
        if getattr(target.own, "colour", "") not in ("", "red"):
            yield "colour", "is not red"

    def entrance(self, reception, config):
        return MemoryEntrance(self.ends, reception)

    def collector(self, target, settings, config):
        made = DatagramCollector(target.url, settings)
        made.sender = MemorySender(self.ends, target.url, made._ready)
        return made

    def availability(self):
        return Availability(False, "not in this machine", "buy some")


class MemoryEntrance(Entrance):
    """The end of COLLECTOR."""

    def __init__(self, ends, reception):
        self.ends, self.reception = ends, reception

    def bind(self, url):
        listener = self.ends[url.port] = MemoryListener(self.reception)
        return [listener]


class MemoryListener:
    """A `Listener`."""

    place = "memory"
    lost = unread = 0
    begun = closed = False

    def __init__(self, reception):
        self.reception = reception

    def begin(self):
        self.begun = True

    def drain(self, until):
        """Nothing waits."""

    def poll(self):
        """Nothing is lost."""

    def close(self):
        self.closed = True


class MemorySender:
    """A `DatagramSender`."""

    headers = 0
    is_open = False
    last_error = ""

    def __init__(self, ends, url, ready):
        self.ends, self.url, self.ready = ends, url, ready
        self.errors = Counter()

    def open(self):
        self.is_open = True
        self.ready()

    def path_mtu(self):
        return 1400

    def send(self, octets):
        end = self.ends[self.url.port]
        end.reception.take_slab(end, slab_of([(bytes(octets), "192.0.2.1", 1)]))
        return SENT

    def send_all(self, messages):
        for octets in messages:
            self.send(octets)
        return len(messages), 0, SENT

    def close(self):
        self.is_open = False


class TableTests(SynchronousTestCase):
    """The promise of `ulogd_tw.peers`: a module with one class, and one line."""

    def setUp(self):
        self.memory = Memory()
        TRANSPORTS["memory"] = self.memory
        self.addCleanup(TRANSPORTS.pop, "memory")

    def test_both_ends(self):
        """What the output sends over the new scheme, the input receives over it."""
        got = []
        receiver = COLLECTOR("col1", Options(COLLECTOR.all_options(), {"listen": ("memory:9",)}))
        receiver.reactor = Clock()
        receiver.wanted, receiver.emit = ALL, got.append
        self.assertEqual([], list(receiver.mistakes()))
        receiver.open()
        receiver.begin()
        self.assertTrue(self.memory.ends[9].begun)
        batch = flows(3, reply__raw__pktcount=0)
        sender = exporter(batch.schema, collectors=("memory:there:9",))
        sender.reactor = Clock()
        sender.open()
        sender.write(batch)
        sender.flush()
        rows = [without_context(row) for found in got for row in found.rows()]
        self.assertEqual([1000, 1001, 1002], [row["octetDeltaCount"] for row in rows])
        self.successResultOf(sender.stop())
        self.successResultOf(receiver.stop())
        self.assertTrue(self.memory.ends[9].closed)

    def test_options_and_checks(self):
        """Its options, checks and URLs come from the class too; a missing port is its own."""
        self.assertIn("colour", [option.name for option in options_of("section")])
        sender = exporter(collectors=("udp:192.0.2.1",))
        found = [Options((*sender.section_options, *Memory.section), {"colour": c}) for c in ("red", "blue")]
        sender.config.collectors = ("memory:there", "memory:here")
        sender.config.sections = dict(zip(sender.config.collectors, found, strict=True))
        self.assertEqual([("[collector:memory:here] colour", "is not red")], list(sender.mistakes()))
        self.assertEqual(["memory:there:7", "memory:here:7"], [str(t.url) for t in targets.targets(sender.config)])

    def test_interface_comes_later(self):
        """A listener whose interface is not there is tried again every second; another fault ends the start."""
        for number, starts in ((errno.ENODEV, True), (errno.EADDRNOTAVAIL, True), (errno.EADDRINUSE, False)):
            faults = [OSError(number, "no"), OSError(number, "no")]
            bind = MemoryEntrance.bind

            def later(entrance, url, faults=faults, bind=bind):
                if faults:
                    raise faults.pop()
                return bind(entrance, url)

            self.patch(MemoryEntrance, "bind", later)
            self.memory.ends.clear()
            receiver = COLLECTOR("col1", Options(COLLECTOR.all_options(), {"listen": ("memory:9",)}))
            receiver.reactor = Clock()
            receiver.wanted, receiver.emit = ALL, lambda batch: None
            if not starts:
                self.assertRaises(StartError, receiver.open)
                continue
            receiver.open()
            receiver.begin()
            receiver.wake(0.0)
            self.assertEqual({}, self.memory.ends)
            receiver.wake(1.0)
            self.assertTrue(self.memory.ends[9].begun)
            self.successResultOf(receiver.stop())
            self.assertTrue(self.memory.ends[9].closed)
            self.patch(MemoryEntrance, "bind", bind)

    def test_doctor(self):
        """`doctor` says where a machine lacks it."""
        found = {finding.name: finding for finding in Machine().transports()}
        self.assertEqual(("not in this machine", UNUSED), (found["MEMORY"].found, found["MEMORY"].state))
