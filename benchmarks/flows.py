"""UDP flows that begin and end at a steady rate, in a namespace of tests: ``... SOURCE DESTINATION RATE N [never]``.

Each flow is one packet; it is deleted (ctnetlink) once `LAG` later ones have begun, so each gives a NEW and a DESTROY
event; with the last word it is not deleted. All packets and requests are made beforehand. They are sent after a line
of standard input.
"""

import socket
import struct
import sys
import time

import numpy as np

LAG = 1000
PORTS = 50_000
"""Source ports of a destination port."""
NETLINK_NETFILTER = 12
SO_RCVBUFFORCE = 33
DELETE = 1 << 8 | 2
"""Type of a message of NFNL_SUBSYS_CTNETLINK: IPCTNL_MSG_CT_DELETE."""
MOST = 32
"""Requests a datagram."""


def ports(n):
    """Source and destination port of each flow."""
    number = np.arange(n)
    return (1024 + number % PORTS).astype(">u2"), (9 + number // PORTS).astype(">u2")


def packets(source, destination, n):
    """IPv4 packets of 40 octets; the kernel fills in their checksums."""
    rows = np.zeros((n, 40), np.uint8)
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 40, 0, 0, 64, socket.IPPROTO_UDP, 0, source, destination)
    rows[:, :20] = np.frombuffer(head, np.uint8)
    for at, column in zip((20, 22), ports(n), strict=True):
        rows[:, at : at + 2] = column.view(np.uint8).reshape(n, 2)
    rows[:, 25] = 20  # length of the UDP datagram
    return rows


def attribute(kind, octets):
    """An attribute of netlink, padded."""
    return struct.pack("=HH", 4 + len(octets), kind) + octets + bytes(-len(octets) % 4)


def requests(source, destination, n):
    """What deletes each flow: IPCTNL_MSG_CT_DELETE with its CTA_TUPLE_ORIG."""
    addresses = attribute(1, source) + attribute(2, destination)
    protocol = attribute(1, bytes([socket.IPPROTO_UDP])) + attribute(2, b"sp") + attribute(3, b"dp")
    body = struct.pack("=BBH", socket.AF_INET, 0, 0)
    body += attribute(1 | 0x8000, attribute(1 | 0x8000, addresses) + attribute(2 | 0x8000, protocol))
    one = struct.pack("=IHHII", 16 + len(body), DELETE, 1, 0, 0) + body
    rows = np.tile(np.frombuffer(one, np.uint8), (n, 1))
    for mark, column in zip((b"sp", b"dp"), ports(n), strict=True):
        at = one.index(mark)
        rows[:, at : at + 2] = column.view(np.uint8).reshape(n, 2)
    return rows


def main(source, destination, rate, n, never=None):
    """Make the flows; the seconds that it took."""
    n, rate, ends = int(n), float(rate), (socket.inet_aton(source), socket.inet_aton(destination))
    begin, end = packets(*ends, n), requests(*ends, n)
    raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
    with raw, netlink:
        raw.connect((destination, 0))
        netlink.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 4 << 20)
        print(0, flush=True)
        if not sys.stdin.readline():
            return
        began, done, ended = time.monotonic(), 0, 0
        while (done if never else ended) < n:
            due = int((time.monotonic() - began) * rate) + 1
            for row in begin[done : min(due, n)]:
                raw.send(row)
            done = max(min(due, n), done)
            for at in range(ended, 0 if never else min(due - LAG, n), MOST):
                ended = min(at + MOST, due - LAG, n)
                netlink.send(end[at:ended].tobytes())
            time.sleep(max(began + (due + MOST) / rate - time.monotonic(), 0))
        print(time.monotonic() - began, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
