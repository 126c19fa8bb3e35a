"""Doors: connections bounded in number, size and time, and the headers of every answer."""

import json

from twisted.internet import error
from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web import resource, server

from tests.unit.operating.api.client import Client
from ulogd_tw.operating.api import door
from ulogd_tw.operating.api.answers import Refused, refuse, send


class Slow(resource.Resource):
    """A page that answers when the test says so."""

    isLeaf = True

    def __init__(self):
        super().__init__()
        self.asked = []

    def render(self, request):
        self.asked.append(request)
        return server.NOT_DONE_YET


class DoorCase(SynchronousTestCase):
    """A door with one page, and a clock."""

    def setUp(self):
        self.clock = Clock()
        self.page = Slow()
        self.door = door.Door(self.page, self.clock)

    def connect(self):
        return Client(self.door, IPv4Address("TCP", "192.0.2.1", 50_000))

    def asked(self):
        client = self.connect()
        client.ask("GET", "/")
        return client


class BoundsTests(DoorCase):
    """What a client can take of us."""

    def test_silent(self):
        """Silent connections lock nobody out: the oldest goes when there are many, and each after some seconds."""
        silent = [self.connect() for _ in range(door.MOST_WAITING + 3)]
        self.assertEqual([True] * 3 + [False] * door.MOST_WAITING, [c.transport.aborted for c in silent])
        self.clock.advance(door.REQUEST_SECONDS)
        self.assertTrue(all(c.transport.aborted for c in silent))

    def test_drip(self):
        """A request that comes octet by octet has no more time than others, and is counted."""
        client = self.connect()
        for octet in b"GET / HTTP/1.1\r\nHost: local":
            if client.transport.aborted:
                break
            client.send(bytes([octet]))
            self.clock.advance(1)
        self.assertTrue(client.transport.aborted)
        self.assertEqual([], self.page.asked)

    def test_drip_of_headers(self):
        client = self.connect()
        client.send(b"GET / HTTP/1.1\r\n")
        for _ in range(door.REQUEST_SECONDS):
            client.send(b"a: b\r\n")
            self.clock.advance(1)
        self.assertTrue(client.transport.aborted)
        self.assertEqual({"slow": 1}, dict(self.door.refused))

    def test_headers(self):
        """Headers of 10 MB end the connection long before their end."""
        client = self.connect()
        client.send(b"GET / HTTP/1.1\r\n")
        for sent in range(10_000):  # noqa: B007
            client.send(b"a: " + b"b" * 1000 + b"\r\n")
            if client.transport.disconnecting:
                break
        self.assertLess(sent, 20)
        self.assertIn(b" 400 ", client.transport.value())
        client = self.connect()
        client.send(b"GET /" + b"x" * 20_000)
        self.assertTrue(client.transport.disconnecting)

    def test_body(self):
        """A body beyond the limit is refused: before it comes where its length is told, else when it is too long."""
        client = self.connect()
        client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n")
        self.assertIn(b" 413 ", client.transport.value())
        self.assertTrue(client.transport.disconnecting)
        client = self.connect()
        client.send(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(70):
            client.send(b"400\r\n" + b"x" * 1024 + b"\r\n")
        self.assertEqual(1, client.transport.value().count(b" 413 "))
        client.send(b"0\r\n\r\n")
        self.assertEqual([], self.page.asked)
        self.assertEqual({"too_large": 2}, dict(self.door.refused))

    def test_busy(self):
        """So many answers at a time; one more question is refused, and asked again it is answered."""
        clients = [self.asked() for _ in range(door.MOST_ANSWERS + 1)]
        self.assertEqual([None] * door.MOST_ANSWERS, [client.answer for client in clients[:-1]])
        status, _, body = clients[-1].answer
        self.assertEqual((503, True), (status, "again" in json.loads(body)["error"]))
        self.assertEqual({"busy": 1}, dict(self.door.refused))
        send(self.page.asked[0], 200, "text/plain", b"x")
        self.assertIsNone(self.asked().answer)
        self.assertEqual(door.MOST_ANSWERS + 1, len(self.page.asked))

    def test_gone(self):
        """A client that goes before its answer leaves its place to others, and no fault."""
        clients = [self.asked() for _ in range(door.MOST_ANSWERS)]
        clients[0].connection.connectionLost(Failure(error.ConnectionDone()))
        send(self.page.asked[0], 200, "text/plain", b"x")
        self.assertIsNone(self.asked().answer)
        self.assertEqual({}, dict(self.door.refused))

    def test_slow_reader(self):
        """A client that does not read its answer is given up after a while; one that waits for it is not."""
        client, waiting = self.asked(), self.asked()
        client.transport.value = lambda: b""
        request = self.page.asked[0]
        request.door.hurry(request.channel)
        self.clock.advance(door.ANSWER_SECONDS)
        self.assertEqual((True, False), (client.transport.aborted, waiting.transport.aborted))

    def test_long_answer(self):
        """A long answer waits with us, and not in the connection, while the client reads nothing; then it has to go."""
        client = self.asked()
        body = b"x" * 1_000_000
        send(self.page.asked[0], 200, "text/plain", body)
        client.connection.pauseProducing()
        self.assertLess(len(client.transport.value()), 200_000)
        self.assertTrue(client.connection.asking)
        self.clock.advance(door.ANSWER_SECONDS)
        self.assertTrue(client.transport.aborted)
        client.connection.stopProducing()
        client.connection.connectionLost(Failure(error.ConnectionDone()))
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_second_request(self):
        """A connection stays for further requests, for some seconds; its answers come in order."""
        client = self.asked()
        send(self.page.asked[0], 200, "text/plain", b"one")
        client.ask("GET", "/")
        client.ask("GET", "/")
        send(self.page.asked[1], 200, "text/plain", b"two")
        send(self.page.asked[2], 200, "text/plain", b"three")
        found = client.transport.value()
        self.assertTrue(0 < found.index(b"one") < found.index(b"two") < found.index(b"three"))
        self.clock.advance(door.REQUEST_SECONDS)
        self.assertTrue(client.transport.aborted)
        client.connection.connectionLost(Failure(error.ConnectionDone()))
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_fault(self):
        """A fault of ours costs one connection, is counted, and is in the log once."""
        self.patch(door.Request, "process", lambda request: 1 / 0)
        clients = [self.asked() for _ in range(3)]
        self.assertEqual([True] * 3, [client.transport.aborted for client in clients])
        self.assertEqual({"fault": 3}, dict(self.door.refused))
        self.assertEqual(1, len(self.flushLoggedErrors(ZeroDivisionError)))

    def test_malformed(self):
        """What is no HTTP is refused and counted."""
        for octets in (b"nonsense\r\n", b"GET / HTTP/1.1\r\nno colon\r\n\r\n", b"\x16\x03\x01\x02\r\n"):
            client = self.connect()
            client.send(octets)
            self.assertTrue(client.transport.disconnecting)
        self.assertEqual({"malformed": 3}, dict(self.door.refused))


class TextTests(DoorCase):
    """Requests that are HTTP, but nonsense."""

    def test_octets(self):
        """A header that is no text is refused, whichever it is; the page is not asked."""
        for name in (b"Host", b"Authorization", b"Cookie", b"X"):
            client = self.connect()
            client.send(b"GET / HTTP/1.1\r\n" + name + b": x\xff\xfe\r\n\r\n")
            status, _, body = client.answer
            self.assertEqual((400, True), (status, "no text in UTF-8" in json.loads(body)["error"]))
        self.assertEqual((4, []), (self.door.refused["header"], self.page.asked))

    def test_fault(self):
        """A fault of ours costs the request, not the connection of it without a word."""

        def admit(request):
            raise RuntimeError("a fault")

        self.patch(self.door, "admit", admit)
        client = self.asked()
        self.assertEqual((500, 1), (client.answer[0], self.door.refused["fault"]))
        self.assertEqual(1, len(self.flushLoggedErrors(RuntimeError)))

    def test_refused_when_gone(self):
        """A page that refuses a client that has gone writes nothing, and finds its door."""
        client = self.asked()
        client.connection.connectionLost(Failure(error.ConnectionLost()))
        (request,) = self.page.asked
        refuse(request, Failure(Refused(400, "query", "too late")))
        self.assertEqual({}, dict(self.door.refused))


class HeadersTests(DoorCase):
    """Headers of every answer."""

    def test_headers(self):
        """Browsers may keep, embed and load nothing; there is no CORS."""
        client = self.asked()
        send(self.page.asked[0], 200, "text/plain", b"x")
        _, headers, _ = client.answer
        self.assertEqual("default-src 'none'; frame-ancestors 'none'", headers["content-security-policy"])
        self.assertEqual(("no-store", "nosniff"), (headers["cache-control"], headers["x-content-type-options"]))
        self.assertEqual([], [name for name in headers if name.startswith("access-control")])
