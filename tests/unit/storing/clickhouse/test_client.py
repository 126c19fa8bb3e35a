"""HTTP to servers in memory: what is asked, what errors say, and which server is taken."""

import http.client
import io

from twisted.trial.unittest import SynchronousTestCase

from ulogd_tw.storing.clickhouse import faults
from ulogd_tw.storing.clickhouse.client import Connection, NoAnswer, ServerError, Way, named

OLD = b"Code: 60, e.displayText() = DB::Exception: Table default.t doesn't exist., e.what() = DB::Exception\n"
"""As 18.16 has it."""
NEW = b"Code: 60. DB::Exception: Unknown table expression identifier 't'. (UNKNOWN_TABLE) (version 26.9.2.1)\n"
"""As 26.9 has it."""


def answer(body=b"", status="200 OK", **headers):
    """The octets of an answer."""
    lines = [
        f"HTTP/1.1 {status}",
        f"Content-Length: {len(body)}",
        *(f"{n.replace('_', '-')}: {v}" for n, v in headers.items()),
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


class Socket:
    """A connection in memory; `refuses`: it takes no octets any more."""

    def __init__(self, octets, refuses):
        self.octets, self.refuses, self.sent = octets, refuses, b""

    def sendall(self, octets):
        if self.refuses:
            raise BrokenPipeError(32, "Broken pipe")
        self.sent += bytes(octets)

    def makefile(self, mode):
        return io.BytesIO(self.octets)

    def settimeout(self, seconds):
        self.timeout = seconds

    def close(self):
        pass


class ClientCase(SynchronousTestCase):
    """`answers`: for each host its octets; an exception is raised by the connection."""

    def setUp(self):
        self.sockets, self.refuses = {}, False
        case = self

        class HTTPConnection(http.client.HTTPConnection):
            def connect(self):
                found = case.answers[self.host]
                if isinstance(found, Exception):
                    raise found
                self.sock = case.sockets[self.host] = Socket(found, case.refuses)

        self.patch(http.client, "HTTPConnection", HTTPConnection)

    def connection(self, **answers):
        """A connection to the first of these hosts that answers."""
        self.answers = answers
        self.way = Way([(host, 8123) for host in answers], "flöws", lambda: {"X-ClickHouse-Key": "ü€".encode()})
        return Connection(self.way)


class AskTests(ClientCase):
    """Statements."""

    def test_rows(self):
        """Rows and values, with the escapes of TabSeparated; odd line ends of Unicode are no ends."""
        found = self.connection(a=answer("a\\tb\t\\N\nc\x85\\\\n\t'\n".encode())).ask("SELECT 1")
        self.assertEqual(found, [["a\tb", "N"], ["c\x85\\n", "'"]])
        sent = self.sockets["a"].sent
        self.assertIn(b"database=fl%C3%B6ws", sent)
        self.assertIn(b"X-ClickHouse-Key: " + "ü€".encode() + b"\r\n", sent)
        self.assertTrue(sent.endswith(b"\r\n\r\nSELECT 1"))

    def test_insert(self):
        """The rows are the body, in pieces; settings are arguments."""
        self.connection(a=answer()).insert("INSERT INTO t FORMAT Native", [b"ab", memoryview(b"c")], "gzip", x=1)
        sent = self.sockets["a"].sent
        self.assertIn(b"query=INSERT%20INTO%20t%20FORMAT%20Native&x=1 HTTP", sent)
        self.assertIn(b"Content-Length: 3\r\nContent-Encoding: gzip\r\n", sent)
        self.assertTrue(sent.endswith(b"\r\n\r\nabc"))

    def test_errors(self):
        """The code is in a header or in the text; the text is the server's, without its dress."""
        for body, headers, text in (
            (OLD, {}, "Table default.t doesn't exist."),
            (NEW, {"X_ClickHouse_Exception_Code": 60}, "Unknown table expression identifier 't'. (UNKNOWN_TABLE)"),
        ):
            connection = self.connection(a=answer(body, "404 Not Found", **headers))
            error = self.assertRaises(ServerError, connection.ask, "SELECT 1")
            self.assertEqual((error.code, str(error)), (60, text))
            self.assertEqual(faults.meaning(error).reason, "table")

    def test_error_with_success(self):
        """An answer that begins well and has an exception is an error."""
        connection = self.connection(a=answer(NEW, X_ClickHouse_Exception_Code=60))
        self.assertRaises(ServerError, connection.ask, "SELECT 1")

    def test_proxy(self):
        """A proxy without a server behind it is a server that is away; one that wants a password is not."""
        for status, reason in (("502 Bad Gateway", "away"), ("401 Unauthorized", "permission")):
            error = self.assertRaises(ServerError, self.connection(a=answer(b"x", status)).ask, "SELECT 1")
            self.assertEqual(faults.meaning(error).reason, reason)

    def test_refused_body(self):
        """A server that takes no more octets of an insert says why."""
        self.refuses = True
        connection = self.connection(a=answer(OLD, "404 Not Found"))
        self.assertEqual(self.assertRaises(ServerError, connection.insert, "INSERT", [b"x"]).code, 60)

    def test_no_answer(self):
        """A connection that ends before the answer leaves a doubt."""
        for octets in (b"", answer(b"xx")[:-1], b"HTTP/1.1 200 OK\r\n", b"SSH-2.0\r\n"):
            error = self.assertRaises(NoAnswer, self.connection(a=octets).ask, "SELECT 1")
            self.assertTrue(error.sent, octets)
            self.assertTrue(faults.meaning(error).transient)


class FailoverTests(ClientCase):
    """Several servers."""

    AWAY = ConnectionRefusedError(111, "Connection refused")

    def test_next(self):
        """The first that answers is kept, and the next one is tried first when it has trouble."""
        connection = self.connection(a=self.AWAY, b=answer(), c=answer())
        self.assertEqual((connection.host, self.way.first), (1, 1))
        self.way.next()
        self.assertEqual(Connection(self.way).host, 2)
        self.way.next()
        self.assertEqual(Connection(self.way).host, 1)

    def test_none(self):
        """Without any, the error names all; nothing was sent."""
        error = self.assertRaises(NoAnswer, self.connection, a=self.AWAY, b=TimeoutError())
        self.assertEqual(str(error), "a:8123: Connection refused; b:8123: no answer in time")
        self.assertFalse(error.sent or error.untrusted)

    def test_named(self):
        """Addresses of IPv6 have brackets."""
        self.assertEqual(named(("::1", 8123)), "[::1]:8123")


class FaultTests(SynchronousTestCase):
    """What errors mean."""

    def test_codes(self):
        """Errors of the login, the disk, of too many parts, and of rows."""
        for code, reason, transient in (
            (516, "permission", False), (243, "full", False), (252, "locked", True), (242, "read_only", False),
            (241, "away", True), (469, "refused", False),
        ):  # fmt: skip
            fault = faults.meaning(ServerError(code, 500, "x"))
            self.assertEqual((fault.reason, fault.transient), (reason, transient), code)

    def test_partitions(self):
        """Too many partitions in one insert are a matter of its rows."""
        error = ServerError(252, 500, "Too many partitions for single INSERT block (more than 100)")
        self.assertTrue(faults.meaning(error).of_rows and faults.about_row(error))

    def test_others(self):
        """A missing file is a mistake of the configuration; other exceptions are faults of ours."""
        self.assertEqual(faults.meaning(FileNotFoundError(2, "x")).reason, "permission")
        self.assertIsNone(faults.meaning(KeyError("x")))
