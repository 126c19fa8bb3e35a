"""AGGREGATE by 5-tuple: rows a second into tables of several sizes, in batches as they come from the wire."""

import statistics
import time

import numpy as np

from ulogd_tw.core.batch import Batch, Schema
from ulogd_tw.core.keys import known
from ulogd_tw.core.options import Options
from ulogd_tw.core.stack import Builder, StackSpec
from ulogd_tw.plugins.filters.aggregate import AGGREGATE, FIVE_TUPLE
from ulogd_tw.plugins.inputs.collector import COLLECTOR
from ulogd_tw.plugins.outputs.gprint import GPRINT

NAMES = ("sourceIPv4Address", "destinationIPv4Address", "protocolIdentifier", "sourceTransportPort",
         "destinationTransportPort", "octetDeltaCount", "packetDeltaCount", "flowStartMilliseconds",
         "flowEndMilliseconds")  # fmt: skip
RUNS = 5


def batches(keys, rows, size, zipf):
    """Batches of `size` rows over `keys` different 5-tuples."""
    random = np.random.default_rng(1)
    if zipf:
        weights = 1 / np.arange(1, keys + 1)
        pick = random.choice(keys, rows, p=weights / weights.sum())
    else:
        pick = random.integers(0, keys, rows)
    flows = {
        "sourceIPv4Address": random.integers(0, 2**32, keys, dtype=np.uint32),
        "destinationIPv4Address": random.integers(0, 2**32, keys, dtype=np.uint32),
        "protocolIdentifier": random.choice(np.array([6, 17], np.uint8), keys),
        "sourceTransportPort": random.integers(0, 65536, keys, dtype=np.uint16),
        "destinationTransportPort": random.integers(0, 1024, keys, dtype=np.uint16),
    }
    columns = {name: column[pick] for name, column in flows.items()}
    for name in NAMES[5:]:
        columns[name] = random.integers(40, 1500, rows).astype(np.uint64)
    schema = Schema([known(name) for name in NAMES])
    return [
        Batch(schema, {n: c[at : at + size] for n, c in columns.items()}, n=min(size, rows - at), now=0.0)
        for at in range(0, rows, size)
    ]


def stack():
    """COLLECTOR -> AGGREGATE -> GPRINT, not started."""
    classes = {"COLLECTOR": COLLECTOR, "AGGREGATE": AGGREGATE, "GPRINT": GPRINT}

    def read(ident, class_):
        return Options(class_.all_options(), {"max_keys": 4_000_000} if class_ is AGGREGATE else {}), []

    spec = StackSpec("b", "b:1", (("c", "COLLECTOR"), ("a", "AGGREGATE"), ("g", "GPRINT")))
    graph = Builder(lambda name, position: classes[name], read).build([spec])
    return graph.instances["a"]


def main():
    """Print nanoseconds a row, and the longest batch."""
    assert AGGREGATE.name and FIVE_TUPLE
    print(f"{'keys':>9} {'batch':>6} {'ns a row':>9} {'M rows/s':>9} {'longest batch ms':>17} {'octets a key':>13}")
    for keys, rows, size, zipf in (
        (10_000, 4_000_000, 65536, False),
        (100_000, 4_000_000, 4096, True),
        (100_000, 4_000_000, 28672, True),
        (1_000_000, 6_000_000, 8192, False),
        (1_000_000, 6_000_000, 65536, False),
    ):
        parts = batches(keys, rows, size, zipf)
        figures, longest = [], 0.0
        for _ in range(RUNS):
            aggregate = stack()
            start = time.process_time()
            for part in parts:
                before = time.perf_counter()
                aggregate.process(part)
                longest = max(longest, time.perf_counter() - before)
            figures.append((time.process_time() - start) / rows * 1e9)
        ns = statistics.median(figures)
        octets = aggregate.counters.more["memory_octets"]() / aggregate.counters.more["keys"]()
        print(f"{keys:9} {size:6} {ns:9.0f} {1e3 / ns:9.1f} {longest * 1e3:17.1f} {octets:13.0f}")


if __name__ == "__main__":
    main()
