"""Messages made beforehand, sent as datagrams at steady rates: ``... HOST:PORT RATE FILE ...``.

Each file has a rate (messages a second); the next one is sent after a line of standard input, by the same socket.
Many go with one call (sendmmsg), so that sending takes little from the program that is measured. Each message tells
which address of loopback it comes from. Nothing goes anywhere but to loopback and the namespaces of tests.
"""

import ctypes
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

MOST = 64
"""Datagrams a call."""
LATE = 0.02
"""Seconds of messages that are sent at once where a sender was kept from sending."""
HEADER = np.dtype([
    ("name", "u8"), ("name_length", "u8"), ("part", "u8"), ("parts", "u8"), ("control", "u8"),
    ("control_length", "u8"), ("flags", "u8"), ("sent", "u8"),
])  # fmt: skip
"""struct mmsghdr of 64-bit machines."""
PART = np.dtype([("at", "u8"), ("length", "u8")])
"""struct iovec."""
SOURCE = np.dtype([
    ("length", "u8"), ("level", "i4"), ("type", "i4"), ("index", "i4"), ("address", ">u4"), ("rest", "u8"),
])  # fmt: skip
"""struct cmsghdr with struct in_pktinfo: the address that a datagram comes from (IP_PKTINFO, ip(7))."""
IP_PKTINFO = 8


def write(path, messages):
    """Keep (source address as a number or 0, octets) of each message in a file; how many."""
    index = []
    with Path(path).open("wb") as file:
        for source, octets in messages:
            file.write(octets)
            index.append((len(octets), source))
    np.save(f"{path}.npy", np.array(index, np.uint32).reshape(-1, 2))
    return len(index)


class Headers:
    """What sendmmsg takes, for all messages of a file."""

    def __init__(self, path):
        self.octets = np.fromfile(path, np.uint8)
        lengths, sources = np.load(f"{path}.npy").astype(np.uint64).T
        self.n = len(lengths)
        self.parts, self.headers = np.zeros(self.n, PART), np.zeros(self.n, HEADER)
        self.parts["at"] = self.octets.ctypes.data + np.cumsum(lengths) - lengths
        self.parts["length"] = lengths
        self.headers["part"] = self.parts.ctypes.data + np.arange(self.n, dtype=np.uint64) * np.uint64(PART.itemsize)
        self.headers["parts"] = 1
        if sources.any():
            self._from(sources)

    def _from(self, sources):
        self.sources = np.zeros(self.n, SOURCE)
        self.sources["length"], self.sources["level"], self.sources["type"] = 28, socket.IPPROTO_IP, IP_PKTINFO
        self.sources["address"] = sources
        size = np.uint64(SOURCE.itemsize)
        self.headers["control"] = self.sources.ctypes.data + np.arange(self.n, dtype=np.uint64) * size
        self.headers["control_length"] = SOURCE.itemsize


def due(elapsed, rate, done):
    """(messages that are due after so many seconds, seconds by which the rest comes later), with `done` sent.

    A sender that was kept from sending for longer than `LATE` does not send all of that at once, as no exporter would.
    """
    late = max(elapsed - LATE - done / rate, 0.0)
    return int((elapsed - late) * rate) + 1, late


def send(out, headers, rate):
    """Send all, `rate` messages a second at most; the seconds that it took."""
    call = ctypes.CDLL(None, use_errno=True).sendmmsg
    start = began = time.monotonic()
    done, first = 0, headers.headers.ctypes.data
    while done < headers.n:
        now, late = due(time.monotonic() - began, rate, done)
        began += late
        now = min(now, headers.n)
        while done < now:
            sent = call(out.fileno(), ctypes.c_void_p(first + done * HEADER.itemsize), min(now - done, MOST), 0)
            done += max(sent, 0)  # a refusal that an earlier datagram met is told by a later call
        if done < headers.n:
            time.sleep(max(began + done / rate - time.monotonic(), 0.001))
    return time.monotonic() - start


class Sender:
    """The process that sends, there while the `with` lasts; `prefix` puts words before its command.

    `words` are HOST:PORT, then the rate and the file of each part; each call of `send` sends the next one.
    """

    def __init__(self, *words, module=__name__, prefix=lambda argv: argv):
        argv = [sys.executable, "-m", module, *words]
        self.argv = [str(word) for word in prefix(argv)]

    def __enter__(self):
        self._process = subprocess.Popen(
            self.argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1]
        )
        self._answer()
        return self

    def send(self):
        """Send the next part; the seconds that it took."""
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self):
        line = self._process.stdout.readline()
        if not line:
            raise AssertionError(f"{' '.join(self.argv)}: ended with status {self._process.wait()}")
        return float(line)

    def __exit__(self, *_):
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()


def main(place, *parts):
    """Send the messages of files."""
    host, port = place.split(":")
    if not host.startswith(("127.", "10.77.")):
        sys.exit(f"benchmarks.sending: {host} is neither loopback nor in a namespace of tests")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
        out.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
        out.connect((host, int(port)))
        all_ = [(float(rate), Headers(path)) for rate, path in zip(parts[::2], parts[1::2], strict=True)]
        print(0, flush=True)
        for (rate, headers), _ in zip(all_, sys.stdin, strict=False):
            print(send(out, headers, rate), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
