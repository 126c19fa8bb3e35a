"""Conntrack events to IPFIX and to JSON: this project beside the real ulogd2, on the same flows, one after the other.

Flows are made and deleted in a network namespace at a steady rate, so each gives a NEW and a DESTROY event. CPU
microseconds (user and system, all threads) an event, two events a flow. Then 100,000 flows are deleted at once with
default settings. Needs root, ulogd2 with ulogd2-json, gcc, nftables, conntrack and the generator of `shared/tools`.
"""

import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.collect import cpu
from tests.live.service import Service
from tests.support import Daemon, NetworkNamespaces, require_program, shared_path

RUNS = 5
RATE = 20_000
SECONDS = 4
LAG = 1000
SINK = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)
s.bind(("127.0.0.1", 4739)); print("ready", flush=True)
while True: s.recv(65535)
"""


def generator(folder):
    """The flow generator, compiled."""
    program = folder / "gen"
    source = shared_path("tools", "ulogd2_diff", "gen.c")
    subprocess.run(["gcc", "-O2", "-o", program, source], check=True, timeout=60)
    return program


def ulogd2(spaces, folder, output):
    """The C program, with large socket buffers so that both have the same chance."""
    sections = {
        "IPFIX": '[out]\noid=1\nhost="127.0.0.1"\nport=4739\nproto="udp"\nmtu=1400\n',
        "JSON": f'[out]\nfile="{folder}/ulogd2.json"\n',
    }
    filters = "ip1:IP2STR," if output == "JSON" else ""
    text = (
        f'[global]\nlogfile="{folder}/ulogd2.log"\nstack=ct1:NFCT,{filters}out:{output}\n'
        f"[ct1]\nnetlink_socket_buffer_size=217088\nnetlink_socket_buffer_maxsize=268435456\n{sections[output]}"
    )
    (folder / "ulogd2.conf").write_text(text)
    (program,) = require_program("ulogd")
    return Daemon(spaces.argv("a", [program, "-c", folder / "ulogd2.conf"]), lambda d: listening(spaces))


def ours(spaces, folder, output):
    """The same stack here."""
    sections = {"IPFIX": '[out]\ncollectors="udp:127.0.0.1:4739"\n', "JSON": f'[out]\nfile="{folder}/ours.json"\n'}
    service = Service(
        [f"ct1:NFCT,out:{output}"], sections[output], directory=folder, namespace=lambda a: spaces.argv("a", a)
    )
    return service.daemon


def listening(spaces):
    """Whether somebody in the namespace follows DESTROY events."""
    lines = spaces.run("a", ["cat", "/proc/net/netlink"]).stdout.splitlines()[1:]
    return any(w[1] == "12" and int(w[3], 16) & 4 for w in map(str.split, lines))


def steady(spaces, gen, make, output):
    """CPU microseconds an event of one run."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with make(spaces, folder, output) as daemon:
            time.sleep(0.7)
            before = cpu(daemon.pid)
            spaces.run("a", [gen, "flows", RATE * SECONDS, RATE, LAG, spaces.ipv4["b"]], timeout=60)
            time.sleep(1.2)
            used = cpu(daemon.pid) - before
        spaces.run("a", ["conntrack", "-F"])
    return used / (2 * RATE * SECONDS) * 1e6


def burst(spaces, gen, make, name):
    """Records that a program writes of 100,000 flows deleted at once, with default settings."""
    with tempfile.TemporaryDirectory() as path:
        folder = Path(path)
        daemon = make(spaces, folder, "JSON")
        if name == "ulogd2":
            text = (folder / "ulogd2.conf").read_text()
            (folder / "ulogd2.conf").write_text("".join(x for x in text.splitlines(True) if "netlink_socket" not in x))
        with daemon:
            time.sleep(0.7)
            spaces.run("a", [gen, "flows", 100_000, 0, -1, spaces.ipv4["b"]], timeout=60)
            there = int(spaces.run("a", ["conntrack", "-C"]).stdout)
            time.sleep(1)
            spaces.run("a", [gen, "flush"], timeout=60)
            time.sleep(4)
        lines = sum(file.read_bytes().count(b"\n") for file in folder.glob("*.json") if file.name != "stats.json")
    return lines, there


def main():
    """Print both tables."""
    require_program("ulogd", "gcc", "nft", "conntrack")
    print(f"{platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}")
    programs = {"ulogd_tw": ours, "ulogd2": ulogd2}
    with tempfile.TemporaryDirectory() as path, NetworkNamespaces(conntrack=True) as spaces:
        gen = generator(Path(path))
        sink = Daemon(spaces.argv("a", [sys.executable, "-c", SINK]), lambda d: "ready" in d.output())
        with sink:
            for output in ("IPFIX", "JSON"):
                figures = {name: [] for name in programs}
                for _ in range(RUNS):
                    for name, make in programs.items():
                        figures[name].append(steady(spaces, gen, make, output))
                medians = {name: statistics.median(found) for name, found in figures.items()}
                print(f"conntrack NEW and DESTROY to {output} at {RATE} flows/s, CPU us an event, median of {RUNS}:")
                for name, median in medians.items():
                    low, high = min(figures[name]), max(figures[name])
                    print(f"  {name:9} {median:5.2f}  ({low:.2f} to {high:.2f})  {median / medians['ulogd_tw']:.2f} x")
        print("100,000 flows deleted at once, default settings: records written of flows in the table")
        for name, make in programs.items():
            runs = [burst(spaces, gen, make, name) for _ in range(3)]
            print(f"  {name:9} " + ", ".join(f"{lines} of {there}" for lines, there in runs))


if __name__ == "__main__":
    main()
