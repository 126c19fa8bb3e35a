"""Exporters of IPFIX in a process of their own: ``python exporters.py HOST:PORT udp|tcp RECORDS RATE EXPORTERS``.

Each has a socket, an Observation Domain and Sequence Numbers of its own. At the end one line of JSON says what was
sent. Templates come once, at the beginning, and over UDP again every `AGAIN` Messages if it is given.
"""

import json
import socket
import struct
import subprocess
import sys
import time

FIELDS = ((1, 8), (2, 8), (8, 4), (12, 4), (4, 1), (7, 2), (11, 2), (153, 8))
"""octetDeltaCount, packetDeltaCount, addresses, protocolIdentifier, ports, flowEndMilliseconds."""
RECORDS = 36
"""Of a Message: 1,352 octets."""


def main(target, kind, records, rate, exporters=1, again=0):
    """Send so many records; what was sent."""
    host, port = target.rsplit(":", 1)
    senders = [_Exporter((host, int(port)), kind, domain) for domain in range(1, int(exporters) + 1)]
    for sender in senders:
        sender.send(_template())
    time.sleep(0.3)
    began, sent, number = time.monotonic(), 0, 0
    while sent < int(records):
        sender = senders[number % len(senders)]
        if int(again) and number % int(again) == 0:
            for each in senders:
                each.send(_template())
        sender.send(_data(min(RECORDS, int(records) - sent)))
        sender.sequence += min(RECORDS, int(records) - sent)
        sent, number = sent + min(RECORDS, int(records) - sent), number + 1
        ahead = sent / float(rate) - (time.monotonic() - began)
        if ahead > 0.005:
            time.sleep(ahead)
    return {"records": sent, "octets": sum(sender.octets for sender in senders)}


class _Exporter:
    def __init__(self, where, kind, domain):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
        self.socket.connect(where)
        self.domain, self.sequence, self.octets = domain, 0, 0

    def send(self, sets):
        if sets[:2] == b"\1\0":
            self.octets += sum(range(1, (len(sets) - 4) // 37 + 1))
        head = struct.pack("!HHIII", 10, 16 + len(sets), int(time.time()), self.sequence & 0xFFFFFFFF, self.domain)
        self.socket.sendall(head + sets)


def _template():
    fields = b"".join(struct.pack("!HH", *field) for field in FIELDS)
    return struct.pack("!HHHH", 2, 8 + len(fields), 256, len(FIELDS)) + fields


def _data(count):
    """Records with 1, 2, 3, ... octets."""
    now = int(time.time() * 1000)
    rows = [struct.pack("!QQIIBHHQ", i, 1, 0x0A000000 + i, 0x0A010000 + i, 6 + i % 2 * 11, 1000 + i, 443, now)
            for i in range(1, count + 1)]  # fmt: skip
    return struct.pack("!HH", 256, 4 + 37 * count) + b"".join(rows)


def started(port, kind, records, rate, exporters=1, again=0):
    """The process of exporters that send to a port of this host."""
    words = [f"127.0.0.1:{port}", kind, records, rate, exporters, again]
    return subprocess.Popen([sys.executable, __file__, *map(str, words)], stdout=subprocess.PIPE, text=True)


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
