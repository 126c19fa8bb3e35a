"""Who had an address, beside the kernel: NFCT and PARQUET on a host that masquerades, and ``conntrack -L``."""

import json
import subprocess
import sys
import time
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.live.service import Service
from tests.live.test_nfct import xml_flows
from tests.support import NetworkNamespaces, require_program, wait_until

HOSTS = ["10.200.0.2", "10.200.0.3", "10.200.0.4"]
RULES = """
table ip utwsnat {
    chain after { type nat hook postrouting priority 100; ip saddr 10.200.0.0/24 oifname "veth0" masquerade; }
}
"""
SERVER = """
import socket, sys
listening = socket.create_server((sys.argv[1], 8080), backlog=200)
print("ready", flush=True)
kept = []
while True:
    kept.append(listening.accept())
"""
CLIENT = """
import socket, struct, sys
kept = []
for host in sys.argv[2:]:
    for port in range(40000, 40010):  # the same ports on all hosts: NAT has to choose others
        one = socket.socket()
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        one.bind((host, port))
        one.connect((sys.argv[1], 8080))
        kept.append(one)
print("ready", flush=True)
sys.stdin.readline()
"""
STACKS = ["ct1:NFCT,pq1:PARQUET"]
CONFIG = """
[pq1]
directory="{dir}/store"
flush=1
retain=1d

[store:nat]
outputs="pq1"
question_log="{dir}/questions"
"""


class WhoHadTests(SynchronousTestCase):
    """A router with three hosts inside."""

    def setUp(self):
        require_program("conntrack", "nft")
        namespaces = self.namespaces = NetworkNamespaces(conntrack=True)
        namespaces.__enter__()
        self.addCleanup(namespaces.__exit__)
        for host in HOSTS:
            namespaces.run("a", ["ip", "address", "add", f"{host}/32", "dev", "lo"])
        namespaces.run("a", ["nft", "-f", "-"], input=RULES)
        for name in ("close", "time_wait"):
            path = f"/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_{name}"
            namespaces.run("a", ["sh", "-c", f"echo 1 >{path}"])
        self.service = Service(
            STACKS, CONFIG, settings='control_socket="{dir}/control"', namespace=lambda argv: namespaces.argv("a", argv)
        )
        self.server = self.begin("b", SERVER, namespaces.ipv4["b"])

    def begin(self, which, program, *words):
        """A program in a namespace, once it is ready."""
        process = subprocess.Popen(
            self.namespaces.argv(which, [sys.executable, "-c", program, *words]),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

        def end():
            process.kill()
            process.communicate()

        self.addCleanup(end)
        self.assertEqual("ready\n", process.stdout.readline())
        return process

    def tracked(self):
        """(outside, its port) -> (inside, its port) of the kernel's table."""
        text = self.namespaces.run("a", ["conntrack", "-L", "-p", "tcp", "-o", "xml"]).stdout
        flows = [f for f in xml_flows(text) if f["orig.l4.dport"] == 8080]
        return {
            (str(ip_address(f["reply.ip.daddr"])), f["reply.l4.dport"]): (
                str(ip_address(f["orig.ip.saddr"])), f["orig.l4.sport"],
            )
            for f in flows
        }  # fmt: skip

    def ask(self, place, at, *words):
        """Exit status, and the answers: (inside, port, state)."""
        command = Path(sys.executable).with_name("ulogd-tw")
        time_ = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
        given = [command, "who-had", "{}:{}".format(*place), "--at", time_, "--within", "0", "--json", *words]
        done = subprocess.run([str(word) for word in given], capture_output=True, text=True, timeout=20)
        self.assertTrue(done.stdout, done.stderr)
        found = json.loads(done.stdout)
        self.assertEqual(found["status"], done.returncode)
        return done.returncode, [(a["inside"], a["inside_port"], a["state"]) for a in found["answers"]], found

    def ask_all(self, expected, at, state, status, *words):
        """Every place has one holder, which is the kernel's."""
        for place, (inside, port) in expected.items():
            found = self.ask(place, at, *words)
            self.assertEqual((status, [(inside, port, state)]), found[:2], found[2])

    def test_beside_the_kernel(self):
        """While connections are open, after their end, and from the directory alone: as the kernel had it."""
        with self.service as service:
            socket = ["-s", service.directory / "control"]
            client = self.begin("a", CLIENT, self.namespaces.ipv4["b"], *HOSTS)
            expected = self.tracked()
            self.assertEqual(30, len(expected))
            self.assertGreater(len({port for _, port in expected}), 10)
            at = time.time()
            some = dict(list(expected.items())[::10])
            self.ask_all(some, at, "open", 0, *socket)
            nobody = next((self.namespaces.ipv4["a"], port) for port in range(39000, 40000))
            self.assertEqual((1, []), self.ask(nobody, at, *socket)[:2])
            client.communicate("\n")
            wait_until(lambda: not self.tracked(), what="the end of the connections")
            self.ask_all(some, at, "ended", 0, *socket)
            service.wait_for("pq1", "rows_written", 30)
            self.ask_all(some, at, "ended", 0, *socket)
            self.assertEqual((1, []), self.ask(next(iter(some)), time.time() - 0.1, *socket)[:2])
            lines = (service.directory / "questions").read_text().splitlines()
            self.assertEqual(3 * len(some) + 2, len(lines))
            service.kill()
        store = ["--store", service.directory / "store"]
        self.ask_all(dict(list(some.items())[:1]), at, "ended", 3, *store)
        _, _, found = self.ask(next(iter(some)), at, *store)
        self.assertIn("rows of that time were not yet in a file", {gap["reason"] for gap in found["incomplete"]})
