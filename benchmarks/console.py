"""The console in Chromium on a store of many rows: first paint, the first answer, and what a click takes.

    python -m benchmarks.console --rows 10000000 --hours 48 [--runs 5]

The rows are made: 20,000 sources and 60,000 destinations by a power law, 13 services, a day that goes up and down.
Chromium has an empty cache at each run. Answers are waited for until the table of the page has them.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import duckdb

from benchmarks.table import machine
from tests.browser import browser, page_of
from tests.live.service import Service
from tests.support import free_port
from tests.unit.flows import made
from ulogd_tw.storing.parquet.directory import hour_directory
from ulogd_tw.storing.stored_columns import StoredColumn

KEYS = (*made.RAW_KEYS, "exporter", "bgpDestinationAsNumber")
_MAPPED = "00000000-0000-0000-0000-ffff"
_SERVICES = "443, 443, 443, 443, 80, 53, 53, 22, 25, 123, 993, 8080, 3389, 1194, 51820, 5060"
_SYSTEMS = "15169, 32934, 16509, 13335, 3320, 8075, 2906, 20940"
_SERVICE = """
[col1]
listen="udp:127.0.0.1:%d"
[flows1]
directory="%s"
keys="%s"
[http]
listen="tcp:127.0.0.1:%d"
local_users=1
"""


def _address(number: str) -> str:
    return f"('{_MAPPED}' || printf('%08x', {number}))::UUID"


def store(place: Path, rows: int, hours: int) -> Path:
    """A store of the last hours, a file an hour."""
    columns = [StoredColumn(made.key_of(name)) for name in KEYS]
    described = {"version": 1, "instance": "flows1", "keys": [column.described() for column in columns], "order": []}
    place.mkdir(parents=True)
    (place / "store.json").write_text(json.dumps(described | {"interval": None, "by": None}))
    now = int(time.time())
    with duckdb.connect() as database:
        for hour in range(now // 3600 - hours + 1, now // 3600 + 1):
            seconds = 3600 if hour < now // 3600 else max(now % 3600, 60)
            _file(database, place, hour, rows * seconds // (hours * 3600), seconds, columns)
    return place


def _file(database, place: Path, hour: int, rows: int, seconds: int, columns: list[StoredColumn]) -> None:
    end = f"{hour * 3_600_000}::BIGINT + (hash(i * 3 + {hour}) % {seconds * 1000})::BIGINT"
    values = {
        "exporter": _address("3221225985 + i % 3"), "flowEndMilliseconds": end,
        "flowStartMilliseconds": f"{end} - (hash(i * 5) % 30000)::BIGINT",
        "sourceAddress": _address("167772160 + (pow(random(), 3) * 20000)::INT"),
        "destinationAddress": _address("3405803776 + (pow(random(), 4) * 60000)::INT"),
        "protocolIdentifier": "CASE WHEN hash(i * 11) % 10 < 7 THEN 6 WHEN hash(i * 11) % 10 < 9 THEN 17 ELSE 1 END",
        "sourceTransportPort": "1024 + hash(i * 13) % 60000",
        "destinationTransportPort": f"[{_SERVICES}][(1 + hash(i * 17 + 7) % 16)::INT]",
        "octetDeltaCount": f"(exp(4 + 8 * random()) * (1.2 + sin({hour % 24 / 24 * 6.28})))::UBIGINT + 40",
        "packetDeltaCount": "1 + hash(i * 23) % 50", "tcpControlBits": "27",
        "bgpDestinationAsNumber": f"[{_SYSTEMS}][(1 + hash(i * 31) % 8)::INT]",
    }  # fmt: skip
    selected = ", ".join(f'({values[column.name]})::{column.sql} AS "{column.name}"' for column in columns)
    folder = hour_directory(place, hour)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{hour * 3600 - 30}-1-{rows}.abc.0.0.parquet"
    database.execute(f"COPY (SELECT {selected}, NULL::UBIGINT AS arrival FROM range({rows}) r(i)) TO '{path}' "
                     "(FORMAT parquet, COMPRESSION zstd)")  # fmt: skip


def _answered(page) -> None:
    page.wait_for_selector("progress", state="hidden")


def _act(page, act) -> float:
    """Seconds from an act until its answer is shown, with all that belongs to it."""
    _answered(page)
    page.evaluate("() => document.querySelector('#answer').replaceChildren()")
    begun = time.perf_counter()
    act()
    page.wait_for_selector("#answer table, #answer .notice")
    return time.perf_counter() - begun


def _filter(page, text: str) -> None:
    page.fill("[data-filter]", text)
    page.keyboard.press("Enter")


def measured(found, host: str, hours: int) -> dict[str, float]:
    """One run with an empty cache, in seconds and octets."""
    page, faults = page_of(found, host)
    begun = time.perf_counter()
    page.goto(f"http://{host}/?from=-1h")
    page.wait_for_selector("#answer table")
    table = time.perf_counter() - begun
    page.wait_for_selector("#plot .main-svg")
    plot = time.perf_counter() - begun
    _answered(page)
    paint = page.evaluate("() => performance.getEntriesByType('paint').at(-1).startTime / 1000")
    size = page.evaluate("() => performance.getEntriesByType('resource').reduce((n, e) => n + e.transferSize, 0)")
    result = {"first paint": paint, "first table": table, "first plot": plot, "octets transferred": size}
    for range_ in ("1h", f"{hours}h"):
        page.goto(f"http://{host}/?from=-{range_}")
        page.wait_for_selector("#answer table")
        result[f"lines, {range_}"] = _act(page, lambda: page.click("text=Lines"))
        result[f"filter, {range_}"] = _act(page, lambda: _filter(page, "dst port 443"))
        result[f"other unit, {range_}"] = _act(page, lambda: page.select_option("[aria-label=unit]", "flow"))
        key = _act(page, lambda: page.select_option("[aria-label='group by']", "destinationAddress"))
        result[f"one more key, {range_}"] = key
    assert not faults, faults
    page.close()
    return result


def main() -> None:
    """Print the medians of some runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--hours", type=int, default=48)
    parser.add_argument("--runs", type=int, default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="utw-console-") as folder:
        place = store(Path(folder, "flows"), given.rows, given.hours)
        port = free_port()
        config = _SERVICE % (free_port("udp"), place, " ".join(KEYS), port)
        with Service(["col1:COLLECTOR,flows1:PARQUET"], config), browser() as found:
            runs = [measured(found, f"127.0.0.1:{port}", given.hours) for _ in range(given.runs)]
    print(f"{machine()}, load {os.getloadavg()[0]:.1f}, {datetime.now(UTC):%Y-%m-%d %H:%M}")
    print(f"{given.rows:,} rows of {given.hours} h, medians of {given.runs}")
    for name in runs[0]:
        value = statistics.median(run[name] for run in runs)
        print(f"{name:28} {value:,.0f}" if "octets" in name else f"{name:28} {value:.2f} s")


if __name__ == "__main__":
    main()
