"""IPFIX, NetFlow v9 and v5 and sFlow: decoding beside Python packages, and receiving beside C collectors.

    python -m benchmarks.protocols [decode] [receive]

CPU time only, so that a busy machine does not matter much. The octets are made here with NumPy and struct. Python
packages that are compared: pip install -e .[bench]; what is not installed is left out.
"""

import os
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.collect import _listens, cpu, drops, nfacctd, nfcapd, ours
from tests.support import Daemon, free_port, require_program
from ulogd_tw.core.counters import Counters
from ulogd_tw.ipfix.decoder import Decoder
from ulogd_tw.ipfix.session import Session

RUNS = 5
FLOWS = 100_000
NOW = int(time.time())
TUPLE = frozenset({
    "sourceIPv4Address", "destinationIPv4Address", "sourceTransportPort", "destinationTransportPort",
    "protocolIdentifier", "octetDeltaCount", "packetDeltaCount", "flowStartMilliseconds", "flowEndMilliseconds",
    "record_kind", "srcaddr", "dstaddr", "srcport", "dstport", "prot", "dPkts", "dOctets",
})  # fmt: skip
"""What AGGREGATE asks for with key="5tuple", and the same by the names of v5."""


def tuples(n):
    """Columns of n records of 100,000 flows (zipf): addresses, ports, protocol, octets, packets."""
    random = np.random.default_rng(1)
    flow = np.minimum(random.zipf(1.2, n), FLOWS).astype(np.uint32)
    return {
        "source": 0x0A000000 + flow, "destination": 0xC0A80000 + (flow >> 4), "sport": (flow * 7 & 0xFFFF),
        "dport": np.full(n, 443), "protocol": np.where(flow & 1, 6, 17), "octets": random.integers(64, 1500, n),
        "packets": random.integers(1, 50, n),
    }  # fmt: skip


def _rows(fields, columns, n):
    rows = np.zeros(n, np.dtype(fields))
    for name, _ in fields:
        if name in columns:
            rows[name] = columns[name]
    return rows


_COMMON = [("source", ">u4"), ("destination", ">u4"), ("sport", ">u2"), ("dport", ">u2"), ("protocol", "u1"),
           ("octets", ">u4"), ("packets", ">u4")]  # fmt: skip
_ELEMENTS = [(8, 4), (12, 4), (7, 2), (11, 2), (4, 1), (1, 4), (2, 4)]


def ipfix(n, per=30):
    """Messages of IPFIX with absolute times; the template first."""
    columns = tuples(n) | {"start": NOW * 1000 - 5000, "end": NOW * 1000}
    rows = _rows([*_COMMON, ("start", ">u8"), ("end", ">u8")], columns, n)
    told = b"".join(struct.pack("!HH", *field) for field in [*_ELEMENTS, (152, 8), (153, 8)])
    body = struct.pack("!HHHH", 2, 8 + len(told), 256, len(_ELEMENTS) + 2) + told
    yield struct.pack("!HHIII", 10, 16 + len(body), NOW, 0, 1) + body
    for at in range(0, n, per):
        body = rows[at : at + per].tobytes()
        yield struct.pack("!HHIIIHH", 10, 20 + len(body), NOW, at, 1, 256, 4 + len(body)) + body


def netflow9(n, per=30):
    """Packets of v9 with times as uptimes; the template first."""
    columns = tuples(n) | {"start": 95_000, "end": 100_000}
    rows = _rows([*_COMMON, ("start", ">u4"), ("end", ">u4")], columns, n)
    told = b"".join(struct.pack("!HH", *field) for field in [*_ELEMENTS, (22, 4), (21, 4)])
    body = struct.pack("!HHHH", 0, 8 + len(told), 256, len(_ELEMENTS) + 2) + told
    yield struct.pack("!HHIIII", 9, 1, 100_000, NOW, 0, 1) + body
    for number, at in enumerate(range(0, n, per)):
        body = rows[at : at + per].tobytes()
        body += bytes(-len(body) % 4)
        head = struct.pack("!HHIIIIHH", 9, min(per, n - at), 100_000, NOW, number + 1, 1, 256, 4 + len(body))
        yield head + body


def netflow5(n, per=30):
    """Packets of v5."""
    fields = [("source", ">u4"), ("destination", ">u4"), ("hop", ">u4"), ("in", ">u2"), ("out", ">u2"),
              ("packets", ">u4"), ("octets", ">u4"), ("start", ">u4"), ("end", ">u4"), ("sport", ">u2"),
              ("dport", ">u2"), ("pad", "u1"), ("flags", "u1"), ("protocol", "u1"), ("rest", "V9")]  # fmt: skip
    rows = _rows(fields, tuples(n) | {"start": 95_000, "end": 100_000}, n)
    for at in range(0, n, per):
        head = struct.pack("!HHIIIIBBH", 5, min(per, n - at), 100_000, NOW, 0, at, 0, 0, 0)
        yield head + rows[at : at + per].tobytes()


def sflow(n, per=7):
    """Datagrams of sFlow with raw headers of 64 octets: Ethernet, IPv4, TCP or UDP."""
    columns = tuples(n)
    sample = np.zeros(n, np.dtype([
        ("tag", ">u4"), ("length", ">u4"), ("sequence", ">u4"), ("id", ">u4"), ("rate", ">u4"), ("pool", ">u4"),
        ("drops", ">u4"), ("in", ">u4"), ("out", ">u4"), ("records", ">u4"), ("kind", ">u4"), ("size", ">u4"),
        ("protocol_", ">u4"), ("frame", ">u4"), ("stripped", ">u4"), ("header", ">u4"), ("macs", "V12"),
        ("type", ">u2"), ("vihl", "u1"), ("tos", "u1"), ("total", ">u2"), ("ident", ">u4"), ("ttl", "u1"),
        ("protocol", "u1"), ("sum", ">u2"), ("source", ">u4"), ("destination", ">u4"), ("sport", ">u2"),
        ("dport", ">u2"), ("rest", "V26"),
    ]))  # fmt: skip
    columns |= {"tag": 1, "length": 32 + 8 + 16 + 64, "sequence": np.arange(n), "id": 1, "rate": 100, "in": 1, "out": 2,
                "records": 1, "kind": 1, "size": 80, "protocol_": 1, "frame": columns["octets"] + 18, "stripped": 4,
                "header": 64, "type": 0x800, "vihl": 0x45, "total": columns["octets"], "ttl": 64}  # fmt: skip
    for name in sample.dtype.names:
        if name in columns:
            sample[name] = columns[name]
    for number, at in enumerate(range(0, n, per)):
        part = sample[at : at + per]
        yield struct.pack("!IIIIIII", 5, 1, 0x7F000001, 0, number, 1000, len(part)) + part.tobytes()


PROTOCOLS = {"IPFIX": ipfix, "NetFlow v9": netflow9, "NetFlow v5": netflow5, "sFlow v5": sflow}


# decode


def by_us(messages, n):
    """Feed and drain by 256 messages, as a loaded collector does."""
    counters = Counters("bench")
    decoder, session = Decoder(TUPLE, counters), Session("192.0.2.1", 1, reliable=False)
    rows = 0
    for at in range(0, len(messages), 256):
        some = messages[at : at + 256]
        stride = 2048
        slab = np.zeros((len(some), stride), np.uint8)
        for row, octets in zip(slab, some, strict=True):
            row[: len(octets)] = np.frombuffer(octets, np.uint8)
        lengths = np.array([len(octets) for octets in some], np.int64)
        began = time.process_time()
        decoder.feed_slab([session] * len(some), slab, lengths, float(NOW))
        rows += sum(batch.n for batch in decoder.drain(float(NOW)))
        by_us.seconds += time.process_time() - began
    assert rows == n, (rows, n)


def by_netflow(messages, n):
    """The package netflow."""
    import netflow

    templates = {"netflow": {}, "ipfix": {}}
    found = sum(len(netflow.parse_packet(octets, templates).flows) for octets in messages)
    assert found == n, found


def by_netflume(messages, n):
    """The package netflume."""
    import netflume

    decoder = netflume.Decoder()
    found = 0
    for octets in messages:
        found += len(decoder.decode(octets, "192.0.2.1").flows)
    assert found == n, found


def by_ipfix(messages, n):
    """The package ipfix."""
    import ipfix as package
    from ipfix.message import MessageBuffer

    package.ie.use_iana_default()
    buffer = MessageBuffer()
    found = 0
    for octets in messages:
        buffer.from_bytes(octets)
        found += sum(1 for _ in buffer.namedict_iterator())
    assert found == n, found


PACKAGES = {
    "netflow": (by_netflow, ("IPFIX", "NetFlow v9", "NetFlow v5")),
    "netflume": (by_netflume, ("IPFIX", "NetFlow v9", "NetFlow v5")),
    "ipfix": (by_ipfix, ("IPFIX",)),
}


def decode():
    """Nanoseconds of CPU a record, and how many times as many the packages need."""
    print("decode, 5-tuple and counters, ns of CPU a record (median), times ours:")
    for name, make in PROTOCOLS.items():
        n = 252_000
        messages = list(make(n))
        figures = []
        for _ in range(RUNS + 2):
            by_us.seconds = 0.0
            by_us(messages, n)
            figures.append(by_us.seconds / n * 1e9)
        us = statistics.median(figures)
        line = [f"  {name:11} {us:6.0f}"]
        few = 12_600
        some = list(make(few))
        for package, (run, protocols) in PACKAGES.items():
            if name not in protocols:
                continue
            figures = []
            try:
                for _ in range(3):
                    began = time.process_time()
                    run(some, few)
                    figures.append((time.process_time() - began) / few * 1e9)
            except ImportError:
                line.append(f"{package} is not installed")
                continue
            except Exception as error:  # a package that cannot read this is told, not hidden
                line.append(f"{package} cannot read it ({type(error).__name__}: {error})")
                continue
            line.append(f"{package} {statistics.median(figures):.0f} ({statistics.median(figures) / us:.0f} x)")
        print("   ".join(line), flush=True)


# receive

_SENDER = """
import socket, struct, sys, time
port, rate = int(sys.argv[1]), float(sys.argv[2])
octets = open(sys.argv[3], "rb").read()
parts, at = [], 0
while at < len(octets):
    size = int.from_bytes(octets[at : at + 4], "big")
    parts.append(octets[at + 4 : at + 4 + size])
    at += 4 + size
out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
out.connect(("127.0.0.1", port))
began, n = time.monotonic(), 0
for part in parts:
    out.send(part)
    n += 1
    if n % 32 == 0:
        time.sleep(max(began + n / rate - time.monotonic(), 0))
"""


def sfacctd(directory, port):
    """pmacct's collector of sFlow."""
    nfacctd(directory, port)  # writes its configuration, which is the same
    text = (directory / "nfacctd.conf").read_text().replace("nfacctd_", "sfacctd_")
    (directory / "sfacctd.conf").write_text(text)
    (program,) = require_program("sfacctd")
    return Daemon([program, "-f", directory / "sfacctd.conf"], lambda d: _listens(port))


def receive():
    """CPU seconds a million records at 200,000 records (sFlow: 70,000 samples) a second."""
    print("receive and add up by 5-tuple, CPU s a million records (median), datagrams lost:")
    for name, make in PROTOCOLS.items():
        rate, per = (70_000, 7) if name == "sFlow v5" else (200_000, 30)
        n = rate * 4
        programs = {"ulogd_tw": ours, "nfacctd": nfacctd, "nfcapd (stores)": nfcapd}
        if name == "sFlow v5":
            programs = {"ulogd_tw": ours, "sfacctd": sfacctd}
        with tempfile.NamedTemporaryFile() as file:
            for octets in make(n, per):
                file.write(len(octets).to_bytes(4, "big") + octets)
            file.flush()
            figures = {program: [] for program in programs}
            for _ in range(RUNS):
                for program, start in programs.items():
                    figures[program].append(_received(start, file.name, rate / per, n))
        us = statistics.median(f for f, _ in figures["ulogd_tw"])
        line = [f"  {name:11}"]
        for program, found in figures.items():
            median = statistics.median(f for f, _ in found)
            line.append(f"{program} {median:.2f} ({median / us:.1f} x, lost {sum(d for _, d in found)})")
        print("   ".join(line), flush=True)


def _received(start, path, rate, n):
    with tempfile.TemporaryDirectory() as folder:
        port = free_port("udp")
        with start(Path(folder), port) as daemon:
            time.sleep(0.7)
            before = cpu(daemon.pid)
            subprocess.run([sys.executable, "-c", _SENDER, str(port), str(rate), path], check=True)
            time.sleep(0.7)
            return (cpu(daemon.pid) - before) / n * 1e6, drops(port)


def main():
    """Both parts, or those that are named."""
    print(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, NumPy {np.__version__}")
    for part in sys.argv[1:] or ("decode", "receive"):
        {"decode": decode, "receive": receive}[part]()


if __name__ == "__main__":
    main()
