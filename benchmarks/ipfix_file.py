"""What a record costs IPFIXFILE, from received messages to octets for the file: encoded, and copied as it came.

Nanoseconds of CPU a record, medians of runs in turn; the writing of the file is not in it. Then what a datagram costs
the output IPFIX, sent alone and with others.
"""

import os
import platform
import socket
import statistics
import time

import numpy as np

from benchmarks.ipfix_decode import NOW, one_exporter, varying
from ulogd_tw import kernels
from ulogd_tw.core.counters import Counters
from ulogd_tw.core.plugin import ALL
from ulogd_tw.exporting.flow_records import FlowRecords, parse
from ulogd_tw.ipfix.builder import MessageBuilder
from ulogd_tw.ipfix.decoder import Decoder
from ulogd_tw.memory import keep_freed_memory
from ulogd_tw.plugins.outputs.ipfixfile import _AT_ONCE, MOST_OCTETS
from ulogd_tw.transports.udp_sender import UdpSender
from ulogd_tw.transports.url import Url

RUNS, ROUNDS = 5, 40


class Stack:
    """COLLECTOR -> IPFIXFILE without sockets and files, for the messages of one of the cases of `ipfix_decode`."""

    def __init__(self, case, copied):
        told, found, self.n = case
        self.decoder = Decoder(ALL, Counters("COLLECTOR"), copied=copied)
        for session, message in told:
            self.decoder.feed(session, message, NOW)
        self.sessions = [session for session, _ in found]
        self.lengths = np.array([len(message) for _, message in found], np.int64)
        self.rows = np.zeros((len(found), 2048), np.uint8)
        for row, (_, message) in zip(self.rows, found, strict=True):
            row[: len(message)] = np.frombuffer(message, np.uint8)
        self.flows = FlowRecords(Counters("IPFIXFILE"), lambda batch, name: None, parse("auto"))
        self.builder = MessageBuilder(MOST_OCTETS)

    def step(self):
        """Seconds for decoding, records and Messages of all messages once."""
        times = [time.process_time()]
        self.decoder.feed_slab(self.sessions, self.rows, self.lengths, NOW)
        batches = self.decoder.drain(NOW)
        times.append(time.process_time())
        parts = [batch.take(slice(a, a + _AT_ONCE)) for batch in batches for a in range(0, batch.n, _AT_ONCE)]
        records = [found for part in parts for found in self.flows.records(part)]
        times.append(time.process_time())
        blocks = [block for found in records for block in self.builder.add(found)] + self.builder.flush()
        for block in blocks:
            block.stamped(0, 1, NOW)
        times.append(time.process_time())
        numbers = self.rows[:, 8:12].copy().view(">u4")
        numbers += np.uint32(self.n)
        self.rows[:, 8:12] = numbers.view(np.uint8)
        return np.diff(times)


def records(case):
    """Nanoseconds a record of (decoding, records, Messages), encoded and copied."""
    found = {False: [], True: []}
    for _ in range(RUNS):
        for copied, runs in found.items():
            stack = Stack(case, copied)
            runs.append(np.median([stack.step() for _ in range(ROUNDS)], axis=0) / stack.n * 1e9)
    return [np.median(runs, axis=0) for runs in found.values()]


class _Waits:
    """The reactor of a sender that finds no room: nobody waits here."""

    def addWriter(self, sender): ...

    def removeWriter(self, sender): ...


def datagrams(host, family):
    """Microseconds a datagram of 1400 octets over loopback, (alone, with others); nobody reads them."""
    with socket.socket(family, socket.SOCK_DGRAM) as sink:
        sink.bind((host, 0))
        sender = UdpSender(Url("udp", host, sink.getsockname()[1]), _Waits(), lambda: None)
        sender.open()
        found, octets = {False: [], True: []}, np.zeros((1000, 1400), np.uint8)
        for _ in range(RUNS):
            for together, runs in found.items():
                sender._segments = together
                start = time.process_time()
                for _ in range(ROUNDS):
                    sender.send_all(octets)
                runs.append((time.process_time() - start) / ROUNDS / len(octets) * 1e6)
        sender.close()
        return [statistics.median(runs) for runs in found.values()]


def main():
    """Print the figures."""
    keep_freed_memory()
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}, Python {platform.python_version()}"
    )
    print("kernels:", ", ".join(kernels.active()) or "none")
    for name, make in (("records of one length", one_exporter), ("with a string", varying)):
        for messages in (64, 512):
            for way, (decoded, made, packed) in zip(("encoded", "copied"), records(make(messages)), strict=True):
                total = decoded + made + packed
                print(f"{name:22} {messages:4} messages, {way:8} decoding {decoded:5.1f}  records {made:5.1f}  "
                      f"Messages {packed:5.1f}  in all {total:5.1f} ns a record")  # fmt: skip
    for host, family in (("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6)):
        alone, together = datagrams(host, family)
        print(f"a datagram of 1400 octets to {host}: alone {alone:.2f} us, with others {together:.2f} us")


if __name__ == "__main__":
    main()
