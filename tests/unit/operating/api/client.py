"""A client of a door in memory: requests as octets, answers taken apart."""

import json
from types import SimpleNamespace

from twisted.internet import defer, error, reactor, task
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from ulogd_tw.operating.api import tree, view
from ulogd_tw.operating.api.door import Door
from ulogd_tw.operating.events import Events


class Transport(StringTransport):
    """Takes what a connection does that StringTransport does not know."""

    def __init__(self, peer=None):
        super().__init__(peerAddress=peer)
        self.aborted = False

    def abortConnection(self):
        self.aborted = True


class Client:
    """One connection to a door."""

    def __init__(self, door, peer=None):
        self.transport = Transport(peer)
        self.connection = door.buildProtocol(peer)
        self.connection.makeConnection(self.transport)
        self.method = ""

    def send(self, octets):
        """Octets as they are."""
        self.connection.dataReceived(octets)

    def ask(self, method, path, body=b"", **headers):
        """Send a request."""
        self.method = method
        lines = [f"{method} {path} HTTP/1.1", *(f"{name.replace('_', '-')}: {text}" for name, text in headers.items())]
        if "Host" not in headers:
            lines.append("Host: localhost")
        if body:
            lines.append(f"Content-Length: {len(body)}")
        self.send("\r\n".join([*lines, "", ""]).encode() + body)

    @property
    def answer(self):
        """(status, headers in small letters, body), or None before it is whole."""
        head, found, body = self.transport.value().partition(b"\r\n\r\n")
        if not found:
            return None
        first, *lines = head.decode().split("\r\n")
        headers = {name.lower(): text.strip() for name, _, text in (line.partition(":") for line in lines)}
        if self.method != "HEAD" and len(body) < int(headers.get("content-length", 0)):
            return None
        return int(first.split()[1]), headers, body


def view_of(graph, **members):
    """What a door sees of a service with these stacks."""
    usual = {"settings": SimpleNamespace(), "mistakes": (), "left_out": [], "events": Events()}
    ulogd = SimpleNamespace(**{"graph": graph} | usual | members)
    return view.View(ulogd, "ulogd.conf")


def door_of(graph, door=Door, **members):
    """A door to a service with these stacks."""
    return door(tree.root(view_of(graph, **members)))


@defer.inlineCallbacks
def asked(door, method, path, body=b"", **headers):
    """(status, headers, body) of one request; a body of JSON is read."""
    client = Client(door)
    client.ask(method, path, body, **headers)
    while client.answer is None:
        yield task.deferLater(reactor, 0)
    client.connection.connectionLost(Failure(error.ConnectionDone()))
    status, told, octets = client.answer
    return status, told, json.loads(octets) if octets and told["content-type"] == "application/json" else octets
