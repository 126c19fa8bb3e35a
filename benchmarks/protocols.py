"""IPFIX, NetFlow v9 and v5 and sFlow: decoding beside Python packages.

CPU time only, so that a busy machine does not matter much. Packages that are compared: pip install -e .[bench]; what
is not installed is left out.
"""

import os
import statistics
import sys
import time

import numpy as np

from benchmarks import traffic
from ulogd_tw.core.counters import Counters
from ulogd_tw.ipfix.decoder import Decoder
from ulogd_tw.ipfix.session import Session

RUNS = 7
NOW = int(time.time())
TUPLE = frozenset({
    "sourceIPv4Address", "destinationIPv4Address", "sourceTransportPort", "destinationTransportPort",
    "protocolIdentifier", "octetDeltaCount", "packetDeltaCount", "flowStartMilliseconds", "flowEndMilliseconds",
    "record_kind", "srcaddr", "dstaddr", "srcport", "dstport", "prot", "dPkts", "dOctets",
})  # fmt: skip
"""What AGGREGATE asks for with key="5tuple", and the same by the names of v5."""

PROTOCOLS = {"IPFIX": traffic.ipfix, "NetFlow v9": traffic.netflow9, "NetFlow v5": traffic.netflow5,
             "sFlow v5": traffic.sflow}  # fmt: skip


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


def main():
    """Print nanoseconds of CPU a record, and how many times as many the packages need."""
    print(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, NumPy {np.__version__}")
    print("decode, 5-tuple and counters, ns of CPU a record (median), times ours:")
    for name, make in PROTOCOLS.items():
        n = 252_000
        messages = [octets for _, octets in make(n)]
        figures = []
        for _ in range(RUNS):
            by_us.seconds = 0.0
            by_us(messages, n)
            figures.append(by_us.seconds / n * 1e9)
        us = statistics.median(figures)
        line = [f"  {name:11} {us:6.0f}"]
        few = 12_600
        some = [octets for _, octets in make(few)]
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


if __name__ == "__main__":
    main()
