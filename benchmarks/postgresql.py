"""Rows a second into PostgreSQL: PGSQL's ways beside each other, and the whole program beside Debian's ulogd2.

    python -m benchmarks postgresql [--rounds 5] [--rows 65536] [--packets 20000]

First the output alone, with the 12 columns of an aggregate: COPY, statements of many rows, one call of a function a
row. Then `UNIXSOCK -> BASE -> IP2STR -> PGSQL` in a process of its own, the same configuration for both programs: the
time until all packets that were sent as fast as they are read are rows, and CPU seconds of the program and the server.
"""

from __future__ import annotations

import argparse
import os
import platform
import socket
import statistics
import struct
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from twisted.internet import defer, task

from benchmarks.measuring import cpu
from benchmarks.sql_outputs import keys, measure
from tests.postgresql import PrivatePostgreSQL
from tests.support import Daemon, require_program, wait_until
from ulogd_tw.core.options import Options
from ulogd_tw.plugins.outputs.pgsql import PGSQL

TABLE = """
CREATE TABLE packets (
  oob_family smallint, oob_time_sec integer, oob_in varchar(32), ip_saddr_str inet, ip_daddr_str inet,
  ip_protocol smallint, ip_tos smallint, ip_ttl smallint, ip_totlen integer, udp_sport integer, udp_dport integer,
  udp_len integer
)
"""
FUNCTION = """
CREATE FUNCTION one_row({parameters}) RETURNS int LANGUAGE sql AS
$$ INSERT INTO flows4 VALUES ({places}) RETURNING 1 $$
"""
CONFIGURATION = """
[global]
logfile="{folder}/log"
loglevel=5
stack=in1:UNIXSOCK,base1:BASE,ip2str1:IP2STR,db1:PGSQL
[in1]
socket_path="{folder}/socket"
[db1]
db="ulogd"
host="{host}"
port={port}
user="postgres"
table="packets"
procedure="INSERT"
"""


def message(number: int) -> bytes:
    """One packet for UNIXSOCK, with an interface and a time."""
    source, ports = 0x0A000000 | number, (1024 + number % 60000, 53)
    udp = struct.pack("!HHHH", *ports, 8 + 64, 0) + bytes(64)
    header = struct.pack("!BBHHHBBHII", 0x45, 0, 20 + len(udp), number & 0xFFFF, 0, 64, 17, 0, source, 0x0A800001)
    packet = header + udp
    body = packet.ljust(-(-len(packet) // 8) * 8, b"\0")
    for option, value in ((2, b"eth0\0"), (4, struct.pack("=I", 1_790_000_000))):
        body += struct.pack("!II", option, len(value)) + value.ljust(8, b"\0")
    return struct.pack("!IHIH", 0x41C90FD4, 8 + len(body), 0, len(packet)) + body


def program(name: str) -> Callable[[Path], Daemon]:
    """The daemon of this name with the configuration in a folder."""
    path = require_program("ulogd")[0] if name == "ulogd2" else Path(sys.executable).with_name("ulogd-tw")
    return lambda folder: Daemon([path, "-c", folder / "ulogd.conf"], lambda daemon: (folder / "socket").exists())


def whole(name: str, server: PrivatePostgreSQL, packets: int) -> tuple[float, float, float]:
    """Rows a second, and CPU seconds of the program and of the server for a million rows."""
    server.execute("DROP TABLE IF EXISTS packets")
    server.execute(TABLE)
    octets = b"".join(map(message, range(packets)))
    with tempfile.TemporaryDirectory(prefix="utw-bench-") as place:
        folder = Path(place)
        (folder / "ulogd.conf").write_text(
            CONFIGURATION.format(folder=folder, host=server.folder, port=server.port), "utf-8"
        )
        with program(name)(folder) as daemon, socket.socket(socket.AF_UNIX) as client:
            time.sleep(0.5)
            client.connect(str(folder / "socket"))
            used, server_used, began = cpu(daemon.pid), cpu(server.pid), time.monotonic()
            client.sendall(octets)
            wait_until(lambda: _arrived(server) >= packets, 120, f"{packets} rows of {name}")
            took = time.monotonic() - began
            seconds = cpu(daemon.pid) - used, cpu(server.pid) - server_used
            return packets / took, *(some / packets * 1e6 for some in seconds)


def _arrived(server: PrivatePostgreSQL) -> int:
    """Rows in the table; asked seldom, since asking costs the server time."""
    time.sleep(0.1)
    return server.execute("SELECT count(*) FROM packets")[0][0]


async def outputs(server: PrivatePostgreSQL, arguments: argparse.Namespace) -> None:
    """PGSQL alone."""
    names = [key.name for key in keys(4)]
    for label, family, rows, options in (
        ("COPY, IPv4", 4, arguments.rows, {}), ("COPY, IPv6", 6, arguments.rows, {}),
        ("statements of many rows, IPv4", 4, arguments.rows, {"procedure": "INSERT INTO flows4"}),
        ("one call of a function a row, IPv4", 4, arguments.rows // 8, {"procedure": "one_row"}),
    ):  # fmt: skip
        table = f"flows{family}"
        if options.get("procedure") == "one_row":
            found = server.execute("SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attnum > 0 AND "
                                   "attrelid = 'flows4'::regclass ORDER BY attnum")  # fmt: skip
            places = ", ".join(f"${place + 1}" for place in range(len(names)))
            server.execute(FUNCTION.format(parameters=", ".join(kind for (kind,) in found), places=places))
        given = server.options | {"table": table, "create": True, "alter": False, "keys": tuple(names)} | options
        output = PGSQL("db", Options(PGSQL.all_options(), given))
        for name in names:
            output.sources.add(name, _recipes(family, name))
        await measure(label, output, family, argparse.Namespace(rounds=arguments.rounds, rows=rows))


def _recipes(family: int, name: str) -> tuple:
    from ulogd_tw.core.resolve import Provided

    return Provided(keys(family)).recipes(name)


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=65536)
    parser.add_argument("--packets", type=int, default=20_000)
    arguments = parser.parse_args()
    print(f"Python {platform.python_version()}, NumPy {np.__version__}, {os.cpu_count()} CPUs {platform.machine()}")
    with PrivatePostgreSQL() as server:
        print(server.execute("SHOW server_version")[0][0], "PostgreSQL, without fsync")
        ways: dict[str, list] = {"ulogd_tw": [], "ulogd2": []}
        for _ in range(arguments.rounds):
            for name, figures in ways.items():
                figures.append(whole(name, server, arguments.packets))
        for name, figures in ways.items():
            rate, ours, servers = map(statistics.median, zip(*figures, strict=True))
            print(f"{name:45} {rate:9,.0f} rows/s  {ours:5.2f} CPU s a million rows, {servers:5.2f} of the server")

        async def run(reactor: object) -> None:
            await outputs(server, arguments)

        task.react(lambda reactor: defer.Deferred.fromCoroutine(run(reactor)))


if __name__ == "__main__":
    main()
