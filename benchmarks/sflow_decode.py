"""Decoding of sFlow: nanoseconds of CPU a flow sample for feed and drain together, median of several runs.

    python -m benchmarks.sflow_decode [--rounds 7] [--datagrams 1024]

Datagrams of seven flow samples with headers of 128 octets, as switches send them; half of the packets are IPv6.
"""

from __future__ import annotations

import argparse
import gc
import platform
import statistics
import struct
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ulogd_tw import starting  # noqa: E402 (the tree need not be installed)
from ulogd_tw.core.counters import Counters  # noqa: E402
from ulogd_tw.core.plugin import ALL, Wanted  # noqa: E402
from ulogd_tw.ipfix.decoder import Decoder  # noqa: E402
from ulogd_tw.ipfix.session import Session  # noqa: E402

NOW = 1_790_000_000.0
EACH = 7
"""Samples of a datagram."""
FIVE_TUPLE = frozenset({
    "sourceIPv4Address", "destinationIPv4Address", "sourceIPv6Address", "destinationIPv6Address", "sourceTransportPort",
    "destinationTransportPort", "protocolIdentifier", "octetDeltaCount", "packetDeltaCount", "flowStartMilliseconds",
    "flowEndMilliseconds",
})  # fmt: skip
"""Nine columns of a record: what AGGREGATE asks for."""


def packet(random: np.random.Generator) -> bytes:
    """The first 128 octets of a tagged frame with a segment of TCP."""
    ends = random.bytes(12) + struct.pack("!HHH", 0x8100, int(random.integers(1, 4095)), 0x0800)
    segment = random.bytes(12) + b"\x50\x10" + random.bytes(6)
    if random.integers(2):
        head = struct.pack("!BBHHHBBH", 0x45, 0, 1400, 1, 0x4000, 64, 6, 0) + random.bytes(8)
    else:
        ends = ends[:-2] + b"\x86\xdd"
        head = struct.pack("!IHBB", 6 << 28, 1360, 6, 64) + random.bytes(32)
    whole = ends + head + segment
    return whole + random.bytes(128 - len(whole))


def datagram(random: np.random.Generator, number: int, extended: bool) -> bytes:
    """Flow samples with raw headers; `extended` ones have a record of the switch and one of the router too."""
    more = b""
    if extended:
        more = struct.pack("!6I", 1001, 16, 7, 0, 8, 0) + struct.pack("!6I", 1002, 16, 1, 0xC0000201, 24, 16)
    samples = []
    for place in range(EACH):
        raw = struct.pack("!6I", 1, 144, 1, 1418, 4, 128) + packet(random)
        body = struct.pack("!8I", EACH * number + place, 3, 1000, 5000, 0, 3, 4, 3 if extended else 1) + raw + more
        samples.append(struct.pack("!II", 1, len(body)) + body)
    return struct.pack("!7I", 5, 1, 0xC0000207, 0, number, 1000, EACH) + b"".join(samples)


def measure(name: str, wanted: Wanted, made: list[bytes], batch: int, rounds: int) -> None:
    """Print the time a sample takes."""
    counters = Counters("benchmark")
    decoder, session = Decoder(wanted, counters), Session("192.0.2.1", 6343, reliable=False)
    times, total = [], EACH * len(made)
    for turn in range(rounds + 1):
        numbered = [m[:16] + struct.pack("!I", turn * len(made) + i) + m[20:] for i, m in enumerate(made)]
        gc.collect()
        seen = 0
        begin = time.process_time()
        for first in range(0, len(numbered), batch):
            for octets in numbered[first : first + batch]:
                decoder.feed(session, octets, NOW)
            seen += sum(found.n for found in decoder.drain(NOW))
        times.append(time.process_time() - begin)
        assert seen == total, (seen, total)
    assert not counters.errors and not counters.lost, (counters.errors, counters.lost)
    middle = statistics.median(times[1:])
    datagram_us = 1e6 * middle / len(made)
    print(f"{name:50s} {1e9 * middle / total:8.0f} ns a sample, {datagram_us:.1f} us a datagram", flush=True)


def main() -> None:
    """Run all cases."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=7)
    options.add_argument("--datagrams", type=int, default=1024)
    found, _ = options.parse_known_args()
    print(f"Python {platform.python_version()}, NumPy {np.__version__}, median of {found.rounds}")
    starting.begin()
    starting.settle()  # as the service does before its first row
    random, n, rounds = np.random.default_rng(1), found.datagrams, found.rounds
    plain = [datagram(random, number, False) for number in range(n)]
    extended = [datagram(random, number, True) for number in range(n)]
    measure(f"9 columns, {n} datagrams at once", FIVE_TUPLE, plain, n, rounds)
    measure("9 columns, 64 datagrams at once", FIVE_TUPLE, plain, 64, rounds)
    measure("9 columns, 8 datagrams at once", FIVE_TUPLE, plain, 8, rounds)
    measure("9 columns, one datagram at once", FIVE_TUPLE, plain, 1, rounds)
    measure("all columns, 64 datagrams at once", ALL, plain, 64, rounds)
    measure("with switch and router, 9 columns, 64 at once", FIVE_TUPLE, extended, 64, rounds)
    measure("with switch and router, all columns, 64 at once", ALL, extended, 64, rounds)


if __name__ == "__main__":
    main()
