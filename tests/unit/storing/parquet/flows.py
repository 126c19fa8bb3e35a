"""For tests of the flow store: batches of flows, a writer of them, and what DuckDB finds in the files."""

from pathlib import Path

import duckdb
import numpy as np

from ulogd_tw.core import types
from ulogd_tw.core.batch import Batch, Schema
from ulogd_tw.core.keys import known
from ulogd_tw.core.resolve import Provided, Sources
from ulogd_tw.storing.parquet.description import Description
from ulogd_tw.storing.parquet.writer import Writer
from ulogd_tw.storing.stored_columns import END, START, StoredColumn

NOON = 1_790_856_000
"""2026-10-01 12:00 UTC, in seconds since 1970 (date -ud '2026-10-01 12:00' +%s)."""
HOUR = NOON // 3600
SOURCE, PORT = known("sourceAddress"), known("sourceTransportPort")
COLUMNS = tuple(StoredColumn(known(name)) for name in ("sourceAddress", "sourceTransportPort", START, END))
RUN = "0123456789ab"


def flows(ends, starts=None, now=NOON + 1800, first=0, ipv6=False):
    """A batch of flows that end at these times (ms, None for a missing one); the ports count from `first`."""
    n = len(ends)
    schema = [SOURCE.typed(types.IPV6 if ipv6 else types.IPV4), PORT, known(START), known(END)]
    numbers = np.arange(first, first + n)
    source = np.stack([np.full(n, 0x20010DB8 << 32), numbers], 1).astype(np.uint64) if ipv6 else numbers + 0x0A000000
    starts = ends if starts is None else starts
    columns = {
        "sourceAddress": source if ipv6 else source.astype(np.uint32),
        "sourceTransportPort": numbers.astype(np.uint16),
        START: np.array([one or 0 for one in starts], np.uint64),
        END: np.array([one or 0 for one in ends], np.uint64),
    }
    missing = {
        name: mask
        for name, times in ((START, starts), (END, ends))
        if (mask := np.array([t is None for t in times])).any()
    }
    return Batch(Schema(schema, ipv6), columns, missing, n=n, now=float(now))


def find(batch, name):
    """As an output finds keys."""
    sources = Sources()
    sources.add(name, Provided(batch.schema.values()).recipes(name))
    return sources.find(batch, name)


def writer(directory, run=RUN, **options):
    """A writer that has begun."""
    wishes = {"compression": "zstd", "retain": None, "min_free": 0.0} | options
    found = Writer(Path(directory), run, find=find, **wishes)
    found.begin(Description("pq1", COLUMNS, ("sourceAddress",)), make=True)
    return found


def names(directory):
    """The paths of all Parquet files in a store, parts too, without unique parts of names."""
    return sorted(str(path.relative_to(directory)) for path in Path(directory).rglob("*.parquet*"))


def rows(directory, query="from t order by all"):
    """The rows that readers see, by a query of the table t."""
    with duckdb.connect() as connection:
        there = f"read_parquet('{directory}/date=*/hour=*/*.parquet', union_by_name=true, hive_partitioning=false)"
        connection.execute(f"create view t as from {there}")
        return connection.execute(query).fetchall()


def ports(directory):
    """The ports in a store, in order."""
    return [row[0] for row in rows(directory, "select sourceTransportPort from t order by 1")]
