"""A capture of 1 M packets of 100 k flows to flow records, beside softflowd and nfpcapd; and FLOWCACHE by itself."""

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from tests.captures import write
from ulogd_tw.core.batch import Batch, Schema
from ulogd_tw.core.keys import known
from ulogd_tw.core.options import Options
from ulogd_tw.core.stack import Builder, StackSpec
from ulogd_tw.plugins.filters.base import BASE
from ulogd_tw.plugins.filters.flowcache import FLOWCACHE
from ulogd_tw.plugins.inputs.pcapin import PCAPIN
from ulogd_tw.plugins.outputs.gprint import GPRINT

PACKETS, FLOWS = 1_000_000, 100_000
RUNS = 5
CONFIG = """[global]
logfile="stdout"
stats_file="{dir}/stats.json"
stack=cap1:PCAPIN,base1:BASE,flow1:FLOWCACHE,{output}
[cap1]
file="{dir}/traffic.pcap"
exit=1
[file1]
file="{dir}/ours-%Y%m%d-%H%M%S.ipfix"
[exp1]
collectors="udp:127.0.0.1:9"
"""


def spent(words, **keywords):
    """CPU seconds of a process and those it starts, and the real time."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **keywords)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, time.monotonic() - began


def programs(folder):
    """Name and command of each; all read the same file."""
    capture = folder / "traffic.pcap"
    found = {}
    for name, output in (("IPFIXFILE", "file1:IPFIXFILE"), ("IPFIX over UDP", "exp1:IPFIX")):
        config = folder / f"{name.split()[0]}.conf"
        config.write_text(CONFIG.format(dir=folder, output=output))
        twistd = Path(sys.executable).with_name("twistd")
        found[f"ulogd_tw, {name}"] = [twistd, "-n", "--pidfile=", "ulogd", "-c", config]
    empty = folder / "empty.pcap"
    empty.write_bytes(capture.read_bytes()[:24])
    start = folder / "start.conf"
    start.write_text((folder / "IPFIXFILE.conf").read_text().replace("traffic.pcap", "empty.pcap"))
    found["ulogd_tw, an empty capture"] = [twistd, "-n", "--pidfile=", "ulogd", "-c", start]
    (folder / "theirs").mkdir()
    words = ["softflowd", "-r", capture, "-v", "10", "-d", "-m", str(10 * FLOWS), "-n", "127.0.0.1:9"]
    found["softflowd, IPFIX over UDP"] = words
    found["nfpcapd, into its files"] = ["nfpcapd", "-r", capture, "-w", folder / "theirs", "-B", "1000000"]
    return found


def alone(sizes=(512, 4096, 16384, 65536)):
    """Nanoseconds of FLOWCACHE a packet, in batches of these sizes."""
    random = np.random.default_rng(1)
    start, flow = random.random(FLOWS) * 280, random.integers(0, FLOWS, PACKETS)
    times = start[flow] + random.random(PACKETS) * 15
    order = np.argsort(times)
    flow, times = flow[order], times[order] + 1.7e9
    addresses = random.integers(0, 2**32, (2, FLOWS), dtype=np.uint32)
    columns = {
        "ip.saddr": addresses[0][flow], "ip.daddr": addresses[1][flow],
        "protocolIdentifier": np.full(PACKETS, 6, np.uint8), "sourceTransportPort": (flow % 60000).astype(np.uint16),
        "destinationTransportPort": np.full(PACKETS, 443, np.uint16), "tcpControlBits": np.full(PACKETS, 16, np.uint16),
        "ipTotalLength": random.integers(40, 1500, PACKETS).astype(np.uint64),
        "oob.time.sec": times.astype(np.uint32), "oob.time.usec": (times % 1 * 1e6).astype(np.uint32),
    }  # fmt: skip
    schema = Schema([known(name).typed(known("sourceIPv4Address").type) if "addr" in name else known(name)
                     for name in columns])  # fmt: skip
    for size in sizes:
        figures = []
        for _ in range(RUNS):
            cache = _cache()
            began = time.process_time()
            for at in range(0, PACKETS, size):
                part = {name: column[at : at + size] for name, column in columns.items()}
                n = min(size, PACKETS - at)
                cache.process(Batch(schema, part, n=n, now=float(times[at])))
            figures.append((time.process_time() - began) / PACKETS * 1e9)
        yield size, statistics.median(figures)


def _cache():
    """FLOWCACHE in a stack that is not started."""
    classes = {class_.name: class_ for class_ in (PCAPIN, BASE, FLOWCACHE, GPRINT)}

    def read(ident, class_):
        return Options(class_.all_options(), {"file": ("-",)} if class_ is PCAPIN else {}), []

    spec = StackSpec("b", "b:1", (("p", "PCAPIN"), ("b", "BASE"), ("f", "FLOWCACHE"), ("g", "GPRINT")))
    return Builder(lambda name, position: classes[name], read).build([spec]).instances["f"]


def main():
    """Print CPU seconds of each program, in turn, and nanoseconds of FLOWCACHE."""
    top = Path(__file__).resolve().parents[1]
    with tempfile.TemporaryDirectory(prefix="utw-flowcache-") as name:
        folder = Path(name)
        write(folder / "traffic.pcap", PACKETS, FLOWS)
        print(f"{PACKETS} packets of {FLOWS} flows, {os.path.getsize(folder / 'traffic.pcap') >> 20} MB")
        commands = programs(folder)
        figures = {program: [] for program in commands}
        for _ in range(RUNS):
            for program, words in commands.items():
                figures[program].append(spent(words, cwd=top))
        for program, runs in figures.items():
            cpu, real = (statistics.median(part) for part in zip(*runs, strict=True))
            print(f"{program:32} {cpu:6.2f} CPU s {real:6.2f} s")
    for size, ns in alone():
        print(f"FLOWCACHE alone, {size:6} packets a batch: {ns:6.0f} ns a packet")


if __name__ == "__main__":
    main()
