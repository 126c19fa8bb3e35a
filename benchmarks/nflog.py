"""Logged packets to JSON, to lines of a log and to a capture file: this project beside the real ulogd2, in turn.

UDP packets of 100 octets come over a veth pair at a steady rate; a rule in the hook input logs and drops them.
CPU microseconds (user and system, all threads) a packet. Needs root, nftables, ulogd2 with ulogd2-json and ulogd2-pcap.
``--rate 50000 --seconds 4 --rounds 5``
"""

import argparse
import os
import platform
import re
import statistics
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.collect import cpu
from tests.live.service import Service
from tests.support import Daemon, NetworkNamespaces, require_program

RULES = """
table inet utwlog {
 chain in {
  type filter hook input priority 0
  udp dport 5555 counter log group 5 prefix "bench: " drop
 }
}
"""
SENDER = """
import socket, sys, time
host, rate, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
    s.connect((host, 5555))
    begun, sent, data = time.monotonic(), 0, b"x" * 100
    while sent < rate * seconds:
        due = (time.monotonic() - begun) * rate
        while sent < due:
            s.send(data)
            sent += 1
        time.sleep(0.002)
"""
STACKS = {
    "JSON": ("log1:NFLOG,base1:BASE,ifi1:IFINDEX,ip2str1:IP2STR,out:JSON", "json"),
    "LOGEMU": ("log1:NFLOG,base1:BASE,ifi1:IFINDEX,ip2str1:IP2STR,print1:PRINTPKT,out:LOGEMU", "log"),
    "PCAP": ("log1:NFLOG,base1:BASE,out:PCAP", "pcap"),
}


def section(folder, name):
    """The instances that both programs have."""
    return f'[log1]\ngroup=5\n[out]\nfile="{folder}/{name}"\n'


def ulogd2(spaces, folder, output):
    """The C program, with a socket buffer that both could have."""
    (program,) = require_program("ulogd")
    stack, name = STACKS[output]
    sizes = "netlink_socket_buffer_size=217088\nnetlink_socket_buffer_maxsize=268435456\n"
    text = section(folder, name).replace("[out]", f"{sizes}[out]")
    (folder / "conf").write_text(f'[global]\nlogfile="{folder}/ulogd2.log"\nstack={stack}\n{text}')
    return Daemon(spaces.argv("b", [program, "-c", folder / "conf"]), lambda _: reading(spaces))


def ours(spaces, folder, output):
    """The same stack here."""
    stack, name = STACKS[output]
    service = Service([stack], section(folder, name), directory=folder, namespace=lambda argv: spaces.argv("b", argv))
    # As it is by default; tests look more often.
    service.config.write_text(service.config.read_text().replace("stats_interval=0.2", "stats_interval=10"))
    return service.daemon


def reading(spaces):
    """Whether somebody reads the group."""
    return re.search(r"^ *5 ", spaces.run("b", ["cat", "/proc/net/netfilter/nfnetlink_log"]).stdout, re.M)


def logged(spaces):
    """Packets that the rule has counted."""
    return int(re.search(r"packets (\d+)", spaces.run("b", ["nft", "list", "ruleset"]).stdout)[1])


def measure(spaces, make, output, rate, seconds):
    """CPU microseconds a packet of one run, and the part of the packets that is in the file."""
    with tempfile.TemporaryDirectory() as path:
        folder = Path(path)
        with make(spaces, folder, output) as daemon:
            time.sleep(0.7)
            before, first = cpu(daemon.pid), logged(spaces)
            spaces.run("a", [sys.executable, "-c", SENDER, spaces.ipv4["b"], rate, seconds], timeout=120)
            time.sleep(2)
            used, packets = cpu(daemon.pid) - before, logged(spaces) - first
        file = folder / STACKS[output][1]
        written = file.stat().st_size // (16 + 128) if output == "PCAP" else file.read_bytes().count(b"\n")
    return used / packets * 1e6, written / packets


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(prog="benchmarks.nflog")
    parser.add_argument("--rate", type=int, default=50_000)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("outputs", nargs="*", default=list(STACKS))
    words = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}; {words.rate} packets/s")
    with NetworkNamespaces() as spaces:
        spaces.run("b", ["nft", "-f", "-"], input=RULES)
        for output in words.outputs:
            figures = {"ulogd_tw": [], "ulogd2": []}
            for _ in range(words.rounds):
                for name, make in (("ulogd_tw", ours), ("ulogd2", ulogd2)):
                    figures[name].append(measure(spaces, make, output, words.rate, words.seconds))
            for name, found in figures.items():
                spent, kept = zip(*found, strict=True)
                print(f"{output:7} {name:9} {statistics.median(spent):5.2f} us a packet ({min(spent):.2f} to "
                      f"{max(spent):.2f}), {100 * min(kept):.1f} % of the packets written at least")  # fmt: skip


if __name__ == "__main__":
    main()
