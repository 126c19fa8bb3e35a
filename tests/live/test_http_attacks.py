"""Attacks on [http] and the control socket: refused with a reason and counted; nothing stalls, memory is bounded."""

import contextlib
import http.client
import json
import os
import socket
import threading
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.live.service import Service, temporary
from tests.support import free_port, wait_until

STACKS = ["demo1:DEMO,agg1:AGGREGATE,json1:JSON"]
CONFIG = """
[agg1]
key="sourceAddress,destinationAddress"
interval=3600
[json1]
file="{dir}/flows.json"
[http]
listen="tcp:127.0.0.1:PORT"
token_file="TOKEN"
"""
TOKEN = "f00dfacef00dfacef00dface"
HEAD = "Host: localhost\r\n"
MOST_MEMORY = 96 << 20
"""Octets by which the service may grow while it is attacked."""
MOST_STALL = 5.0
"""Seconds of a stall that fails the test: other processes may have the processor for that long."""


def request(line="GET /livez HTTP/1.1", headers=HEAD, body=b""):
    """The octets of a request."""
    return f"{line}\r\n{headers}\r\n".encode("utf-8", "surrogateescape") + body


def posted(body, headers=HEAD + f"Authorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\n"):
    """A query with this body."""
    return request("POST /api/v1/query HTTP/1.1", f"{headers}Content-Length: {len(body)}\r\n", body)


class Looking(threading.Thread):
    """Asks every 20 ms through the control socket; `longest` is the longest time to an answer, in seconds."""

    def __init__(self, path):
        super().__init__(daemon=True)
        self.path, self.longest, self.going, self.failed = path, 0.0, True, 0

    def run(self):
        while self.going:
            began = time.monotonic()
            try:
                with socket.socket(socket.AF_UNIX) as asked:
                    asked.settimeout(30)
                    asked.connect(self.path)
                    asked.sendall(request())
                    self.failed += not asked.recv(100).startswith(b"HTTP/1.1 200")
            except OSError:
                self.failed += 1
            self.longest = max(self.longest, time.monotonic() - began)
            time.sleep(0.02)

    def end(self):
        self.going = False
        self.join(40)


class AttackCase(SynchronousTestCase):
    """A service with both doors."""

    def setUp(self):
        self.port = free_port("tcp")
        folder = temporary("attacks")
        self.token = folder / "token"
        self.token.touch(0o600)
        self.token.write_text(TOKEN + "\n")
        config = CONFIG.replace("PORT", str(self.port)).replace("TOKEN", str(self.token))
        self.control = str(folder / "control")
        settings = f'control_socket="{self.control}"\nquery_timeout=3\nquery_memory=128M'
        self.service = Service(STACKS, config, settings=settings)
        self.service.start()
        self.addCleanup(self.service.stop)
        wait_until(lambda: self.refusals() is not None, 20, "the door")
        self.looking = Looking(self.control)
        self.looking.start()
        self.before = self.memory()
        self.addCleanup(self.check)

    def check(self):
        """At the end the service is as it was."""
        self.looking.end()
        self.assertEqual(0, self.looking.failed)
        self.assertLess(self.looking.longest, MOST_STALL)
        self.assertLess(self.memory() - self.before, MOST_MEMORY)
        output = self.service.output()
        self.assertNotIn("Traceback", output)
        self.assertNotIn("Unhandled", output)

    def memory(self):
        """Octets of the service in memory."""
        words = Path(f"/proc/{self.service.pid}/statm").read_text().split()
        return int(words[1]) * os.sysconf("SC_PAGE_SIZE")

    def connect(self):
        """A connection to the TCP door."""
        made = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        self.addCleanup(made.close)
        return made

    def send(self, octets):
        """All that is answered until the service closes, or says nothing for a while."""
        with contextlib.closing(self.connect()) as made:
            with contextlib.suppress(OSError):
                made.sendall(octets)
            found = b""
            made.settimeout(1.5 if octets.count(b"\r\n\r\n") else 0.3)
            with contextlib.suppress(OSError):
                while (some := made.recv(1 << 16)) and len(found) < 1 << 22:
                    found += some
                    made.settimeout(0.15)
            return found

    def status(self, octets):
        """The status of the answer; 0 where the connection is closed without one."""
        found = self.send(octets)
        return int(found.split()[1]) if found.startswith(b"HTTP/1.") else 0

    def refusals(self):
        """Refused requests of the TCP door by reason, as the metrics have them; None where it does not answer.

        An answer can be a second old.
        """
        time.sleep(1.1)
        asked = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            asked.request("GET", "/metrics")
            lines = asked.getresponse().read().decode().splitlines()
        except OSError:
            return None
        finally:
            asked.close()
        found = {}
        for line in lines:
            if line.startswith("ulogd_http_refused_total{") and "control_socket" not in line:
                reason = line.partition('reason="')[2].partition('"')[0]
                found[reason] = float(line.rsplit(" ", 1)[1])
        return found

    def refused(self, attacks, statuses, reason):
        """Each attack has one of these statuses, and is counted under the reason."""
        before = (self.refusals() or {}).get(reason, 0)
        for name, octets in attacks.items():
            self.assertIn(self.status(octets), statuses, name)
        if reason:
            after = self.refusals().get(reason, 0)
            self.assertGreaterEqual(after - before, len(attacks), (reason, self.refusals()))


class RequestTests(AttackCase):
    """Single requests."""

    def test_tokens(self):
        """SQL needs the token, and only as it is."""
        body = b'{"sql": "select count(*) from agg1"}'
        kind = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"

        def with_(*lines):
            return request("POST /api/v1/query HTTP/1.1", HEAD + "".join(f"{x}\r\n" for x in lines) + kind, body)

        self.refused({"none": with_(), "a cookie": with_("Cookie: ulogd_session=x"), "in the body": with_("X-Token: x"),
                      "remote user": with_("X-Remote-User: root", "Remote-User: root")}, {401}, "no_token")  # fmt: skip
        wrong = {"wrong": "Bearer x", "empty": "Bearer", "shorter": f"Bearer {TOKEN[:-1]}",
                 "longer": f"Bearer {TOKEN}0",
                 "basic": "Basic cm9vdDpyb290", "two": f"Bearer {TOKEN} {TOKEN}",
                 "long": "Bearer " + "x" * 15000}  # fmt: skip
        self.refused({name: with_(f"Authorization: {text}") for name, text in wrong.items()}, {401}, "wrong_token")
        self.assertEqual(200, self.status(with_(f"Authorization: Bearer {TOKEN}")))

    def test_hosts(self):
        """Names that lead here are none of ours; there is one Host."""
        names = ("evil.example", "localhost.evil.example", "127.0.0.1.nip.io", "evil.example:4780", "0x7f000001x")
        attacks = {name: request(headers=f"Host: {name}\r\n") for name in names}
        self.refused(attacks, {421}, "host")
        nonsense = ("", "localhost@evil.example:x", "[::1", "localhost:80:90", ":80")
        attacks = {name: request(headers=f"Host: {name}\r\n") for name in nonsense}
        attacks |= {"two": request(headers=HEAD + "Host: evil.example\r\n"), "none": request(headers=""),
                    "HTTP/1.0": request("GET /livez HTTP/1.0", "")}  # fmt: skip
        self.refused(attacks, {400, 421}, "host")
        origins = ("http://evil.example", "null", "https://localhost.evil.example", "file://")
        attacks = {name: request(headers=HEAD + f"Origin: {name}\r\n") for name in origins}
        self.refused(attacks, {403}, "origin")

    def test_octets(self):
        """Headers that are no text are refused, whichever they are."""
        names = ("Host", "Authorization", "Origin", "Cookie", "X-Remote-User", "X")
        attacks = {
            name: request(headers=(HEAD if name != "Host" else "") + f"{name}: x\udcff\udcfe\r\n") for name in names
        }
        self.refused(attacks, {400}, "header")

    def test_paths(self):
        """No file of the host is behind any path."""
        ups = ("/../../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/..%2f..%2fetc/passwd", "//etc/passwd", "/%00",
               "/api/v1/../../../../etc/passwd", "/api/v1/status/..%5c..%5cetc/passwd", "/api/v1/%2e%2e/metrics/x",
               "/static/../../etc/passwd", "/" + "a/" * 5000, "/%ff%fe", "/\udcff", "file:///etc/passwd")  # fmt: skip
        for path in ups:
            found = self.send(request(f"GET {path} HTTP/1.1"))
            self.assertNotIn(b"root:", found, path)
            self.assertIn(found.split()[1:2], ([b"404"], [b"400"], [b"405"]), path)
        methods = ("TRACE", "CONNECT", "OPTIONS", "DELETE", "PUT", "get", "G" * 5000, "GE\udcffT", "PROPFIND")
        for method in methods:
            self.assertIn(self.status(request(f"{method} /api/v1/status HTTP/1.1")), (400, 405, 501), method)

    def test_framing(self):
        """Bodies whose length cannot be told are refused, and smuggle no second request."""
        token = HEAD + f"Authorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\n"
        post = "POST /api/v1/query HTTP/1.1"
        chunked = token + "Transfer-Encoding: chunked\r\n"
        inner = request("GET /api/v1/status HTTP/1.1")
        attacks = {
            "no number": request(post, token + "Content-Length: x\r\n"),
            "negative": request(post, token + "Content-Length: -1\r\n"),
            "signed": request(post, token + "Content-Length: +5\r\n", b"12345"),
            "two": request(post, token + "Content-Length: 5\r\nContent-Length: 6\r\n", b"123456"),
            "a list": request(post, token + "Content-Length: 5, 5\r\n", b"12345"),
            "both": request(post, chunked + "Content-Length: 5\r\n", b"0\r\n\r\n" + inner),
            "other coding": request(post, token + "Transfer-Encoding: xchunked\r\n", b"0\r\n\r\n"),
            "two codings": request(post, token + "Transfer-Encoding: chunked, identity\r\n", b"0\r\n\r\n"),
            "chunk zz": request(post, chunked, b"zz\r\nhello\r\n0\r\n\r\n"),
            "chunk -1": request(post, chunked, b"-1\r\nhello\r\n0\r\n\r\n"),
            "chunk 0x5": request(post, chunked, b"0x5\r\nhello\r\n0\r\n\r\n"),
            "chunk 5_0": request(post, chunked, b"5_0\r\nhello\r\n0\r\n\r\n"),
            "chunk without end": request(post, chunked, b"5\r\nhelloX\r\n0\r\n\r\n"),
            "large chunk": request(post, chunked, b"ffffffffffffffffffff\r\nhello"),
            "long size": request(post, chunked, b"0" * 100_000),
            "long extension": request(post, chunked, b"5;" + b"x" * 1_000_000),
            "long trailer": request(post, chunked, b"0\r\n" + b"x: y\r\n" * 200_000),
        }
        for name, octets in attacks.items():
            found = self.send(octets)
            self.assertNotIn(b"200 OK", found, name)
        self.assertGreater(self.refusals().get("malformed", 0), 8, self.refusals())

    def test_headers(self):
        """Headers are bounded, and are what they should be."""
        attacks = {
            "a long line": request(headers=HEAD + "X: " + "x" * (10 << 20) + "\r\n"),
            "many lines": request(headers=HEAD + "X: y\r\n" * 1_000_000),
            "a long first line": request("GET /" + "x" * (10 << 20) + " HTTP/1.1"),
            "a line without end": b"GET /livez HTTP/1.1\r\nHost: " + b"x" * (10 << 20),
            "NULs": b"\0" * (1 << 20),
            "no colon": request(headers=HEAD + "nonsense\r\n"),
            "a blank in a name": request(headers=HEAD + "X y : z\r\n"),
            "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            "no version": b"GET /api/v1/status\r\n\r\n",
            "TLS": bytes.fromhex("16030100c8010000c40303") + os.urandom(192),
            "nothing of HTTP": os.urandom(100_000) + b"\r\n\r\n",
        }
        for name, octets in attacks.items():
            self.assertIn(self.status(octets), (0, 400, 404, 413, 414, 431, 505), name)
        self.assertGreater(self.refusals().get("malformed", 0), 3, self.refusals())

    def test_bodies(self):
        """Bodies are bounded; JSON is what it should be."""
        large = posted(b" " * (10 << 20))
        headers = HEAD + f"Authorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\n"
        part = b"8000\r\n" + b" " * 0x8000 + b"\r\n"
        chunks = request("POST /api/v1/query HTTP/1.1", headers + "Transfer-Encoding: chunked\r\n", part * 3)
        self.refused({"long": large, "chunks": chunks}, {413}, "too_large")
        bodies = (b"[" * 60_000, b'{"a":' * 12_000, b'{"sql": ' + b"9" * 60_000 + b"}", b'{"sql": "\xff\xfe"}',
                  b"\0" * 100, b'{"sql": null}', b'{"sql": ["x"]}', b'"x"', b'{"sql": 1e99999}',
                  b"\xef\xbb\xbf{}", b"{'sql': 1}")  # fmt: skip
        self.refused({repr(body[:30]): posted(body) for body in bodies}, {400}, "body")

    def test_parameters(self):
        """Parameters that make no sense."""
        for path in ("counters?instance=%00", "counters?instance=%ff", "counters?x=" + "y" * 10_000, "events?since=-1",
                     "events?since=1e9", "events?since=" + "9" * 5000, "templates?exporter=%27%22", "status?a=1&b=2",
                     "counters?" + "&".join(f"instance={n}" for n in range(900)), "tap?instance=no", "tap?rows=x",
                     "tap?instance=agg1&match=(((((", "tap?instance=agg1&rows=" + "9" * 400,
                     "tap?instance=agg1&match=" + "(" * 5000):  # fmt: skip
            found = self.send(request(f"GET /api/v1/{path} HTTP/1.1", HEAD + f"Authorization: Bearer {TOKEN}\r\n"))
            self.assertIn(found.split()[1:2], ([b"400"], [b"404"], [b"200"]), path)
            self.assertNotIn(b" 500 ", found[:30], path)

    def test_sql(self):
        """Queries beyond the tables, and those without end."""
        for text in ("select * from read_text('/etc/passwd'), agg1", "copy agg1 to '/tmp/utw-attack.csv'",
                     "select * from '/etc/passwd', agg1", "select 1; select * from agg1",
                     "set threads=9; select 1 from agg1",
                     "select current_setting('threads') from agg1", "select 1 from agg1 \0", "select \ud800 from agg1",
                     "select '\ud800' from agg1", "x" * 60_000 + " agg1", "select " + "(" * 20_000 + " agg1",
                     "call enable_logging(); select * from agg1", "select repeat('x', 1000000000) from agg1",
                     "select count(*) from agg1 a, agg1 b, agg1 c, agg1 d, agg1 e, range(100000)",
                     "with recursive n(i) as (select 1 union all select i + 1 from n) select max(i) "
                     "from n, agg1"):  # fmt: skip
            with contextlib.closing(self.connect()) as made:
                made.sendall(posted(json.dumps({"sql": text}).encode()))
                answer = made.recv(1 << 16)
            self.assertTrue(answer.startswith(b"HTTP/1.1 400 "), (text[:80], answer[:300]))
            self.assertNotIn(b"root:", answer)
            self.assertNotIn(b"ended with status", answer, text[:80])
        self.assertFalse(os.path.exists("/tmp/utw-attack.csv"))
        self.assertEqual(200, self.status(posted(b'{"sql": "select count(*) from agg1"}')))


class ManyTests(AttackCase):
    """Many at once, and slow ones."""

    def test_connections(self):
        """2,000 connections that say nothing or never end a request: others are answered meanwhile."""
        held = []
        for number in range(2000):
            made = self.connect()
            with contextlib.suppress(OSError):
                made.sendall((b"", b"G", b"GET / HTTP/1.1\r\n", request()[:-2] + b"X: ")[number % 4])
            held.append(made)
            if number % 500 == 499:
                self.assertEqual(200, self.status(request()))
        self.assertEqual(200, self.status(request()))
        open_ = sum(not self._closed(made) for made in held)
        self.assertLessEqual(open_, 200)
        for made in held:
            made.close()

    def _closed(self, made):
        made.setblocking(False)
        try:
            return made.recv(1) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True

    def test_slow(self):
        """Whoever sends an octet a second is cut off after a quarter of a minute, and counted."""
        made = self.connect()
        began = time.monotonic()
        with contextlib.suppress(OSError):
            for octet in request(headers=HEAD + "X: " + "x" * 100 + "\r\n"):
                made.sendall(bytes([octet]))
                time.sleep(0.5)
        self.assertLess(time.monotonic() - began, 25)
        self.assertGreaterEqual(self.refusals().get("slow", 0), 1)

    def test_pipelined(self):
        """A thousand requests in one write are answered one after the other, or the connection ends."""
        made = self.connect()
        made.settimeout(20)
        with contextlib.suppress(OSError):
            made.sendall(request() * 1000)
        found = b""
        with contextlib.suppress(OSError):
            while found.count(b"HTTP/1.1 200 OK") < 1000 and (some := made.recv(1 << 16)):
                found += some
        self.assertGreater(found.count(b"HTTP/1.1 200 OK"), 0)

    def test_readers(self):
        """Clients that ask for much and read nothing."""
        asked = request("GET /metrics HTTP/1.1") * 50
        held = [self.connect() for _ in range(40)]
        for made in held:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
            made.setblocking(False)
            with contextlib.suppress(OSError):
                made.send(asked)
        time.sleep(2)
        self.assertIn(self.status(request()), (200, 503))
        for made in held:
            made.close()
        wait_until(lambda: self.status(request()) == 200, 20, "an answer")

    def test_queries(self):
        """Heavy queries of many clients at once: two run, the others wait or are refused; metrics are answered."""
        heavy = posted(b'{"sql": "select count(*) from agg1 a, agg1 b, agg1 c, agg1 d, range(100000)"}')
        held = [self.connect() for _ in range(30)]
        for made in held:
            made.sendall(heavy)
        time.sleep(1)
        children = Path(f"/proc/{self.service.pid}/task/{self.service.pid}/children").read_text().split()
        self.assertLessEqual(len(children), 2)
        self.assertIsNotNone(self.refusals())
        for made in held:
            made.close()
        wait_until(lambda: self.status(posted(b'{"sql": "select count(*) from agg1"}')) == 200, 30, "an answer")


class FileTests(SynchronousTestCase):
    """The files on which access depends."""

    def run_with(self, folder, settings="", http=""):
        """What the log says of a service with these files, and whether it runs."""
        config = CONFIG.partition("[http]")[0] + http
        with Service(STACKS, config, settings=settings) as service:
            wait_until(lambda: "stacks running" in service.output(), 20, "the service")
            time.sleep(0.3)
            return service.output()

    def test_token_file(self):
        """A token that others can read opens nothing, and the log says what to do."""
        folder = temporary("tokens")
        token = folder / "token"
        token.write_text(TOKEN)
        token.chmod(0o644)
        port = free_port("tcp")
        said = self.run_with(folder, http=f'[http]\nlisten="tcp:127.0.0.1:{port}"\ntoken_file="{token}"\n')
        self.assertIn(f"chmod 600 {token}", said)
        with self.assertRaises(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=1)

    def test_control_socket(self):
        """A file or a link in place of the socket is kept; the socket has its mode whatever the umask."""
        folder = temporary("control")
        kept = folder / "kept"
        kept.write_text("mine")
        for name, make in (("file", lambda p: p.write_text("mine")), ("link", lambda p: p.symlink_to(kept))):
            path = folder / name
            make(path)
            said = self.run_with(folder, settings=f'control_socket="{path}"')
            self.assertIn("control_socket", said)
            self.assertEqual("mine", path.read_text(), said)
        self.assertEqual("mine", kept.read_text())
        path = folder / "socket"
        before = os.umask(0)
        try:
            config = CONFIG.partition("[http]")[0]
            with Service(STACKS, config, settings=f'control_socket="{path}"\ncontrol_socket_mode=660'):
                wait_until(path.exists, 20, "the socket")
                self.assertEqual(0o660, path.stat().st_mode & 0o777)
        finally:
            os.umask(before)
