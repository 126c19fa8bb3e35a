"""Rows a second into SQLite and MariaDB through the outputs SQLITE3 and MYSQL, median of several batches.

    python -m benchmarks.sql_outputs [--rounds 7] [--rows 65536] [--fsync] [sqlite3] [mysql] [ulogd2]

One row has the 12 columns of an aggregate (both families of addresses are measured). MariaDB is a private server on a
unix socket; with --fsync it flushes its log at every commit, as a server does by default, without it once a second.
MYSQL writes by LOAD DATA and by INSERT in turn. `ulogd2` is Debian's, with ulogd2-mysql, beside the whole service, both
ways: packets from a Unix socket, a row of 10 columns each.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import socket
import sqlite3
import statistics
import struct
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from twisted.internet import defer, task  # noqa: E402 (the tree need not be installed)

from benchmarks import measuring  # noqa: E402
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


async def measure(label: str, output: object, family: int, arguments: argparse.Namespace, server: int = 0) -> None:
    """Write batches one after the other, and print the median rate; with the number of the server's process its CPU."""
    assert not list(output.available(tuple(keys(family))))
    await defer.maybeDeferred(output.open)
    rates, cpu, theirs = [], [], []
    for seed in range(arguments.rounds):
        batch = batch_of(family, arguments.rows, seed)
        began, used = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
        of_server = measuring.cpu(server) if server else 0.0
        await output.write(batch)
        rates.append(batch.n / (time.perf_counter() - began))
        now = resource.getrusage(resource.RUSAGE_SELF)
        theirs.append((measuring.cpu(server) - of_server if server else 0.0) / batch.n * 1e6)
        cpu.append((now.ru_utime - used.ru_utime + now.ru_stime - used.ru_stime) / batch.n * 1e6)
    await defer.maybeDeferred(output.stop)
    assert not output.counters.dropped, output.counters.dropped
    print(
        f"{label:45} {statistics.median(rates):9,.0f} rows/s  {statistics.median(cpu):5.2f} CPU s a million rows"
        + (f", the server {statistics.median(theirs):5.2f}" if server else ""),
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
        for family, load in ((4, True), (4, False), (6, True), (6, False)):
            table = f"flows{family}{load:d}"
            where = {"db": "ulogd", "socket": server.socket, "user": "root", "table": table, "create": True}
            output = MYSQL("db", Options(MYSQL.all_options(), where | {"load_data": load}))
            way = "LOAD DATA" if load else "INSERT"
            await measure(
                f"MYSQL IPv{family}, {way}, {arguments.rows} rows a batch", output, family, arguments, server.pid
            )


PACKETS = 20_000
"""Packets of one run: ulogd2 stores some thousand a second."""
STACK = "sock1:UNIXSOCK,base1:BASE,ip2str1:IP2STR,db1:MYSQL"
COLUMNS = (
    "id BIGINT AUTO_INCREMENT PRIMARY KEY, ip_saddr_str VARCHAR(45), ip_daddr_str VARCHAR(45), ip_protocol SMALLINT, "
    "ip_ttl SMALLINT, ip_totlen INT, ip_id INT, udp_sport INT, udp_dport INT, udp_len INT, oob_prefix VARCHAR(40)"
)
OURS = {"ulogd_tw, LOAD DATA": 1, "ulogd_tw, INSERT": 0}


def message(number: int) -> bytes:
    """One UDP packet with a prefix, as NuFW's program sends it."""
    udp = struct.pack(">HHHH", 1024 + number % 60_000, 53, 12, 0) + b"abcd"
    address = 0x0A000000 | number
    packet = (
        struct.pack(">BBHHHBBHII", 0x45, 0, 20 + len(udp), number & 0xFFFF, 0, 64, 17, 0, address, 0xC0000201) + udp
    )
    prefix = b"benchmark\0"
    body = packet + struct.pack(">II", 1, len(prefix)) + prefix + bytes(-len(prefix) % 8)
    return struct.pack(">IHIH", 0x41C90FD4, 8 + len(body), 0, len(packet)) + body


def store_packets(server: object, daemon: object, path: Path) -> tuple[float, ...]:
    """Rows/s, and CPU seconds of program and server a million rows."""
    octets = b"".join(map(message, range(PACKETS)))
    used = [measuring.cpu(program.pid) for program in (daemon, server)]
    began = time.perf_counter()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        client.sendall(octets)
        while server.execute("SELECT COUNT(*) FROM packets")[0][0] < PACKETS:
            time.sleep(0.05)
    seconds = time.perf_counter() - began
    cpu = [measuring.cpu(program.pid) - before for program, before in zip((daemon, server), used, strict=True)]
    return PACKETS / seconds, *(1e6 / PACKETS * each for each in cpu)


def packet_run(server: object, name: str, folder: Path) -> tuple[float, ...]:
    """Start one of the programs on an empty table, and measure it."""
    from tests.live.service import Service
    from tests.support import Daemon, wait_until

    server.execute("DROP TABLE IF EXISTS packets")
    server.execute(f"CREATE TABLE packets ({COLUMNS}) ENGINE=InnoDB")
    path = folder / "socket"
    text = f'[sock1]\nsocket_path="{path}"\n[db1]\ndb="ulogd"\nuser="bench"\npass="bench"\ntable="packets"\n'
    text += 'procedure="INSERT"\n'
    if name in OURS:
        with Service([STACK], f'{text}socket="{server.socket}"\nload_data={OURS[name]}\n', directory=folder) as service:
            return store_packets(server, service.daemon, path)
    plugins = ("inppkt_UNIXSOCK", "raw2packet_BASE", "filter_IP2STR", "output_MYSQL")
    plugins = "".join(f'plugin="/usr/lib/x86_64-linux-gnu/ulogd/ulogd_{plugin}.so"\n' for plugin in plugins)
    (folder / "conf").write_text(
        f'[global]\nlogfile="{folder}/log"\nloglevel=3\n{plugins}stack={STACK}\n{text}host="localhost"\n'
    )
    argv = ["env", f"MYSQL_UNIX_PORT={server.socket}", "ulogd", "-c", folder / "conf"]
    with Daemon(argv, lambda _: path.exists(), log=folder / "log") as daemon:
        wait_until(lambda: "main loop" in (folder / "log").read_text(), what="ulogd2")
        return store_packets(server, daemon, path)


async def ulogd2(arguments: argparse.Namespace) -> None:
    """Debian's ulogd2-mysql and the service, in turn."""
    from tests.support import PrivateMariaDB

    with PrivateMariaDB(options=["--innodb-flush-log-at-trx-commit=1"] if arguments.fsync else []) as server:
        server.execute("CREATE USER bench IDENTIFIED BY 'bench'")
        server.execute("GRANT ALL ON ulogd.* TO bench")
        found: dict[str, list[tuple[float, ...]]] = {name: [] for name in ("ulogd2-mysql", *OURS)}
        for _ in range(min(arguments.rounds, 5)):
            for name, runs in found.items():
                with tempfile.TemporaryDirectory() as folder:
                    runs.append(packet_run(server, name, Path(folder)))
    for name, runs in found.items():
        rate, cpu, theirs = (statistics.median(figures) for figures in zip(*runs, strict=True))
        print(
            f"{name + ', UNIXSOCK to MYSQL':45} {rate:9,.0f} rows/s  {cpu:5.1f} + {theirs:5.1f} CPU s a million rows, "
            "program and server", flush=True,
        )  # fmt: skip


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
            await {"sqlite3": sqlite, "mysql": mysql, "ulogd2": ulogd2}[name](arguments)

    task.react(lambda reactor: defer.Deferred.fromCoroutine(run(reactor)))


if __name__ == "__main__":
    main()
