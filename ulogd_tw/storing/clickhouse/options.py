"""The options of CLICKHOUSE, and the texts in them: servers, names of columns, roll-ups."""

from __future__ import annotations

import re

from ulogd_tw.core.options import Option, boolean, one_of, seconds, text, words
from ulogd_tw.core.paths import input_file
from ulogd_tw.storing.clickhouse import compression
from ulogd_tw.storing.clickhouse.schema import rollups
from ulogd_tw.storing.gathering import gathering_options
from ulogd_tw.storing.passwords import PASS_FILE
from ulogd_tw.storing.sql_output import CONNECT_S, TABLE

FLUSH_S = 1.0
_HOST = re.compile(r"(?:\[([^\]]+)\]|([^:\s]+))(?::(\d+))?$")


def servers(value: str) -> tuple[str, ...]:
    """Servers as HOST or HOST:PORT, with IPv6 addresses in brackets. Raises ValueError."""
    found = words(value)
    for word in found:
        match = _HOST.match(word)
        if match is None or int(match[3] or 0) > 65535:
            raise ValueError(f"{word!r} is not a server; write HOST or HOST:PORT, an IPv6 address as [::1]:8123")
    if not found:
        raise ValueError("name a server, such as localhost")
    return found


def server(word: str, usual: int) -> tuple[str, int]:
    """Host and port of one of them."""
    match = _HOST.match(word)
    assert match is not None
    return match[1] or match[2], int(match[3] or 0) or usual


def pairs(value: str) -> tuple[str, ...]:
    """Pairs COLUMN=KEY. Raises ValueError."""
    found = words(value)
    columns = [word.partition("=")[0] for word in found]
    for word, column in zip(found, columns, strict=True):
        if not all(word.partition("=")):
            raise ValueError(f"{word!r} is not a pair COLUMN=KEY, such as SrcAddr=sourceAddress")
        if columns.count(column) > 1:
            raise ValueError(f"column {column} is there twice; leave one out")
    return found


def intervals(value: str) -> tuple[str, ...]:
    """Intervals of roll-ups, each with or without the time for which it is kept. Raises ValueError."""
    found = words(value)
    rollups(found)
    return found


OPTIONS = (
    Option("host", servers, ("localhost",), "Servers, each as HOST or HOST:PORT, such as \"ch1.example "
           "ch2.example:8123\". Rows go to the first one that answers. The port is 8123, with tls=1 8443."),
    Option("tls", boolean, False, "1: HTTPS; the server must prove its name by a certificate."),
    Option("ssl_ca", input_file, "", "File with the CAs of the server's certificate (PEM). Empty: those of the "
           "system."),
    Option("ssl_cert", input_file, "", "File with our certificate for the server (PEM). Empty: none."),
    Option("ssl_key", input_file, "", "File with the private key of ssl_cert (PEM)."),
    Option("user", text, "default", "User name at the server."),
    Option("user_file", input_file, "", "File with the user name in its first line, instead of user."),
    Option("pass", text, "", "Password of the user."),
    PASS_FILE,
    Option("db", text, "default", "Database of the table, unless table names one."),
    *(option for option in TABLE if option.name != "keys"),
    Option("keys", words, (), "Keys to write, such as sourceAddress octets. Empty: the keys with a column in the "
           "table; with create=1, addresses, ports, counters, times, interfaces, AS numbers, NAT and others of a flow "
           "where the stack has them, below AGGREGATE all its columns."),
    Option("columns", pairs, (), "Columns that are not named as their keys, each as COLUMN=KEY, such as "
           "\"SrcAddr=sourceAddress Bytes=octets\"; the lists for tables of Akvorado and goflow2 are in "
           "clickhouse.md."),
    *gathering_options(FLUSH_S),
    Option("compression", one_of(*compression.WAYS), "none", "Compression of inserts: none, lz4, zstd or gzip. "
           "None costs least here; zstd sends a tenth of the octets. lz4 and zstd need pip install "
           "'ulogd_tw[clickhouse]'."),
    Option("timeout", seconds, 30.0, "Seconds within which the server must answer a statement. 0: no bound."),
    Option("connect_timeout", seconds, CONNECT_S, "Seconds within which a server must take the connection."),
    Option("nullable", boolean, False, "With create=1: 1: columns are Nullable, and missing values NULL. 0: missing "
           "values are 0, empty, or the address ::, which takes less room and time."),
    Option("order", words, (), "With create=1, columns by which rows are sorted behind the time in steps of five "
           "minutes. Empty: exporter and sourceAddress, where they are there."),
    Option("retain", seconds, 0.0, "With create=1, how long rows are kept by their column time, such as 30d; the "
           "server removes older ones (TTL). 0: for ever."),
    Option("rollups", intervals, (), "With create=1, tables with the sums of intervals, kept by the server as views, "
           "each with the time for which it is kept, such as \"1m:7d 5m:90d 1h\": TABLE_1m, TABLE_5m, TABLE_1h."),
    Option("rollup_by", words, (), "Columns by which sums are kept apart. Empty: exporter, interfaces, protocol and "
           "AS numbers, where they are there."),
    Option("rollup_distinct", words, (), "Columns of which roll-ups count different values, such as sourceAddress: "
           "uniqMerge(distinct_sourceAddress)."),
    Option("cluster", text, "", "With create=1, name of the cluster on which tables are made (ON CLUSTER)."),
    Option("replicated", boolean, False, "1: with create=1, tables are ReplicatedMergeTree, by the server's own "
           "default path in Keeper."),
    Option("distributed", boolean, False, "1: with create=1, rows are in TABLE_local on each server of cluster, and "
           "TABLE is Distributed over them."),
)  # fmt: skip
