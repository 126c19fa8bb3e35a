"""Rows a second into SQLite and MariaDB through the outputs SQLITE3 and MYSQL, median of several batches.

    python -m benchmarks.sql_outputs [--rounds 7] [--rows 65536] [--fsync] [sqlite3] [mysql]

One row has the 12 columns of an aggregate (both families of addresses are measured). MariaDB is a private server on a
unix socket; with --fsync it flushes its log at every commit, as a server does by default, without it once a second.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import sqlite3
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from twisted.internet import defer, task  # noqa: E402 (the tree need not be installed)

from ulogd_tw.core import types  # noqa: E402
from ulogd_tw.core.batch import Batch, Schema  # noqa: E402
from ulogd_tw.core.keys import Key, known  # noqa: E402
from ulogd_tw.core.options import Options  # noqa: E402
from ulogd_tw.plugins.outputs.sqlite3 import SQLITE3  # noqa: E402

COUNTED = ("flows", "packets", "octets")
TIMES = ("first_ms", "last_ms")


def keys(family: int) -> list[Key]:
    """12 keys: an aggregate by 5-tuple and interface."""
    address = types.IPV6 if family == 6 else types.IPV4
    return [
        *(known(name).typed(address) for name in ("sourceAddress", "destinationAddress")),
        *map(known, ("protocolIdentifier", "sourceTransportPort", "destinationTransportPort", "ingressInterface")),
        *(Key(name, types.UNSIGNED64) for name in COUNTED),
        *(Key(name, types.MILLISECONDS) for name in TIMES),
        Key("interval_start", types.SECONDS),
    ]


def batch_of(family: int, n: int, seed: int) -> Batch:
    """n random rows."""
    random = np.random.default_rng(seed)
    columns = {}
    for key in keys(family):
        if key.type is types.IPV6:
            columns[key.name] = random.integers(0, 1 << 63, (n, 2)).astype(np.uint64)
        elif key.name in TIMES:
            columns[key.name] = (1_790_000_000_000 + random.integers(0, 60_000, n)).astype(np.uint64)
        elif key.name == "interval_start":
            columns[key.name] = np.full(n, 1_790_000_000, np.uint32)
        else:
            bits = {"octets": 30, "packets": 20, "flows": 7, "ingressInterface": 5}.get(key.name, 8 * key.type.octets)
            columns[key.name] = random.integers(0, 1 << bits, n).astype(key.type.dtype)
    return Batch(Schema(keys(family)), columns, n=n, now=1_790_000_000.0)


async def measure(label: str, output: object, family: int, arguments: argparse.Namespace) -> None:
    """Write batches one after the other, and print the median rate."""
    assert not list(output.available(tuple(keys(family))))
    await defer.maybeDeferred(output.open)
    rates, cpu = [], []
    for seed in range(arguments.rounds):
        batch = batch_of(family, arguments.rows, seed)
        began, used = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
        await output.write(batch)
        rates.append(batch.n / (time.perf_counter() - began))
        now = resource.getrusage(resource.RUSAGE_SELF)
        cpu.append((now.ru_utime - used.ru_utime + now.ru_stime - used.ru_stime) / batch.n * 1e6)
    await defer.maybeDeferred(output.stop)
    assert not output.counters.dropped, output.counters.dropped
    print(
        f"{label:45} {statistics.median(rates):9,.0f} rows/s  {statistics.median(cpu):5.2f} CPU s a million rows",
        flush=True,
    )


async def sqlite(arguments: argparse.Namespace) -> None:
    """SQLite in WAL mode."""
    print(f"SQLite {sqlite3.sqlite_version}")
    with tempfile.TemporaryDirectory() as folder:
        for family in (4, 6):
            path = os.path.join(folder, f"{family}.sqlite3")
            options = Options(SQLITE3.all_options(), {"db": path, "table": "flows", "create": True})
            output = SQLITE3("db", options)
            await measure(f"SQLITE3 IPv{family}, {arguments.rows} rows a batch", output, family, arguments)


async def mysql(arguments: argparse.Namespace) -> None:
    """A private MariaDB."""
    from tests.support import PrivateMariaDB
    from ulogd_tw.plugins.outputs.mysql import MYSQL

    with PrivateMariaDB(options=["--innodb-flush-log-at-trx-commit=1"] if arguments.fsync else []) as server:
        print(f"MariaDB {server.execute('SELECT VERSION()')[0][0]}, fsync at every commit: {arguments.fsync}")
        for family in (4, 6):
            where = {"db": "ulogd", "socket": server.socket, "user": "root", "table": f"flows{family}", "create": True}
            output = MYSQL("db", Options(MYSQL.all_options(), where))
            await measure(f"MYSQL IPv{family}, {arguments.rows} rows a batch", output, family, arguments)


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--rows", type=int, default=65536)
    parser.add_argument("--fsync", action="store_true")
    parser.add_argument("databases", nargs="*", default=["sqlite3", "mysql"])
    arguments = parser.parse_args()
    print(f"Python {platform.python_version()}, NumPy {np.__version__}, {os.cpu_count()} CPUs {platform.machine()}")

    async def run(reactor: object) -> None:
        for name in arguments.databases:
            await {"sqlite3": sqlite, "mysql": mysql}[name](arguments)

    task.react(lambda reactor: defer.Deferred.fromCoroutine(run(reactor)))


if __name__ == "__main__":
    main()
