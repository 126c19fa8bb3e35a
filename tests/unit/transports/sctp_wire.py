"""Two ends of SCTP in memory: the real stack in user space, with packets that a seeded network loses and reorders."""

import random

from twisted.internet import task

from tests.support import require_library
from ulogd_tw.transports.sctp import Options, SCTPProtocol, user


class Wire:
    """Carries packets between a client and a server; `loss` and `reorder` are chances of each packet.

    `drops` chooses packets to be lost. Its clock drives the timers of the stack, which looks at the system's clock too
    and so sends later again than it would: tests run until something has come, not for a time.
    """

    def __init__(self, seed=1):
        from ulogd_tw.transports.sctp.stack import the_stack

        self.stack = the_stack()
        self.clock = task.Clock()
        self.loss = self.reorder = 0.0
        self.drops = lambda packet: False
        self.carried = 0
        self._random = random.Random(seed)
        self._packets = []
        self.server = End(self, "192.0.2.2")
        self._clients = 0

    def client(self):
        """The end of a client, at an address of its own."""
        self._clients += 1
        return End(self, f"192.0.2.{100 + self._clients}", self.server)

    def put(self, end, sender, packet):
        place = len(self._packets)
        if self._random.random() < self.reorder:
            place = self._random.randrange(place + 1)
        self._packets.insert(place, (end, (sender.host, 9899, b""), packet))

    def run(self, seconds=0.0):
        """Carry what waits, and let time pass."""
        for _ in range(max(round(seconds / 0.02), 1)):
            while self._packets:
                end, peer, packet = self._packets.pop(0)
                self.carried += 1
                if self._random.random() >= self.loss and not self.drops(packet):
                    self.stack.take(end, peer, packet)
            self.clock.advance(0.02)

    def run_until(self, predicate, most=300.0):
        """Let time pass until the predicate holds."""
        end = self.clock.seconds() + most
        while not predicate():
            assert self.clock.seconds() < end, "not in time"
            self.run()


class End:
    """A carrier."""

    octets = 1452

    def __init__(self, wire, host, to=None):
        self.wire, self.host, self.to = wire, host, to
        self.place = (host, 9899)
        self.ports, self.peers = set(), {}
        self.open = False
        self.refused = None
        if to is not None:
            to.peers[host] = self

    def begin(self):
        self.open = True

    def send(self, packet, peer):
        to = self.to or self.peers[peer[0]]
        if to.open:
            self.wire.put(to, self, packet)

    def close(self):
        self.open = False


class Peer(SCTPProtocol):
    """One end's protocol: what it was told."""

    def __init__(self):
        self.made = self.acknowledged = self.restarts = 0
        self.got, self.failed, self.ended, self.paths = [], [], [], []
        self.shut = self.held_back = False

    def connectionMade(self):
        self.made += 1

    def messageReceived(self, octets, stream, ppid):
        self.got.append((octets, stream, ppid))

    def messageFailed(self, context):
        self.failed.append(context)

    def allAcknowledged(self):
        self.acknowledged += 1

    def associationRestarted(self):
        self.restarts += 1

    def peerShutDown(self):
        self.shut = True

    def pathChanged(self, host, reachable):
        self.paths.append((host, reachable))

    def connectionLost(self, reason):
        self.ended.append(reason.type)

    def pauseProducing(self):
        self.held_back = True

    def resumeProducing(self):
        self.held_back = False


class Ends:
    """A listener on port 4739, and clients that connect to it."""

    def __init__(self, case, options=Options(), seed=1, build=None):  # noqa: B008 (frozen)
        require_library("libusrsctp.so.2", "libusrsctp2")
        self.wire = Wire(seed)
        self.options = options
        self.served, self.refused = [], []
        self.listener = user.Listener(
            self.wire.stack, [self.wire.server], 4739, options, self.wire.clock, build or self._build
        )
        self.listener.begin()
        case.addCleanup(self.close)
        self._made = []

    def _build(self, address):
        self.served.append(Peer())
        return self.served[-1]

    def begin(self, port=4739, options=None):
        """Begin an association; the protocol of the client."""
        peer = Peer()
        self._made.append(
            user.connect(self.wire.stack, self.wire.client(), ("192.0.2.2", 9899, b""), port, options or self.options,
                         self.wire.clock, lambda address: peer, self.refused.append)
        )  # fmt: skip
        return peer

    def pair(self, options=None):
        """An association that is up: protocols of client and server."""
        client = self.begin(options=options)
        self.wire.run(0.1)
        return client, self.served[-1]

    def close(self):
        self.listener.close()
        for association in [*self._made, *self.listener.open]:
            association.abortConnection()
        self.wire.run()
        assert not self.wire.stack.sockets and not self.wire.stack._ways, "something is left in the stack"
