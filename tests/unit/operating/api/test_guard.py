"""Who may ask through a TCP door, and with what."""

import json
import os
from pathlib import Path
from types import SimpleNamespace

from hypothesis import strategies as st
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.support import given
from tests.unit.operating.api.client import Client
from ulogd_tw.core.errors import StartError
from ulogd_tw.core.options import Options
from ulogd_tw.operating.api import options, tree, view
from ulogd_tw.operating.api.guard import GuardedDoor, host_of
from ulogd_tw.operating.api.tokens import Tokens

TOKEN = "correct-horse-battery-staple"
JSON = {"Content_Type": "application/json"}


class GuardCase(SynchronousTestCase):
    """Doors with sections of [http]."""

    def door(self, *lines, token=TOKEN, place="tcp:127.0.0.1:4780"):
        """A door at a place; `lines` are option=value."""
        self.clock = Clock()
        values = dict(line.split("=", 1) for line in lines)
        declared = {option.name: option for option in options.OPTIONS}
        if token:
            values["token_file"] = self.mktemp()
            Path(values["token_file"]).touch(0o600)
            Path(values["token_file"]).write_text(f"# ours\n{token}\n")
        made = Options(options.OPTIONS, {name: declared[name].read(text) for name, text in values.items()})
        tokens = Tokens(made.token_file, self.clock)
        tokens.open()
        (where,) = options.places(place)
        ulogd = SimpleNamespace(graph=None, reload=lambda: ["done"])
        return GuardedDoor(tree.root(view.View(ulogd, clock=self.clock)), where, made, tokens, self.clock)

    def ask(self, door, method="GET", path="/nothing", body=b"", peer="127.0.0.1", **headers):
        """Status, and what is said of the error. The page /nothing has an answer at once: 404."""
        client = Client(door, IPv4Address("TCP", peer, 50_000))
        client.ask(method, path, body, **headers)
        if client.answer is None:
            return 200, ""
        status, self.headers, octets = client.answer
        return status, json.loads(octets).get("error", "") if octets else ""

    def assertRefused(self, status, reason, door, *words, **headers):
        before = door.refused[reason]
        found, said = self.ask(door, *words, **headers)
        self.assertEqual((status, before + 1), (found, door.refused[reason]), said)
        self.assertTrue(said)


class LoopbackTests(GuardCase):
    """A door on loopback."""

    def test_open(self):
        """Counters are open; what changes the service or shows flows needs the token."""
        door = self.door()
        self.assertEqual(404, self.ask(door)[0])
        self.assertRefused(401, "no_token", door, "POST", "/api/v1/reload")
        self.assertEqual('Bearer realm="ulogd-tw"', self.headers["www-authenticate"])
        for path in ("/api/v1/query", "/api/v1/restart"):
            self.assertRefused(401, "no_token", door, "POST", path, b'{"sql": "select 1"}', **JSON)
        right = {"Authorization": f"Bearer {TOKEN}"}
        self.assertEqual(200, self.ask(door, "POST", "/api/v1/reload", **right)[0])

    def test_without_token_file(self):
        """The refusal says how to get in."""
        self.assertRefused(401, "no_token", door := self.door(token=""), "POST", "/api/v1/reload")
        self.assertIn("token_file=", self.ask(door, "POST", "/api/v1/reload")[1])

    def test_local_users(self):
        """local_users=1 opens everything to this host, and nothing to others."""
        self.assertEqual(200, self.ask(self.door("local_users=1"), "POST", "/api/v1/reload")[0])
        far = self.door("local_users=1", place="tcp:0.0.0.0:4780")
        self.assertRefused(401, "no_token", far, "POST", "/api/v1/reload")

    def test_wrong_token(self):
        """A wrong one is refused where none is needed, too: whoever sends it should know."""
        door = self.door()
        for wrong in ("Bearer wrong", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", f"Basic {TOKEN}", "Bearer", "Bearer ",
                      f"{TOKEN}", "Bearer \xff", "Bearer # ours"):  # fmt: skip
            self.assertRefused(401, "wrong_token", door, Authorization=wrong)


class FarTests(GuardCase):
    """A door that other hosts reach."""

    def test_token(self):
        """Nothing is open but /livez, the empty page of the console with its scripts, and the way in."""
        door = self.door(place="tcp:0.0.0.0:4780")
        for path in ("/metrics", "/api/v1/status", "/nothing", "/console", "/api/v1/", "//"):
            self.assertRefused(401, "no_token", door, "GET", path)
        for path in ("/livez", "/", "/console/main.js"):
            self.assertNotEqual(401, self.ask(door, "GET", path)[0])
        self.assertEqual(404, self.ask(door, Authorization=f"bearer {TOKEN}")[0])

    def test_certificate(self):
        """A client certificate is as good as a token; without verify it is not asked for."""
        self.assertEqual(200, self.ask(self.door(place="tls:0.0.0.0:4780"), "POST", "/api/v1/reload")[0])
        self.assertRefused(401, "no_token", self.door("verify=0", place="tls:0.0.0.0:4780"))

    def test_proxy(self):
        """The header of a named proxy counts; that of anybody else does not."""
        door = self.door("proxy=192.0.2.0/28", "remote_user_header=X-User", place="tcp:0.0.0.0:4780")
        self.assertEqual(404, self.ask(door, peer="192.0.2.7", X_User="ann")[0])
        self.assertRefused(401, "no_token", door, peer="192.0.2.99", X_User="ann")
        self.assertRefused(401, "no_token", door, peer="192.0.2.7")
        self.assertRefused(401, "no_token", door, peer="192.0.2.7", X_User=" ")
        other = self.door(place="tcp:0.0.0.0:4780")
        self.assertRefused(401, "no_token", other, peer="192.0.2.7", X_User="ann")


class HostTests(GuardCase):
    """Host and Origin: what a foreign page in a browser of this host cannot get around."""

    def test_names(self):
        door = self.door("hosts=flows.example.net, Other.")
        for good in ("localhost", "localhost:4780", "127.0.0.1:4780", "[::1]:4780", "192.0.2.1", "LOCALHOST",
                     "flows.example.net:80", "other"):  # fmt: skip
            self.assertEqual(404, self.ask(door, Host=good)[0], good)
        for wrong in ("evil.example", "localhost.evil.example", "evil.example:4780", "127.0.0.1.evil.example"):
            self.assertRefused(421, "host", door, Host=wrong)
        for wrong in ("", ":4780", "[::1", "[]:1", "localhost:x", "[::1]x"):
            self.assertRefused(400, "host", door, Host=wrong)

    def test_twice(self):
        """Two headers are refused: which of them is meant?"""
        client = Client(door := self.door(), IPv4Address("TCP", "127.0.0.1", 50_000))
        client.send(b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n")
        self.assertEqual((400, {"host": 1}), (client.answer[0], dict(door.refused)))
        client = Client(door, IPv4Address("TCP", "127.0.0.1", 50_000))
        client.send(b"GET / HTTP/1.1\r\n\r\n")
        self.assertEqual(400, client.answer[0])

    def test_origin(self):
        """A page of another site is refused, even with the token; our own page is not."""
        door = self.door()
        right = {"Authorization": f"Bearer {TOKEN}"}
        for wrong in ("http://evil.example", "null", "http://localhost.evil.example", "https://localhost:1"):
            self.assertRefused(403, "origin", door, "POST", "/api/v1/reload", Origin=wrong, **right)
        good = {"Origin": "http://localhost", **right}
        self.assertEqual(200, self.ask(door, "POST", "/api/v1/reload", **good)[0])

    @given(
        st.sampled_from(["Host", "Origin", "Authorization", "Cookie", "X-User", "Content-Type", "Connection"]),
        st.binary(max_size=40),
        st.booleans(),
    )
    def test_octets(self, name, octets, far):
        """Any octets in a header have an answer, or end the connection as malformed; none is a fault of ours."""
        lines = ["proxy=127.0.0.1", "remote_user_header=X-User"]
        door = self.door(*lines, place="tcp:0.0.0.0:4780" if far else "tcp:127.0.0.1:4780")
        client = Client(door, IPv4Address("TCP", "127.0.0.1", 50_000))
        host = b"" if name == "Host" else b"Host: localhost\r\n"
        head = b"POST /api/v1/query HTTP/1.1\r\n" + host + b"Content-Length: 2\r\n"
        client.send(head + name.encode() + b": " + octets.replace(b"\n", b"") + b"\r\n\r\n{}")
        self.assertIn(b"HTTP/1.1 4", client.transport.value())
        self.assertNotIn(b"HTTP/1.1 500", client.transport.value())
        client.connection.connectionLost(Failure(ConnectionDone()))

    @given(st.text())
    def test_any(self, text):
        """Any text gives a name or nothing."""
        self.assertIsInstance(host_of(text), str)


class TokensTests(GuardCase):
    """The file of tokens, and one-time tokens."""

    def file(self, text, mode=0o600):
        path = Path(self.mktemp())
        path.touch(mode)
        path.write_text(text)
        path.chmod(mode)
        return path

    def test_unusable(self):
        """A file that others can read, without a token, or with a short one, is refused with what to do."""
        for path, said in (
            (self.file(TOKEN, 0o640), "chmod 600"), (self.file(TOKEN, 0o604), "chmod 600"),
            (self.file("# nothing\n"), "at least 16"), (self.file("short\n" + TOKEN), "at least 16"),
            (Path("/nonexistent"), "No such file"), (Path("/dev/zero"), "/dev/zero"),
        ):  # fmt: skip
            error = self.assertRaises(StartError, Tokens(str(path), Clock()).open)
            self.assertIn(said, str(error))

    def test_changed(self):
        """Another file counts at once; one that cannot be used opens nothing."""
        path = self.file(TOKEN)
        tokens = Tokens(str(path), Clock())
        tokens.open()
        self.assertTrue(tokens.knows(TOKEN))
        path.write_text("another-token-of-ours\n" + "third-token-of-ours\n")
        self.assertEqual([False, True, True], [tokens.knows(t) for t in (TOKEN, "another-token-of-ours",
                                                                          "third-token-of-ours")])  # fmt: skip
        path.chmod(0o644)
        self.assertFalse(tokens.knows("another-token-of-ours"))
        os.unlink(path)
        self.assertFalse(tokens.knows("another-token-of-ours"))

    def test_one_time(self):
        """It opens one session, which lasts for hours; it is no token for requests."""
        door = self.door(token="")
        token = door.tokens.one_time()
        self.assertRefused(401, "wrong_token", door, Authorization=f"Bearer {token}")
        word = door.tokens.begin(token)
        self.assertIsNone(door.tokens.begin(token))
        self.assertEqual(200, self.ask(door, "POST", "/api/v1/reload", Cookie=f"ulogd_session={word}")[0])
        self.assertRefused(401, "no_token", door, "POST", "/api/v1/reload", Cookie="ulogd_session=other")
        self.clock.advance(13 * 3600)
        self.assertFalse(door.tokens.in_session(word))

    def test_login(self):
        """The way of a browser: the cookie is for our pages only, and the address has no token afterwards."""
        door = self.door(token="")
        request = SimpleNamespace(set={}, setHeader=lambda name, text: request.set.__setitem__(name, text))
        door.login(request, door.tokens.one_time())
        self.assertEqual("/", request.set["Location"])
        self.assertRegex(request.set["Set-Cookie"], r"^ulogd_session=[\w-]{32}; Path=/; HttpOnly; SameSite=Strict; Max")
        self.assertRefused(401, "wrong_token", door, "GET", "/login?token=other")
