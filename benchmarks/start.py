"""What a start costs: from the command to the first row, and the memory of a service that has begun.

NFLOG's rows are packets that a rule logs, 500 a second; a collector has begun when its log says that its stacks run.
Medians of 7 starts in turn: seconds, CPU seconds of all threads by then, and the resident memory a second later. The
same for each part of a start, loaded in a process of its own above what it needs. Byte code is compiled before, as by
an installation. Needs root and nftables for NFLOG. ``--rounds 7``, ``stacks`` or ``parts`` alone
"""

import argparse
import compileall
import contextlib
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import ulogd_tw
from benchmarks.measuring import cpu
from benchmarks.netfilter import RULES
from tests.support import TOP, Daemon, NetworkNamespaces, free_port

SENDER = """
import socket, sys, time
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
    while True:
        s.sendto(b"x" * 100, (sys.argv[1], 5555))
        time.sleep(0.002)
"""
_LOGGED = '[in1]\ngroup=5\n[out1]\nfile="{folder}/rows"\nsync=1\n'
_COLLECTED = '[in1]\nlisten="udp:127.0.0.1:{port}"\n[out1]\nfile="{folder}/rows"\n'
STACKS = {
    "NFLOG -> LOGEMU": ("in1:NFLOG,base1:BASE,ip2str1:IP2STR,print1:PRINTPKT,out1:LOGEMU", _LOGGED),
    "with IFINDEX": ("in1:NFLOG,base1:BASE,ifi1:IFINDEX,ip2str1:IP2STR,print1:PRINTPKT,out1:LOGEMU", _LOGGED),
    "COLLECTOR -> JSON": ("in1:COLLECTOR,out1:JSON", _COLLECTED),
    "COLLECTOR -> AGGREGATE -> SQLITE3": (
        "in1:COLLECTOR,agg1:AGGREGATE,db1:SQLITE3",
        _COLLECTED + '[agg1]\nkey="5tuple"\n[db1]\ndb="{folder}/rows.db"\ntable=flows\ncreate=1\n',
    ),
}

_TWISTD = "from ulogd_tw import starting; starting.begin(); import twisted.scripts.twistd"
_REACTOR = _TWISTD + "; starting.install_reactor()"
_SERVICE = _REACTOR + "; import ulogd_tw.tap, ulogd_tw.service"
PARTS = {
    "Python": ("", ""),
    "twistd": ("", _TWISTD),
    "Twisted's reactor, without its TLS": (_TWISTD, _REACTOR),
    "NumPy": (_REACTOR, _REACTOR + "; import numpy"),
    "configuration, stacks and service": (_REACTOR + "; import numpy", _SERVICE),
    "OpenSSL, for TLS and DTLS": (_SERVICE, _SERVICE + "; import OpenSSL.SSL"),
    "usrsctp, for SCTP where the kernel has none": (
        _SERVICE,
        _SERVICE + "; from ulogd_tw.transports.sctp import usrsctp; usrsctp.library()",
    ),
    "conch, for [manhole]": (_SERVICE, _SERVICE + "; import ulogd_tw.operating.manhole"),
}
"""What is loaded before, and with the part."""
PLUGINS = (
    "input:NFLOG", "input:NFCT", "input:COLLECTOR", "filter:BASE", "filter:IFINDEX", "filter:AGGREGATE",
    "filter:FLOWCACHE", "output:LOGEMU", "output:JSON", "output:IPFIX", "output:SQLITE3", "output:MYSQL",
)  # fmt: skip


def memory(pid):
    """Resident memory of a process, and its share where it has pages together with others; MB."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return tuple(int(re.search(rf"^{name}: +(\d+)", text, re.M)[1]) / 1024 for name in ("Rss", "Pss"))


@contextlib.contextmanager
def logged(spaces):
    """Packets for NFLOG, as long as it lasts."""
    sender = subprocess.Popen(spaces.argv("a", [sys.executable, "-c", SENDER, spaces.ipv4["b"]]))
    try:
        yield
    finally:
        sender.kill()
        sender.wait()


def measure(spaces, name):
    """Seconds, CPU seconds and memory of one start."""
    stack, text = STACKS[name]
    with tempfile.TemporaryDirectory() as folder:
        config, rows = Path(folder, "conf"), Path(folder, "rows")
        config.write_text(f"[global]\nstack={stack}\n" + text.format(folder=folder, port=free_port("udp")))
        argv = [Path(sys.executable).with_name("twistd"), "-n", "--pidfile=", "ulogd", "-c", config]
        of_packets = stack.startswith("in1:NFLOG")
        daemon = Daemon(spaces.argv("b", argv) if of_packets else argv, cwd=TOP)
        begun = time.perf_counter()
        with daemon:
            while not (rows.exists() and rows.stat().st_size if of_packets else "stacks run" in daemon.output()):
                time.sleep(0.002)
            took, spent = time.perf_counter() - begun, cpu(daemon.pid)
            time.sleep(1)
            return took, spent, *memory(daemon.pid)


def stacks(rounds):
    """Print a line for each stack."""
    found = {name: [] for name in STACKS}
    with NetworkNamespaces() as spaces:
        spaces.run("b", ["nft", "-f", "-"], input=RULES)
        with logged(spaces):
            for _ in range(rounds):
                for name in STACKS:
                    found[name].append(measure(spaces, name))
    for name, runs in found.items():
        took, spent, rss, pss = map(statistics.median, zip(*runs, strict=True))
        print(f"{name:45} {took:5.2f} s, {spent:.2f} CPU s, {rss:5.1f} MB (shared pages divided: {pss:.1f})")


def loaded(code):
    """CPU milliseconds of a process that runs the code, and MB of resident memory at its end."""
    show = "\nimport re, time; print(time.process_time() * 1000, "
    show += "int(re.search(r'Rss: +(\\d+)', open('/proc/self/smaps_rollup').read())[1]) / 1024)"
    run = subprocess.run([sys.executable, "-c", code + show], capture_output=True, text=True, check=True)
    return [float(word) for word in run.stdout.split()]


def parts(rounds):
    """Print a line for each part: medians of the differences to the process without it."""
    lookup = "; from ulogd_tw.registry import lookup; lookup('{1}', '{0}')"
    plugins = {name: (_SERVICE, _SERVICE + lookup.format(*name.split(":"))) for name in PLUGINS}
    for name, (before, after) in (PARTS | plugins).items():
        pairs = [(loaded(before) if after else (0, 0), loaded(after)) for _ in range(rounds)]
        milliseconds, megabytes = (statistics.median(b[i] - a[i] for a, b in pairs) for i in (0, 1))
        print(f"{name.rpartition(':')[2]:45} {milliseconds:5.0f} ms, {megabytes:5.1f} MB")


TABLES = {"stacks": stacks, "parts": parts}


def main():
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="benchmarks.start")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("tables", nargs="*", default=list(TABLES))
    words = parser.parse_args()
    compileall.compile_dir(*ulogd_tw.__path__, quiet=1)
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}"
    print(f"{machine}, Python {platform.python_version()}")
    for table in words.tables:
        TABLES[table](words.rounds)


if __name__ == "__main__":
    main()
