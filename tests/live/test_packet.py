"""PACKET beside tcpdump: the same packets off a wire between two namespaces, every drop counted, a clean stop."""

import socket
import struct

from twisted.internet import defer, reactor, task, threads
from twisted.trial.unittest import TestCase

from tests.live.service import temporary
from tests.support import Daemon, NetworkNamespaces, require_program, wait_until
from ulogd_tw.core.errors import StartError
from ulogd_tw.core.options import Options
from ulogd_tw.core.plugin import ALL
from ulogd_tw.plugins.inputs.packet import PACKET
from ulogd_tw.transports.namespace import inside


def captured(path):
    """(time in microseconds, octets) of every packet of a pcap file, read with struct alone."""
    octets, at = path.read_bytes(), 24
    while at + 16 <= len(octets):
        seconds, part, length, _ = struct.unpack_from("<IIII", octets, at)
        yield seconds * 1_000_000 + part, octets[at + 16 : at + 16 + length]
        at += 16 + length


BEGIN, END = 9001, 9002
"""Ports of datagrams that mark where captures are compared: programs begin at different times."""


def marks(packets, port):
    """The places of such datagrams."""
    ports = port.to_bytes(2, "big")
    return [i for i, (_, octets) in enumerate(packets) if octets[23:24] == b"\x11" and octets[36:38] == ports]


def between(packets):
    """The packets between the last begin and the end."""
    return packets[marks(packets, BEGIN)[-1] : marks(packets, END)[0]]


class PacketTests(TestCase):
    """In this process, on the real reactor."""

    timeout = 120

    def setUp(self):
        require_program("tcpdump")
        self.spaces = NetworkNamespaces()
        self.spaces.__enter__()
        self.addCleanup(self.spaces.__exit__)
        self.inputs = []

    def open(self, which="b", **options):
        """A PACKET that reads in a namespace; its packets as (time, octets) are in `got`."""
        space = f"/run/netns/{self.spaces.names[which]}"
        options = {"interface": ("veth0",), "network_namespace_path": space} | options
        packet = PACKET("p1", Options(PACKET.all_options(), options), reactor)
        self.assertEqual(list(packet.mistakes()), [])
        packet.wanted, packet.got, packet.batches = ALL, [], []
        packet.emit = lambda batch: self.keep(packet, batch)
        packet.open()
        packet.begin()
        self.inputs.append(packet)
        self.addCleanup(packet.stop)
        return packet

    def keep(self, packet, batch):
        columns = batch.columns
        times = columns["oob.time.sec"].astype(int) * 1_000_000 + columns["oob.time.usec"]
        packet.got += zip(times.tolist(), columns["raw.pkt"].to_list(), strict=True)
        packet.batches.append(batch)

    def send(self, count, octets, port=9999, sources=1):
        """Datagrams of UDP from a to b."""
        with inside(f"/run/netns/{self.spaces.names['a']}"):
            sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(sources)]
        for number in range(count):
            sockets[number % sources].sendto(bytes(octets), (self.spaces.ipv4["b"], port))
        for each in sockets:
            each.close()

    def send_tagged(self, count):
        """Frames with a VLAN tag: priority 5, VLAN 5."""
        with inside(f"/run/netns/{self.spaces.names['a']}"):
            wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
            wire.bind(("veth0", 0))
        with wire:
            for number in range(count):
                wire.send(bytes.fromhex("ffffffffffff 020000000001 8100 a005 0800 4500") + bytes(60 + number))

    @defer.inlineCallbacks
    def test_the_packets_of_tcpdump(self):
        """Octet by octet and to the microsecond, both directions, with VLAN tags; and those of a filter."""
        run, folder = self.spaces.run, temporary("packet")
        path, filtered = folder / "all.pcap", folder / "some.pcap"
        packet = self.open()
        words = ["tcpdump", "-i", "veth0", "-w", path, "-U", "-B", "8192", "-Z", "root"]
        more = ["-Q", "in", "-s", "60", "icmp and net 10.77.0.0/16 or tcp"]
        commands = [words, [*words[:4], filtered, *words[5:], *more]]
        some = self.open(filter="icmp and net 10.77.0.0/16 or tcp", snaplen=60, direction="in")
        daemons = [Daemon(self.spaces.argv("b", c), lambda d: "listening" in d.output()) for c in commands]
        for daemon in daemons:
            daemon.start()
            self.addCleanup(daemon.stop)
        while not marks(list(captured(path)), BEGIN):
            self.send(1, 0, port=BEGIN)
            yield task.deferLater(reactor, 0.1)
        yield task.deferLater(reactor, 0.5)
        self.send(1, 0, port=BEGIN)
        self.send_tagged(20)
        for address in (self.spaces.ipv4["b"], self.spaces.ipv6["b"]):
            yield threads.deferToThread(run, "a", ["ping", "-c", "5", "-i", "0.01", "-s", "900", address])
        yield threads.deferToThread(self.send, 500, 1200)
        self.send(1, 0, port=END)
        while not marks(list(captured(path)), END) or len(list(captured(filtered))) < 5:
            yield task.deferLater(reactor, 0.1)
        for daemon in daemons:
            daemon.stop()
        yield packet.stop()
        yield some.stop()
        ours = between(packet.got)
        theirs = between(list(captured(path)))
        self.assertGreater(len(theirs), 540)
        self.assertEqual(sum(octets[12:20] == bytes.fromhex("8100 a005 0800 4500") for _, octets in theirs), 20)
        self.assertEqual([octets for _, octets in ours], [octets for _, octets in theirs])
        # Each socket takes the time of a packet itself where the device has not.
        self.assertLess(max(abs(one - two) for (one, _), (two, _) in zip(ours, theirs, strict=True)), 20_000)
        self.assertEqual([octets for _, octets in some.got], [octets for _, octets in captured(filtered)])
        self.assertEqual(len(some.got), 5)
        self.assertEqual({len(octets) for _, octets in some.got}, {60})

    @defer.inlineCallbacks
    def test_drops_are_counted(self):
        """A ring that is too small while nobody reads: what came and what was lost is what was sent."""
        packet = self.open(ring=1, filter="udp port 9999")
        self.send(5000, 1000)  # the reactor does not run meanwhile
        yield task.deferLater(reactor, 0.2)
        yield packet.stop()
        lost = packet.counters.lost["kernel"]
        self.assertGreater(lost, 1000)
        self.assertEqual(len(packet.got) + lost, 5000)
        self.assertGreater(packet.counters.figures["ring_full"](), 0)
        self.assertEqual(packet.counters.rows_received, len(packet.got))

    @defer.inlineCallbacks
    def test_what_the_stop_finds(self):
        """Packets of a moment before are handed on; then nothing is left open."""
        packet = self.open(filter="udp port 9999", batch_latency=0.2)
        self.send(100, 100)
        stopping = packet.stop()
        self.send(10, 100)  # too late
        yield stopping
        self.assertEqual(len(packet.got), 100)
        self.assertEqual([port.fileno() for port in packet.ports], [-1])
        self.assertNotIn(packet.ports[0], reactor.getReaders())

    @defer.inlineCallbacks
    def test_fanout(self):
        """Sockets of one group share the packets, each flow at one of them."""
        packets = [self.open(filter="udp port 9999", fanout=77) for _ in range(2)]
        self.send(2000, 100, sources=40)
        yield task.deferLater(reactor, 0.2)
        for packet in packets:
            yield packet.stop()
        ports = [{octets[34:36] for _, octets in packet.got} for packet in packets]
        self.assertEqual(sum(len(packet.got) for packet in packets), 2000)
        self.assertTrue(ports[0] and ports[1])
        self.assertFalse(ports[0] & ports[1])

    @defer.inlineCallbacks
    def test_directions(self):
        """Of the one that sends: out are those, in are the answers."""
        both = [self.open("a", filter="icmp", direction=direction) for direction in ("out", "in")]
        yield threads.deferToThread(self.spaces.run, "a", ["ping", "-c", "3", "-i", "0.01", self.spaces.ipv4["b"]])
        yield task.deferLater(reactor, 0.2)
        for packet in both:
            yield packet.stop()
        self.assertEqual([[octets[34] for _, octets in packet.got] for packet in both], [[8] * 3, [0] * 3])
        out, back = (packet.batches[0].schema for packet in both)
        self.assertIn("oob.ifindex_out", out)
        self.assertNotIn("oob.ifindex_in", out)
        self.assertIn("oob.in", back)

    @defer.inlineCallbacks
    def test_a_device_that_goes_down(self):
        """Reading goes on when it is up again, also where another one of the same name has taken its place."""
        packet = self.open(filter="udp port 9999")
        run = self.spaces.run
        found = []
        for step in ("nothing", "down", "removed"):
            if step == "down":
                run("b", ["ip", "link", "set", "veth0", "down"])
                yield task.deferLater(reactor, 0.2)
                run("b", ["ip", "link", "set", "veth0", "up"])
            elif step == "removed":
                run("b", ["ip", "link", "del", "veth0"])
                yield task.deferLater(reactor, 0.2)
                other = ["type", "veth", "peer", "name", "veth0", "netns", self.spaces.names["b"]]
                run("a", ["ip", "link", "add", "veth0", *other])
                for which in "ab":
                    run(which, ["ip", "address", "add", f"{self.spaces.ipv4[which]}/24", "dev", "veth0"])
                    run(which, ["ip", "link", "set", "veth0", "up"])
            yield task.deferLater(reactor, 1.5)
            self.send(10, 100)
            yield task.deferLater(reactor, 0.3)
            found.append(len(packet.got))
        self.assertEqual(found, [10, 20, 30])
        self.assertEqual(len(reactor.getReaders()), len(set(reactor.getReaders())))

    def test_what_cannot_be_read(self):
        """No such filter: the message says so, and nothing stays open. An interface may still come."""
        with self.assertRaises(StartError) as caught:
            self.open(filter="tcp prot 80")
        self.assertIn("filter 'tcp prot 80': ", str(caught.exception))
        wait_until(lambda: not any("packet" in str(r) for r in reactor.getReaders()), 1)
