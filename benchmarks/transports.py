"""Export over each transport to one collector and to three: an exporter in this process, COLLECTOR in another.

Records a second from the first batch until all are acknowledged (over UDP and DTLS: sent), and CPU seconds of both
processes for a million records, each counted once however many collectors get it. SCTP needs libusrsctp2.
"""

import platform
import statistics
import sys
import time

import numpy as np
from twisted.internet import defer, reactor, task, threads

from benchmarks.measuring import cpu
from tests.certificates import CA
from tests.live.service import Service, temporary
from tests.support import free_port, require_library
from tests.unit.exporting.doubles import exporter, flows

RUNS = 5
RECORDS = 1_000_000
ROWS = 5000
SCHEMES = ("udp", "tcp", "sctp", "tls", "dtls")


def secrets():
    """The options of both sides for TLS."""
    ca = CA(temporary("bench"))
    hosts = (f"127.0.0.{number}" for number in (1, 2, 3))
    pairs = ca.issue("exporter", "exporter.example"), ca.issue("collector", *hosts)
    return [{"ca": ca.file, "cert": cert, "private_key": key} for cert, key in pairs]


@defer.inlineCallbacks
def run(scheme, collectors, ours, theirs):
    """(records a second, CPU s a million records here, and there) of one run."""
    ports, udp = [free_port("both") for _ in range(collectors)], free_port("udp")
    words = "".join(f'{name}="{value}"\n' for name, value in theirs.items() if scheme in ("tls", "dtls"))
    places = [f"{scheme}:127.0.0.{number}:{port}" for number, port in enumerate(ports, 1)]
    config = f'[col1]\nlisten="{" ".join(places)}"\n{words}[agg1]\nkey="5tuple"\n[out]\nfile="/dev/null"\n'
    if scheme == "sctp":
        config = config.replace("[agg1]", f"encapsulation_port={udp}\n[agg1]")
    service = Service(["col1:COLLECTOR,agg1:AGGREGATE,out:GPRINT"], config)
    yield threads.deferToThread(service.start)
    batch = flows(ROWS, orig__l4__sport=np.arange(ROWS), reply__l4__dport=np.arange(ROWS))
    options = {"collectors": tuple(places)} | (ours if scheme in ("tls", "dtls") else {})
    plugin = exporter(batch.schema, **options, **({"encapsulation_port": udp} if scheme == "sctp" else {}))
    plugin.open()
    while not all(collector.in_session for collector in plugin.collectors):
        yield task.deferLater(reactor, 0.02, lambda: None)
    here, there, began = time.process_time(), cpu(service.pid), time.monotonic()
    for _ in range(RECORDS // (2 * ROWS)):
        yield plugin.write(batch)
        yield task.deferLater(reactor, 0)
    plugin.flush()
    while any(c.waiting_records or c.figures().get("octets_unacknowledged") for c in plugin.collectors):
        yield task.deferLater(reactor, 0.005, lambda: None)
        for collector in plugin.collectors:
            collector.send_waiting()
    seconds, here = time.monotonic() - began, time.process_time() - here
    yield plugin.stop()
    yield task.deferLater(reactor, 1.0, lambda: None)  # over UDP some may be lost: there is no number to wait for
    there = cpu(service.pid) - there
    got = service.counters("col1")["rows_received"] / RECORDS / collectors
    yield threads.deferToThread(service.stop)
    return RECORDS / seconds, here / RECORDS * 1e6, there / RECORDS * 1e6, got


@defer.inlineCallbacks
def main(schemes):
    """Print the table."""
    print(f"{platform.machine()}, Linux {platform.release()}, Python {platform.python_version()}")
    ours, theirs = secrets()
    found = {(scheme, n): [] for scheme in schemes for n in (1, 3)}
    for _ in range(RUNS):
        for (scheme, n), figures in found.items():
            figures.append((yield run(scheme, n, ours, theirs)))
    print(f"records of about 55 octets, median of {RUNS} runs of {RECORDS:,}")
    print("transport collectors  records/s  CPU s/M exporter  collector  arrived")
    for (scheme, n), figures in found.items():
        rate, here, there, got = (statistics.median(column) for column in zip(*figures, strict=True))
        print(f"  {scheme:5} {n:8} {rate:12,.0f} {here:12.2f} {there:12.2f} {got:12.1%}", flush=True)


if __name__ == "__main__":
    require_library("libusrsctp.so.2", "libusrsctp2")
    task.react(lambda _, *words: main(words or SCHEMES), sys.argv[1:])
