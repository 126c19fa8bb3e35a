"""A TCP proxy before a database server, in the test's own reactor, which loses what it is told to lose."""

from twisted.internet import protocol, reactor
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint, connectProtocol

COMMIT = b"\x03COMMIT"
"""The commit of MySQL's protocol."""


class Back(protocol.Protocol):
    """The side of the server."""

    def __init__(self, front):
        self.front = front

    def dataReceived(self, data):
        self.front.from_server(data)

    def connectionLost(self, reason):
        self.front.transport.loseConnection()


class Front(protocol.Protocol):
    """The side of the client."""

    def connectionMade(self):
        self.back = None
        self.waiting = []
        self.deaf = self.frozen = False
        self.factory.fronts.append(self)
        self.frozen = self.factory.frozen
        connecting = connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", self.factory.server_port), Back(self))
        connecting.addCallbacks(self.joined, lambda _: self.transport.abortConnection())

    def joined(self, back):
        self.back = back
        waiting, self.waiting = self.waiting, []
        for data in waiting:
            self.dataReceived(data)

    def dataReceived(self, data):
        if self.back is None:
            self.waiting.append(data)
        elif self.frozen or self.factory.frozen:
            self.frozen = True
        elif self.factory.commit in data and self.factory.at_commit:
            way, self.factory.at_commit = self.factory.at_commit, None
            getattr(self, way)(data)
        else:
            self.back.transport.write(data)

    def from_server(self, data):
        if self.frozen or self.factory.frozen:
            self.frozen = True
        elif self.deaf:
            self.factory.answers_lost += 1
            self.transport.abortConnection()
        else:
            self.transport.write(data)

    def lose_answer(self, data):
        """The server commits, and the client never hears of it."""
        self.deaf = True
        self.back.transport.write(data)

    def lose_statement(self, data):
        """The server never gets it."""
        self.back.transport.abortConnection()
        self.transport.abortConnection()

    def delay(self, data):
        """The client is cut off at once; the server gets the statement a moment later."""
        back, self.back_held = self.back.transport, True
        self.factory.answers_lost += 1
        self.transport.abortConnection()
        reactor.callLater(0.5, back.write, data)

    def connectionLost(self, reason):
        if self.back is not None and not self.frozen and not getattr(self, "back_held", False):
            self.back.transport.loseConnection()


class Proxy(protocol.ServerFactory):
    """Forwards connections. `at_commit`: what is done with the next COMMIT, the name of a method of `Front`.

    While `frozen`, nothing passes and nothing is closed, as behind a firewall that has forgotten its connections;
    connections that were frozen once stay so.
    """

    protocol = Front
    noisy = False

    def __init__(self, server_port, commit=COMMIT):
        self.server_port = server_port
        self.commit = commit
        self.at_commit = None
        self.frozen = False
        self.answers_lost = 0
        self.fronts = []

    async def start(self):
        """Listen; `port` is where."""
        self.listening = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(self)
        self.port = self.listening.getHost().port

    async def stop(self):
        """Close everything."""
        for front in self.fronts:
            for transport in (front.transport, front.back and front.back.transport):
                if transport and transport.connected:
                    transport.abortConnection()
        await self.listening.stopListening()
