"""Packets of captures: to keys, to JSON, to lines of a log, into another capture. ``--packets 300000 --rounds 5``.

The capture is made here: 100 k flows of TCP and UDP, a fifth of IPv6, packets of 54 to 1474 octets on Ethernet.
"""

from __future__ import annotations

import argparse
import platform
import random
import shutil
import statistics
import struct
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np

from ulogd_tw.core.options import Options
from ulogd_tw.core.plugin import FLOW, PACKET, RAW, Output
from ulogd_tw.core.stack import Builder, StackSpec
from ulogd_tw.registry import lookup

FIVE = ("sourceAddress", "destinationAddress", "protocolIdentifier", "sourceTransportPort", "destinationTransportPort",
        "octetDeltaCount", "tcpControlBits", "observationTimeMilliseconds")  # fmt: skip
_FRONT = bytes.fromhex("020000000001020000000002")


def capture(path: Path, count: int) -> None:
    """Write the capture."""
    chance = random.Random(1)
    flows = []
    for _ in range(100_000):
        six = chance.random() < 0.2
        ends = chance.randbytes(32 if six else 8)
        flows.append((six, chance.choice((6, 6, 6, 17, 17)), ends, chance.randbytes(4)))
    with path.open("wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
        for number in range(count):
            six, protocol, ends, ports = chance.choice(flows)
            size = chance.choice((0, 0, 0, 20, 100, 500, 1400))
            if protocol == 6:
                body = ports + struct.pack("!IIHHHH", number, 1, 0x5010, 1000, 0, 0) + bytes(size)
            else:
                body = ports + struct.pack("!HH", 8 + size, 0) + bytes(size)
            if six:
                head = b"\x86\xdd" + struct.pack("!IHBB", 6 << 28, len(body), protocol, 64)
            else:
                ident = number & 65535
                head = b"\x08\0" + struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), ident, 0x4000, 64, protocol, 0)
            packet = _FRONT + head + ends + body
            seconds, parts = divmod(60 * number, 1_000_000)
            file.write(struct.pack("<IIII", 1_700_000_000 + seconds, parts, len(packet), len(packet)) + packet)


class Wanting(Output):
    """Asks for some keys and does nothing with them."""

    name = "WANTING"
    itype = RAW | PACKET | FLOW
    uses: tuple[str, ...] = ()

    def write(self, batch: object) -> None:
        """Nothing."""


def run(stack: tuple[str, ...], options: dict[str, dict], wanted: tuple[str, ...] = ()) -> float:
    """CPU seconds of a stack on the capture, from its opening to its end."""
    output = type("Wanting", (Wanting,), {"uses": wanted})

    def find(name: str, position: str) -> type:
        return output if name == "WANTING" else lookup(name, position)

    def read(_: str, class_: type) -> tuple[Options, list]:
        return Options(class_.all_options(), options.get(class_.name)), []

    builder = Builder(find, read)
    graph = builder.build([StackSpec("x", "x:1", tuple((name.lower(), name) for name in stack))])
    assert not builder.mistakes, builder.mistakes
    for node in graph.outputs + graph.filters + graph.inputs:
        node.plugin.open()
    source = graph.inputs[0].plugin
    began = time.process_time()
    for _ in source._read_all():  # as the reactor would
        pass
    for node in graph.outputs:
        node.plugin.stop()
    return time.process_time() - began


def peer(words: list[str]) -> float:
    """CPU seconds of another program."""
    import resource

    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Run all cases."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--packets", type=int, default=300_000)
    found, _ = arguments.parse_known_args()
    directory = Path(tempfile.mkdtemp(prefix="utw-bench-"))
    try:
        path = directory / "packets.pcap"
        capture(path, found.packets)
        print(f"Python {platform.python_version()}, NumPy {np.__version__}, {found.packets} packets, "
              f"{path.stat().st_size >> 20} MB, median of {found.rounds}")  # fmt: skip
        source = {"PCAPIN": {"file": (str(path),)}}
        files = {name: {"file": str(directory / name)} for name in ("JSON", "LOGEMU", "PCAP")}
        cases = [
            ("5-tuple, octets, flags, time", ("PCAPIN", "BASE", "WANTING"), FIVE),
            ("every key of ulogd2", ("PCAPIN", "BASE", "WANTING"),
             tuple(k.name for k in lookup("BASE", "filter").provides[:63])),
            ("every key to JSON", ("PCAPIN", "BASE", "JSON"), ()),
            ("PRINTPKT to LOGEMU", ("PCAPIN", "BASE", "PRINTPKT", "LOGEMU"), ()),
            ("to PCAP", ("PCAPIN", "PCAP"), ()),
        ]  # fmt: skip
        for what, stack, wanted in cases:
            times = []
            for _ in range(found.rounds):
                for name in files:
                    (directory / name).unlink(missing_ok=True)
                times.append(run(stack, source | files, wanted))
            _print(what, statistics.median(times), found.packets)
        for words in (["softflowd", "-d", "-r", str(path), "-n", "127.0.0.1:9"], ["tcpdump", "-nr", str(path), "-w",
                      str(directory / "copy")], ["tcpdump", "-nr", str(path)]):  # fmt: skip
            if shutil.which(words[0]):
                _print(" ".join(words[:2]), statistics.median(peer(words) for _ in range(3)), found.packets)
    finally:
        shutil.rmtree(directory)


def _print(what: str, seconds: float, packets: int) -> None:
    print(f"{what:34} {seconds / packets * 1e6:7.2f} us a packet (CPU s a million)", flush=True)


if __name__ == "__main__":
    main()
