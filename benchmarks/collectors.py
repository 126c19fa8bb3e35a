"""Programs that receive records over UDP, each as a Daemon that is ready, with the same socket buffer.

A maker takes (folder, port) and gives a `Collector`. Its `rows` says, after the end, how many records came through.
"""

import atexit
import re
import signal
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.clickhouse import Chdb
from tests.live import service
from tests.support import Daemon, require_program

QUEUE = "plugin_buffer_size: 1024000\nplugin_pipe_size: 102400000\n"
"""pmacct's queue between its processes, large enough for every rate here."""
BUFFER = min(4 << 20, int(Path("/proc/sys/net/core/rmem_max").read_text()))
"""Octets of socket buffer of every program: pmacct and nfdump get no more than net.core.rmem_max."""
PERIOD = 10
"""Seconds between two writings of rows, where a shape writes them while it is measured."""
FIVE = "src_host, dst_host, src_port, dst_port, proto"


class Service(service.Service):
    """As administrators run it."""

    STATS_INTERVAL = None


@dataclass
class Collector:
    """A program, and what it has seen once it has ended."""

    daemon: Daemon
    rows: Callable = lambda: None
    end: signal.Signals = signal.SIGINT
    """Makes pmacct end its plugins."""

    def stop(self):
        """End it and all that came from it."""
        self.daemon.stop(self.end)


def sockets(port):
    """Datagrams dropped at each UDP socket of this port."""
    lines = Path("/proc/net/udp").read_text().splitlines()[1:]
    return [int(line.split()[-1]) for line in lines if int(line.split()[1].split(":")[1], 16) == port]


def listens(port):
    """Whether a UDP socket has this port."""
    return bool(sockets(port))


def ours(folder, port, stack, sections, prefix=()):
    """The service with COLLECTOR before `stack`."""
    config = f'[col1]\nlisten="udp:127.0.0.1:{port}"\nreceive_buffer={BUFFER}\n{sections}'
    made = Service([f"col1:COLLECTOR,{stack}"], config, directory=folder, namespace=lambda argv: [*prefix, *argv])
    return Collector(made.daemon, lambda: came_through(made), signal.SIGTERM)


def came_through(made):
    """Records that were received and not dropped on their way, by the counters."""
    found = made.all_counters()
    return found["col1"]["rows_received"] - sum(sum(counters["dropped"].values()) for counters in found.values())


def aggregate(folder, port, prefix=()):
    """COLLECTOR -> AGGREGATE by 5-tuple; nothing is emitted before the end."""
    text = '[agg1]\nkey="5tuple"\ninterval=3600\n[out]\nfile="/dev/null"\n'
    return ours(folder, port, "agg1:AGGREGATE,out:GPRINT", text, prefix)


def store(folder, port):
    """COLLECTOR -> IPFIXFILE: every record with all that it has."""
    return ours(folder, port, "out:IPFIXFILE", f'[out]\nfile="{folder}/flows-%Y%m%d-%H%M%S.ipfix"\n')


def flow_store(folder, port):
    """COLLECTOR -> PARQUET, the keys of flows; a file each second."""
    return ours(folder, port, "out:PARQUET", f'[out]\ndirectory="{folder}/store"\nflush=1\nretain=1d\n')


@cache
def _clickhouse_server():
    """Today's engine, ended with the process."""
    server = Chdb()
    server.__enter__()
    atexit.register(server.__exit__)
    return server


def clickhouse(folder, port):
    """COLLECTOR -> CLICKHOUSE: a table made by it, of a name of its own, on today's engine."""
    server = _clickhouse_server()
    text = f'[out]\nhost="127.0.0.1:{server.port}"\ntable="flows{port}"\ncreate=1\nretain=1d\n'
    return ours(folder, port, "out:CLICKHOUSE", text)


def json(folder, port):
    """COLLECTOR -> JSON: every record with all that it has."""
    return ours(folder, port, "out:JSON", f'[out]\nfile="{folder}/flows.json"\n')


def sqlite(folder, port, option=""):
    """COLLECTOR (with this option) -> AGGREGATE by 5-tuple -> SQLITE3, rows each `PERIOD` seconds."""
    text = f'{option}\n[agg1]\nkey="5tuple"\ninterval={PERIOD}\n[out]\ndb="{folder}/db"\ntable="acct"\ncreate=1\n'
    return ours(folder, port, "agg1:AGGREGATE,out:SQLITE3", text)


def resend(target):
    """A maker of COLLECTOR -> IPFIX over UDP to this port."""
    text = f'[out]\ncollectors="udp:127.0.0.1:{target}"\n'
    return lambda folder, port: ours(folder, port, "out:IPFIX", text)


def _pmacct(folder, port, text, rows, prefix=(), name="nfacctd"):
    """nfacctd or sfacctd with these plugins."""
    common = f"daemonize: false\n{name}_ip: 127.0.0.1\n{name}_port: {port}\n{name}_pipe_size: {BUFFER}\n"
    (folder / "pmacct.conf").write_text(common + text)
    (program,) = require_program(name)
    daemon = Daemon([*prefix, program, "-f", folder / "pmacct.conf"], lambda _: listens(port))
    return Collector(daemon, rows)


def nfacctd(folder, port, prefix=(), name="nfacctd", more=f"{QUEUE}print_cache_entries[a]: 400003\n"):
    """pmacct's collector with the print plugin and the same key; nothing is written before the end.

    Its cache has room for all flows; that it fills at the start, which is why its start is not counted.
    """
    text = f"""plugins: print[a]
aggregate[a]: {FIVE}
print_output_file[a]: {folder}/out
print_output: csv
print_refresh_time[a]: 3600
print_output_file_append[a]: true
{more}"""

    def rows():
        lines = (folder / "out").read_text().splitlines() if (folder / "out").exists() else []
        return sum(int(line.split(",")[-2]) for line in lines if line[:1].isalnum() and not line.startswith("SRC_IP"))

    return _pmacct(folder, port, text, rows, prefix, name)


def nfacctd_by_default(folder, port):
    """The same with the cache and the queue that it has by default."""
    return nfacctd(folder, port, more="")


def sfacctd(folder, port):
    """The same for sFlow."""
    return nfacctd(folder, port, name="sfacctd")


def nfacctd_sqlite(folder, port):
    """pmacct's collector with the sqlite3 plugin, a writing each `PERIOD` seconds."""
    columns = "ip_src CHAR(45), ip_dst CHAR(45), port_src INT, dst_port INT, port_dst INT, src_port INT"
    with sqlite3.connect(folder / "db") as database:
        database.execute(f"create table acct ({columns}, ip_proto CHAR(12), packets INT, bytes BIGINT)")
    text = f"""{QUEUE}nfacctd_time_new: true
plugins: sqlite3[a]
aggregate[a]: {FIVE}
sql_db[a]: {folder}/db
sql_table[a]: acct
sql_refresh_time[a]: {PERIOD}
sql_optimize_clauses[a]: true
sql_dont_try_update[a]: true
sql_cache_entries[a]: 400003
sql_table_version[a]: 9
"""
    return _pmacct(folder, port, text, lambda: sqlite3.connect(folder / "db").execute(
        "select coalesce(sum(packets), 0) from acct").fetchone()[0])  # fmt: skip


def tee(target):
    """A maker of nfacctd's tee plugin, which sends datagrams on as they are."""

    def make(folder, port):
        (folder / "receivers").write_text(f"id=1 ip=127.0.0.1:{target}\n")
        text = f"{QUEUE}plugins: tee[a]\ntee_receivers[a]: {folder}/receivers\ntee_transparent: false\n"
        return _pmacct(folder, port, text, lambda: None)

    return make


def nfcapd(folder, port, *words, prefix=()):
    """nfdump's collector, which stores every record."""
    (program,) = require_program("nfcapd")
    argv = [*prefix, program, "-b", "127.0.0.1", "-p", port, "-w", folder, "-t", 3600, "-B", BUFFER, *words]
    daemon = Daemon(argv, lambda _: listens(port))
    return Collector(daemon, lambda: sum(map(int, re.findall(r"Flows: (\d+)", daemon.output()))), signal.SIGTERM)


def repeat(target):
    """A maker of nfcapd, which stores and sends datagrams on."""
    return lambda folder, port: nfcapd(folder, port, "-R", f"127.0.0.1/{target}")
