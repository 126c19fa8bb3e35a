"""The walks of docs/architecture.md: the running program calls the functions that they name, in their order."""

import re
import signal
import sqlite3
import struct
import sys
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.support import TOP, Daemon, NetworkNamespaces, free_port, require_program, wait_until

ARCHITECTURE = TOP / "docs" / "architecture.md"

# Runs ulogd-tw and notes each function of ulogd_tw at its first call: from the start, or from SIGUSR1 on.
TRACER = """
import signal, sys, threading
configuration, out, at_once = sys.argv[1], sys.argv[2], sys.argv[3] == "start"
noted, active = {}, [at_once]
def note(frame, event, argument):
    if event == "call" and active[0] and "/ulogd_tw/" in frame.f_code.co_filename:
        module = frame.f_code.co_filename.split("/ulogd_tw/")[-1]
        noted.setdefault(f"{module}:{frame.f_code.co_qualname}")
def end(number, frame):
    active[0] = False
    with open(out, "w") as file:
        file.write("\\n".join(noted))
def begin(number, frame):
    active[0] = True
    signal.signal(signal.SIGUSR1, end)
signal.signal(signal.SIGUSR1, end if at_once else begin)
threading.setprofile(note)
sys.setprofile(note)
sys.argv = ["ulogd-tw", "-c", configuration]
from ulogd_tw.cli import main
main()
"""

DATAGRAM_TO_ROW = """
[global]
stack=col1:COLLECTOR,db1:SQLITE3

[col1]
listen="udp:127.0.0.1:{port}"

[db1]
db="{folder}/flows.sqlite3"
table="flows"
keys="sourceAddress destinationAddress octetDeltaCount"
create=1
"""

EVENT_TO_MESSAGE = """
[global]
stack=ct1:NFCT,exp1:IPFIX

[exp1]
collectors="udp:127.0.0.1:{port}"
flush=0.1
"""


def walk(title):
    """The functions of a walk, in its order: `module.py:Class.function` at the beginning of its items."""
    text = ARCHITECTURE.read_text("utf-8")
    section = text.split(f"## {title}\n", 1)[1].split("\n## ", 1)[0]
    found = re.findall(r"^\d+\. `([\w/]+\.py:[\w.]+)`", section, re.M)
    assert len(found) > 5, title
    return found


class WalkTests(SynchronousTestCase):
    """Each walk is one item of what happens."""

    def trace(self, text, cause, start=False, argv=lambda words: words):
        """The functions called after `cause` (or from the start on), in the order of their first calls."""
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        port = free_port("udp")
        (folder / "conf").write_text(text.format(port=port, folder=folder))
        words = [sys.executable, "-c", TRACER, folder / "conf", folder / "out", "start" if start else "later"]
        with Daemon(argv(list(map(str, words))), cwd=TOP) as service:
            wait_until(lambda: "stacks run" in service.output(), within=60)
            if not start:
                service.process.send_signal(signal.SIGUSR1)
            cause(folder, port)
            service.process.send_signal(signal.SIGUSR1)
            wait_until((folder / "out").exists, within=30)
            time.sleep(0.1)
            return (folder / "out").read_text().split("\n")

    def check(self, title, traced):
        """Every function of the walk was called, and none before the one that stands before it."""
        steps = walk(title)
        self.assertEqual([], [step for step in steps if step not in traced], title)
        self.assertEqual(sorted(steps, key=traced.index), steps, title)

    def test_datagram(self):
        """An IPFIX datagram becomes a row of an SQLite file."""

        def send(folder, port):
            import socket

            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                sender.sendto(message(), ("127.0.0.1", port))
            wait_until(lambda: rows(folder / "flows.sqlite3"), within=30)

        self.check("From a datagram to a row", self.trace(DATAGRAM_TO_ROW, send))

    def test_configuration(self):
        """A line of the configuration becomes a socket."""
        traced = self.trace(DATAGRAM_TO_ROW, lambda folder, port: None, start=True)
        self.check("From a line of the configuration to a socket", traced)

    def test_event(self):
        """The end of a connection becomes an IPFIX Message."""
        require_program("conntrack")
        with NetworkNamespaces(conntrack=True) as net:

            def end_a_flow(folder, port):
                net.run("a", ["ping", "-c", "1", net.ipv4["b"]])
                net.run("a", ["conntrack", "-D", "-p", "icmp"])
                time.sleep(2)

            traced = self.trace(EVENT_TO_MESSAGE, end_a_flow, argv=lambda words: net.argv("a", words))
        self.check("From a conntrack event to a Message", traced)


def rows(path):
    """The rows of the table, none where there is no table yet."""
    try:
        with sqlite3.connect(path) as database:
            return database.execute("select * from flows").fetchall()
    except sqlite3.OperationalError:
        return []


def message():
    """One IPFIX Message with a template and a record of it."""
    fields = struct.pack(">HHHHHH", 8, 4, 12, 4, 1, 8)
    template = struct.pack(">HHHH", 2, 8 + len(fields), 256, 3) + fields
    record = struct.pack(">HHIIQ", 256, 20, 0xC0000201, 0xC6336407, 1500)
    now = int(time.time())
    return struct.pack(">HHIII", 10, 16 + len(template) + len(record), now, 0, 1) + template + record
