"""What a row costs in each database: CPU of this program and of the server, all ways in turn with the same rows.

    python -m benchmarks databases [--rounds 5] [--rows 65536] [WAY ...]

A row has the 12 columns of an aggregate of `benchmarks.sql_outputs`, IPv4. In each round every way writes one batch of
its own random rows; a call of a function a row gets an eighth of them. CLICKHOUSE writes to today's engine (chdb) over
loopback. PARQUET is measured without the merge of its hour. The figures are medians of the rounds.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from twisted.internet import defer, task  # noqa: E402 (the tree need not be installed)

from benchmarks import measuring  # noqa: E402
from benchmarks.sql_outputs import batch_of, keys  # noqa: E402
from ulogd_tw.core.options import Options  # noqa: E402
from ulogd_tw.core.resolve import Provided  # noqa: E402

FUNCTION = """
CREATE FUNCTION one_row({parameters}) RETURNS int LANGUAGE sql AS
$$ INSERT INTO by_call VALUES ({places}) RETURNING 1 $$
"""


@dataclass
class Way:
    """An output under measurement, the number of its server's process, and (rows/s, CPU, the server's CPU) by round."""

    label: str
    output: Any
    server: int = 0
    part: int = 1
    figures: list[tuple[float, float, float]] = field(default_factory=list)

    async def round(self, rows: int, seed: int) -> None:
        """Write one batch."""
        batch = batch_of(4, rows // self.part, seed)
        theirs, used, began = self._theirs(), _cpu(), time.perf_counter()
        await self.output.write_together([batch])
        seconds, used = time.perf_counter() - began, _cpu() - used
        self.figures.append((batch.n / seconds, used / batch.n * 1e6, (self._theirs() - theirs) / batch.n * 1e6))

    def _theirs(self) -> float:
        return measuring.cpu(self.server) if self.server else 0.0

    def line(self) -> str:
        """The medians."""
        rate, used, theirs = (statistics.median(some) for some in zip(*self.figures, strict=True))
        low, high = (choose(cpu for _, cpu, _ in self.figures) for choose in (min, max))
        server = f"{theirs:6.2f} of the server" if self.server else ""
        return f"{self.label:32} {used:5.2f} ({low:.2f} to {high:.2f}) CPU s/M  {rate:9,.0f} rows/s  {server}"


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _output(class_: Any, **options: Any) -> Any:
    """An instance below something that gives the keys of the rows."""
    names = tuple(key.name for key in keys(4))
    made = class_("db", Options(class_.all_options(), {"keys": names, "create": True} | options))
    asked = made.requests_of(frozenset(names))
    for name in {*names, *asked}:
        made.sources.add(name, Provided(keys(4)).recipes(name))
    return made


def mysql(stack: ExitStack, folder: Path) -> Iterator[Way]:
    """MariaDB, a server that flushes its log once a second."""
    from tests.support import PrivateMariaDB
    from ulogd_tw.plugins.outputs.mysql import MYSQL

    server = stack.enter_context(PrivateMariaDB())
    print(f"MariaDB {server.execute('SELECT VERSION()')[0][0]}")
    where = {"db": "ulogd", "socket": server.socket, "user": "root"}
    for label, load in (("MYSQL, LOAD DATA", True), ("MYSQL, INSERT", False)):
        yield Way(label, _output(MYSQL, **where, table=f"flows{load:d}", load_data=load), server.pid)


def pgsql(stack: ExitStack, folder: Path) -> Iterator[Way]:
    """PostgreSQL without fsync."""
    from tests.postgresql import PrivatePostgreSQL
    from ulogd_tw.plugins.outputs.pgsql import PGSQL

    server = stack.enter_context(PrivatePostgreSQL())
    print(f"PostgreSQL {server.execute('SHOW server_version')[0][0]}")
    yield Way("PGSQL, COPY", _output(PGSQL, **server.options, table="by_copy"), server.pid)
    output = _output(PGSQL, **server.options, table="by_call", alter=False)
    kinds = {key.name: output.database.column_ddl(key).rpartition(" ")[2] for key in keys(4)}
    columns = ", ".join(f'"{name}" {kind}' for name, kind in kinds.items())
    places = ", ".join(f"${place + 1}" for place in range(len(kinds)))
    server.execute(f"CREATE TABLE by_call ({columns})")
    server.execute(FUNCTION.format(parameters=", ".join(kinds.values()), places=places))
    given = server.options | {"table": "by_call", "alter": False, "procedure": "one_row", "create": False}
    yield Way("PGSQL, a call of a function a row", _output(PGSQL, **given), server.pid, 8)


def sqlite3(stack: ExitStack, folder: Path) -> Iterator[Way]:
    """SQLite in WAL mode."""
    from ulogd_tw.plugins.outputs.sqlite3 import SQLITE3

    yield Way("SQLITE3", _output(SQLITE3, db=str(folder / "db.sqlite3"), table="flows"))


def parquet(stack: ExitStack, folder: Path) -> Iterator[Way]:
    """Parquet files, written."""
    from ulogd_tw.plugins.outputs.parquet import PARQUET

    names = tuple(key.name for key in keys(4))
    output = PARQUET("db", Options(PARQUET.all_options(), {"keys": names, "directory": str(folder / "store")}))
    for name in output.requests_of(frozenset(names)):
        output.sources.add(name, Provided(keys(4)).recipes(name))
    yield Way("PARQUET, written", output)


def clickhouse(stack: ExitStack, folder: Path) -> Iterator[Way]:
    """ClickHouse's engine behind HTTP."""
    from tests.clickhouse import Chdb
    from ulogd_tw.plugins.outputs.clickhouse import CLICKHOUSE

    server = stack.enter_context(Chdb())
    print(f"chdb {server.ask('SELECT version()')[0][0]}")
    yield Way("CLICKHOUSE", _output(CLICKHOUSE, host=(f"127.0.0.1:{server.port}",), table="flows"), server.daemon.pid)


DATABASES: dict[str, Callable[[ExitStack, Path], Iterator[Way]]] = {
    "mysql": mysql, "pgsql": pgsql, "sqlite3": sqlite3, "parquet": parquet, "clickhouse": clickhouse,
}  # fmt: skip


async def measure(names: list[str], rounds: int, rows: int) -> None:
    """All ways in turn, one batch each before those that count."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="utw-bench-")))
        ways = [way for name in names for way in DATABASES[name](stack, folder)]
        for way in ways:
            if hasattr(way.output, "prepare"):
                way.output.prepare()
            await defer.maybeDeferred(way.output.open)
            await way.round(rows, 0)
            way.figures.clear()
        for number in range(rounds):
            for place, way in enumerate(ways):
                await way.round(rows, 1 + number * len(ways) + place)
        for way in ways:
            await defer.maybeDeferred(way.output.stop)
            assert not way.output.counters.dropped, (way.label, way.output.counters.dropped)
            print(way.line(), flush=True)


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=65_536)
    parser.add_argument("databases", nargs="*", default=list(DATABASES), metavar="WAY")
    words = parser.parse_args()
    if unknown := set(words.databases) - set(DATABASES):
        parser.error(f"there is no {' '.join(sorted(unknown))}; there are {' '.join(DATABASES)}")
    print(f"Python {platform.python_version()}, NumPy {np.__version__}, {os.cpu_count()} CPUs {platform.machine()}, "
          f"load {os.getloadavg()[0]:.1f}")  # fmt: skip
    task.react(lambda reactor: defer.Deferred.fromCoroutine(measure(words.databases, words.rounds, words.rows)))


if __name__ == "__main__":
    main()
