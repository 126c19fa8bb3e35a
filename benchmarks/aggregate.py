"""AGGREGATE: rows a second into tables of several sizes, in batches as they come from the wire; fold and state file."""

import os
import statistics
import sys
import tempfile
import time

import numpy as np

from benchmarks import collect
from ulogd_tw.core.batch import Batch, Schema
from ulogd_tw.core.keys import known
from ulogd_tw.core.options import Options
from ulogd_tw.core.stack import Builder, StackSpec
from ulogd_tw.plugins.filters.aggregate import AGGREGATE
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


def stack(**options):
    """COLLECTOR -> AGGREGATE -> GPRINT, not started."""
    classes = {"COLLECTOR": COLLECTOR, "AGGREGATE": AGGREGATE, "GPRINT": GPRINT}
    options = {"max_keys": 16_000_000} | options

    def read(ident, class_):
        return Options(class_.all_options(), options if class_ is AGGREGATE else {}), []

    spec = StackSpec("b", "b:1", (("c", "COLLECTOR"), ("a", "AGGREGATE"), ("g", "GPRINT")))
    graph = Builder(lambda name, position: classes[name], read).build([spec])
    return graph.instances["a"]


def measure(parts, runs, **options):
    """(nanoseconds of CPU a row, longest batch in ms, the last AGGREGATE) of feeding these batches."""
    figures, longest = [], []
    for _ in range(runs):
        aggregate = stack(**options)
        start, worst = time.process_time(), 0.0
        for part in parts:
            before = time.perf_counter()
            aggregate.process(part)
            worst = max(worst, time.perf_counter() - before)
        figures.append((time.process_time() - start) / sum(part.n for part in parts) * 1e9)
        longest.append(worst * 1e3)
    return statistics.median(figures), statistics.median(longest), aggregate


def tables(most):
    """Rows a second into tables of several sizes, by long and short keys."""
    heads = ("key", "keys", "batch", "ns a row", "M rows/s", "longest batch ms", "octets a key")
    print("{:>9} {:>9} {:>6} {:>9} {:>9} {:>17} {:>13}".format(*heads))
    for keys, rows, size, zipf in (
        (10_000, 4_000_000, 65536, False),
        (100_000, 4_000_000, 4096, True),
        (100_000, 4_000_000, 28672, True),
        (1_000_000, 6_000_000, 8192, False),
        (1_000_000, 6_000_000, 65536, False),
        (10_000_000, 30_000_000, 65536, False),
    ):
        if keys > most:
            continue
        parts = batches(keys, rows, size, zipf)
        for key in ("5tuple", "sourceAddress"):
            ns, longest, aggregate = measure(parts, RUNS if keys <= 1_000_000 else 1, key=key)
            octets = aggregate.counters.more["memory_octets"]() / aggregate.counters.more["keys"]()
            name = "5-tuple" if key == "5tuple" else "address"
            print(f"{name:>9} {keys:9} {size:6} {ns:9.0f} {1e3 / ns:9.1f} {longest:17.1f} {octets:13.0f}", flush=True)


def folding():
    """Four times as many keys as there is room for."""
    parts = batches(4_000_000, 8_000_000, 8192, True)
    for overflow in ("other", "fold"):
        ns, longest, aggregate = measure(parts, 3, max_keys=1_000_000, overflow=overflow)
        other = aggregate.counters.more["rows_other"] / 8e4
        print(f"overflow={overflow:6} {ns:4.0f} ns a row, longest batch {longest:.1f} ms, {other:.1f} % in the rest")


def checkpoint():
    """A state file of a million 5-tuples: the longest stop of the reactor, and how long it takes to write and read."""
    with tempfile.TemporaryDirectory() as folder:
        aggregate = stack(state_file=f"{folder}/state")
        aggregate.open()
        for part in batches(1_000_000, 6_000_000, 65536, False):
            aggregate.process(part)
        copied, began = [], time.perf_counter()
        steps = aggregate._state.file.steps(aggregate.kept[0], 0, ".new")
        while True:
            before = time.perf_counter()
            work = next(steps, None)
            copied.append(time.perf_counter() - before)
            if work is None:
                break
            work()
        wrote, size = (
            time.perf_counter() - began,
            os.path.getsize(f"{folder}/state") / aggregate.counters.more["keys"](),
        )
        aggregate._state.close()
        began = time.perf_counter()
        again = stack(state_file=f"{folder}/state")
        again.open()
        read = time.perf_counter() - began
        print(f"state file: written in {wrote:.2f} s, longest copy {max(copied) * 1e3:.1f} ms, {size:.0f} octets a key")
        print(f"read in {read:.2f} s ({again.counters.more['groups_restored']} groups)")


def beside():
    """CPU of the whole programs for a million records, one run each, beside nfacctd."""
    for flows in (100_000, 1_000_000):
        for name, make in (("ulogd_tw", collect.ours), ("nfacctd", collect.nfacctd)):
            seconds, lost = collect.run(make, 200_000, 1_000_000, flows)
            print(f"{flows:9} flows {name:9} {seconds:.2f} CPU s a million records, datagrams lost {lost}", flush=True)


def main():
    """Print what AGGREGATE costs; with the argument 10m also with ten million keys, with ``beside`` beside nfacctd."""
    if "beside" in sys.argv:
        beside()
        return
    tables(10_000_000 if "10m" in sys.argv else 1_000_000)
    folding()
    checkpoint()


if __name__ == "__main__":
    main()
