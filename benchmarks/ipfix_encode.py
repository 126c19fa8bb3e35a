"""Encoding of IPFIX: nanoseconds a record, median of five, beside one struct.pack for each record.

    python -m benchmarks ipfix_encode

"encoded" is from columns to the octets that are sent, a copy for each collector. "exported" is the whole output plugin,
conntrack rows (two records each) to sendto() on loopback sockets that nobody reads, so that their buffers overflow.
"""

from __future__ import annotations

import platform
import socket
import statistics
import struct
import time
from functools import partial

import numpy as np

from tests.unit.exporting.doubles import exporter, flows
from ulogd_tw.core.keys import registry
from ulogd_tw.ipfix import uniflow
from ulogd_tw.ipfix.builder import MessageBuilder
from ulogd_tw.ipfix.encoder import Encoder

RUNS = 5
RECORDS = 57_344
AT_ONCE = 4096
NOW = 1_790_000_000.0


def median(work, count):
    """Nanoseconds of `work` for each of `count`, and the least and most of the runs."""
    work()
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        work()
        times.append((time.perf_counter() - start) / count * 1e9)
    return statistics.median(times), min(times), max(times)


def show(what, found):
    """One line of the table."""
    print(f"{what:<66} {found[0]:9.1f} ns  ({found[1]:.1f} to {found[2]:.1f})", flush=True)


def columns(template, n):
    """Random values for every field."""
    random = np.random.default_rng(1)
    return [random.integers(0, 200, n).astype(registry.element(f.pen, f.ident).type.dtype) for f in template.fields]


def encode(encoder, held, collectors, length, n):
    """From columns to octets for each collector."""
    builder, sequences = MessageBuilder(length), [0] * collectors
    for start in range(0, n, AT_ONCE):
        part = [c[start : start + AT_ONCE] for c in held]
        for messages in builder.add(encoder.encode(part, len(part[0]))):
            for place in range(collectors):
                messages.stamped(sequences[place], 1, NOW)
                sequences[place] += messages.all_records


def one_by_one(held, n):
    """The records with one struct.pack each."""
    pack = struct.Struct("!IIHHBQQQQBQB").pack
    return b"".join([pack(*row) for row in zip(*(c[:n].tolist() for c in held), strict=True)])


def export(collectors, rows, batch):
    """Seconds a record of the whole output, UDP on loopback; and the sockets, which must stay open."""
    receivers = [socket.socket(type=socket.SOCK_DGRAM) for _ in range(collectors)]
    for receiver in receivers:
        receiver.bind(("127.0.0.1", 0))
    urls = tuple(f"udp:127.0.0.1:{r.getsockname()[1]}" for r in receivers)
    batches = [flows(rows).take(np.arange(batch) + i) for i in range(0, rows - batch + 1, batch)]
    plugin = exporter(batches[0].schema, collectors=urls)
    plugin.open()

    def work():
        for rows_of_it in batches:
            plugin.write(rows_of_it)

    found = median(work, 2 * len(batches) * batch)
    for collector in plugin.collectors:
        collector.sender.close()
    for receiver in receivers:
        receiver.close()
    return found


def main():
    """Print the table."""
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, NumPy {np.__version__}")
    for variant, name in ((0, "IPv4"), (uniflow.IPV6 | uniflow.NAT, "IPv6 with NAT")):
        template = uniflow.template(variant)
        encoder = Encoder(template)
        held = [np.stack([c, c], 1) if registry.element(f.pen, f.ident).type.kind == "ipv6" else c
                for c, f in zip(columns(template, RECORDS), template.fields, strict=True)]  # fmt: skip
        if variant == 0:
            assert encoder.encode(held, RECORDS).data.tobytes() == one_by_one(held, RECORDS)
            show("struct.pack for each record", median(lambda held=held: one_by_one(held, AT_ONCE), AT_ONCE))
        for length in (1472, 16384):
            for collectors in (1, 3):
                what = f"encoded: {name}, {template.least_octets} octets, messages of {length}, {collectors} collectors"
                work = partial(encode, encoder, held, collectors, length, RECORDS)
                show(what, median(work, RECORDS))
    for collectors in (1, 3):
        show(f"exported: UDP, {collectors} collectors, batches of 20000 rows", export(collectors, 20_000, 20_000))
    for batch in (1, 20, 400):
        show(f"exported: UDP, 1 collector, batches of {batch} rows", export(1, 2000, batch))


if __name__ == "__main__":
    main()
