"""Stores made by DuckDB from rows of Python, in the layout that PARQUET writes."""

import functools
import json
import uuid
from collections import defaultdict
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path

import duckdb

from ulogd_tw.core.keys import known
from ulogd_tw.storing.stored_columns import StoredColumn

HOUR = 3_600_000
T0 = 1_780_000_000_000 // HOUR * HOUR
"""A full hour, 2026-05-28 20:00 UTC."""
RAW_KEYS = (
    "flowStartMilliseconds", "flowEndMilliseconds", "sourceAddress", "destinationAddress", "protocolIdentifier",
    "sourceTransportPort", "destinationTransportPort", "octetDeltaCount", "packetDeltaCount", "tcpControlBits",
)  # fmt: skip
SUMS = ("octets", "packets", "flows", "interval_start", "flowStartMilliseconds", "flowEndMilliseconds")


def address(text):
    """The UUID of an address."""
    found = ip_address(text)
    return uuid.UUID(int=int(found) + ((0xFFFF << 32) if found.version == 4 else 0))


def key_of(name):
    """The column of a key, as PARQUET describes it; those of an AGGREGATE are made here."""
    from ulogd_tw.aggregation.group_table import VALUES
    from ulogd_tw.aggregation.interval import INTERVAL_START
    from ulogd_tw.core.derived_keys import parse

    of_aggregate = {key.name: key for key in (*VALUES, INTERVAL_START)}
    return of_aggregate.get(name) or (parse(name).key if "/" in name else known(name))


def row_time(row):
    """When a row is, as the design has it: its arrival where that is stored, else its end."""
    return row.get("arrival") if row.get("arrival") is not None else row["flowEndMilliseconds"]


def row_start(row):
    """When a row's flow began."""
    return row_time(row) if row.get("flowStartMilliseconds") is None else row["flowStartMilliseconds"]


def write(directory, rows, keys=RAW_KEYS, rollup=None, instance="parquet1", files=2, absent=(), number=0):
    """Write rows into a store, so many files an hour; `absent` columns are not in the files."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    columns = [StoredColumn(key_of(name)) for name in keys]
    described = {"version": 1, "instance": instance, "keys": [column.described() for column in columns], "order": []}
    described |= {"interval": None, "by": None} | (rollup or {})
    (directory / "store.json").write_text(json.dumps(described))
    hours = defaultdict(list)
    for place, row in enumerate(rows):
        hours[row_time(row) // HOUR, place % files].append(row)
    for place, ((hour, _), some) in enumerate(sorted(hours.items(), key=lambda item: item[0])):
        _file(directory, hour, some, [column for column in columns if column.name not in absent], number + place)
    return directory


def _file(directory, hour, rows, columns, number):
    at = datetime.fromtimestamp(hour * 3600, UTC)
    place = directory / f"date={at:%Y-%m-%d}" / f"hour={at:%H}"
    place.mkdir(parents=True, exist_ok=True)
    start = min(map(row_start, rows)) // 1000
    path = place / f"{start}-0-{len(rows)}.abc.{number}.0.parquet"
    types = {column.name: column.sql for column in columns} | {"arrival": "UBIGINT"}
    lists = [[value if not isinstance(value, uuid.UUID) else str(value) for value in column]
             for column in ([row.get(name) for row in rows] for name in types)]  # fmt: skip
    parts = ", ".join(
        f'unnest(${at}::VARCHAR[])::{type_} AS "{name}"' for at, (name, type_) in enumerate(types.items(), 1)
    )
    with _database().cursor() as database:
        texts = [[None if value is None else str(value) for value in column] for column in lists]
        database.execute(f"COPY (SELECT {parts}) TO '{path}' (FORMAT parquet)", texts)


@functools.cache
def _database():
    return duckdb.connect()


def flow(end, octets=100, packets=1, source="192.0.2.1", destination="198.51.100.1", sport=1024, dport=443, proto=6,
         lasts=0, **more):  # fmt: skip
    """One flow that ended so many milliseconds after T0, and lasted so long."""
    return {
        "flowStartMilliseconds": T0 + end - lasts, "flowEndMilliseconds": T0 + end, "sourceAddress": address(source),
        "destinationAddress": address(destination), "protocolIdentifier": proto, "sourceTransportPort": sport,
        "destinationTransportPort": dport, "octetDeltaCount": octets, "packetDeltaCount": packets,
        "tcpControlBits": 0x1B, **more,
    }  # fmt: skip


def rolled(rows, by, interval):
    """The rows of an AGGREGATE with time=flow over these flows, a group and interval each, added up in Python."""
    groups = defaultdict(list)
    for row in rows:
        start = row_time(row) // interval * interval
        groups[(start, *(row[name] for name in by))].append(row)
    return [_group(start, dict(zip(by, key, strict=True)), some) for (start, *key), some in groups.items()]


def _group(start, key, rows):
    return key | {
        "interval_start": start // 1000, "flows": len(rows), "octets": total(rows, "octetDeltaCount"),
        "packets": total(rows, "packetDeltaCount"), "flowStartMilliseconds": min(map(row_start, rows)),
        "flowEndMilliseconds": max(map(row_time, rows)),
    }  # fmt: skip


def total(rows, name):
    """A sum over rows; None if no row has a value."""
    found = [row[name] for row in rows if row[name] is not None]
    return sum(found) if found else None


def shown(value):
    """A value of a group as an answer has it."""
    if not isinstance(value, uuid.UUID):
        return value
    number = value.int
    return str(ip_address(number & 0xFFFFFFFF)) if number >> 32 == 0xFFFF else str(ip_address(number))
