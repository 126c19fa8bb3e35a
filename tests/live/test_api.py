"""The HTTP server of the running service: over TCP, TLS and Unix sockets; promtool reads its metrics."""

import contextlib
import http.client
import json
import os
import re
import socket
import ssl
import subprocess
import threading
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.certificates import CA
from tests.live.service import Service, UnixConnection, generate
from tests.support import free_port, require_program, wait_until

STACKS = ["col1:COLLECTOR,agg1:AGGREGATE,json1:JSON", "demo1:DEMO,exp1:IPFIX"]
CONFIG = """
[col1]
listen="udp:127.0.0.1:{port}"
[agg1]
key="5tuple"
interval=3600
[json1]
file="{dir}/flows.json"
[exp1]
collectors="udp:127.0.0.1:{port}"
[http]
listen="tcp:127.0.0.1:{tcp}, tls:127.0.0.1:{tls}, unix:{dir}/http.sock"
ca="{ca}"
cert="{cert}"
private_key="{key}"
token_file="{token}"
"""
TOKEN = "f00dfacef00dfacef00dface"


class ApiTests(SynchronousTestCase):
    """A collector with all kinds of doors."""

    def setUp(self):
        directory = Path(self.mktemp()).absolute()
        self.ca = CA(directory)
        cert, key = self.ca.issue("server", "127.0.0.1")
        self.client = self.ca.issue("client", "console.example")
        token = directory / "token"
        token.touch(0o600)
        token.write_text(TOKEN)
        self.port, self.tcp, self.tls = free_port("udp"), free_port("tcp"), free_port("tcp")
        words = {"port": self.port, "tcp": self.tcp, "tls": self.tls, "ca": self.ca.file, "cert": cert, "key": key,
                 "token": token}  # fmt: skip
        config = CONFIG
        for name, value in words.items():
            config = config.replace("{" + name + "}", str(value))
        self.run_ = Service(STACKS, config, ready="[http] listen: ")  # the last door, after the stacks
        self.run_.start()
        self.addCleanup(self.run_.stop)

    def get(self, path, connection=None, method="GET", body=None, **headers):
        """Status and body."""
        with contextlib.closing(connection or http.client.HTTPConnection("127.0.0.1", self.tcp, timeout=20)) as asked:
            asked.request(method, path, body, headers)
            answer = asked.getresponse()
            return answer.status, answer.read()

    def tls_connection(self, *files):
        context = ssl.create_default_context(cafile=self.ca.file)
        if files:
            context.load_cert_chain(*files)
        return http.client.HTTPSConnection("127.0.0.1", self.tls, context=context, timeout=20)

    def test_promtool(self):
        """promtool has no fault to find in the metrics; the numbers are those of stats_file."""
        require_program("promtool")
        generate(f"127.0.0.1:{self.port}", "-n", 3000)
        self.run_.wait_for("agg1", "rows_merged", 3000)
        status, text = self.get("/metrics")
        self.assertEqual(200, status)
        checked = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, timeout=30)
        self.assertEqual((0, b"", b""), (checked.returncode, checked.stdout, checked.stderr))
        lines = dict(line.rsplit(" ", 1) for line in text.decode().splitlines() if not line.startswith("#"))
        merged = float(lines['ulogd_rows_merged_total{instance="agg1",plugin="AGGREGATE"}'])
        self.assertGreaterEqual(merged, 3000)
        _, stats = self.get("/api/v1/counters?instance=agg1")
        self.assertGreaterEqual(json.loads(stats)["instances"]["agg1"]["rows_merged"], merged)

    def test_doors(self):
        """The same over TCP, over TLS with a client certificate, and over a Unix socket that only the owner opens."""
        ways = (None, self.tls_connection(*self.client), UnixConnection(str(self.run_.directory / "http.sock")))
        for connection in ways:
            status, text = self.get("/api/v1/status", connection)
            self.assertEqual((200, STACKS[0]), (status, json.loads(text)["stacks"][0]["text"]))
        self.assertEqual(0o600, os.stat(self.run_.directory / "http.sock").st_mode & 0o777)
        with self.assertRaises((ssl.SSLError, ConnectionError)):
            self.get("/api/v1/status", self.tls_connection())
        other = CA(Path(self.mktemp()).absolute(), "other").issue("x", "console.example")
        with self.assertRaises((ssl.SSLError, ConnectionError)):
            self.get("/api/v1/status", self.tls_connection(*other))

    def test_query(self):
        """SQL over TCP needs the token, over the others it does not."""
        asked = {"method": "POST", "body": '{"sql": "select count(*) from agg1"}', "Content-Type": "application/json"}
        self.assertEqual(401, self.get("/api/v1/query", **asked)[0])
        self.assertEqual(401, self.get("/api/v1/query", **asked, Authorization="Bearer x")[0])
        self.assertEqual(200, self.get("/api/v1/query", **asked, Authorization=f"Bearer {TOKEN}")[0])
        self.assertEqual(200, self.get("/api/v1/query", self.tls_connection(*self.client), **asked)[0])
        self.assertEqual(421, self.get("/api/v1/status", Host="evil.example")[0])

    def test_many_connections(self):
        """2,000 silent connections keep nobody out, and hold up nothing."""
        connections = []
        self.addCleanup(lambda: [connection.close() for connection in connections])
        slowest = 0.0
        for number in range(2000):
            made = socket.create_connection(("127.0.0.1", self.tcp))
            made.sendall(b"GET / HTTP/1.1\r\n")
            connections.append(made)
            if number % 200 == 0:
                before = time.monotonic()
                self.assertEqual(200, self.get("/api/v1/status")[0])
                slowest = max(slowest, time.monotonic() - before)
        self.assertLess(slowest, 5)
        descriptors = len(os.listdir(f"/proc/{self.run_.daemon.pid}/fd"))
        self.assertLess(descriptors, 400)

    def test_large_headers(self):
        """10 MB of headers end the connection before they are all sent."""
        with socket.create_connection(("127.0.0.1", self.tcp)) as made:
            made.sendall(b"GET / HTTP/1.1\r\n")
            with self.assertRaises(OSError):
                for _ in range(10_000):
                    made.sendall(b"X: " + b"y" * 1000 + b"\r\n")
        self.assertEqual(200, self.get("/api/v1/status")[0])

    def test_scraped_by_many(self):
        """Many clients at once get answers, or 503; none is left without."""
        found = []

        def ask():
            found.append(self.get("/metrics")[0])

        threads = [threading.Thread(target=ask) for _ in range(40)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        self.assertEqual((40, set()), (len(found), set(found) - {200, 503}))
        wait_until(lambda: self.get("/metrics")[0] == 200)


class HealthTests(SynchronousTestCase):
    """What is told of an outage, of exporters and of a start by hand."""

    def test_outage(self):
        """A collector that is away makes its stack down, with the reason; one that comes makes it ready."""
        away = free_port("tcp")
        config = f'[exp1]\ncollectors="tcp:127.0.0.1:{away}"\nreconnect=1\n'
        with Service(
            ["demo1:DEMO,exp1:IPFIX"], config, settings='control_socket="{dir}/c"', ready="control_socket: "
        ) as run:

            def ready():
                with contextlib.closing(UnixConnection(str(run.directory / "c"))) as asked:
                    asked.request("GET", "/readyz")
                    answer = asked.getresponse()
                    return answer.status, json.loads(answer.read())

            wait_until(lambda: ready()[0] == 503)
            (stack,) = ready()[1]["stacks"]
            self.assertEqual(("down", True), (stack["state"], f"tcp:127.0.0.1:{away}" in stack["reasons"][0]))
            with socket.create_server(("127.0.0.1", away)):
                wait_until(lambda: ready()[0] == 200)
                self.assertEqual("ok", ready()[1]["stacks"][0]["state"])
            with contextlib.closing(UnixConnection(str(run.directory / "c"))) as asked:
                asked.request("GET", "/api/v1/events")
                events = json.loads(asked.getresponse().read())["events"]
        self.assertEqual("start", events[0]["kind"])

    def test_by_hand(self):
        """The address that is printed opens one session, whose cookie opens what is private; then it is used up."""
        port = free_port("tcp")
        config = f'[http]\nlisten="tcp:127.0.0.1:{port}"\n[json1]\nfile="{{dir}}/out"\n'
        env = os.environ | {"ULOGD_TW_PRINT_TOKEN": "1"}
        with Service(
            ["demo1:DEMO,agg1:AGGREGATE,json1:JSON"], config + "[agg1]\nkey=5tuple\n", env=env, ready="open http://"
        ) as run:
            address = re.search(r"open http://127.0.0.1:\d+(/login\?token=\S+)", run.output())[1]

            def ask(method, path, **headers):
                with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as asked:
                    body = '{"sql": "select count(*) from agg1"}' if method == "POST" else None
                    asked.request(method, path, body, headers | {"Content-Type": "application/json"})
                    answer = asked.getresponse()
                    answer.read()
                    return answer.status, answer.headers

            self.assertEqual(401, ask("POST", "/api/v1/query")[0])
            status, headers = ask("GET", address)
            self.assertEqual((303, "/"), (status, headers["Location"]))
            cookie = headers["Set-Cookie"].partition(";")[0]
            self.assertEqual(200, ask("POST", "/api/v1/query", Cookie=cookie)[0])
            self.assertEqual(401, ask("GET", address)[0])
