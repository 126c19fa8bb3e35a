"""The how-to about containers, walked literally: a host with a bridge, two containers behind NAT, a published port."""

import os
import re
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.support import TOP, Daemon, NetworkNamespaces, require_program, wait_until

PART = (TOP / "docs" / "howto.md").read_text("utf-8").split("\n## Containers: who talks to whom\n")[1].split("\n## ")[0]
RULES, MARKS, CONFIGURATION, QUERY = re.findall(r"^```\n(.*?)^```", PART, re.M | re.S)[:4]
WEB, API = "10.88.0.2", "10.88.0.3"
NAT = """
table ip published {{
    chain to {{ type nat hook prerouting priority -100
        tcp dport 8080 fib daddr type local dnat to {api}:80
    }}
    chain from {{ type nat hook postrouting priority 100
        ip saddr 10.88.0.0/16 oifname "veth0" masquerade
    }}
}}
"""
SERVER = "import http.server as h; h.ThreadingHTTPServer(('', {port}), h.SimpleHTTPRequestHandler).serve_forever()"
CLIENT = "import urllib.request as u; u.build_opener(u.ProxyHandler({{}})).open('{url}', timeout=20).read()"


def run(words):
    """Run a command; its status is checked."""
    subprocess.run(words.split(), check=True, capture_output=True, timeout=60)


class Host:
    """The host `a` of two namespaces with a bridge and two containers; `b` is the world outside."""

    def __init__(self, net):
        self.net = net
        self.names = {address: f"utw{os.getpid()}c{number}" for number, address in enumerate((WEB, API))}

    def __enter__(self):
        try:
            self._make()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _make(self):
        on_host = f"ip -n {self.net.names['a']}"
        run(f"{on_host} link add podman1 type bridge")
        run(f"{on_host} address add 10.88.0.1/16 dev podman1")
        run(f"{on_host} link set podman1 up")
        for number, (address, name) in enumerate(self.names.items()):
            run(f"ip netns add {name}")
            run(f"{on_host} link add vc{number} type veth peer name eth0 netns {name}")
            run(f"{on_host} link set vc{number} master podman1 up")
            run(f"ip -n {name} address add {address}/16 dev eth0")
            run(f"ip -n {name} link set lo up")
            run(f"ip -n {name} link set eth0 up")
            run(f"ip -n {name} route add default via 10.88.0.1")
        self.net.run("a", ["sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward"])
        self.net.run("a", ["nft", "-f", "-"], input=NAT.format(api=API))

    def __exit__(self, *_):
        for name in self.names.values():
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True, timeout=60)

    def inside(self, where, argv):
        """The words that run `argv` in a container, or outside."""
        if where in self.names:
            return ["ip", "netns", "exec", self.names[where], *argv]
        return self.net.argv(where, argv)


class ContainerTests(SynchronousTestCase):
    """From the rules to the answer."""

    def test_walk(self):
        """Each container has its name, whichever side began; the query of the how-to shows it."""
        require_program("nft")
        require_program("sqlite3")
        with tempfile.TemporaryDirectory(prefix="utw-containers-") as folder:
            with NetworkNamespaces() as net, Host(net) as host:
                self.walk(Path(folder), net, host)

    def walk(self, folder, net, host):
        net.run("a", ["nft", "-f", "-"], input=RULES)
        (folder / "containers.txt").write_text(MARKS)
        configuration = CONFIGURATION.replace("/etc/ulogd/", f"{folder}/").replace("/var/lib/ulogd/", f"{folder}/")
        configuration = configuration.replace("active_timeout=30", "active_timeout=2").replace(
            "interval=10", "interval=2"
        )
        (folder / "conf").write_text(configuration)
        outside, url = net.ipv4["b"], f"http://{net.ipv4['a']}:8080/"
        argv = [Path(sys.executable).with_name("ulogd-tw"), "-c", folder / "conf"]
        with Daemon(net.argv("a", argv), lambda d: "stacks running" in d.output(), within=60):
            with self.server(host, API, 80), self.server(host, "b", 81):
                self.ask(host, "b", url)
                self.ask(host, WEB, f"http://{outside}:81/")
                self.ask(host, WEB, f"http://{API}/")
                wait_until(lambda: len(self.rows(folder)) >= 2 + self.bridged(), 60, "the rows")
                time.sleep(2)
        found = {row[:4] for row in self.rows(folder)}
        self.assertLessEqual({("api", outside, net.ipv4["a"], 8080), ("web", WEB, outside, 81)}, found)
        if self.bridged():
            self.assertIn(("web", WEB, API, 80), found)
        command = QUERY.replace("/var/lib/ulogd/", f"{folder}/")
        self.assertRegex(net.run("a", ["sh", "-c", command]).stdout, rf"(?m)^web +{WEB} +{outside} +81 ")

    def bridged(self):
        """Whether the firewall sees what stays on a bridge."""
        path = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
        return path.exists() and path.read_text().strip() == "1"

    def server(self, host, where, port):
        argv = host.inside(where, ["python3", "-c", SERVER.format(port=port)])
        listening = ["python3", "-c", f"import socket; socket.create_connection(('127.0.0.1', {port}), 1)"]
        probe = host.inside(where, listening)
        return Daemon(argv, lambda _: self.status(probe) == 0, within=60)

    def status(self, argv):
        """The exit status of a command."""
        return os.spawnvp(os.P_WAIT, argv[0], argv)

    def ask(self, host, where, url):
        """Get a page."""
        wait_until(lambda: self.status(host.inside(where, ["python3", "-c", CLIENT.format(url=url)])) == 0, 60, url)

    def rows(self, folder):
        """The rows of the table."""
        try:
            with sqlite3.connect(folder / "containers.sqlite3") as database:
                return database.execute(
                    "select distinct mark_name, sourceAddress, destinationAddress, destinationTransportPort "
                    "from containers where mark_name is not null"
                ).fetchall()
        except sqlite3.OperationalError:
            return []
