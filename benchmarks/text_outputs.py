"""Rows a second of the printing outputs and of `canonical_list`, beside json.dumps for each row.

``python -m benchmarks text_outputs``: CPU time, median of 5, one process; texts are made, not written.
"""

import json
import platform
import statistics
import time

import numpy as np

from ulogd_tw import kernels
from ulogd_tw.core import lines, types
from ulogd_tw.core.batch import Batch, Schema
from ulogd_tw.core.columns import Coded, Octets, repeated
from ulogd_tw.core.keys import known
from ulogd_tw.core.options import Options
from ulogd_tw.core.python_values import canonical_list
from ulogd_tw.core.resolve import Found
from ulogd_tw.plugins.filters.printflow import PRINTFLOW
from ulogd_tw.plugins.outputs.gprint import GPRINT
from ulogd_tw.plugins.outputs.json import JSON
from ulogd_tw.plugins.outputs.logemu import LOGEMU
from ulogd_tw.plugins.outputs.oprint import OPRINT

NOW_MS = 1795392639178
DICE = np.random.default_rng(1)


def batch(columns, n):
    """A batch of columns by name; an address is IPv6 where it has two numbers a row."""
    keys = []
    for name, column in columns.items():
        key = known(name)
        if key.type is types.ADDRESS:
            key = key.typed(types.IPV6 if column.ndim == 2 else types.IPV4)
        keys.append(key)
        if isinstance(column, np.ndarray) and column.dtype != key.type.dtype:
            columns[name] = column.astype(key.type.dtype)
    return Batch(Schema(keys), columns, n=n, now=NOW_MS / 1000)


def counters(n, most):
    """Heavy-tailed numbers, as flow counters are."""
    return np.minimum(DICE.pareto(0.8, n) * 60 + 40, most)


def addresses(n, v6=False):
    """Random addresses of a /16, or of a /32."""
    if v6:
        return np.stack([np.full(n, 0x20010DB800000000, np.uint64), DICE.integers(0, 1 << 62, n, np.uint64)], 1)
    return DICE.integers(0, 1 << 16, n) + (10 << 24)


def collected(n, messages=1):
    """Collected records: 6 keys of context (alike for all of one message) and 9 fields."""

    def shared(values):
        return np.repeat(np.array(values), -(-n // messages))[:n] if messages > 1 else repeated(values[0], n)

    return batch({
        "exporter": shared([0xC0000201 + i % 3 for i in range(messages)]).astype(np.uint32),
        "exporter_port": shared([4739 + i % 3 for i in range(messages)]),
        "observationDomainId": shared([7 + i % 2 for i in range(messages)]),
        "templateId": repeated(256, n, np.dtype("H")),
        "record_kind": repeated(b"data", n),
        "received_ms": shared([NOW_MS + i for i in range(messages)]),
        "sourceIPv4Address": addresses(n),
        "destinationIPv4Address": addresses(n),
        "sourceTransportPort": DICE.integers(1024, 65536, n),
        "destinationTransportPort": DICE.choice([53, 80, 443, 8080], n),
        "protocolIdentifier": DICE.choice([1, 6, 17], n),
        "octetDeltaCount": counters(n, 1e9),
        "packetDeltaCount": counters(n, 1e6) / 40,
        "flowStartMilliseconds": NOW_MS - DICE.integers(0, 60000, n),
        "flowEndMilliseconds": NOW_MS - DICE.integers(0, 1000, n),
    }, n)  # fmt: skip


def conntrack(n, v6=False):
    """Ended flows of NFCT: 22 keys, where some have no end time."""
    source, destination = addresses(n, v6), addresses(n, v6)
    sport, dport = DICE.integers(1024, 65536, n), DICE.choice([53, 80, 443, 8080], n)
    second = NOW_MS // 1000
    found = batch({
        "orig.ip.saddr": source, "orig.ip.daddr": destination, "orig.ip.protocol": DICE.choice([6, 17], n),
        "orig.l4.sport": sport, "orig.l4.dport": dport,
        "orig.raw.pktlen": counters(n, 1e9), "orig.raw.pktcount": counters(n, 1e6) / 40,
        "reply.ip.saddr": destination, "reply.ip.daddr": source, "reply.ip.protocol": DICE.choice([6, 17], n),
        "reply.l4.sport": dport, "reply.l4.dport": sport,
        "reply.raw.pktlen": counters(n, 1e9), "reply.raw.pktcount": counters(n, 1e6) / 40,
        "ct.mark": repeated(0, n, np.dtype("I")), "ct.id": DICE.integers(0, 1 << 32, n),
        "ct.event": repeated(4, n, np.dtype("I")),
        "flow.start.sec": second - DICE.integers(0, 300, n), "flow.start.usec": DICE.integers(0, 10**6, n),
        "flow.end.sec": second - DICE.integers(0, 2, n), "flow.end.usec": DICE.integers(0, 10**6, n),
        "oob.family": repeated(2, n, np.dtype("B")),
    }, n)  # fmt: skip
    gone = DICE.random(n) < 0.1
    found.missing.update({"flow.end.sec": gone, "flow.end.usec": gone})
    return found


def per_row(rows):
    """Peer: canonical values as dicts, json.dumps for each."""
    values = [canonical_list(rows.columns[name], key, rows.missing.get(name)) for name, key in rows.schema.items()]
    names = list(rows.schema)
    for row in zip(*values, strict=True):
        json.dumps({name: value for name, value in zip(names, row, strict=True) if value is not None})


def median(work):
    """CPU seconds of the middle one of five runs after one that warms up."""
    times = []
    for _ in range(6):
        begun = time.process_time()
        work()
        times.append(time.process_time() - begun)
    return statistics.median(times[1:])


def show(title, rows, work):
    """One line of the table."""
    taken = median(work)
    print(f"{title:58} {rows / taken / 1e6:8.2f} M rows/s {taken / rows * 1e6:9.3f} us a row")


def output(class_):
    """What makes the texts of a batch."""
    made = class_("out", Options(class_.all_options(), {"file": "/dev/null"}))
    return lambda rows: sum(len(octets) for octets, _ in made.texts(rows))


def logged():
    """What makes the lines of LOGEMU with PRINTFLOW."""
    texts, made = PRINTFLOW("text"), LOGEMU("out", Options(LOGEMU.all_options(), {"file": "/dev/null"}))
    texts.wanted = {"print"}
    for plugin in (texts, made):
        plugin.find = found
    return lambda rows: sum(len(octets) for octets, _ in made.texts(texts.process(rows)))


def found(rows, name):
    """A key of the rows themselves."""
    key = rows.schema.get(name)
    return key and Found(rows.columns[name], rows.missing.get(name), key)


def sizes():
    """Batches of several sizes with the kernel and with NumPy in turn: CPU ns a row, median of 5."""
    wholly = lines.LEAST_COMPILED
    kinds = {
        "JSON: collected": (collected, output(JSON)),
        "GPRINT: collected": (collected, output(GPRINT)),
        "JSON: conntrack": (conntrack, output(JSON)),
        "GPRINT: conntrack": (conntrack, output(GPRINT)),
        "PRINTFLOW, LOGEMU: conntrack": (conntrack, logged()),
    }
    for title, (make, write) in kinds.items():
        for size in (1, 8, 64, 1000, 30_000):
            rows, times, taken = make(size), max(1, 20_000 // (size + 60)), {wholly: [], 1 << 62: []}
            for _ in range(6):
                for least, figures in taken.items():
                    lines.LEAST_COMPILED = least
                    begun = time.process_time()
                    for _ in range(times):
                        write(rows)
                    figures.append((time.process_time() - begun) / times / size * 1e9)
            kernel, numpy = (statistics.median(figures[1:]) for figures in taken.values())
            print(f"{title}, batches of {size:6} {kernel:8.0f} ns a row, with NumPy {numpy:8.0f}")
    lines.LEAST_COMPILED = wholly


def main():
    """Print the table."""
    n = 65536
    print(f"Python {platform.python_version()}, NumPy {np.__version__}, {n} rows")
    kinds = {
        "collected, 15 columns, one message": collected(n),
        "collected, 15 columns, 30 rows a message": collected(n, n // 30),
        "conntrack, 22 keys, IPv4": conntrack(n),
        "conntrack, 22 keys, IPv6": conntrack(n, v6=True),
    }
    for title, rows in kinds.items():
        for class_ in (JSON, GPRINT, OPRINT):
            write = output(class_)
            show(f"{class_.name}: {title}", n, lambda write=write, rows=rows: write(rows))
        small = rows.take(slice(0, 8000))
        show(f"json.dumps a row: {title}", 8000, lambda small=small: per_row(small))
    if kernels.lib is not None:
        sizes()
    names = [b"eth%d" % i for i in range(200)]
    columns = {
        "sourceIPv4Address": addresses(n).astype(np.uint32),
        "sourceIPv6Address": addresses(n, v6=True),
        "sourceMacAddress": DICE.integers(0, 1 << 48, n, np.uint64),
        "octetDeltaCount": counters(n, 1e9).astype(np.uint64),
        "flowStartMicroseconds": DICE.integers(0, 1 << 63, n, np.uint64),
        "interfaceName": Octets.of(names[i] for i in DICE.integers(0, 200, n)),
        "interfaceDescription": Coded(DICE.integers(0, 200, n), names),
    }
    for name, column in columns.items():
        key = known(name)
        show(f"canonical_list: {key.type} {type(column).__name__}", n, lambda c=column, k=key: canonical_list(c, k))


if __name__ == "__main__":
    main()
