"""Who had an address, in a store of many rows: octets a row, and the time of a question.

    python -m benchmarks.who_had --rows 50000000 --days 30 [--kind flows|events] [--directory DIR]

The rows are made: 20,000 subscribers behind 256 addresses, ports in blocks of 256 for each, sessions of 0.1 s to a day
(most of some seconds), peers by a power law, files an hour and sorted as merges leave them. Half of the questions are
for a port that somebody had at that time, half for any. Each begins anew at the listing of the files; the first one
reads the columns of all files, and is shown apart.
"""

import argparse
import random
import shutil
import tempfile
import time
from pathlib import Path

import duckdb

from benchmarks.table import machine
from ulogd_tw.flows.nat_answers import Found, ask
from ulogd_tw.flows.nat_rows import MAPPED, Question
from ulogd_tw.flows.nat_store import NatStore
from ulogd_tw.storing.coverage import CoverageRecord
from ulogd_tw.storing.parquet.directory import hour_directory, name_of
from ulogd_tw.storing.parquet.merge_process import ROW_GROUP

HOUR_MS = 3_600_000
FIRST_HOUR = 1_788_220_800_000 // HOUR_MS  # 2026-09-01
OUTSIDE, ADDRESSES, SUBSCRIBERS, BLOCK = 0xCB007100, 256, 20_000, 256
COVERED = "the record says that all is covered"
_ROWS = """
WITH sessions AS (
    SELECT i, hash(i * 7 + {seed}) % {subscribers} AS subscriber, hash(i * 31 + {seed}) % {hour} + {begin} AS ended,
        least(86400000, exp(log(100) + 6 * (hash(i * 13 + {seed}) % 10000 + hash(i * 17 + {seed}) % 10000) / 20000.0
            + (CASE WHEN hash(i * 19 + {seed}) % 1000 < 5 THEN 7 ELSE 0 END)))::UBIGINT AS length
    FROM range({rows}) r(i)
)
SELECT {protocol} AS "protocolIdentifier",
    {inside} AS "sourceAddress", (1024 + hash(i * 37) % 64000)::USMALLINT AS "sourceTransportPort",
    {outside} AS "postNATSourceAddress",
    (1024 + (subscriber // {addresses}) % 250 * {block} + hash(i * 41 + {seed}) % {block})::USMALLINT
        AS "postNAPTSourceTransportPort",
    {peer} AS "destinationAddress",
    (CASE WHEN hash(i * 43) % 10 < 7 THEN 443 ELSE hash(i * 47) % 65536 END)::USMALLINT AS "destinationTransportPort",
    {times}
FROM sessions {twice} ORDER BY "postNATSourceAddress", "postNAPTSourceTransportPort", "flowStartMilliseconds"
"""
_FLOW = '(ended - length)::UBIGINT AS "flowStartMilliseconds", ended::UBIGINT AS "flowEndMilliseconds"'
_EVENT = """(4 + ends)::UTINYINT AS "natEvent", {exporter} AS exporter, 1::UINTEGER AS "observationDomainId",
    (ended - (CASE ends WHEN 0 THEN least(length, ended - {begin}) ELSE 0 END))::UBIGINT AS "flowStartMilliseconds",
    "flowStartMilliseconds" AS "flowEndMilliseconds"
"""


def uuid_of(number):
    """SQL for an IPv4 address as the store has it."""
    return f"('00000000-0000-0000-0000-ffff' || lpad(lower(hex(({number})::BIGINT)), 8, '0'))::UUID"


def make(directory, rows, hours, kind):
    """The files, an hour each."""
    connection = duckdb.connect()
    peer = "2000000000 + floor(power(2.0, 24 * (hash(i * 53) % 100000) / 100000.0))::BIGINT * 97 % 1500000000"
    for hour in range(FIRST_HOUR, FIRST_HOUR + hours):
        begin = hour * HOUR_MS
        events = kind == "events"
        times = _EVENT.format(exporter=uuid_of("3221225985"), begin=begin) if events else _FLOW
        text = _ROWS.format(
            seed=hour, subscribers=SUBSCRIBERS, hour=HOUR_MS, begin=begin, addresses=ADDRESSES, block=BLOCK,
            rows=rows // hours // (2 if events else 1),
            protocol="(CASE hash(i) % 3 WHEN 0 THEN 17 ELSE 6 END)::UTINYINT",
            inside=uuid_of(f"{0x64400000} + subscriber"), outside=uuid_of(f"{OUTSIDE} + subscriber % {ADDRESSES}"),
            peer=uuid_of(peer), times=times, twice="CROSS JOIN range(2) e(ends)" if events else "",
        )  # fmt: skip
        place = hour_directory(directory, hour)
        place.mkdir(parents=True)
        path = place / name_of(begin // 1000 - (0 if events else 86_400), 2, rows // hours, "abc", hour, 0)
        connection.execute(f"COPY ({text}) TO '{path}' (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {ROW_GROUP})")
    record = CoverageRecord(directory)
    record.begin((FIRST_HOUR - 100) * HOUR_MS)
    record.end((FIRST_HOUR + hours + 100) * HOUR_MS, {})


def questions(directory, hours, number, kind):
    """Addresses, ports and times: half of them of rows that are there."""
    connection, chance = duckdb.connect(), random.Random(4711)
    for n in range(number):
        hour = FIRST_HOUR + chance.randrange(hours)
        address, port, at = OUTSIDE + chance.randrange(ADDRESSES), chance.randrange(1024, 65536), hour * HOUR_MS
        if n % 2:
            (path,) = hour_directory(directory, hour).iterdir()
            text = (
                'SELECT "postNATSourceAddress", "postNAPTSourceTransportPort", "flowStartMilliseconds" '
                f"FROM read_parquet('{path}') LIMIT 1 OFFSET {chance.randrange(1000)}"
            )
            found, port, at = connection.execute(text).fetchone()
            address = found.int & 0xFFFF_FFFF
        yield Question(address | MAPPED, port, at + chance.randrange(1000)), bool(n % 2)


def measure(directory, hours, number, kind):
    """(seconds, seconds of processors) of each question, the first apart, and how many found somebody."""
    connection = duckdb.connect()
    connection.execute("SET parquet_metadata_cache = true")
    store = NatStore(lambda text: connection.execute(text).fetchall())
    times, holders = [], 0
    for question, there in list(questions(directory, hours, number + 1, kind)):
        begun, cpu = time.perf_counter(), time.process_time()
        found: Found = ask(store, {"nat": directory}, question, int(time.time() * 1000), live=True)
        times.append((time.perf_counter() - begun, time.process_time() - cpu))
        if there and not found.answers or found.status == 3:
            raise SystemExit(f"wrong: {found}")
        holders += bool(found.answers)
        while len(times) == 1 and not store.learn(store.listing.files(directory), 60):
            pass
    return times[0], times[1:], holders


def spread(seconds):
    """The median, and the time within which 99 of 100 are."""
    found = sorted(seconds)
    return f"median {found[len(found) // 2] * 1000:.1f} ms, 99 % within {found[int(len(found) * 0.99)] * 1000:.1f} ms"


def main():
    """Make, ask, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--questions", type=int, default=300)
    parser.add_argument("--kind", choices=("flows", "events"), default="flows")
    parser.add_argument("--directory", type=Path)
    given = parser.parse_args()
    hours = given.days * 24
    directory = given.directory or Path(tempfile.mkdtemp(prefix="utw-who-had-"))
    try:
        if not (directory / "coverage").exists():
            directory.mkdir(exist_ok=True)
            make(directory, given.rows, hours, given.kind)
        octets = sum(path.stat().st_size for path in directory.rglob("*.parquet"))
        first, times, holders = measure(directory, hours, given.questions, given.kind)
    finally:
        if given.directory is None:
            shutil.rmtree(directory)
    print(machine())
    print(f"{given.rows:,} rows ({given.kind}) of {given.days} days: {octets / given.rows:.1f} octets a row")
    print(f"{len(times)} questions, {holders} with a holder, the first {first[0] * 1000:.0f} ms")
    print(f"each: {spread(one[0] for one in times)}")
    print(f"seconds of processors: {spread(one[1] for one in times)}")


if __name__ == "__main__":
    main()
