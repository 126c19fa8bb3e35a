"""Packets of an interface to flow records over UDP: this project beside softflowd and pmacctd, one after another.

tcpreplay sends a capture of 100 k flows over a veth pair, at a rate and as fast as it goes. CPU microseconds (user and
system, all threads) a packet, and the part of the packets that was counted. Needs root, tcpreplay, softflowd, pmacct.
``--packets 500000 --rates 50000 0 --rounds 5``
"""

import argparse
import os
import platform
import re
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.measuring import cpu, settle
from tests.captures import write
from tests.live.service import Service
from tests.support import Daemon, NetworkNamespaces, require_program

CONFIG = '[p1]\ninterface="veth0"\n[exp1]\ncollectors="udp:127.0.0.1:9"\n'
PMACCTD = """daemonize: false
pcap_interface: veth0
aggregate: src_host,dst_host,src_port,dst_port,proto,tcpflags
plugins: nfprobe[out]
nfprobe_receiver[out]: 127.0.0.1:9
nfprobe_version[out]: 10
pcap_filter: ip or ip6
"""


def ours(spaces, folder):
    """PACKET -> BASE -> FLOWCACHE -> IPFIX, and how many packets it has counted."""
    service = Service(["p1:PACKET,base1:BASE,flow1:FLOWCACHE,exp1:IPFIX"], CONFIG, directory=folder,
                      namespace=lambda argv: spaces.argv("b", argv))  # fmt: skip
    return service.daemon, lambda: service.counters("flow1")["rows_received"]


def softflowd(spaces, folder):
    """softflowd with room for all flows."""
    (program,) = require_program("softflowd")
    control = folder / "control"
    words = [program, "-i", "veth0", "-v", "10", "-d", "-m", "1000000", "-n", "127.0.0.1:9", "-c", control,
             "-p", folder / "pid"]  # fmt: skip

    def counted():
        said = spaces.run("b", ["softflowctl", "-c", control, "statistics"]).stdout
        return int(re.search(r"Packets processed: (\d+)", said)[1])

    return Daemon(spaces.argv("b", words), lambda _: control.exists()), counted


def pmacctd(spaces, folder):
    """pmacctd, which exports too; it says nothing of packets before its end."""
    (program,) = require_program("pmacctd")
    (folder / "pmacctd.conf").write_text(PMACCTD)
    daemon = Daemon(spaces.argv("b", [program, "-f", folder / "pmacctd.conf"]), lambda d: time.sleep(2) or True)
    return daemon, lambda: None


def measure(spaces, make, capture, rate, packets):
    """CPU microseconds a packet, and the part of the packets that was counted (None: not told)."""
    with tempfile.TemporaryDirectory() as name:
        daemon, counted = make(spaces, Path(name))
        with daemon:
            settle(daemon.pid)
            before, first = cpu(daemon.pid), counted()
            speed = ["-t"] if not rate else ["-p", str(rate)]
            began = time.monotonic()
            spaces.run("a", ["tcpreplay", "-q", "-K", "-i", "veth0", *speed, capture], timeout=120)
            seconds = time.monotonic() - began
            settle(daemon.pid)
            used, last = cpu(daemon.pid) - before, counted()
    return used / packets * 1e6, None if last is None else (last - first) / packets, packets / seconds


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(prog="benchmarks.packet_capture")
    parser.add_argument("--packets", type=int, default=500_000)
    parser.add_argument("--rates", type=int, nargs="*", default=[50_000, 0])
    parser.add_argument("--rounds", type=int, default=5)
    words = parser.parse_args()
    require_program("tcpreplay")
    print(f"{platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}; {words.packets} packets")
    with NetworkNamespaces() as spaces, tempfile.TemporaryDirectory() as folder:
        capture = Path(folder) / "traffic.pcap"
        write(capture, words.packets, 100_000)
        for rate in words.rates:
            figures = {make: [] for make in (ours, softflowd, pmacctd)}
            for _ in range(words.rounds):
                for make, found in figures.items():
                    found.append(measure(spaces, make, capture, rate, words.packets))
            for make, found in figures.items():
                used, part, sent = zip(*found, strict=True)
                told = "not told" if None in part else f"{100 * statistics.median(part):5.1f} %"
                cost = statistics.median(used)
                print(f"{statistics.median(sent):10,.0f} packets/s  {make.__name__:10} {cost:6.2f} us, counted {told}")


if __name__ == "__main__":
    main()
