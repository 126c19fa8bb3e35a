"""The questions of docs/flows.md to nfdump and to `ulogd-tw flows DIR`, over the same flows.

    python -m benchmarks.nfdump [--rows 8000000] [--runs 5]

The same datagrams of IPFIX go to nfcapd (files compressed with LZ4) and to COLLECTOR -> PARQUET, whose hours are merged
before the questions. Both are asked in turn, and CPU seconds are those of whole calls, with the start of the program.
Their numbers of flows and octets must be the same.
"""

import argparse
import json
import os
import resource
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.collectors import nfcapd
from benchmarks.table import machine
from tests.live.service import Service
from tests.support import free_port
from ulogd_tw.storing.parquet.compaction import QUIET_S

FIELDS = ((8, 4), (12, 4), (4, 1), (7, 2), (11, 2), (6, 1), (16, 4), (17, 4), (1, 8), (2, 8), (152, 8), (153, 8))
RECORD = np.dtype([(f"f{number}", f">u{size}") for number, size in FIELDS])
A_MESSAGE = 24
FIRST_MS = 1_779_998_400_000  # 2026-05-28 20:00 UTC
HOURS = 4
RATE = 120_000
"""Records a second: both keep up with it."""
PORTS = (443, 443, 443, 443, 80, 53, 53, 22, 25, 123, 993, 8080, 3389, 1194, 51820, 5060)
RANGE = ("2026/05/28.21:30:00-2026/05/28.23:00:00", ("--from", "2026-05-28T21:30:00Z", "--to", "2026-05-28T23:00:00Z"))
QUESTIONS: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (("src ip 10.8.90.212",), ("src", "ip", "10.8.90.212")),
    (("-s", "srcip/bytes", "-n", "10"), ("--by", "srcip", "--top", "10")),
    (
        ("-t", RANGE[0], "-s", "dstport/flows", "-n", "10", "proto tcp"),
        ("proto", "tcp", *RANGE[1], "--by", "dstport", "--sum", "flows", "--top", "10"),
    ),
    (("-A", "srcip,dstip", "-O", "bytes", "-n", "10"), ("--by", "srcip,dstip", "--top", "10")),
    (("-A", "srcip4/24", "-O", "bytes", "-n", "10"), ("--by", "srcip/24", "--top", "10")),
    (("-o", "null", "dst port 53"), ("dst", "port", "53", "--sum", "octets,packets,flows")),
    (
        ("-o", "csv", "src net 10.8.0.0/18 and dst port 22"),
        ("src", "net", "10.8.0.0/18", "and", "dst", "port", "22", "--format", "csv", "--limit", "1000000"),
    ),
    (("-s", "ip/flows", "-n", "20"), ("--by", "ip", "--order", "flows", "--top", "20")),
    (("-o", "json", "host 203.0.113.77"), ("host", "203.0.113.77", "--format", "json", "--limit", "1000000")),
)


def messages(rows: int):
    """Datagrams, each with its number of records; the first has the template."""
    chance = np.random.default_rng(1)
    fields = b"".join(struct.pack("!HH", *field) for field in FIELDS)
    yield _message(struct.pack("!HHHH", 2, 8 + len(fields), 256, len(FIELDS)) + fields, 0), 0
    sent = 0
    while sent < rows:
        n = min(2700 * A_MESSAGE, rows - sent)
        found = np.zeros(n, RECORD)
        found["f8"] = 0x0A080000 + (chance.power(0.4, n) * 65535).astype(np.uint32)
        found["f12"] = 0xCB007100 + (chance.power(0.3, n) * 4095).astype(np.uint32)
        found["f4"] = np.where(chance.random(n) < 0.8, 6, 17)
        found["f7"] = chance.integers(1024, 65535, n)
        found["f11"] = np.array(PORTS)[chance.integers(0, len(PORTS), n)]
        found["f6"] = 0x1B
        found["f16"], found["f17"] = 64500 + found["f8"] % 5, 15169 + found["f12"] % 9
        found["f1"] = np.exp(chance.normal(7, 2, n)).astype(np.uint64) + 40
        found["f2"] = found["f1"] // 700 + 1
        found["f153"] = FIRST_MS + (sent + np.arange(n)) * (HOURS * 3_600_000 - 1) // rows
        found["f152"] = found["f153"] - chance.integers(0, 30_000, n)
        for at in range(0, n, A_MESSAGE):
            part = found[at : at + A_MESSAGE]
            yield _message(struct.pack("!HH", 256, 4 + part.nbytes) + part.tobytes(), sent + at), len(part)
        sent += n


def _message(sets: bytes, sequence: int) -> bytes:
    return struct.pack("!HHIII", 10, 16 + len(sets), int(time.time()), sequence & 0xFFFFFFFF, 1) + sets


def send(rows: int, *ports: int) -> None:
    """Send the same to all."""
    senders = []
    for port in ports:
        senders.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        senders[-1].connect(("127.0.0.1", port))
    begun, sent = time.monotonic(), 0
    for message, records in messages(rows):
        for sender in senders:
            sender.send(message)
        sent += records
        if sent % (50 * A_MESSAGE) == 0:
            time.sleep(max(0.0, begun + sent / RATE - time.monotonic()))
    for sender in senders:
        sender.close()


def _merge(service) -> None:
    """Wait for the merges of all hours: they begin when nothing has come for a while, and end with no further one."""
    time.sleep(QUIET_S + 15)
    before = -1
    while (now := service.counters("flows1")["merges"]) != before:
        before = now
        time.sleep(20)


def _seconds(argv) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([str(word) for word in argv], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert done.returncode in (0, 3), done.stderr  # 3: nothing ran in the time of the flows, so they may be incomplete
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _totals(folder: Path, ours: list) -> tuple[tuple[int, int], tuple[int, int]]:
    text = subprocess.run(["nfdump", "-R", folder / "nfcapd", "-o", "null"], capture_output=True, text=True).stdout
    stats = subprocess.run(
        ["nfdump", "-R", folder / "nfcapd", "-A", "proto", "-o", "fmt:%fl %byt", "-N", "-q"],
        capture_output=True,
        text=True,
    )
    lines = [
        tuple(map(int, line.split()))
        for line in stats.stdout.splitlines()
        if line.split()[:1] and line.split()[0].isdigit()
    ]
    assert lines, text + stats.stdout
    said = subprocess.run([*ours, "--sum", "flows,octets", "--json"], capture_output=True, text=True).stdout
    own = json.loads(said)
    return (sum(line[0] for line in lines), sum(line[1] for line in lines)), (own["flows"], own["octets"])


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=8_000_000)
    parser.add_argument("--runs", type=int, default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="utw-nfdump-") as name:
        folder = Path(name)
        (folder / "nfcapd").mkdir()
        ports = free_port("udp"), free_port("udp")
        config = f'[col1]\nlisten="udp:127.0.0.1:{ports[0]}"\n[flows1]\ndirectory="{folder}/flows"\n'
        peer = nfcapd(folder / "nfcapd", ports[1], "-y")
        with Service(["col1:COLLECTOR,flows1:PARQUET"], config) as service, peer.daemon:
            send(given.rows, *ports)
            service.wait_for("flows1", "rows_written", given.rows, 300)
            _merge(service)
        ours = [Path(sys.executable).with_name("ulogd-tw"), "flows", folder / "flows"]
        peers, own = _totals(folder, ours)
        print(
            f"{machine()}, load {os.getloadavg()[0]:.1f}; nfdump and ulogd-tw have {peers} and {own} flows and octets"
        )
        assert peers == own
        theirs = ["nfdump", "-R", folder / "nfcapd"]
        for one, other in QUESTIONS:
            runs = [(_seconds([*theirs, *one]), _seconds([*ours, *other])) for _ in range(given.runs)]
            medians = [statistics.median(column) for column in zip(*runs, strict=True)]
            print(f"| {' '.join(one)} | {' '.join(other)} | {medians[0]:.2f} | {medians[1]:.2f} |", flush=True)
        sizes = [sum(file.stat().st_size for file in Path(folder, part).rglob("*")) for part in ("nfcapd", "flows")]
        print(f"{sizes[0] / 1e6:.0f} MB and {sizes[1] / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
