"""GROUP: look-ups a second of a million networks, random addresses in batches of 65,536 rows, one core."""

import platform
import statistics
import time

import numpy as np

from ulogd_tw.core import types
from ulogd_tw.naming import networks, services

RUNS = 7
ROWS = 65_536
BATCHES = 10
NETWORKS = 1_000_000
NAMES = 5_000


def main():
    """Print the table."""
    print(f"{platform.machine()}, Python {platform.python_version()}, NumPy {np.__version__}")
    random = np.random.default_rng(1)
    four, six = _four(random), _six(random)
    for family, text, columns in (
        (types.IPV4, four, ("net",)), (types.IPV6, six, ("net",)),
        (types.IPV4, _with_times(four), ("net", networks.FROM, networks.UNTIL)),
    ):  # fmt: skip
        began = time.perf_counter()
        names = networks.read(text, columns)
        made = time.perf_counter() - began
        table, texts, times = names.table, names.columns["net"], random.integers(0, 2_000_000, ROWS)
        batches = [_addresses(random, family) for _ in range(BATCHES)]
        share = np.mean([names.codes(batch, family, None, times) > 0 for batch in batches])
        rate = _rate(lambda batch: texts.column(names.codes(batch, family, None, times)), batches)  # noqa: B023
        size = f"{table.nbytes >> 20} MB, read in {made:.1f} s"
        print(f"{rate:8.1f} M rows/s  {share:6.1%} have a name  {size}  {family}{' with times' * names.timed}")
    found = services.read(b"".join(b"s%d %d/tcp\n" % (port, port) for port in range(0, 65536, 10)))
    ports = [random.integers(0, 65536, ROWS).astype(np.uint16) for _ in range(BATCHES)]
    protocols = random.choice([6, 17], ROWS).astype(np.uint8)
    rate = _rate(lambda batch: found.labels.column(found.codes(batch, protocols)), ports)
    print(f"{rate:8.1f} M rows/s  services")


def _rate(work, batches):
    rates = []
    for _ in range(RUNS):
        began = time.process_time()
        for batch in batches:
            work(batch)
        rates.append(len(batches) * ROWS / (time.process_time() - began) / 1e6)
    return statistics.median(rates)


def _four(random):
    """Networks of 16 to 32 bits, of which many are within others."""
    first, bits = random.integers(0, 2**32, NETWORKS), random.choice([16, 20, 22, 24, 24, 24, 28, 32], NETWORKS)
    return b"".join(b"%d.%d.%d.%d/%d,n%d\n" % (a >> 24, a >> 16 & 255, a >> 8 & 255, a & 255, n, a % NAMES)
                    for a, n in zip(first.tolist(), bits.tolist(), strict=True))  # fmt: skip


def _six(random):
    """Networks of 32 to 64 bits in 2000::/6, and some of single addresses."""
    first = random.integers(0x2000 << 16, 0x2400 << 16, NETWORKS)
    bits = random.choice([32, 40, 48, 48, 64, 128], NETWORKS)
    return b"".join(b"%x:%x:%x::/%d,n%d\n" % (a >> 16, a & 0xFFFF, a * 7 & 0xFFFF, n, a % NAMES)
                    for a, n in zip(first.tolist(), bits.tolist(), strict=True))  # fmt: skip


def _with_times(text):
    """The same lines, each valid for half of the time, some from, some until 1,000,000."""
    lines = text.splitlines()
    return b"".join(line + (b",1000000,\n" if place % 2 else b",,1000000\n") for place, line in enumerate(lines))


def _addresses(random, family):
    if family is types.IPV4:
        return random.integers(0, 2**32, ROWS).astype(np.uint32)
    high = random.integers(0x2000 << 48, 0x2400 << 48, ROWS, np.uint64)
    return np.column_stack([high, random.integers(0, 2**63, ROWS, np.uint64)])


if __name__ == "__main__":
    main()
