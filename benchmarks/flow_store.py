"""What a row costs in a flow store: octets and CPU of PARQUET, SQLITE3, IPFIXFILE and CLICKHOUSE for the same flows.

    python -m benchmarks.flow_store [--rows 1000000] [parquet] [sqlite3] [ipfixfile] [clickhouse]

Flows are those of `benchmarks.traffic`, made without our code: addresses by a power law, both families a tenth IPv6,
16 columns. PARQUET is measured with its writes alone and with the merge of its hour, which a process of its own makes.
Look-ups are of one address, by DuckDB in this process, the best of seven. CLICKHOUSE writes to today's engine (chdb)
over loopback, with each compression; its octets are those on the way, and the CPU is this process's alone.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from twisted.internet import defer, task  # noqa: E402 (the tree need not be installed)

from benchmarks import traffic  # noqa: E402
from ulogd_tw.core import types  # noqa: E402
from ulogd_tw.core.batch import Batch, Schema  # noqa: E402
from ulogd_tw.core.keys import known  # noqa: E402
from ulogd_tw.core.options import Options  # noqa: E402
from ulogd_tw.core.plugin import Output  # noqa: E402
from ulogd_tw.core.resolve import Provided  # noqa: E402

BATCH = 65_536
"""Rows of a batch, as queues join them."""
WRITE = 500_000
"""Rows of a write of PARQUET."""
ELEMENTS = {
    8: "sourceIPv4Address", 12: "destinationIPv4Address", 7: "sourceTransportPort", 11: "destinationTransportPort",
    4: "protocolIdentifier", 6: "tcpControlBits", 136: "flowEndReason", 10: "ingressInterface",
    14: "egressInterface", 1: "octetDeltaCount", 2: "packetDeltaCount", 152: "flowStartMilliseconds",
    153: "flowEndMilliseconds",
}  # fmt: skip


def batches(rows: int) -> Iterator[Batch]:
    """Batches of so many flows; each tenth batch is of IPv6."""
    for number, first in enumerate(range(0, rows, BATCH)):
        n = min(BATCH, rows - first)
        values = traffic.columns(n, seed=number + 1)
        ipv6 = number % 10 == 9
        columns, schema = {}, []
        for element, name in ELEMENTS.items():
            key = known(name)
            if element in (8, 12) and ipv6:
                key = known(name.replace("v4", "v6"))
                half = np.full(n, 0x20010DB8 << 32, np.uint64)
                columns[key.name] = np.stack([half, values[element].astype(np.uint64)], 1)
            else:
                columns[key.name] = np.asarray(values[element]).astype(key.type.array_dtype)
            schema.append(key)
        exporter = known("exporter").typed(types.IPV4)
        columns[exporter.name] = np.full(n, traffic.LOOPBACK, np.uint32)
        yield Batch(Schema([exporter, *schema], ipv6), columns, n=n, now=time.time())


def cpu() -> float:
    """CPU seconds of this process and of those that it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def opened(class_: type[Output], **options: object) -> Output:
    """An instance with all keys of the flows."""
    output = class_("out", Options(class_.all_options(), options))
    asked = output.requests_of(None)
    names = output.available(()) if asked is None else asked
    for batch in (next(batches(10)), *list(batches(BATCH * 10))[-1:]):
        for name in names:
            output.sources.add(name, Provided(batch.schema.values()).recipes(name))
    return output


def octets(folder: Path) -> int:
    """Octets of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def say(label: str, rows: int, used: float, size: int, seconds: float) -> None:
    """One line of the table."""
    print(
        f"{label:34} {used / rows * 1e6:5.2f} CPU s/M  {size / rows:6.1f} octets a row  {rows / seconds:9,.0f} rows/s",
        flush=True,
    )


async def parquet(rows: int, folder: Path) -> None:
    """Writes of 500,000 rows, then the merge of the hour."""
    from ulogd_tw.plugins.outputs.parquet import PARQUET
    from ulogd_tw.storing.parquet import merging
    from ulogd_tw.storing.parquet.directory import files

    output = opened(PARQUET, directory=str(folder / "store"))
    await defer.maybeDeferred(output.open)
    used, busy = 0.0, 0.0
    waiting: list[Batch] = []
    for batch in batches(rows):
        waiting.append(batch)
        if sum(one.n for one in waiting) >= WRITE:
            before, began = cpu(), time.perf_counter()
            await output.write_together(waiting)
            used, busy, waiting = used + cpu() - before, busy + time.perf_counter() - began, []
    if waiting:
        before, began = cpu(), time.perf_counter()
        await output.write_together(waiting)
        used, busy = used + cpu() - before, busy + time.perf_counter() - began
    size = octets(folder)
    say("PARQUET, written", rows, used, size, busy)
    lookup(folder / "store")
    began, before = time.perf_counter(), cpu()
    output.writer.last = 0
    while job := output.upkeep.plan(["sourceAddress", "destinationAddress"], time.time() + 7200):
        output.upkeep.finish(job, merging.result(job.process))
    say("PARQUET, merged too", rows, used + cpu() - before, octets(folder), busy + time.perf_counter() - began)
    print(f"{'':34} {len(files(folder / 'store'))} files")
    lookup(folder / "store")
    await defer.maybeDeferred(output.stop)


def lookup(store: Path) -> None:
    """Milliseconds for one source, one destination, the top 10 and a series."""
    import duckdb

    flows = f"read_parquet('{store}/date=*/hour=*/*.parquet', union_by_name=true)"
    with duckdb.connect(config={"threads": os.cpu_count() or 1}) as connection:
        source, destination = (seldom(connection, flows, name) for name in ("sourceAddress", "destinationAddress"))
        for label, query in (
            ("one source", f"select * from {flows} where sourceAddress = '{source}'"),
            ("one destination", f"select * from {flows} where destinationAddress = '{destination}'"),
            ("top 10", f"select sourceAddress, sum(octets) o from {flows} group by 1 order by o desc limit 10"),
            ("series", f"select flowEndMilliseconds // 300000, sum(octets) from {flows} group by 1 order by 1"),
        ):
            times = []
            for _ in range(7):
                began = time.perf_counter()
                found = len(connection.execute(query).fetchall())
                times.append(time.perf_counter() - began)
            print(f"{'':34} {label}: {min(times) * 1000:.1f} ms, {found} rows")


def seldom(connection: Any, flows: str, name: str) -> str:
    """An address with few flows: one of many has them all over the files."""
    query = f"select {name} from {flows} group by 1 having count(*) between 5 and 50 order by hash({name}) limit 1"
    return str(connection.execute(query).fetchall()[0][0])


async def sqlite3(rows: int, folder: Path) -> None:
    """A transaction a batch."""
    from ulogd_tw.plugins.outputs.sqlite3 import SQLITE3

    keys = (*ELEMENTS.values(), "exporter")
    names = tuple(name.replace("IPv4Address", "Address") for name in keys)
    output = opened(SQLITE3, db=str(folder / "db"), table="flows", create=True, keys=names)
    await one_by_one("SQLITE3", output, rows, folder)


async def ipfixfile(rows: int, folder: Path) -> None:
    """Every record with all that it has."""
    from ulogd_tw.plugins.outputs.ipfixfile import IPFIXFILE

    output = IPFIXFILE("out", Options(IPFIXFILE.all_options(), {"file": f"{folder}/f.ipfix"}))
    for batch in (next(batches(10)), *list(batches(BATCH * 10))[-1:]):
        for name in batch.schema:
            output.sources.add(name, Provided(batch.schema.values()).recipes(name))
    await one_by_one("IPFIXFILE", output, rows, folder)


WAYS = ("none", "lz4", "zstd", "gzip")


async def clickhouse(rows: int, folder: Path) -> None:
    """Inserts of four batches, with each compression, into a table of its own."""
    from tests.clickhouse import Chdb
    from ulogd_tw.plugins.outputs.clickhouse import CLICKHOUSE

    with Chdb() as server:
        for way in WAYS:
            output = opened(CLICKHOUSE, host=(f"127.0.0.1:{server.port}",), table=f"f_{way}", create=True,
                            compression=way)  # fmt: skip
            await defer.maybeDeferred(output.open)
            used, busy = 0.0, 0.0
            for batch in joined(rows):
                before, began = cpu(), time.perf_counter()
                await output.write(batch)
                used, busy = used + cpu() - before, busy + time.perf_counter() - began
            await output.stop()
            assert server.ask(f"SELECT count() FROM f_{way}") == [(str(rows),)]
            say(f"CLICKHOUSE, compression={way}", rows, used, output.database.sent, busy)


def joined(rows: int) -> Iterator[Batch]:
    """Up to four batches of a family as one, as a queue that gathers has them."""
    waiting: list[Batch] = []
    for batch in batches(rows):
        if waiting and (batch.schema != waiting[0].schema or len(waiting) == 4):
            yield Batch.joined(waiting)
            waiting = []
        waiting.append(batch)
    yield Batch.joined(waiting)


async def one_by_one(label: str, output: Output, rows: int, folder: Path) -> None:
    """Write batch after batch."""
    await defer.maybeDeferred(output.open)
    used, busy = 0.0, 0.0
    for batch in batches(rows):
        before, began = cpu(), time.perf_counter()
        await defer.maybeDeferred(output.write, batch)
        used, busy = used + cpu() - before, busy + time.perf_counter() - began
    await defer.maybeDeferred(output.stop)
    assert not output.counters.dropped, output.counters.dropped
    say(label, rows, used, octets(folder), busy)


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("outputs", nargs="*", default=["parquet", "sqlite3", "ipfixfile", "clickhouse"])
    words = parser.parse_args()
    print(f"Python {platform.python_version()}, NumPy {np.__version__}, {os.cpu_count()} CPUs {platform.machine()}")

    async def run(reactor: object) -> None:
        for name in words.outputs:
            with tempfile.TemporaryDirectory() as folder:
                made = {"parquet": parquet, "sqlite3": sqlite3, "ipfixfile": ipfixfile, "clickhouse": clickhouse}
                await made[name](words.rows, Path(folder))

    task.react(lambda reactor: defer.Deferred.fromCoroutine(run(reactor)))


if __name__ == "__main__":
    main()
