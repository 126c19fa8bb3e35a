"""The netlink socket and the slab with real sockets: requests to the kernel's conntrack, datagrams of all sizes."""

import json
import socket
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.support import NetworkNamespaces, require_program
from ulogd_tw.transports.slab import Slab

TOP = Path(__file__).resolve().parents[2]

FLOWS = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
    s.bind(("", 1025))
    for port in range(1, 2001):
        s.sendto(b"z", (sys.argv[1], port))
"""

REQUESTS = """
import ipaddress, json, sys
from twisted.internet import defer, task
from ulogd_tw.core.plugin import ALL
from ulogd_tw.netfilter import requests
from ulogd_tw.netfilter.conntrack import Decoder
from ulogd_tw.transports.netlink import nlmsg
from ulogd_tw.transports.netlink.port import NetlinkError, NetlinkPort

async def main(reactor):
    said = {}
    port = NetlinkPort(None, print, reactor=reactor)
    port.open()
    port.start()
    decoder = Decoder(ALL)

    async def ask(name, request):
        try:
            parts = []
            found = await port.request(request.kind, request.flags, request.payload)
            messages = nlmsg.in_rows(found)
            batches = decoder.decode(messages.rows, messages.lengths, 1.0)
            said[name] = [row for batch in batches for row in batch.rows()]
        except NetlinkError as error:
            said[name] = error.number

    await ask("dump", requests.dump())
    await ask("six", requests.dump(10))
    await ask("dump and zero", requests.dump(2, zero=True))
    await ask("after", requests.dump(2))
    said["refused"] = dict(decoder.refused)
    await port.stop()
    print(json.dumps(said))

task.react(lambda reactor: defer.ensureDeferred(main(reactor)))
"""


class RequestTests(SynchronousTestCase):
    """Requests of ctnetlink answered by the kernel."""

    def test_requests(self):
        """A dump has all entries or one family's, and sets the counters to 0 where it is asked to."""
        require_program("conntrack")
        with NetworkNamespaces(conntrack=True) as ns:
            ns.run("a", [sys.executable, "-c", FLOWS, ns.ipv4["b"]])
            there = int(ns.run("a", ["conntrack", "-C"]).stdout)
            said = json.loads(ns.run("a", [sys.executable, "-c", REQUESTS], cwd=TOP).stdout)
        self.assertEqual(len(said["dump"]), there)
        self.assertLessEqual({1, 77, 2000}, {row.get("orig.l4.dport") for row in said["dump"]})
        self.assertTrue(all(row["oob.family"] == 10 for row in said["six"]))
        (one,) = (row for row in said["dump"] if row.get("orig.l4.dport") == 77)
        self.assertEqual((one["orig.l4.sport"], one["orig.raw.pktcount"], one["orig.raw.pktlen"]), (1025, 1, 29))
        self.assertEqual(len(said["dump and zero"]), len(said["after"]))
        self.assertEqual(sum(row["orig.raw.pktlen"] for row in said["after"]), 0)
        self.assertEqual({}, said["refused"])


class SlabTests(SynchronousTestCase):
    """recvmmsg."""

    def sockets(self, family, address):
        receiver, sender = (socket.socket(family, socket.SOCK_DGRAM) for _ in range(2))
        self.addCleanup(receiver.close)
        self.addCleanup(sender.close)
        receiver.bind((address, 0))
        sender.connect(receiver.getsockname())
        return receiver, sender

    def test_datagrams(self):
        """Each datagram in order, whole, whatever its size; again and again from the same slab."""
        receiver, sender = self.sockets(socket.AF_INET, "127.0.0.1")
        slab = Slab(4, 64, 1000)
        for _ in range(3):
            sent = [bytes([i]) * size for i, size in enumerate((0, 10, 64, 65, 1064, 1065))]
            for octets in sent:
                sender.send(octets)
            self.assertEqual(slab.receive(receiver.fileno()), 4)
            self.assertEqual(slab.lengths.tolist(), [0, 10, 64, 65])
            self.assertEqual([slab.octets(i) for i in range(4)], sent[:4])
            self.assertFalse(slab.truncated.any())
            self.assertEqual(slab.receive(receiver.fileno()), 2)
            self.assertEqual([slab.octets(i) for i in range(2)], [sent[4], sent[5][:1064]])
            self.assertEqual(slab.truncated.tolist(), [False, True])
            self.assertEqual(slab.receive(receiver.fileno()), 0)
            self.assertEqual(slab.lengths.tolist(), [])

    def test_peers(self):
        """Senders as text, and as numbers that are equal only for equal ones."""
        for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            receiver, sender = self.sockets(family, address)
            other = socket.socket(family, socket.SOCK_DGRAM)
            self.addCleanup(other.close)
            slab = Slab(8, 64)
            for from_ in (sender, other, sender):
                from_.sendto(b"x", receiver.getsockname())
            slab.receive(receiver.fileno())
            names = [s.getsockname()[1] for s in (sender, other, sender)]
            self.assertEqual([slab.peer(i) for i in range(3)], [(address, port) for port in names])
            first, second, third = map(tuple, slab.peers().tolist())
            self.assertEqual(first, third)
            self.assertNotEqual(first, second)

    def test_mapped_peer(self):
        """IPv4 in an IPv6 socket is shown as IPv4."""
        receiver = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        self.addCleanup(receiver.close)
        receiver.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        receiver.bind(("::", 0))
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.addCleanup(sender.close)
        sender.sendto(b"x", ("127.0.0.1", receiver.getsockname()[1]))
        slab = Slab(8, 64)
        slab.receive(receiver.fileno())
        self.assertEqual(slab.peer(0), ("127.0.0.1", sender.getsockname()[1]))
