"""Server-sent events of what passes now."""

import json

from twisted.internet import defer, reactor, task
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure

from tests.unit.operating.api.client import Client
from tests.unit.operating.api.test_pages import PagesCase
from tests.unit.plugins.filters.test_aggregate import batch_of
from ulogd_tw.operating.api import now, streaming


class NowTests(PagesCase):
    """A stack with AGGREGATE, at which clients look."""

    def setUp(self):
        super().setUp()
        self.opened = self.door()
        self.page = self.opened.resource.children[b"api"].children[b"v1"].children[b"now"]
        self.addCleanup(self.page.view.database.stop)
        self.clock = task.Clock()
        self.page.now._clock = self.clock
        self.clients = []

    def listen(self):
        """A client that listens."""
        client = Client(self.opened)
        client.ask("GET", "/api/v1/now")
        self.clients.append(client)
        self.addCleanup(client.connection.connectionLost, Failure(ConnectionDone()))
        return client

    @staticmethod
    def looks(client):
        """The looks that a client has got."""
        lines = client.transport.value().decode().splitlines()
        return [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]

    @defer.inlineCallbacks
    def until(self, client, count):
        """Wait until a client has got so many looks; the clock goes on meanwhile."""
        while len(self.looks(client)) < count:
            yield task.deferLater(reactor, 0.01)
            self.clock.advance(0.25)

    @defer.inlineCallbacks
    def test_looks(self):
        """Rates are those of the counters between two looks; the largest groups are those of the table."""
        client = self.listen()
        yield self.until(client, 1)
        first = self.looks(client)[0]
        self.assertEqual({}, first["rates"])
        (table,) = first["tables"]
        place = table["columns"].index("octets")
        self.assertEqual([15, 12, 9], [row[place] for row in table["rows"]])
        self.assertEqual((3, 36), (table["groups"], table["sums"]["octets"]))
        before = self.clock.seconds()
        self.give(batch_of([{"protocolIdentifier": 9, "octetDeltaCount": 99}]))
        yield self.until(client, 2)
        ident = self.graph.inputs[0].ident
        rate = self.looks(client)[1]["rates"][ident]["rows_emitted"]
        self.assertTrue(0 < rate * (self.clock.seconds() - before) <= 2, rate)
        head = client.transport.value().partition(b"\r\n\r\n")[0].decode()
        self.assertIn("text/event-stream", head)

    @defer.inlineCallbacks
    def test_shared(self):
        """Many clients get the same looks; they are no answers under way, so that others are answered."""
        clients = [self.listen() for _ in range(20)]
        yield self.until(clients[0], 2)
        self.assertEqual(1, len({json.dumps(self.looks(client)[0]) for client in clients}))
        self.assertEqual({}, self.opened._busy)
        self.assertEqual(20, len(self.page.listeners))

    @defer.inlineCallbacks
    def test_nobody(self):
        """Without clients nothing is looked at; the next one begins anew."""
        client = self.listen()
        yield self.until(client, 1)
        client.connection.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(set(), self.page.listeners)
        self.assertEqual([], self.clock.getDelayedCalls())
        again = self.listen()
        yield self.until(again, 1)
        self.assertEqual({}, self.looks(again)[0]["rates"])

    @defer.inlineCallbacks
    def test_slow(self):
        """A client that takes nothing misses looks, and is given up after a while."""
        self.page.view.clock = self.clock
        client, other = self.listen(), self.listen()
        yield self.until(other, 1)
        (listener,) = [one for one in self.page.listeners if one._request.channel is client.connection]
        listener.pauseProducing()
        got = len(self.looks(client))
        yield self.until(other, 3)
        self.assertEqual(got, len(self.looks(client)))
        self.clock.advance(streaming.SLOW_SECONDS)
        self.assertTrue(client.transport.aborted)
        self.assertEqual(1, self.opened.refused["slow"])

    @defer.inlineCallbacks
    def test_fault(self):
        """A look that meets a fault is logged, and the next one comes."""
        client = self.listen()
        yield self.until(client, 1)
        real, self.page.now._rates = self.page.now._rates, lambda: 1 / 0
        yield task.deferLater(reactor, 0.01)
        while not (logged := self.flushLoggedErrors(ZeroDivisionError)):
            self.clock.advance(0.25)
            yield task.deferLater(reactor, 0.01)
        self.assertEqual(1, len(logged))
        self.page.now._rates = real
        yield self.until(client, 2)

    def test_most(self):
        """There is a bound of clients."""
        self.patch(now, "MOST_LISTENERS", 2)
        clients = [self.listen() for _ in range(3)]
        self.assertEqual(503, clients[2].answer[0])
