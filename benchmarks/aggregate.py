"""AGGREGATE: rows a second into tables of several sizes, in batches as they come from the wire; fold and state file."""

import itertools
import os
import re
import signal
import sqlite3
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks import collectors, measuring, sending, traffic
from tests.support import Daemon, free_port, require_program
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
PERIOD = 6
"""Seconds of an interval, beside nfacctd."""
BESIDE, RATE = 1_000_000, 400_000


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


def fed(aggregate, parts):
    """(nanoseconds of CPU a row, longest batch in ms) of feeding these batches."""
    start, worst = time.process_time(), 0.0
    for part in parts:
        before = time.perf_counter()
        aggregate.process(part)
        worst = max(worst, time.perf_counter() - before)
    return (time.process_time() - start) / sum(part.n for part in parts) * 1e9, worst * 1e3


def measure(parts, runs, **options):
    """Medians of `fed` in the first interval and in the second one, and the last AGGREGATE."""
    figures = []
    for _ in range(runs):
        aggregate = stack(**options)
        first = fed(aggregate, parts)
        aggregate.emit = lambda batch: None  # the rows of the first interval are not written
        aggregate.flush()
        figures.append((*first, *fed(aggregate, parts)))
    return *map(statistics.median, zip(*figures, strict=True)), aggregate


def tables(most):
    """Rows a second into tables of several sizes, by long and short keys."""
    print("in the first interval, and in the second one: ns of CPU a row, M rows/s, longest batch in ms")
    heads = ("key", "keys", "batch", "ns", "M/s", "ms", "ns", "M/s", "ms", "octets a key")
    form = "{:>9} {:>9} {:>6} {:>5} {:>5} {:>5} {:>5} {:>5} {:>5} {:>13}"
    print(form.format(*heads))
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
            *figures, aggregate = measure(parts, RUNS if keys <= 1_000_000 else 1, key=key)
            octets = aggregate.counters.figures["memory_octets"]() / aggregate.counters.figures["keys"]()
            shown = []
            for ns, longest in (figures[:2], figures[2:]):
                shown += [f"{ns:.0f}", f"{1e3 / ns:.1f}", f"{longest:.1f}"]
            name = "5-tuple" if key == "5tuple" else "address"
            print(form.format(name, keys, size, *shown, f"{octets:.0f}"), flush=True)


def memory(ipv6):
    """What resident memory has grown by when so many different 5-tuples have come, in a process of its own."""
    names = [name.replace("IPv4", "IPv6") if ipv6 else name for name in NAMES]
    schema, aggregate = Schema([known(name) for name in names]), stack(key="5tuple")

    def feed(first, n):
        number = np.arange(first, first + n, dtype=np.uint64)
        columns = {name: (number % np.uint64(200)).astype(known(name).type.dtype) for name in names[2:]}
        one, two = number * np.uint64(2654435761), number
        for name, address in zip(names, (one, two), strict=False):
            columns[name] = np.stack((address, number), axis=1) if ipv6 else address.astype(np.uint32)
        aggregate.process(Batch(schema, columns, n=n, now=0.0))

    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    feed(0, 1)
    before, done = resident(), 1
    for keys in (300_000, 1_000_000, 1_100_000, 2_000_000, 3_000_000, 10_000_000):
        while done < keys:
            n = min(8192, keys - done)
            feed(done, n)
            done += n
        print(f"IPv{6 if ipv6 else 4} {keys:9} keys: {(resident() - before) / keys:.0f} octets a key", flush=True)


def growing():
    """The longest batch while ten million different 5-tuples come."""
    random, schema = np.random.default_rng(1), Schema([known(name) for name in NAMES])
    for size in (8192, 65536):
        aggregate, took = stack(key="5tuple"), []
        for _ in range(10_000_000 // size):
            columns = {name: random.integers(0, 200, size).astype(known(name).type.dtype) for name in NAMES}
            columns |= {name: random.integers(0, 2**32, size, np.uint32) for name in NAMES[:2]}
            before = time.perf_counter()
            aggregate.process(Batch(schema, columns, n=size, now=0.0))
            took.append((time.perf_counter() - before) * 1e3)
        took.sort()
        print(f"ten million keys in batches of {size}: longest {took[-1]:.0f} ms, 99 % within "
              f"{took[len(took) * 99 // 100]:.0f} ms, median {statistics.median(took):.1f} ms", flush=True)  # fmt: skip


def folding():
    """Four times as many keys as there is room for."""
    parts = batches(4_000_000, 8_000_000, 8192, True)
    for overflow in ("other", "fold"):
        ns, longest, _, _, aggregate = measure(parts, 3, max_keys=1_000_000, overflow=overflow)
        other = aggregate.counters.figures["rows_other"] / 16e4
        print(f"overflow={overflow:6} {ns:4.0f} ns a row, longest batch {longest:.1f} ms, {other:.1f} % in the rest")


def checkpoint():
    """A state file of a million 5-tuples: the longest stop of the reactor, and how long it takes to write and read."""
    with tempfile.TemporaryDirectory() as folder:
        aggregate = stack(state_file=f"{folder}/state")
        aggregate.open()
        for part in batches(1_000_000, 6_000_000, 65536, False):
            aggregate.process(part)
        copied, began = [], time.perf_counter()
        steps = aggregate.aggregation.checkpoints.file.steps(aggregate.aggregation.snapshot(), ".new")
        while True:
            before = time.perf_counter()
            work = next(steps, None)
            copied.append(time.perf_counter() - before)
            if work is None:
                break
            work()
        wrote, size = (
            time.perf_counter() - began,
            os.path.getsize(f"{folder}/state") / aggregate.counters.figures["keys"](),
        )
        aggregate.aggregation.checkpoints.close()
        began = time.perf_counter()
        again = stack(state_file=f"{folder}/state")
        again.open()
        read = time.perf_counter() - began
        print(f"state file: written in {wrote:.2f} s, longest copy {max(copied) * 1e3:.1f} ms, {size:.0f} octets a key")
        print(f"read in {read:.2f} s ({again.counters.figures['groups_restored']} groups)")


def ours(directory, port, key, output):
    """COLLECTOR -> AGGREGATE, rows each `PERIOD` seconds into a file or a table."""
    key = {"5-tuple": "5tuple", "address": "sourceAddress"}[key]
    name, options = {
        "print": ("GPRINT", f'file="{directory}/out"'),
        "sqlite3": ("SQLITE3", f'db="{directory}/db"\ntable="acct"\ncreate=1'),
    }[output]
    listen = f'listen="udp:127.0.0.1:{port}"\nreceive_buffer={collectors.BUFFER}\n'
    config = f'[col1]\n{listen}[agg1]\nkey="{key}"\ninterval={PERIOD}\n[out]\n{options}\n'
    return collectors.Service([f"col1:COLLECTOR,agg1:AGGREGATE,out:{name}"], config, directory=directory).daemon


def nfacctd(directory, port, key, output):
    """pmacct's collector, the same."""
    words = {"5-tuple": "src_host, dst_host, src_port, dst_port, proto", "address": "src_host"}[key]
    text = f"""daemonize: false
nfacctd_ip: 127.0.0.1
nfacctd_port: {port}
nfacctd_pipe_size: {collectors.BUFFER}
nfacctd_time_new: true
plugins: {output}[a]
aggregate[a]: {words}
plugin_buffer_size: 1024000
plugin_pipe_size: 102400000
"""
    if output == "print":
        text += f"print_output_file[a]: {directory}/out\nprint_refresh_time[a]: {PERIOD}\n"
        text += "print_cache_entries[a]: 400003\nprint_output: csv\nprint_output_file_append[a]: true\n"
    else:
        columns = "ip_src CHAR(45), ip_dst CHAR(45), port_src INT, dst_port INT, port_dst INT, src_port INT"
        sqlite3.connect(directory / "db").execute(
            f"create table acct ({columns}, ip_proto CHAR(12), packets INT, bytes BIGINT)"
        )
        text += f"sql_db[a]: {directory}/db\nsql_table[a]: acct\nsql_refresh_time[a]: {PERIOD}\n"
        text += "sql_optimize_clauses[a]: true\nsql_dont_try_update[a]: true\nsql_cache_entries[a]: 400003\n"
        text += "sql_table_version[a]: 9\n"
    (directory / "nfacctd.conf").write_text(text)
    (program,) = require_program("nfacctd")
    return Daemon([program, "-f", directory / "nfacctd.conf"], lambda d: collectors.listens(port))


def packets(directory, output):
    """The packets in what was written."""
    if output == "sqlite3":
        return sqlite3.connect(directory / "db").execute("select sum(packets) from acct").fetchone()[0]
    text = (directory / "out").read_text()
    if text.startswith("SRC_IP"):
        return sum(int(line.split(",")[-2]) for line in text.splitlines() if not line.startswith("SRC_IP"))
    return sum(map(int, re.findall(r"\bpackets=([0-9]+)", text)))


def told(folder, flows, intervals):
    """Messages a second and file of the templates, and of each interval."""
    made = list(traffic.families(BESIDE * intervals, 10, flows=flows))
    size = (len(made) - 1) // intervals
    parts = [made[:1], *(made[1 + i * size : 1 + (i + 1) * size] for i in range(intervals))]
    counts = [sending.write(folder / f"messages{i}", part) for i, part in enumerate(parts)]
    return [word for i, count in enumerate(counts) for word in (count * RATE / BESIDE, folder / f"messages{i}")]


def one(make, key, output, flows, intervals=2):
    """(CPU seconds a million records, with the writing of the rows; share of packets in them) of one run.

    The same comes in an interval before, which is not measured: nfacctd gets its memory at the start, and we with the
    first records; `intervals` of 1 measures the first one. Records come in the middle of an interval, as nfacctd writes
    up to two seconds after the end of one.
    """
    with tempfile.TemporaryDirectory() as name:
        folder, port = Path(name), free_port("udp")
        parts, daemon = told(folder, flows, intervals), make(folder, port, key, output)
        try:
            daemon.start()
            measuring.settle(daemon.pid)
            with sending.Sender(f"127.0.0.1:{port}", *parts) as sender:
                sender.send()
                for _ in range(intervals):
                    time.sleep((2 - time.time()) % PERIOD)
                    before = measuring.cpu(daemon.pid)
                    sender.send()
                    time.sleep((2 - time.time()) % PERIOD)
                    measuring.settle(daemon.pid)
            cost = (measuring.cpu(daemon.pid) - before) / BESIDE * 1e6
        finally:
            daemon.stop(signal.SIGINT)
        return cost, packets(folder, output) / BESIDE / intervals


def beside(most, intervals=2):
    """CPU of the whole programs for a million records, until their rows are written, in turn."""
    print(f"CPU s a million records at {RATE} a second, median of {RUNS}; share of the packets that is in the rows")
    sizes = [flows for flows in (10_000, 100_000, 1_000_000, 10_000_000) if flows <= most]
    for output, key, flows in itertools.product(("print", "sqlite3"), ("5-tuple", "address"), sizes):
        found = {name: [] for name in ("ulogd_tw", "nfacctd")}
        for _ in range(RUNS):
            for name, make in (("ulogd_tw", ours), ("nfacctd", nfacctd)):
                found[name].append(one(make, key, output, flows, intervals))
        (mine, all_mine), (theirs, all_theirs) = (
            (statistics.median(f for f, _ in figures), min(share for _, share in figures)) for figures in found.values()
        )
        print(f"{output:8} {key:8} {flows:8} flows: ulogd_tw {mine:.2f} ({all_mine:.4f}), nfacctd {theirs:.2f} "
              f"({all_theirs:.4f}), ratio {mine / theirs:.2f}", flush=True)  # fmt: skip


def main():
    """Print what AGGREGATE costs; with the argument 10m also with ten million keys, with ``beside`` beside nfacctd,
    with ``beside first`` in the first interval.

    With ``memory4`` or ``memory6`` what it takes of memory.
    """
    most = 10_000_000 if "10m" in sys.argv else 1_000_000
    if "beside" in sys.argv:
        beside(most, 1 if "first" in sys.argv else 2)
        return
    if sys.argv[1:] in (["memory4"], ["memory6"]):
        memory(sys.argv[1] == "memory6")
        return
    tables(most)
    if most > 1_000_000:
        growing()
    folding()
    checkpoint()


if __name__ == "__main__":
    main()
