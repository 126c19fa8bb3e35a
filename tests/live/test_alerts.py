"""Alerts of a generated attack reach a real Alertmanager, a webhook and a command, once each, and so does their end."""

import http.server
import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.live.service import Service, temporary
from tests.support import Daemon, free_port, require_program, wait_until

CONFIG = """
[col1]
listen="udp:127.0.0.1:{port}"
[agg1]
key="sourceAddress,destinationAddress"
interval=2
[json1]
file="{dir}/flows.json"
[alert:attack]
when="octets by destinationAddress > 1G in 2s"
alertmanager="http://127.0.0.1:{manager}"
webhook="http://127.0.0.1:{hook}/direct"
command="{dir}/told {dir}/alert.json"
[alert:hang]
when="octets by destinationAddress > 1G in 2s"
command="{dir}/hang"
timeout=500ms
"""
MANAGER = """
route:
  receiver: hook
  group_by: ['...']
  group_wait: 0s
  group_interval: 1s
receivers:
  - name: hook
    webhook_configs:
      - url: http://127.0.0.1:{hook}/managed
"""


def netflow5(*flows):
    """A NetFlow v5 packet of (source, destination, octets)."""
    now = int(time.time())
    head = struct.pack("!HHIIIIBBH", 5, len(flows), 1000, now, 0, 0, 0, 0, 0)
    record = "!4s4s4sHHIIIIHHxBBBHHBBxx"
    body = (
        struct.pack(record, socket.inet_aton(source), socket.inet_aton(to), b"\0" * 4, 0, 0, 9, octets, 0, 900,
                    4000, 80, 0, 6, 0, 0, 0, 0, 0)
        for source, to, octets in flows
    )  # fmt: skip
    return head + b"".join(body)


class Hook(http.server.BaseHTTPRequestHandler):
    """Keeps what is posted."""

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.got.append((self.path, body))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        """Nothing is printed."""


class AlertsTests(SynchronousTestCase):
    """From a datagram to whoever is told."""

    def setUp(self):
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hook)
        self.server.got = []
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.addCleanup(self.server.server_close)
        self.addCleanup(self.server.shutdown)
        self.hook = self.server.server_address[1]

    def states(self, path):
        """The states that came to a path, in their order."""
        found = [body for where, body in self.server.got if where == path]
        return [body.get("state") or body["status"] for body in found]

    def manager(self, directory):
        require_program("prometheus-alertmanager")
        (directory / "manager.yml").write_text(MANAGER.replace("{hook}", str(self.hook)))
        port = free_port()
        argv = ["prometheus-alertmanager", f"--config.file={directory}/manager.yml", f"--storage.path={directory}/am",
                f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address="]  # fmt: skip
        running = Daemon(argv, lambda d: "Listening on" in d.output(), within=60)
        running.start()
        self.addCleanup(running.stop)
        return port

    def script(self, path, text):
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def test_attack(self):
        """Each receiver hears twice: that it fires, and that it ended. A hanging command is ended."""
        directory = temporary("alerts")
        self.script(directory / "told", 'cat >> "$1"; echo "$# $*" >> "$1.words"')
        self.script(directory / "hang", f"echo $$ >> {directory}/hanging; exec sleep 1000")
        port, manager = free_port("udp"), self.manager(directory)
        config = CONFIG
        for name, value in (("port", port), ("manager", manager), ("hook", self.hook)):
            config = config.replace("{" + name + "}", str(value))
        control = f'control_socket="{directory}/control"'
        with (
            Service(["col1:COLLECTOR,agg1:AGGREGATE,json1:JSON"], config, directory=directory, settings=control) as run,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
        ):
            begun = time.time()
            flows = [(f"192.0.2.{n}", "198.51.100.7", 300_000_000) for n in range(4)]
            sender.sendto(netflow5(("192.0.2.1", "198.51.100.8", 999_999_999), *flows), ("127.0.0.1", port))
            wait_until(lambda: "firing" in self.states("/managed"), 60, "the Alertmanager's message")
            wait_until(lambda: "resolved" in self.states("/managed"), 60, "the Alertmanager's second message")
            wait_until(lambda: len(self.states("/direct")) == 2, 60, "the webhook's second message")
            told = directory / "alert.json"
            wait_until(lambda: told.exists() and told.read_text().count("\n") == 2, 60, "the command's second run")
            wait_until(lambda: "was ended after 0.5 seconds" in run.output(), 60, "the end of the hanging command")
            program = Path(sys.executable).with_name("ulogd-tw")
            run.config.write_text(run.config.read_text() + 'keep=1m\n[alert:loss]\nwhen="lost > 0 in 1m"\n')
            again = subprocess.run([program, "reload", "-c", run.config], capture_output=True, text=True, timeout=60)
            done = subprocess.run([program, "alerts", "--json", "-c", run.config], capture_output=True, timeout=60)
        self.assertEqual((["firing", "resolved"],) * 2, (self.states("/managed"), self.states("/direct")))
        first = next(body for where, body in self.server.got if where == "/direct")
        self.assertEqual({"destinationAddress": "198.51.100.7"}, first["labels"])
        self.assertEqual((1_200_000_000, 1e9), (first["value"], first["threshold"]))
        self.assertGreater(first["since"], begun)
        (managed,) = next(body for where, body in self.server.got if where == "/managed")["alerts"]
        self.assertEqual({"alertname": "attack", "destinationAddress": "198.51.100.7"}, managed["labels"])
        lines = [json.loads(line) for line in told.read_text().splitlines()]
        self.assertEqual(["firing", "resolved"], [line["state"] for line in lines])
        self.assertEqual({f"1 {told}"}, set(Path(f"{told}.words").read_text().splitlines()))
        for pid in (directory / "hanging").read_text().split():
            self.assertRaises(ProcessLookupError, os.kill, int(pid), 0)
        self.assertEqual(0, done.returncode, done.stderr)
        self.assertEqual("[alert:hang] has changed\n[alert:loss] is new\n", again.stdout, again.stderr)
        self.assertEqual({"resolved"}, {alert["state"] for alert in json.loads(done.stdout)["alerts"]})
