"""Export over SCTP within UDP: an exporter in this process, COLLECTOR in another; over TCP beside it in the same run.

Records a second from the first batch until all are acknowledged, and CPU seconds of both processes for a million
records. Needs libusrsctp2.
"""

import platform
import statistics
import time
from pathlib import Path

import numpy as np
from twisted.internet import defer, reactor, task, threads

from benchmarks.collect import cpu
from tests.live.service import Service
from tests.support import free_port, require_library
from tests.unit.plugins.exporting import exporter, flows

RUNS = 5
RECORDS = 1_000_000
ROWS = 5000


@defer.inlineCallbacks
def run(scheme):
    """(records a second, CPU s a million records here, and there) of one run."""
    port, udp = free_port("tcp"), free_port("udp")
    config = f'[col1]\nlisten="{scheme}:127.0.0.1:{port}"\nencapsulation_port={udp}\n[agg1]\nkey="5tuple"\n'
    service = Service(["col1:COLLECTOR,agg1:AGGREGATE,out:GPRINT"], config + '[out]\nfile="/dev/null"\n')
    yield threads.deferToThread(service.start)
    batch = flows(ROWS, orig__l4__sport=np.arange(ROWS), reply__l4__dport=np.arange(ROWS))
    plugin = exporter(batch.schema, collectors=(f"{scheme}:127.0.0.1:{port}",), encapsulation_port=udp)
    plugin.open()
    (collector,) = plugin.collectors
    while collector.state != "connected":
        yield task.deferLater(reactor, 0.02, lambda: None)
    here, there = time.process_time(), cpu(service.pid)
    began = time.monotonic()
    for _ in range(RECORDS // (2 * ROWS)):
        yield plugin.write(batch)
    plugin._flush()
    while collector.waiting_records or collector.figures()["octets_unacknowledged"]:
        yield task.deferLater(reactor, 0.005, lambda: None)
        collector.pump()
    seconds = time.monotonic() - began
    here = time.process_time() - here
    yield plugin.stop()
    service.wait_for("col1", "rows_received", RECORDS)
    there = cpu(service.pid) - there
    yield threads.deferToThread(service.stop)
    return RECORDS / seconds, here / RECORDS * 1e6, there / RECORDS * 1e6


@defer.inlineCallbacks
def main():
    """Print the table."""
    print(f"{platform.machine()}, Linux {platform.release()}, Python {platform.python_version()}")
    print(Path("/var/lib/dpkg/info/libusrsctp2:amd64.list").exists() and "libusrsctp2 of Debian" or "")
    figures = {"sctp": [], "tcp": []}
    for _ in range(RUNS):
        for scheme, found in figures.items():
            found.append((yield run(scheme)))
    print(f"records of about 55 octets, median of {RUNS} runs of {RECORDS:,}: records/s, CPU s/M exporter, collector")
    for scheme, found in figures.items():
        rate, here, there = (statistics.median(column) for column in zip(*found, strict=True))
        print(f"  {scheme:5} {rate:10,.0f} {here:8.2f} {there:8.2f}")


if __name__ == "__main__":
    require_library("libusrsctp.so.2", "libusrsctp2")
    task.react(lambda _: main())
