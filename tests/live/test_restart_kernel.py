"""A reload and a restart while the kernel's connections, logged packets and packets of a device arrive."""

import json
import subprocess
import sys
from collections import Counter
from functools import partial

from twisted.trial.unittest import SynchronousTestCase

from tests.live.service import Service, ask, sleep, unaccounted
from tests.support import NetworkNamespaces, require_program, wait_until

FIRST, COUNT = 1000, 60_000
SENDER = """
import socket, sys, time
host, first, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sender.bind(("", 999))
for i in range(count):
    sender.sendto(b"z" * 100, (host, first + i))
    if i % 50 == 49:
        time.sleep(0.0025)
"""
RULES = """
table inet t {
    chain o { type filter hook output priority 0; udp sport 999 log group 5; ct state new accept; }
}
"""
STACKS = (
    "ct1:NFCT,jct:JSON",
    "log1:NFLOG,base1:BASE,jlog:JSON",
    "dev1:PACKET,base2:BASE,jdev:JSON",
)
CONFIG = """
[ct1]
accept_proto_filter=udp
[log1]
group=5
copy_range=200
[dev1]
interface=veth0
filter="udp src port 999"
[jct]
file="{dir}/ct.json"
[jlog]
file="{dir}/log.json"
[jdev]
file="{dir}/dev.json"
"""


class KernelTests(SynchronousTestCase):
    """Every connection, logged packet and packet once."""

    def setUp(self):
        require_program("conntrack", "nft")
        self.spaces = NetworkNamespaces(conntrack=True)
        self.spaces.__enter__()
        self.addCleanup(self.spaces.__exit__)
        self.spaces.run("a", ["nft", "-f", "-"], input=RULES)

    def ports(self, service, name, key):
        """The destination ports in the rows of a file, whose last line may be half written."""
        text = (service.directory / name).read_text().rpartition("\n")[0]
        return Counter(row[key] for row in map(json.loads, text.splitlines()) if key in row)

    def while_sending(self, change):
        """Call `change` in the middle of the traffic, and while connections end; the service, which has ended."""
        settings = 'control_socket="{dir}/control"\nstate_dir="{dir}/state"'
        with Service(STACKS, CONFIG, settings=settings, namespace=partial(self.spaces.argv, "a")) as service:
            argv = [sys.executable, "-c", SENDER, self.spaces.ipv4["b"], FIRST, COUNT]
            sender = subprocess.Popen(self.spaces.argv("a", argv))
            sleep(2.0)
            change(service, 0)
            self.assertEqual(0, sender.wait(60))
            flush = subprocess.Popen(self.spaces.argv("a", ["conntrack", "-F"]), stderr=subprocess.DEVNULL)
            change(service, 1)
            self.assertEqual(0, flush.wait(30))
            for name, key in (("ct", "orig.l4.dport"), ("log", "dest_port"), ("dev", "dest_port")):
                enough = lambda name=name, key=key: len(self.ports(service, f"{name}.json", key)) == COUNT  # noqa: E731
                self.patient(enough)
        self.assertEqual({}, unaccounted(service.all_counters()))
        self.assertNotIn("Traceback", service.output())
        self.assertNotIn("a bug", service.output())
        self.assertNotIn("the kernel dropped", service.output())
        return service

    @staticmethod
    def patient(condition):
        """Wait a while; what is missing then is shown by the comparison."""
        try:
            wait_until(condition, 10.0)
        except AssertionError:
            pass

    def assert_each_once(self, service):
        expected = Counter(range(FIRST, FIRST + COUNT))
        for name, key in (("ct", "orig.l4.dport"), ("log", "dest_port"), ("dev", "dest_port")):
            found = self.ports(service, f"{name}.json", key)
            missing, double = expected - found, found - expected
            self.assertEqual((0, 0), (missing.total(), double.total()), f"{name}\n{service.output()[-3000:]}")

    def test_restart(self):
        def restart(service, _):
            starts = service.output().count("stacks run")
            self.assertEqual({"restarting": True}, ask(service, "POST", "/api/v1/restart"))
            wait_until(lambda: service.output().count("stacks run") == starts + 1, 30.0, "it runs again")

        self.assert_each_once(self.while_sending(restart))

    def test_reload(self):
        """All three inputs are replaced."""

        def reload(service, turn):
            text = service.config.read_text()
            for former, new in (("[ct1]", "[ct1]\nreliable=1"), ("copy_range=200", "copy_range=150"),
                                ("[dev1]", "[dev1]\nsnaplen=128")):  # fmt: skip
                text = text.replace(*((former, new) if turn == 0 else (new, former)))
            service.config.write_text(text)
            changes = ask(service, "POST", "/api/v1/reload")["changes"]
            for name in ("ct1:NFCT", "log1:NFLOG", "dev1:PACKET"):
                self.assertTrue(any(line.startswith(f"{name} is replaced") for line in changes), changes)

        self.assert_each_once(self.while_sending(reload))
