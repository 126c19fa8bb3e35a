"""Decoding of recorded conntrack events: nanoseconds a message from slab to batches, median of several runs.

    python -m benchmarks.netlink_decode [--rounds 5]

The messages are those of shared/corpus/netlink, DESTROY in random order (six layouts, both families). pyroute2 is
beside it where it is installed. Each case uses one slab again and again, as the socket does.
"""

from __future__ import annotations

import argparse
import gc
import gzip
import platform
import random
import statistics
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.support import shared_path  # noqa: E402 (the tree need not be installed)
from ulogd_tw import starting  # noqa: E402
from ulogd_tw.core.plugin import ALL  # noqa: E402
from ulogd_tw.netfilter.conntrack import Decoder  # noqa: E402

EXPORTED = frozenset({
    "orig.ip.saddr", "orig.ip.daddr", "orig.ip.protocol", "orig.l4.sport", "orig.l4.dport", "orig.raw.pktlen",
    "orig.raw.pktcount", "reply.raw.pktlen", "reply.raw.pktcount", "ct.mark", "ct.id", "flowStartMilliseconds",
    "flowEndMilliseconds",
})  # fmt: skip
"""13 keys: about what an exporter asks for."""
STRIDE = 512


def destroys() -> list[bytes]:
    """The recorded DESTROY messages, shuffled."""
    raw = gzip.decompress(shared_path("corpus", "netlink", "ctnetlink.bin.gz").read_bytes())
    found, at = [], 0
    while at < len(raw):
        (length,) = struct.unpack_from("<I", raw, at)
        found.append(raw[at + 4 : at + 4 + length])
        at += 4 + length
    found = [octets for octets in found if octets[4] == 2]
    random.Random(1).shuffle(found)
    return found


def slab(messages: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """Messages as a read leaves them."""
    rows = np.zeros((len(messages), STRIDE), np.uint8)
    for row, octets in zip(rows, messages, strict=True):
        row[: len(octets)] = np.frombuffer(octets, np.uint8)
    return rows, np.array([len(octets) for octets in messages], np.int64)


def median_ns(work: Callable[[], int], rounds: int) -> float:
    """Median nanoseconds for each of the messages whose number `work` returns; one round before does not count."""
    work()
    found = []
    for _ in range(rounds):
        gc.collect()
        start = time.perf_counter()
        n = work()
        found.append((time.perf_counter() - start) / n * 1e9)
    return statistics.median(found)


def ours(messages: list[bytes], batch: int, wanted: object) -> Callable[[], int]:
    """Work that decodes them in batches of this size, checked by its rows."""
    decoder = Decoder(wanted)
    reused = slab(messages[:batch])
    parts = [slab(messages[start : start + batch]) for start in range(0, batch * max(4, 2048 // batch), batch)]

    def work() -> int:
        n = 0
        for rows, lengths in parts:
            # The kernel's copy into the slab; its cost is taken off below.
            reused[0][: len(rows)] = rows
            n += sum(found.n for found in decoder.decode(reused[0][: len(rows)], lengths, 1.0))
        return n

    assert work() == sum(len(lengths) for _, lengths in parts)
    return work


def copying(messages: list[bytes], batch: int) -> Callable[[], int]:
    """The same without decoding."""
    reused = slab(messages[:batch])[0]
    parts = [slab(messages[start : start + batch])[0] for start in range(0, batch * max(4, 2048 // batch), batch)]

    def work() -> int:
        for rows in parts:
            reused[: len(rows)] = rows
        return sum(map(len, parts))

    return work


def pyroute2(messages: list[bytes]) -> Callable[[], int] | None:
    """pyroute2's decoder, None where it is not installed."""
    try:
        from pyroute2.netlink.nfnetlink.nfctsocket import nfct_msg
    except ImportError:
        return None

    def work() -> int:
        for octets in messages[:500]:
            nfct_msg(octets).decode()
        return 500

    return work


def main() -> None:
    """Print one line a case."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    starting.begin()
    starting.settle()  # as the service does before its first row
    messages = destroys()
    print(f"Python {platform.python_version()}, NumPy {np.__version__}, {platform.machine()}; median of {rounds}")
    for name, wanted in (("13 keys", EXPORTED), ("all keys", ALL)):
        for batch in (1, 16, 64, 256, 1024):
            ns = median_ns(ours(messages, batch, wanted), rounds) - median_ns(copying(messages, batch), rounds)
            print(f"{name}, {batch:5} at once: {ns:9.0f} ns a message")
    theirs = pyroute2(messages)
    if theirs is not None:
        print(f"pyroute2, all:           {median_ns(theirs, rounds):9.0f} ns a message")


if __name__ == "__main__":
    main()
