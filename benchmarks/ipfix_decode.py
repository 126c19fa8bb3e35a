"""Decoding of IPFIX: nanoseconds a record for feed and drain together, median of several runs.

    python -m benchmarks.ipfix_decode [--rounds 7] [--batch 1024]

The Messages are made here, by NumPy and struct, not by our encoder; every case is checked against what was put in.
"""

from __future__ import annotations

import argparse
import gc
import platform
import statistics
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ulogd_tw import starting  # noqa: E402 (the tree need not be installed)
from ulogd_tw.core.counters import Counters  # noqa: E402
from ulogd_tw.core.plugin import ALL  # noqa: E402
from ulogd_tw.ipfix.decoder import Decoder  # noqa: E402
from ulogd_tw.ipfix.session import Session  # noqa: E402

NOW = 1_790_000_000.0
V4 = [("8", 4), ("12", 4)]
V6 = [("27", 16), ("28", 16)]
COMMON = [
    ("7", 2), ("11", 2), ("4", 1), ("5", 1), ("6", 1), ("1", 8), ("2", 8), ("152", 8), ("153", 8), ("10", 2), ("14", 2),
]  # fmt: skip
FIVE_TUPLE = frozenset({
    "sourceIPv4Address", "destinationIPv4Address", "sourceIPv6Address", "destinationIPv6Address", "sourceTransportPort",
    "destinationTransportPort", "protocolIdentifier", "octetDeltaCount", "packetDeltaCount", "flowStartMilliseconds",
    "flowEndMilliseconds",
})  # fmt: skip
"""Nine columns of a record: what AGGREGATE asks for."""


def record_type(fields: list[tuple[str, int]]) -> np.dtype:
    """The record of a template as a packed structured type."""
    return np.dtype([(name, f">u{size}" if size <= 8 else "V16") for name, size in fields])


def random_records(fields: list[tuple[str, int]], n: int, seed: int) -> np.ndarray:
    """n records of random octets, but with times of this century."""
    dtype = record_type(fields)
    octets = np.random.default_rng(seed).integers(0, 256, n * dtype.itemsize, np.uint8)
    records = octets.view(dtype)
    for name in {"152", "153"} & set(dtype.names or ()):
        records[name] = int(NOW) * 1000 + np.arange(n)
    return records


def message(sequence: int, sets: list[tuple[int, bytes]], domain: int = 1, export_time: int = int(NOW)) -> bytes:
    """One Message of these sets."""
    body = b"".join(struct.pack("!HH", ident, 4 + len(octets)) + octets for ident, octets in sets)
    return struct.pack("!HHIII", 10, 16 + len(body), export_time, sequence & 0xFFFFFFFF, domain) + body


def template(ident: int, fields: list[tuple[str, int]]) -> tuple[int, bytes]:
    """A Template Set of one template."""
    octets = struct.pack("!HH", ident, len(fields))
    return 2, octets + b"".join(struct.pack("!HH", int(name), size) for name, size in fields)


def one_exporter(messages: int) -> tuple[list, list, int]:
    """28 records of 51 octets a Message, one template."""
    records = random_records(V4 + COMMON, 28 * messages, 1)
    session = Session("192.0.2.1", 4739, reliable=False)
    found = [(session, message(28 * i, [(256, records[28 * i : 28 * i + 28].tobytes())])) for i in range(messages)]
    return [(session, message(0, [template(256, V4 + COMMON)]))], found, 28 * messages


def mixed(messages: int, sets: int) -> tuple[list, list, int]:
    """16 exporters of 4 templates each (two layouts), 3 to 27 records a Message in `sets` sets, arriving mixed."""
    random = np.random.default_rng(2)
    layouts = {256: V4 + COMMON, 257: V6 + COMMON, 258: V4 + COMMON, 259: V6 + COMMON}
    pool = {ident: random_records(fields, 4096, ident) for ident, fields in layouts.items()}
    sessions = [Session(f"192.0.2.{i}", 4739, reliable=False) for i in range(16)]
    before = [(s, message(0, [template(i, f) for i, f in layouts.items()])) for s in sessions]
    sequences, found, total = [0] * 16, [], 0
    for _ in range(messages):
        exporter, parts, rows = int(random.integers(16)), [], 0
        for _ in range(sets):
            ident, n = int(random.integers(256, 260)), int(random.integers(3, 28 // sets))
            parts.append((ident, pool[ident][rows : rows + n].tobytes()))
            rows += n
        found.append((sessions[exporter], message(sequences[exporter], parts)))
        sequences[exporter] += rows
        total += rows
    return before, found, total


def varying(messages: int) -> tuple[list, list, int]:
    """The record of `one_exporter` and a string of 0 to 24 octets (interfaceName), about 21 records a Message."""
    random = np.random.default_rng(3)
    records = random_records(V4 + COMMON, 30 * messages, 4)
    strings = [random.integers(97, 123, int(random.integers(25)), np.uint8).tobytes() for _ in range(300)]
    session = Session("192.0.2.1", 4739, reliable=False)
    found, at = [], 0
    for _ in range(messages):
        body, first = bytearray(), at
        while len(body) < 1370:
            string = strings[int(random.integers(300))]
            body += records[at].tobytes() + bytes([len(string)]) + string
            at += 1
        found.append((session, message(first, [(260, bytes(body))])))
    return [(session, message(0, [template(260, [*V4, *COMMON, ("82", 65535)])]))], found, at


def with_lists(messages: int, list_element: str, a_list: Callable[[int], bytes]) -> tuple[list, list, int]:
    """20 records a Message of the record of `one_exporter` and a list, none like another; template 300 for inside."""
    records = random_records(V4 + COMMON, 20 * messages, 5)
    session = Session("192.0.2.1", 4739, reliable=False)
    before = [template(300, [("14", 4), ("85", 8), ("7", 2)]), template(260, [*V4, *COMMON, (list_element, 65535)])]
    found = []
    for first in range(0, 20 * messages, 20):
        rows = ((records[i].tobytes(), a_list(i)) for i in range(first, first + 20))
        found.append((session, message(first, [(260, b"".join(r + bytes([len(v)]) + v for r, v in rows))])))
    return [(session, message(0, before))], found, 20 * messages


def community_list(i: int) -> bytes:
    """A basicList of 8 bgpCommunity, four octets each."""
    return struct.pack("!BHH8I", 3, 483, 4, *range(8 * i, 8 * i + 8))


def interface_list(i: int) -> bytes:
    """A subTemplateList of 4 records of three fields."""
    return struct.pack("!BH", 3, 300) + b"".join(struct.pack("!IQH", i, 1000 * i, k) for k in range(4))


def measure(name: str, wanted, case: tuple[list, list, int], batch: int, rounds: int, slab: bool = False) -> None:
    """Print the time a record takes."""
    before, found, total = case
    counters = Counters("benchmark")
    decoder = Decoder(wanted, counters)
    for session in {id(s): s for s, _ in before}.values():
        session.__init__(session.peer, session.peer_port, reliable=session.reliable)  # another decoder knew it
    for session, octets in before:
        decoder.feed(session, octets, NOW)
    times = []
    for _ in range(rounds + 1):
        rows, lengths = as_slab([m for _, m in found]) if slab else (None, None)
        sessions = [s for s, _ in found]
        gc.collect()
        seen = 0
        begin = time.perf_counter()
        for first in range(0, len(found), batch):
            if slab:
                last = first + batch
                decoder.feed_slab(sessions[first:last], rows[first:last], lengths[first:last], NOW)
            else:
                feed = decoder.feed
                for session, octets in found[first : first + batch]:
                    feed(session, octets, NOW)
            seen += sum(b.n for b in decoder.drain(NOW))
        times.append(time.perf_counter() - begin)
        assert seen == total, (seen, total)
        found = continued(found)
    assert not counters.errors and not counters.lost, (counters.errors, counters.lost)
    del times[0]  # the first compiles the layouts
    middle = statistics.median(times)
    best = min(times)
    print(
        f"{name:58s} {1e9 * middle / total:7.1f} ns a record (best {1e9 * best / total:6.1f})"
        f" {1e9 * middle / len(found):7.0f} ns a message",
        flush=True,
    )


def continued(found: list) -> list:
    """The same Messages, with the Sequence Numbers that come next."""
    ends: dict[int, int] = {}
    for session, _ in found:
        ends[id(session)] = session.domains[1].sequence.expected
    firsts: dict[int, int] = {}
    again = []
    for session, octets in found:
        number = int.from_bytes(octets[8:12], "big")
        first = firsts.setdefault(id(session), number)
        number = (number - first + ends[id(session)]) & 0xFFFFFFFF
        again.append((session, octets[:8] + number.to_bytes(4, "big") + octets[12:]))
    return again


def as_slab(messages: list[bytes], stride: int = 2048) -> tuple[np.ndarray, np.ndarray]:
    """Messages in the rows of an array, as recvmmsg leaves them, and their lengths."""
    rows = np.zeros((len(messages), stride), np.uint8)
    for row, octets in zip(rows, messages, strict=True):
        row[: len(octets)] = np.frombuffer(octets, np.uint8)
    return rows, np.array([len(m) for m in messages])


def main() -> None:
    """Run all cases."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=7)
    options.add_argument("--messages", type=int, default=1024)
    found, _ = options.parse_known_args()
    print(f"Python {platform.python_version()}, NumPy {np.__version__}, median of {found.rounds}")
    four = frozenset({"sourceIPv4Address", "destinationIPv4Address", "octetDeltaCount", "packetDeltaCount"})
    context = FIVE_TUPLE | {"exporter", "observationDomainId", "received_ms"}
    strings = FIVE_TUPLE | {"interfaceName"}
    starting.begin()
    starting.settle()  # as the service does before its first row
    case = one_exporter(found.messages)
    m, r = found.messages, found.rounds
    measure("one exporter, 9 columns", FIVE_TUPLE, case, m, r)
    measure("one exporter, 9 columns, 64 messages at once", FIVE_TUPLE, case, 64, r)
    measure("one exporter, 4 columns", four, case, m, r)
    measure("one exporter, 9 columns and 3 of context", context, case, m, r)
    measure("one exporter, all columns", ALL, case, m, r)
    if hasattr(Decoder, "feed_slab"):
        measure("slab, one exporter, 9 columns", FIVE_TUPLE, case, m, r, slab=True)
        measure("slab, one exporter, 9 columns, 64 messages at once", FIVE_TUPLE, case, 64, r, slab=True)
    case = mixed(found.messages, 1)
    measure("16 exporters x 4 templates, 9 columns", FIVE_TUPLE, case, m, r)
    measure("16 exporters x 4 templates, 9 columns and 3 of context", context, case, m, r)
    measure("16 exporters x 4 templates, 9 columns, 64 messages at once", FIVE_TUPLE, case, 64, r)
    if hasattr(Decoder, "feed_slab"):
        measure("slab, 16 exporters x 4 templates, 9 columns", FIVE_TUPLE, case, m, r, slab=True)
    measure("16 exporters x 4 templates, two sets a message", FIVE_TUPLE, mixed(m, 2), m, r)
    case = varying(found.messages)
    measure("variable length, 9 columns and a string", strings, case, m, r)
    measure("variable length, 9 columns", FIVE_TUPLE, case, m, r)
    measure("variable length, 9 columns and a string, 64 messages at once", strings, case, 64, r)
    measure("variable length, 9 columns and a string, 1 message at once", strings, case, 1, r)
    case = with_lists(m, "291", community_list)
    measure("a basicList of 8 numbers in each record, 9 columns", FIVE_TUPLE, case, m, r)
    measure("a basicList of 8 numbers in each record, 9 columns and it", FIVE_TUPLE | {"basicList"}, case, m, r)
    case = with_lists(m, "292", interface_list)
    measure("a subTemplateList of 4 x 3 values, 9 columns and it", FIVE_TUPLE | {"subTemplateList"}, case, m, r)


if __name__ == "__main__":
    main()
