"""The shapes of whole processes: a capture to flows, a start until the first row, memory of a program at rest."""

import contextlib
import json
import resource
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from benchmarks import collectors, netfilter, start
from benchmarks.measuring import memory, settle
from benchmarks.netfilter import Packets
from benchmarks.shapes import OURS, Shape
from tests.captures import write
from tests.support import TOP, free_port, require_program

CAPTURE = """[global]
logfile="stdout"
stats_file="{folder}/stats.json"
stack=cap1:PCAPIN,base1:BASE,flow1:FLOWCACHE,exp1:IPFIX
[cap1]
file="{capture}"
exit=1
[exp1]
collectors="udp:127.0.0.1:{port}"
"""
PATIENCE = 20
"""Seconds for a start."""
TWISTD = Path(sys.executable).with_name("twistd")


def ours(shape, folder, port):
    """PCAPIN -> BASE -> FLOWCACHE -> IPFIX."""
    (folder / "conf").write_text(CAPTURE.format(folder=folder, capture=shape.capture, port=port))
    return [TWISTD, "-n", "--pidfile=", "ulogd", "-c", folder / "conf"]


def softflowd(shape, folder, port):
    """softflowd with room for all flows, IPFIX over UDP."""
    (program,) = require_program("softflowd")
    return [program, "-r", shape.capture, "-v", "10", "-d", "-m", str(10 * shape.flows), "-n", f"127.0.0.1:{port}"]


def nfpcapd(shape, folder, port):
    """nfpcapd, into its files."""
    (program,) = require_program("nfpcapd")
    return [program, "-r", shape.capture, "-w", folder, "-B", "1000000"]


@dataclass
class Capture(Shape):
    """Packets of a capture, a tenth as many flows: CPU seconds of the whole process, its start included."""

    n: int = 0

    @property
    def flows(self):
        """Flows in it."""
        return max(self.packets // 10, 1)

    @property
    def packets(self):
        """Packets in it."""
        return min(self.n, 20_000) if self.quick else self.n

    @cached_property
    def folder(self):
        """Where the capture is."""
        return tempfile.TemporaryDirectory(prefix="utw-bench-")

    @cached_property
    def capture(self):
        """The capture, written once."""
        path = Path(self.folder.name) / "traffic.pcap"
        write(path, max(self.packets, 10), self.flows)
        if not self.packets:
            path.write_bytes(path.read_bytes()[:24])
        return path

    def close(self):
        """Remove the capture."""
        if "folder" in vars(self):
            self.folder.cleanup()

    def measure(self, make):
        """`make` takes (this shape, folder, port of a collector) and gives the command."""
        with tempfile.TemporaryDirectory(prefix="utw-bench-") as name, socket.socket(type=socket.SOCK_DGRAM) as other:
            other.bind(("127.0.0.1", 0))  # takes what fits: a refusal would be work for the sender
            argv = make(self, Path(name), other.getsockname()[1])
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run([str(word) for word in argv], check=True, capture_output=True, cwd=TOP, timeout=300)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            stats = Path(name, "stats.json")
            seen = json.loads(stats.read_text())["instances"]["flow1"]["rows_received"] if stats.exists() else None
        used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return used, None if seen is None or not self.packets else seen / self.packets


def begun(daemon, ready, window):
    """Seconds from the command until `ready()`, looked at every 2 ms."""
    daemon.ready, began = None, time.monotonic()
    daemon.start()
    while not ready():
        if not daemon.running or time.monotonic() > began + PATIENCE:
            raise AssertionError(f"{daemon.argv}: nothing done; it printed:\n{daemon.output()[-2000:]}")
        time.sleep(0.002)
    return time.monotonic() - began


def kept(daemon, ready, window):
    """Memory of all processes of a program at rest, MB, with shared pages divided (PSS)."""
    daemon.start()
    settle(daemon.pid, window=window)
    return memory(daemon.pid)[0] / 1e6


@dataclass
class Collector(Shape):
    """A collector that is started."""

    figure: Callable = begun

    def measure(self, make):
        """`make` takes (folder, port)."""
        with tempfile.TemporaryDirectory(prefix="utw-bench-") as folder:
            port = free_port("udp")
            made = make(Path(folder), port)
            try:
                return self.figure(made.daemon, lambda: collectors.listens(port), self.window), None
            finally:
                made.stop()


@dataclass
class Logger(Packets):
    """NFLOG to lines of a log, while 500 packets a second come: the first line is the first work."""

    output: str = "LOGEMU"
    figure: Callable = begun

    def section(self, folder):
        """Every line at once."""
        return super().section(folder) + "sync=1\n"

    def measure(self, make):
        """Packets come for the first figure only: memory is that of a program at rest."""
        self.open()
        logged = start.logged(self.spaces) if self.figure is begun else contextlib.nullcontext()
        with tempfile.TemporaryDirectory(prefix="utw-bench-") as name, logged:
            rows, daemon = Path(name, "rows"), make(self, Path(name))
            try:
                return self.figure(daemon, lambda: rows.exists() and rows.stat().st_size, self.window), None
            finally:
                daemon.stop()


READERS = {OURS: ours, "softflowd": softflowd, "nfpcapd": nfpcapd}
COLLECTORS = {OURS: collectors.json, "nfacctd": collectors.nfacctd_by_default, "nfcapd": collectors.nfcapd}
LOGGERS = {OURS: netfilter.ours, "ulogd2": netfilter.ulogd2}
SHAPES = [
    Capture("pcap-flows", "1 M packets of a pcap to flows, whole process", "CPU s", READERS, n=1_000_000),
    Capture("pcap-empty", "an empty pcap, whole process", "CPU s", READERS),
    Collector("start-collector", "COLLECTOR -> JSON, start until it listens", "s", COLLECTORS),
    Logger("start-nflog", "NFLOG -> LOGEMU, start until the first row", "s", LOGGERS, where="b"),
    Collector("memory-collector", "COLLECTOR -> JSON, memory at rest", "MB", COLLECTORS, figure=kept),
    Logger("memory-nflog", "NFLOG -> LOGEMU, memory at rest", "MB", LOGGERS, where="b", figure=kept),
]
