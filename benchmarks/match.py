"""MATCH: rows a second of expressions, batches of 65,536 rows of five keys, one core."""

import platform
import statistics
import time

import numpy as np

from tests.unit.match.test_grammar import batch_of
from ulogd_tw.core.resolve import Provided, Sources
from ulogd_tw.match.grammar import parse

RUNS = 7
ROWS = 65_536
TEXTS = (
    "src net 10.0.0.0/8",
    "src net 10.0.0.0/8 and dst port 443 and octets > 1k",
    "proto tcp and (port in [80 443 8080] or octets > 1M) and not src net 10.0.0.0/8",
    "src ip in @million",
)


def main():
    """Print the table."""
    print(f"{platform.machine()}, Python {platform.python_version()}, NumPy {np.__version__}")
    random = np.random.default_rng(1)
    row = {"sourceIPv4Address": "10.0.0.1", "destinationIPv4Address": "10.0.0.2", "protocolIdentifier": 6,
           "sourceTransportPort": 1, "destinationTransportPort": 443, "octetDeltaCount": 5}  # fmt: skip
    one = batch_of([row])
    columns = {one.schema[name]: random.integers(0, top, ROWS).astype(one.columns[name].dtype) for name, top in (
        ("sourceIPv4Address", 2**32), ("destinationIPv4Address", 2**32), ("protocolIdentifier", 20),
        ("sourceTransportPort", 65536), ("destinationTransportPort", 500), ("octetDeltaCount", 5000))}  # fmt: skip
    batch = one.take(np.zeros(ROWS, np.int64)).with_columns(columns)
    numbers = random.choice(2**24, 1_000_000, replace=False)
    million = [f"{n >> 16}.{n >> 8 & 255}.{n & 255}.0/24" for n in numbers]
    for text in TEXTS:
        began = time.perf_counter()
        term = parse(text, {"million": million})
        compiled = time.perf_counter() - began
        sources = Sources()
        for name in term.keys():
            sources.add(name, Provided(batch.schema.values()).recipes(name))
        rates = []
        for _ in range(RUNS):
            began = time.process_time()
            for _ in range(20):
                found = term.rows(sources.find, batch)
            rates.append(20 * ROWS / (time.process_time() - began) / 1e6)
        share = found.mean()
        print(f"{statistics.median(rates):8.1f} M rows/s  {share:6.1%} match  made in {compiled * 1e3:.1f} ms  {text}")


if __name__ == "__main__":
    main()
