"""The walks of docs/architecture.md: the running program calls the functions that they name, in their order."""

import re
import socket
import sqlite3
import struct
import sys
import time
from functools import partial
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.support import TOP, Daemon, NetworkNamespaces, free_port, require_program, wait_until

ARCHITECTURE = TOP / "docs" / "architecture.md"

# Runs ulogd-tw and notes each function of ulogd_tw at its first call: from the start, or while the file `go` is there.
TRACER = """
import sys, threading, time
from pathlib import Path
folder, at_once = Path(sys.argv[1]), sys.argv[2] == "start"
noted, active = {}, [at_once]
def note(frame, event, argument):
    if event == "call" and active[0] and "/ulogd_tw/" in frame.f_code.co_filename:
        module = frame.f_code.co_filename.split("/ulogd_tw/")[-1]
        noted.setdefault(f"{module}:{frame.f_code.co_qualname}")
def watch():
    while not (at_once or (folder / "go").exists()):
        time.sleep(0.02)
    active[0] = True
    while not (folder / "stop").exists():
        time.sleep(0.02)
    active[0] = False
    (folder / "part").write_text("\\n".join(noted))
    (folder / "part").rename(folder / "out")
threading.Thread(target=watch, daemon=True).start()
threading.setprofile(note)
sys.setprofile(note)
sys.argv = ["ulogd-tw", "-c", str(folder / "conf")]
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

    def trace(self, text, cause, before=None, start=False, argv=lambda words: words):
        """The functions called in `cause` (or from the start on), in the order of their first calls."""
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        port = free_port("udp")
        (folder / "conf").write_text(text.format(port=port, folder=folder))
        words = [sys.executable, "-c", TRACER, folder, "start" if start else "later"]
        with Daemon(argv(list(map(str, words))), cwd=TOP) as service:
            wait_until(lambda: "stacks run" in service.output(), within=60)
            if before is not None:
                before(folder, port)
            (folder / "go").touch()
            time.sleep(0.1)  # the watcher looks every 20 ms
            cause(folder, port)
            (folder / "stop").touch()
            wait_until((folder / "out").exists, within=30)
            return (folder / "out").read_text().split("\n")

    def check(self, title, traced):
        """Every function of the walk was called, and none before the one that stands before it."""
        steps = walk(title)
        self.assertEqual([], [step for step in steps if step not in traced], title)
        self.assertEqual(sorted(steps, key=traced.index), steps, title)

    def test_datagram(self):
        """An IPFIX datagram of a known exporter, with a new template, becomes a row of an SQLite file."""

        def send(template, expected, folder, port):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                sender.bind(("127.0.0.1", self.source))
                sender.sendto(message(template), ("127.0.0.1", port))
            wait_until(lambda: len(rows(folder / "flows.sqlite3")) == expected, within=30)

        self.source = free_port("udp")
        traced = self.trace(DATAGRAM_TO_ROW, partial(send, 257, 2), before=partial(send, 256, 1))
        self.check("From a datagram to a row", traced)

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


def message(number):
    """One IPFIX Message with the template of this number and a record of it."""
    fields = struct.pack(">HHHHHH", 8, 4, 12, 4, 1, 8)
    template = struct.pack(">HHHH", 2, 8 + len(fields), number, 3) + fields
    record = struct.pack(">HHIIQ", number, 20, 0xC0000201, 0xC6336407, 1500)
    now = int(time.time())
    return struct.pack(">HHIII", 10, 16 + len(template) + len(record), now, 0, 1) + template + record
