"""The service is killed while exporters go on sending: every record is stored, or counted as lost, exactly once."""

import functools
import json
import os
import signal
import socket
import sqlite3
import struct
import threading
import time
from collections import Counter

from twisted.trial.unittest import SynchronousTestCase

from tests.live.service import Service, sleep, temporary, unaccounted
from tests.live.test_nfct_table import TableTestCase
from tests.support import free_port, wait_until
from tests.unit.ipfix.test_netflow import record5, v5, v9
from tests.unit.ipfix.wire import a_set, message, template

IPFIX = template(256, (8, 4), (12, 4), (2, 4))
V9 = struct.pack("!HHHHHHHH", 256, 3, 8, 4, 12, 4, 2, 4)
ROWS = 5
"""Records of a message."""
STATE = 'state_dir="{dir}/state"'
PAUSE_S = 0.0002


def row(number):
    """A record of IPFIX and v9: two addresses and a number of packets."""
    return struct.pack("!III", 0x0A000000 | number & 0xFFFF, 0xC0000201, 1)


class Exporter(threading.Thread):
    """Sends messages of `ROWS` records as fast as the pause allows, until told to stop; each kind counts its own."""

    def __init__(self, kind, port):
        super().__init__(daemon=True)
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.connect(("127.0.0.1", port))
        self.kind = kind
        self.messages = 0
        self.again = False
        """Whether the next message has the templates too."""
        self.ends = threading.Event()

    @property
    def sent(self):
        """Records."""
        return self.messages * ROWS

    def templates(self):
        """What a record needs, sent before; a packet of v9 has a number of its own."""
        if self.kind == "ipfix":
            self.socket.send(message(a_set(2, IPFIX), export_time=int(time.time())))

    def one(self):
        number, now = self.messages, int(time.time())
        uptime = int(time.monotonic() * 1000) & 0xFFFFFFFF
        rows = [row(number * ROWS + i) for i in range(ROWS)]
        if self.kind == "ipfix":
            again = [a_set(2, IPFIX)] if self.again else []
            self.again = False
            return message(*again, a_set(256, *rows), number=number * ROWS, export_time=now)
        if self.kind == "v5":
            return v5(*[record5()] * ROWS, number=number * ROWS, seconds=now, uptime=uptime)
        sets = [a_set(0, V9)] if not number else []
        return v9(*sets, a_set(256, *rows), number=number, count=ROWS, seconds=now, uptime=uptime)

    def run(self):
        self.templates()
        while not self.ends.is_set():
            try:
                self.socket.send(self.one())
            except ConnectionRefusedError:  # nobody listens at the moment; what was sent before was lost
                continue
            self.messages += 1
            time.sleep(PAUSE_S)

    def end(self):
        self.ends.set()
        self.join()


class KilledCase(SynchronousTestCase):
    """kill -9, and a new start in the same state directory."""

    KINDS = ("ipfix", "v5", "v9")

    def setUp(self):
        self.directory = temporary("state")
        self.ports = {kind: free_port("udp") for kind in self.KINDS}

    def service(self, between="", keys='keys="protocolIdentifier"', output="SQLITE3", settings=STATE):
        stacks = [f"{kind}:COLLECTOR{between.format(kind)},db_{kind}:{output}" for kind in self.KINDS]
        parts = [f'[{kind}]\nlisten="udp:127.0.0.1:{port}"' for kind, port in self.ports.items()]
        of = (
            'file="{{dir}}/{}.json"'
            if output == "JSON"
            else 'db="{{dir}}/{}.sqlite3"\ntable="flows"\ncreate=1\n' + keys
        )
        parts += [f"[db_{kind}]\n" + of.format(kind) for kind in self.KINDS]
        parts += [f'[agg_{kind}]\nkey="destinationIPv4Address"\ninterval=1' for kind in self.KINDS if between]
        return Service(stacks, "\n".join(parts), directory=self.directory, settings=settings)

    def stored(self, kind, what="count(*)"):
        if what == "lines":
            return (self.directory / f"{kind}.json").read_bytes().count(b"\n")
        with sqlite3.connect(self.directory / f"{kind}.sqlite3") as db:
            return db.execute(f"SELECT {what} FROM flows").fetchone()[0] or 0

    @staticmethod
    def kill(service):
        service.kill()

    @staticmethod
    def stop(service):
        service.stop()

    def sent_and_counted(self, end, what="count(*)", **options):
        """Send, `end` the service, start, send, stop; of each kind what was sent, stored, unsaved, lost meanwhile."""
        exporters = {kind: Exporter(kind, port) for kind, port in self.ports.items()}
        service = self.service(**options)
        service.start()
        for exporter in exporters.values():
            exporter.start()
        time.sleep(2.5)
        end(service)
        time.sleep(0.5)
        service = self.service(**options)
        service.start()
        time.sleep(1.5)
        for exporter in exporters.values():
            exporter.end()
        time.sleep(0.5)
        service.stop()
        found = service.all_counters()
        self.assertEqual({}, unaccounted(found))
        if "between" in options:  # the stop has kept the open intervals
            with self.service(**options) as service:
                time.sleep(2.5)
            self.assertEqual({}, {n: c for n, c in service.all_counters().items() if c["lost"].get("unsaved")})
        return {kind: self.result(kind, exporter, found, what) for kind, exporter in exporters.items()}

    def result(self, kind, exporter, found, what):
        """Records sent, stored, unsaved, and lost between the two runs."""
        unsaved = sum(c["lost"].get("unsaved", 0) for name, c in found.items() if name.endswith(kind))
        lost = found[kind]["lost"]
        self.assertEqual(0, lost.get("sequence", 0), kind)
        return exporter.sent, self.stored(kind, what), unsaved, lost.get("restart", 0) * (ROWS if kind == "v9" else 1)


class KilledTests(KilledCase):
    """Wherever the rows were."""

    def check(self, results):
        for kind, (sent, stored, unsaved, restart) in results.items():
            self.assertEqual(sent, stored + unsaved + restart, (kind, results))
            self.assertGreater(restart, 0, kind)

    def test_every_record_once(self):
        """Records sent are those stored, those received and not stored, and those that came meanwhile."""
        self.check(self.sent_and_counted(self.kill))

    def test_lines(self):
        """The same with a file, which may have a part of the batch that was being written."""
        self.check(self.sent_and_counted(self.kill, "lines", output="JSON"))

    def test_open_intervals(self):
        """The same with sums: those of the last second before the kill are counted, the others go on."""
        results = self.sent_and_counted(self.kill, "sum(flows)", between=",agg_{}:AGGREGATE", keys="")
        self.check(results)
        for kind, (sent, _, unsaved, _) in results.items():
            self.assertLess(unsaved, sent / 2, kind)

    def test_after_a_reload(self):
        """The same where collectors and aggregates were replaced a second before."""

        def reload_and_kill(service):
            text = service.config.read_text().replace("listen=", "max_malformed=4\nlisten=")
            service.config.write_text(text.replace("interval=1", "interval=1\nmax_keys=5000"))
            os.kill(service.pid, signal.SIGHUP)
            wait_until(lambda: "reloaded" in service.output(), what="the reload")
            time.sleep(1.2)
            service.kill()

        settings = 'state_dir="{dir}/state"\nreload=1'
        self.check(self.sent_and_counted(
            reload_and_kill, "sum(flows)", between=",agg_{}:AGGREGATE", keys="", settings=settings
        ))  # fmt: skip

    def test_an_orderly_stop(self):
        """It loses nothing of what it received; what was sent meanwhile is counted."""
        results = self.sent_and_counted(self.stop, "sum(flows)", between=",agg_{}:AGGREGATE", keys="")
        self.check(results)
        self.assertEqual({0}, {unsaved for _, _, unsaved, _ in results.values()})


class ConntrackTests(TableTestCase):
    """NFCT, killed: flows that end while nobody listens are reported by the next run, each flow once."""

    def service(self):
        return Service(
            ["ct1:NFCT,json1:JSON"], '[json1]\nfile="{dir}/flows.json"\nsync=1', directory=self.directory,
            settings='state_dir="{dir}/state"', namespace=functools.partial(self.namespaces.argv, "a"),
        )  # fmt: skip

    def reported(self):
        path = self.directory / "flows.json"
        lines = path.read_text().splitlines() if path.exists() else []
        return [json.loads(line)["ct.id"] for line in lines]

    def end(self, *ports):
        """The kernel forgets the flows to these ports."""
        for port in ports:
            self.run_a("conntrack", "-D", "-p", "udp", "--dport", str(port))

    def check_ends(self, stop):
        self.directory = temporary("state")
        self.flows(10, first=6000)
        service = self.service()
        service.start()
        self.flows(10, first=7000)
        sleep(2.5)  # saved after a second
        there = self.listed()
        self.end(6000, 7000)
        wait_until(lambda: len(self.reported()) == 2, what="rows")
        stop(service)
        self.end(6001, 7001, 7002)
        service = self.service()
        service.start()
        try:
            wait_until(lambda: len(self.reported()) >= 5, what="the flows that ended meanwhile")
            sleep(1.0)
            self.assertEqual(5, len(self.reported()))
            self.end(6002, 7003)
            self.run_a("conntrack", "-F")
            wait_until(lambda: len(self.reported()) >= len(there), what="all flows")
        finally:
            service.stop()
        self.assertEqual(Counter(flow["ct.id"] for flow in there), Counter(self.reported()))
        self.assertEqual({}, service.counters("ct1")["errors"])

    def test_killed(self):
        self.check_ends(lambda service: service.kill())

    def test_stopped(self):
        self.check_ends(lambda service: service.stop())
