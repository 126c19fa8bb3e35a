"""What a record costs IPFIXFILE, from a decoded batch to octets for the file, and its decoding into all columns."""

import os
import platform
import statistics
import tempfile
import time

from twisted.internet import defer

from benchmarks.ipfix_decode import NOW, one_exporter
from ulogd_tw.core.counters import Counters
from ulogd_tw.core.options import Options
from ulogd_tw.core.plugin import ALL
from ulogd_tw.ipfix.decoder import Decoder
from ulogd_tw.plugins.outputs.ipfixfile import IPFIXFILE


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
    """Print the figures."""
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}, Python {platform.python_version()}"
    )
    for messages in (16, 64, 1024):
        decoding, writing = alone(messages)
        print(f"{messages:5} messages of 28 records at once: decoded {decoding:4.0f} ns, written {writing:4.0f} ns")


if __name__ == "__main__":
    main()
