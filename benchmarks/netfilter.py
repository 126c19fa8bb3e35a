"""The shapes of the kernel's events: conntrack and logged packets, beside the real ulogd2 with the same stack.

They are made in network namespaces. The figure is CPU microseconds (user and system, all threads) an event; a flow
has two, NEW and DESTROY. Needs root.
"""

import re
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import sending
from benchmarks.collectors import Service
from benchmarks.measuring import settle, spent
from benchmarks.shapes import OURS, Shape
from tests.support import Daemon, NetworkNamespaces, require_program

BUFFERS = f"netlink_socket_buffer_size={4 << 20}\nnetlink_socket_buffer_maxsize={4 << 20}\n"
"""Octets of netlink buffer of both programs."""
RULES = """
table inet utwlog {
 chain in {
  type filter hook input priority 0
  udp dport 5555 counter log group 5 prefix "bench: " drop
 }
}
"""
PACKET = bytes(100)
SINK = """
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(("127.0.0.1", 4739)); print("ready", flush=True)
while True: s.recv(65535)
"""
"""Reads what is exported."""
CONNTRACK = {
    "IPFIX": ("out:IPFIX", 'host="127.0.0.1"\nport=4739\nproto="udp"\noid=1\nmtu=1400\n'),
    "JSON": ("ip2str1:IP2STR,out:JSON", 'file="{dir}/rows"\n'),
    "LOGEMU": ("ip2str1:IP2STR,print1:PRINTFLOW,out:LOGEMU", 'file="{dir}/rows"\n'),
}
NFLOG = {
    "JSON": "base1:BASE,ifi1:IFINDEX,ip2str1:IP2STR,out:JSON",
    "LOGEMU": "base1:BASE,ifi1:IFINDEX,ip2str1:IP2STR,print1:PRINTPKT,out:LOGEMU",
    "PCAP": "base1:BASE,out:PCAP",
}


@dataclass
class Events(Shape):
    """A stack of both programs, and events at a rate for some seconds."""

    output: str = "JSON"
    rate: int = 0
    seconds: float = 4
    where: str = "a"
    """Namespace that the programs are in."""
    conntrack: bool = False
    buffers: str = BUFFERS
    spaces: NetworkNamespaces | None = field(default=None, repr=False)

    @property
    def n(self):
        """Flows or packets of a run."""
        return int(self.rate * (min(self.seconds, 1) / 4 if self.quick else self.seconds)) + 1000

    def open(self):
        """Make the namespaces, once for all runs."""
        if self.spaces is None:
            require_program("nft", "ip", "conntrack")
            self.spaces = NetworkNamespaces(conntrack=self.conntrack)
            self.spaces.__enter__()
            self.sink = Daemon(self.inside([sys.executable, "-c", SINK]), lambda d: "ready" in d.output()).start()

    def close(self):
        """Remove them."""
        if self.spaces is not None:
            self.sink.stop()
            self.spaces.__exit__(None, None, None)
            self.spaces = None

    def measure(self, make):
        """`make` takes (this shape, folder) and gives the program."""
        self.open()
        with tempfile.TemporaryDirectory(prefix="utw-bench-") as name:
            folder = Path(name)
            with make(self, folder) as daemon, self.sender(folder) as sender:
                self.prepare(sender)
                used, _ = spent(daemon.pid, sender.send, self.window)
            rows = self.written(folder)
        return used / self.events * 1e6, None if rows is None else rows / self.n

    def prepare(self, sender):
        """What comes before the events that are measured."""

    def inside(self, argv):
        """The words that run a program in its namespace."""
        return self.spaces.argv(self.where, argv)

    def written(self, folder):
        """Rows in the file that the program has written; None if it has none."""
        file = folder / "rows"
        if not file.exists():
            return None
        return (
            file.stat().st_size // (16 + 28 + len(PACKET)) if self.output == "PCAP" else file.read_bytes().count(b"\n")
        )


class Flows(Events):
    """Flows that begin and end."""

    reads = ""
    stack = property(lambda self: f"in1:NFCT,{CONNTRACK[self.output][0]}")

    @property
    def events(self):
        """NEW and DESTROY."""
        return 2 * self.n

    def section(self, folder):
        """The options of the output, the same for both programs."""
        return CONNTRACK[self.output][1].replace("{dir}", str(folder))

    def sender(self, folder, *lag):
        """The process that makes them."""
        place = self.spaces.ipv4["a"], self.spaces.ipv4["b"]
        return sending.Sender(*place, self.rate, self.n, *lag, module="benchmarks.flows", prefix=self.inside)

    def reading(self, _):
        """Whether somebody in the namespace follows DESTROY events."""
        lines = self.spaces.run("a", ["cat", "/proc/net/netlink"]).stdout.splitlines()[1:]
        return any(w[1] == "12" and int(w[3], 16) & 4 for w in map(str.split, lines))


class Burst(Flows):
    """Flows that all end at once; the figure is how many of them are written, with default settings."""

    @property
    def n(self):
        """Flows of a run."""
        return 5000 if self.quick else 100_000

    def measure(self, make):
        """Make them, then empty the kernel's table."""
        self.open()
        with tempfile.TemporaryDirectory(prefix="utw-bench-") as name:
            folder = Path(name)
            with make(self, folder) as daemon, self.sender(folder, "never") as sender:
                sender.send()
                settle(daemon.pid, window=self.window)
                self.spaces.run("a", ["conntrack", "-F"])
                settle(daemon.pid, window=2 * self.window)
            rows = self.written(folder)
        return rows, rows / self.n


class Packets(Events):
    """Packets that a rule logs and drops; the first one makes the neighbour known."""

    reads = "group=5\n"
    stack = property(lambda self: f"in1:NFLOG,{NFLOG[self.output]}")
    events = property(lambda self: self.n)

    def open(self):
        """With the rule."""
        if self.spaces is None:
            super().open()
            self.spaces.run("b", ["nft", "-f", "-"], input=RULES)

    def section(self, folder):
        """The options of the output, the same for both programs."""
        return f'file="{folder}/rows"\n'

    def sender(self, folder):
        """The process that sends them."""
        sending.write(folder / "first", [(0, PACKET)])
        sending.write(folder / "packets", [(0, PACKET)] * self.n)
        parts = 1, folder / "first", self.rate, folder / "packets"
        place = f"{self.spaces.ipv4['b']}:5555"
        return sending.Sender(place, *parts, prefix=lambda argv: self.spaces.argv("a", argv))

    def prepare(self, sender):
        """The first packet."""
        sender.send()

    def written(self, folder):
        """Without the first one."""
        rows = super().written(folder)
        return rows and rows - 1

    def reading(self, _):
        """Whether somebody reads the group."""
        return re.search(r"^ *5 ", self.spaces.run("b", ["cat", "/proc/net/netfilter/nfnetlink_log"]).stdout, re.M)


def ours(shape, folder):
    """The service."""
    section = shape.section(folder)
    if shape.output == "IPFIX":
        section = 'collectors="udp:127.0.0.1:4739"\n'
    text = f"[in1]\n{shape.reads}{shape.buffers}[out]\n{section}"
    return Service([shape.stack], text, directory=folder, namespace=shape.inside).daemon


def ulogd2(shape, folder):
    """The C program."""
    (program,) = require_program("ulogd")
    text = f"[in1]\n{shape.reads}{shape.buffers}[out]\n{shape.section(folder)}"
    (folder / "conf").write_text(f'[global]\nlogfile="{folder}/log"\nstack={shape.stack}\n{text}')
    return Daemon(shape.inside([program, "-c", folder / "conf"]), shape.reading)


def shape(kind, name, title, output, rate, **more):
    """One beside ulogd2."""
    return kind(name, title, "us an event", {OURS: ours, "ulogd2": ulogd2}, output=output, rate=rate, **more)


def flows(name, output, rate):
    """Flows that begin and end."""
    return shape(Flows, name, f"conntrack -> {output}, {rate:,} flows/s", output, rate, conntrack=True)


def packets(name, output, rate):
    """Logged packets."""
    return shape(Packets, name, f"NFLOG -> {output}, {rate:,}/s", output, rate, where="b")


SHAPES = [
    flows("conntrack-ipfix", "IPFIX", 20_000),
    flows("conntrack-json", "JSON", 20_000),
    flows("conntrack-logemu", "LOGEMU", 20_000),
    flows("conntrack-json-1000", "JSON", 1000),
    Burst(
        "conntrack-burst",
        "conntrack -> JSON, 100,000 flows end at once",
        "flows written",
        {OURS: ours, "ulogd2": ulogd2},
        more=True,
        rate=100_000,
        conntrack=True,
        buffers="",
    ),
    packets("nflog-json", "JSON", 50_000),
    packets("nflog-logemu", "LOGEMU", 50_000),
    packets("nflog-pcap", "PCAP", 50_000),
    packets("nflog-json-1000", "JSON", 1000),
]
