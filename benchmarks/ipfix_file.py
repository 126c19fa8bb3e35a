"""Receive and store every record: COLLECTOR -> IPFIXFILE beside nfcapd, on the same records.

    python -m benchmarks ipfix_file

First CPU seconds of all threads for a million records at rates that neither loses, one after the other in each round;
then what a record costs IPFIXFILE alone, from a decoded batch to octets for the file. Needs nfdump, gcc and the load
generator of `shared/tools`.
"""

import os
import platform
import statistics
import tempfile
import time
from functools import partial

from twisted.internet import defer

from benchmarks.collect import nfcapd, run
from benchmarks.ipfix_decode import NOW, one_exporter
from tests.live.service import Service
from ulogd_tw.core.counters import Counters
from ulogd_tw.core.options import Options
from ulogd_tw.core.plugin import ALL
from ulogd_tw.ipfix.decoder import Decoder
from ulogd_tw.plugins.outputs.ipfixfile import IPFIXFILE

RUNS = 5
RECORDS = 1_000_000
RATES = (100_000, 400_000, 1_000_000)


def ours(directory, port, latency=None):
    """The service: COLLECTOR -> IPFIXFILE as in etc/examples/archive.conf."""
    listen = f'[col1]\nlisten="udp:127.0.0.1:{port}"\n' + (f"batch_latency={latency}\n" if latency else "")
    config = f'{listen}[out]\nfile="{directory}/flows-%Y%m%d-%H%M%S.ipfix"\n'
    return Service(["col1:COLLECTOR,out:IPFIXFILE"], config, directory=directory).daemon


def alone(messages):
    """Nanoseconds a record of decoding into all columns, and of IPFIXFILE, which writes in the same thread here."""
    told, found, n = one_exporter(messages)
    decoder, decoding, writing = Decoder(ALL, Counters("COLLECTOR")), [], []
    for session, message in told:
        decoder.feed(session, message, NOW)
    with tempfile.TemporaryDirectory() as folder:
        output = IPFIXFILE("file1", Options(IPFIXFILE.all_options(), {"file": f"{folder}/flows.ipfix"}))
        output.writer._in_thread = defer.execute
        for _ in range(50):
            start = time.perf_counter()
            for session, message in found:
                decoder.feed(session, message, NOW)
            batches = decoder.drain(NOW)
            middle = time.perf_counter()
            for batch in batches:
                output.write(batch)
            end = time.perf_counter()
            decoding.append((middle - start) / n * 1e9)
            writing.append((end - middle) / n * 1e9)
    return statistics.median(decoding), statistics.median(writing)


def main():
    """Print the tables."""
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}, Python {platform.python_version()}"
    )
    programs = {"ulogd_tw": ours, "ulogd_tw, batch_latency=0.004": partial(ours, latency=0.004), "nfcapd": nfcapd}
    for rate in RATES:
        figures = {name: [] for name in programs}
        for _ in range(RUNS):
            for name, make in programs.items():
                figures[name].append(run(make, rate, RECORDS, 100_000))
        print(f"CPU s a million records at {rate} records/s, median of {RUNS}:")
        for name, found in figures.items():
            spread = f"{min(f for f, _ in found):.3f} to {max(f for f, _ in found):.3f}"
            median = statistics.median(f for f, _ in found)
            print(f"  {name:30} {median:6.3f}   ({spread})   datagrams lost {sum(d for _, d in found)}")
    for messages in (16, 64, 1024):
        decoding, writing = alone(messages)
        print(f"{messages:5} messages of 28 records at once: decoded {decoding:4.0f} ns, written {writing:4.0f} ns")


if __name__ == "__main__":
    main()
