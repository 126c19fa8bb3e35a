"""FLOWCACHE by itself: nanoseconds a packet, in batches of several sizes."""

import statistics
import time

import numpy as np

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
    """Print nanoseconds a packet."""
    for size, ns in alone():
        print(f"FLOWCACHE alone, {size:6} packets a batch: {ns:6.0f} ns a packet")


if __name__ == "__main__":
    main()
