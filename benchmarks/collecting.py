"""The shapes of records over UDP: rates, exporters, templates, families; added up, stored, as text, sent on."""

import os
import socket
import tempfile
import threading
from functools import partial
from pathlib import Path

from benchmarks import collectors, sending, traffic
from benchmarks.measuring import settle
from benchmarks.shapes import OURS, Collecting
from tests.support import free_port

ADD_UP = {OURS: collectors.aggregate, "nfacctd": collectors.nfacctd, "nfcapd (stores only)": collectors.nfcapd}
PER_MILLION = "CPU s/M"


def adding(name, title, rate, messages=traffic.ipfix, **more):
    """A shape that is added up by 5-tuple."""
    return Collecting(name, title, PER_MILLION, ADD_UP, messages=messages, rate=rate, **more)


def storing(name, rate):
    """A shape of which every record is stored with all that it has."""
    programs = {OURS: collectors.store, "nfcapd": collectors.nfcapd}
    return Collecting(name, f"store all, {rate // 1000} k/s", PER_MILLION, programs, rate=rate)


def seldom(name, rate):
    """A shape of few records, one a message, added up and written into SQLite every 10 seconds."""
    programs = {
        OURS: collectors.sqlite,
        "nfacctd": collectors.nfacctd_sqlite,
        "nfcapd (stores only)": collectors.nfcapd,
    }
    title = f"IPFIX {rate:,}/s to SQLite"
    one = partial(traffic.ipfix, per=1)
    return Collecting(name, title, "% of a core", programs, messages=one, rate=rate, seconds=20, share=True)


class Resending(Collecting):
    """Records that are sent on to another collector, which is here and reads them."""

    def measure(self, make):
        """`make` takes the port of the other collector."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.bind(("127.0.0.1", 0))
            other.settimeout(0.1)
            ended = threading.Event()
            reader = threading.Thread(target=self._read, args=(other, ended))
            reader.start()
            try:
                return super().measure(make(other.getsockname()[1]))
            finally:
                ended.set()
                reader.join()

    def _read(self, other, ended):
        octets = bytearray(65536)
        while not ended.is_set():
            try:
                other.recv_into(octets)
            except TimeoutError:
                continue


class Lossless(Collecting):
    """The highest rate of which nothing is lost: a program on one core, the sender on another.

    Rates that lie 8 % apart are halved until one is left; each has two tries, as other work on the machine is no loss
    of the program. The figure is millions of records a second.
    """

    LOWEST, STEP, STEPS = 250_000, 1.08, 40
    """Records a second, and how many rates there are above."""
    SLOWER = 1.04
    """Half a step: a sender that takes longer than its rate says by more has sent at the rate below."""

    def measure(self, make):
        """`make` takes the words that keep a program on its core."""
        low, high, kept = 0, 2 if self.quick else self.STEPS, None
        while low + 1 < high:
            middle = (low + high) // 2
            parts = [self._try(make, self.LOWEST * self.STEP**middle)]
            if parts[0] < 1:
                parts.append(self._try(make, self.LOWEST * self.STEP**middle))
            if max(parts) >= 1:
                low, kept = middle, max(parts)
            else:
                high = middle
        return self.LOWEST * self.STEP**low / 1e6, kept

    def _try(self, make, rate):
        """Part of the records that came through at a rate; 0 where they could not be sent at it."""
        _, told, records, _, count = self.files
        cores = sorted(os.sched_getaffinity(0))
        with tempfile.TemporaryDirectory(prefix="utw-bench-") as folder:
            port = free_port("udp")
            collector = make(Path(folder), port, prefix=("taskset", "-c", str(cores[-1])))
            parts = 2000, told, count * rate / self.n, records
            try:
                collector.daemon.start()
                settle(collector.daemon.pid, window=self.window)
                with sending.Sender(
                    f"127.0.0.1:{port}", *parts, prefix=lambda argv: ["taskset", "-c", str(cores[0]), *argv]
                ) as sender:
                    sender.send()
                    seconds = sender.send()
                    settle(collector.daemon.pid, window=self.window)
            finally:
                collector.stop()
            return collector.rows() / self.n if seconds * rate < self.n * self.SLOWER else 0.0


SHAPES = [
    adding("ipfix-800k", "IPFIX 800 k/s, one template", 800_000),
    adding("ipfix-400k", "IPFIX 400 k/s", 400_000),
    adding("ipfix-100k", "IPFIX 100 k/s", 100_000, seconds=4),
    adding("ipfix-10k", "IPFIX 10 k/s, 10 records a message", 10_000, partial(traffic.ipfix, per=10), seconds=6),
    seldom("sqlite-1000", 1000),
    seldom("sqlite-100", 100),
    adding("exporters", "1,000 exporters of 10/s", 10_000, traffic.exporters, seconds=6),
    adding("templates", "16 templates in 4 exporters, 50 k/s", 50_000, traffic.templates, seconds=4),
    adding("strings", "a string of variable length, 200 k/s", 200_000, traffic.strings),
    adding("families", "NetFlow v9, two families in a message, 200 k/s", 200_000, traffic.families),
    adding("netflow5", "NetFlow v5, 200 k/s", 200_000, traffic.netflow5),
    Collecting("sflow", "sFlow, 70,000 samples/s", PER_MILLION, {
        OURS: collectors.aggregate, "sfacctd": collectors.sfacctd,
    }, messages=traffic.sflow, rate=70_000),
    storing("store-100k", 100_000),
    storing("store-800k", 800_000),
    Collecting("flow-store-100k", "flow store, 100 k/s", PER_MILLION, {
        OURS: collectors.flow_store, "nfcapd": collectors.nfcapd,
    }, rate=100_000),
    Collecting("clickhouse-400k", "flows to ClickHouse, 400 k/s", PER_MILLION, {
        OURS: collectors.clickhouse, "ulogd_tw, PARQUET": collectors.flow_store,
        "ulogd_tw, IPFIXFILE": collectors.store,
    }, rate=400_000),
    Collecting("json", "JSON, 400 k/s", PER_MILLION, {OURS: collectors.json}, rate=400_000),
    Resending("resend", "COLLECTOR -> IPFIX/UDP, 400 k/s", PER_MILLION, {
        OURS: collectors.resend, "nfacctd's tee": collectors.tee, "nfcapd -R, which stores too": collectors.repeat,
    }, rate=400_000),
    Lossless("lossless", "lossless, one core", "M records/s", {
        OURS: collectors.aggregate, "nfacctd": collectors.nfacctd, "nfcapd (stores only)": collectors.nfcapd,
    }, more=True, rate=2_000_000, seconds=1),
]  # fmt: skip
