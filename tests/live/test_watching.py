"""Commands that look at a service under load, in a terminal: they show what happens, and no record is lost for them."""

import importlib.util
import json
import selectors
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from tests.live.service import Service, generate, ipfixgen, unaccounted
from tests.support import free_port, wait_until

PROGRAM = str(Path(sys.executable).with_name("ulogd-tw"))
STACKS = ["col1:COLLECTOR,agg1:AGGREGATE,json1:JSON"]
CONFIG = """
[col1]
listen="udp:127.0.0.1:{port}"
receive_buffer=128M
[agg1]
key="exporter,sourceAddress,protocolIdentifier"
interval=3600
[json1]
file="{dir}/sums.json"
"""
RATE = 200_000
SECONDS = 8


def command(*words, timeout=60):
    """Status, output and complaints of a command without a terminal."""
    done = subprocess.run([PROGRAM, *map(str, words)], capture_output=True, text=True, timeout=timeout)
    return done.returncode, done.stdout, done.stderr


class Watched(Service):
    """A collector with a control socket."""

    def __init__(self, more="", stacks=STACKS):
        self.port = free_port("udp")
        settings = 'control_socket="{dir}/control"\nreload=1'
        super().__init__(stacks, (CONFIG + more).replace("{port}", str(self.port)), settings=settings)
        self.socket = self.directory / "control"


class Listeners:
    """Clients that listen to what passes now, as the console's pages do; `looks` are the looks that each has got."""

    def __init__(self, path, count):
        self.sockets = [socket.socket(socket.AF_UNIX) for _ in range(count)]
        self.looks = [0] * count
        self._path, self._thread = str(path), threading.Thread(target=self._read)

    def __enter__(self):
        for one in self.sockets:
            one.connect(self._path)
            one.sendall(b"GET /api/v1/now HTTP/1.1\r\nHost: localhost\r\n\r\n")
        self._thread.start()
        return self

    def __exit__(self, *_):
        for one in self.sockets:
            one.shutdown(socket.SHUT_RDWR)
        self._thread.join(60)
        for one in self.sockets:
            one.close()

    def _read(self):
        with selectors.DefaultSelector() as selector:
            for number, one in enumerate(self.sockets):
                selector.register(one, selectors.EVENT_READ, number)
            while selector.get_map():
                for key, _ in selector.select(1):
                    octets = key.fileobj.recv(1 << 16)
                    self.looks[key.data] += octets.count(b"data: ")
                    if not octets:
                        selector.unregister(key.fileobj)


class UnderLoadTests(SynchronousTestCase):
    """200,000 records a second."""

    def terminal(self, service, *words):
        """A command in a terminal of its own, ended after the test if it runs still."""
        if importlib.util.find_spec("pexpect") is None:
            raise SkipTest("install: pip install .[test] for pexpect")
        import pexpect

        child = pexpect.spawn(PROGRAM, [*map(str, words), "-s", str(service.socket)], dimensions=(24, 100), timeout=30,
                              encoding="utf-8", env={"TERM": "xterm", "PATH": "/usr/bin:/bin"})  # fmt: skip
        self.addCleanup(child.close, force=True)
        return child

    def test_watched(self):
        """`top`, taps, `status` and twenty pages of the console look meanwhile: all that was sent is received."""
        ipfixgen()
        with Watched() as service, Listeners(service.socket, 20) as pages:
            with ThreadPoolExecutor(1) as pool:
                sending = pool.submit(generate, f"127.0.0.1:{service.port}", "-n", RATE * SECONDS, "-r", RATE)
                top = self.terminal(service, "top", "-i", "0.5", "-n", 5)
                tap = self.terminal(service, "tap", "col1", "octets > 100")
                unread = self.terminal(service, "tap", "col1")
                until = time.monotonic() + SECONDS - 3
                top.expect(r"source +proto +flows")
                tap.expect(r"sourceIPv4Address=")
                looks = 0
                while time.monotonic() < until:
                    look = self.terminal(service, "status")
                    look.expect(r"col1:COLLECTOR,agg1:AGGREGATE,json1:JSON +ok")
                    self.assertEqual(0, self.ended(look))
                    self.drain(top, tap)
                    looks += 1
                sent = sending.result()["records"]
            tap.expect("rows passed unseen")
            for child in (top, tap, unread):
                self.drain(child)
                child.sendintr()
            self.assertEqual([0, 3], [self.ended(child) for child in (top, tap)])
            self.ended(unread)
            service.wait_for("agg1", "rows_merged", sent)
            wait_until(lambda: not unaccounted(service.all_counters()))
            counters = service.counters("col1")
            self.assertGreaterEqual(looks, 2)
            wait_until(lambda: min(pages.looks) >= 3, 60, "three looks of each page")
        self.assertEqual((sent, {}), (counters["rows_received"], counters["lost"]))

    def drain(self, *children):
        """Take what is on the terminals."""
        import pexpect

        for child in children:
            try:
                while child.read_nonblocking(1 << 16, timeout=0):
                    pass
            except (pexpect.TIMEOUT, pexpect.EOF):
                pass

    def ended(self, child):
        """The exit status of a command that ends now."""
        wait_until(lambda: self.drain(child) or not child.isalive())
        child.close()
        return child.exitstatus


class ReloadedTests(SynchronousTestCase):
    """A tap while the configuration changes."""

    def test_reload(self):
        """The tap goes on with the new instance; when the instance is gone, it ends."""
        with Watched() as service:
            argv = [PROGRAM, "tap", "col1", "--json", "-s", str(service.socket)]
            with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as tap:
                self.addCleanup(tap.kill)
                self.rows(service, tap, 100)
                text = service.config.read_text()
                service.config.write_text(text.replace("protocolIdentifier", "destinationAddress"))
                status, out, said = command("reload", "-s", service.socket)
                self.assertEqual((0, True), (status, "agg1" in out), out + said)
                self.rows(service, tap, 100)
                service.config.write_text(text.replace("interval=3600", "interval=often"))
                status, out, said = command("reload", "-s", service.socket)
                self.assertEqual((1, ""), (status, out))
                self.assertIn("'often'", said)
                self.assertIn("nothing is changed", said)
                self.rows(service, tap, 100)
                service.config.write_text(text.replace("col1", "col2"))
                self.assertEqual(0, command("reload", "-s", service.socket)[0])
                _, said = tap.communicate(timeout=30)
            self.assertEqual(3, tap.returncode)
            self.assertIn("there is no col1 any more", said)

    def rows(self, service, tap, number):
        """Send rows, and see them in the tap; what was replaced by a reload shows none for a moment."""

        def seen():
            generate(f"127.0.0.1:{service.port}", "-n", number)
            return any("sourceIPv4Address" in json.loads(tap.stdout.readline()) for _ in range(number // 2))

        wait_until(seen)


class EveryCommandTests(SynchronousTestCase):
    """Each command, asked of a service in a process of its own."""

    WORDS = {
        "counters": [["counters"], ["counters", "col1"]],
        "tap": [["tap", "demo1", "-n", "2"], ["tap", "col1", "-n", "1", "octets > 1"]],
        "top": [["top", "--once"]],
        "query": [["query", "select count(*) n from agg1"]],
        "graph": [["graph"], ["graph", "--dot"]],
    }
    ASKED = ("status", "stacks", "graph", "counters", "exporters", "templates", "tap", "top", "query", "reload")

    def test_answers(self):
        """As text and as JSON, with status 0; after a restart the new process answers; without a service it is 2."""
        stacks = ["demo1:DEMO,exp1:IPFIX", "col1:COLLECTOR,agg1:AGGREGATE,json1:JSON"]
        more = '[demo1]\nrate=500\n[exp1]\ncollectors="udp:127.0.0.1:{port}"\n'
        with Watched(more, stacks) as service:
            service.wait_for("agg1", "rows_merged", 100)
            for name in self.ASKED:
                for words in self.WORDS.get(name, [[name]]):
                    status, out, said = command(*words, "-s", service.socket)
                    self.assertEqual((0, True), (status, bool(out)), f"{words}: {said}")
                    status, out, said = command(*words, "--json", "-c", service.config)
                    self.assertEqual(0, status, f"{words}: {said}")
                    for text in out.splitlines() if name == "tap" else [out]:
                        self.assertIsInstance(json.loads(text), dict | list, words)
            before = self.since(service)
            status, out, said = command("restart", "-s", service.socket)
            self.assertEqual((0, True), (status, out.startswith("restarted: pid")), out + said)
            self.assertGreater(self.since(service), before)
        for name in (*self.ASKED, "restart"):
            status, out, said = command(*self.WORDS.get(name, [[name]])[0], "-s", service.socket)
            self.assertEqual((2, "", True), (status, out, "does the service run" in said), name)

    def since(self, service):
        return json.loads(command("status", "--json", "-s", service.socket)[1])["since"]
