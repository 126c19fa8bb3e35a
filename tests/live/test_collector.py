"""COLLECTOR in the running service: totals of a load, bad input beside good, a stop under load."""

import json
import os
import random
import socket
import sqlite3
import struct
import time

from twisted.trial.unittest import TestCase

from tests.live.service import Service, generate, unaccounted
from tests.support import free_port, wait_until

STACKS = ["col1:COLLECTOR,agg1:AGGREGATE,db1:SQLITE3"]
CONFIG = """
[col1]
listen="udp:127.0.0.1:{port} tcp:127.0.0.1:{port}"
[agg1]
key="5tuple"
interval=1
[db1]
db="{dir}/flows.sqlite3"
table="flows"
create=1
[json1]
file="{dir}/flows.json"
"""


def template(ident=256, fields=((8, 4), (12, 4), (1, 8))):
    """A Template Set."""
    body = struct.pack("!HH", ident, len(fields)) + b"".join(struct.pack("!HH", *f) for f in fields)
    return struct.pack("!HH", 2, 4 + len(body)) + body


def message(*sets, sequence=0, domain=1, length=None):
    """A Message; `length` says something false about it."""
    body = b"".join(sets)
    size = 16 + len(body) if length is None else length
    return struct.pack("!HHIII", 10, size, int(time.time()), sequence, domain) + body


def data(n, ident=256, octets=100):
    """A Data Set of n records."""
    body = b"".join(struct.pack("!IIQ", 0x0A000001 + i, 0x0A000100, octets) for i in range(n))
    return struct.pack("!HH", ident, 4 + len(body)) + body


class CollectorTests(TestCase):
    """Loads and bad input on loopback."""

    timeout = 120

    def service(self, stacks=STACKS, **keywords):
        self.port = free_port("both")
        return Service(stacks, CONFIG.replace("{port}", str(self.port)), **keywords)

    def sums(self, service):
        with sqlite3.connect(service.directory / "flows.sqlite3") as database:
            return database.execute("select sum(octets), sum(packets), sum(flows) from flows").fetchone()

    def test_totals_of_a_load(self):
        """UDP at a rate that loses nothing, and TCP as fast as it goes: every octet is in the database."""
        with self.service() as service:
            udp = generate(f"127.0.0.1:{self.port}", "-n", 200_000, "-r", 200_000, "-F", 5000)
            tcp = generate(f"127.0.0.1:{self.port}", "-n", 200_000, "-t", "tcp", "-F", 5000, "-x", "-s", 7)
            service.wait_for("col1", "rows_received", 400_000)
        self.assertEqual(service.counters("col1")["lost"], {})
        expected = (udp["octets"] + tcp["octets"], udp["packets"] + tcp["packets"], 400_000)
        self.assertEqual(self.sums(service), expected)
        self.assertEqual(unaccounted(service.all_counters()), {})

    def test_a_stop_under_load_keeps_all_that_was_received(self):
        """SIGTERM while an exporter sends over TCP: received = stored, and no counter is open."""
        with self.service() as service:
            exporter = socket.create_connection(("127.0.0.1", self.port))
            self.addCleanup(exporter.close)
            exporter.sendall(message(template()))
            exporter.settimeout(0.2)
            sent = 0
            stopping = False
            while True:
                try:
                    exporter.sendall(message(data(50), sequence=sent))
                except OSError:
                    break
                sent += 50
                if sent > 50_000 and not stopping:
                    os.kill(service.pid, 15)
                    stopping = True
            wait_until(lambda: not service.daemon.running, 30, "the end")
        received = service.counters("col1")["rows_received"]
        self.assertGreater(received, 10_000)  # what was sent may still be under way at the signal
        self.assertEqual(self.sums(service)[2], received)
        self.assertEqual(unaccounted(service.all_counters()), {})
        self.assertIn(service.daemon.process.returncode, (0, -15))  # twistd ends itself by the signal that stopped it

    def test_bad_input_hurts_nobody_else(self):
        """Random octets, cut messages, impossible templates and sets, data before its template: counted; a good
        exporter beside them, in the same moment and afterwards, loses nothing."""
        randoms = random.Random(5)
        bad = [randoms.randbytes(randoms.randrange(0, 1400)) for _ in range(200)]
        whole = message(template(), data(3))
        bad += [whole[:cut] for cut in range(len(whole))]
        bad += [
            message(template(fields=())),
            message(template(fields=((8, 0), (12, 0)))),
            message(struct.pack("!HH", 256, 0)),
            message(struct.pack("!HH", 2, 65535)),
            message(template(), data(3), length=17),
            message(template(), data(3), length=65535),
            message(data(3, ident=999)),
            message(struct.pack("!HHHH", 2, 8, 300, 65535)),
            message(struct.pack("!HH", 1, 4)),
        ]
        with self.service(["col1:COLLECTOR,json1:JSON"]) as service:
            good = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self.addCleanup(good.close)
            good.connect(("127.0.0.1", self.port))
            stream = socket.create_connection(("127.0.0.1", self.port))
            self.addCleanup(stream.close)
            good.send(message(template(), domain=7))
            stream.sendall(message(template(), domain=8))
            for number, octets in enumerate(bad):
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
                    other.sendto(octets, ("127.0.0.1", self.port))
                if number % 10 == 0:
                    with socket.create_connection(("127.0.0.1", self.port)) as other:
                        other.sendall(octets)
                good.send(message(data(2), sequence=2 * number, domain=7))
                stream.sendall(message(data(2), sequence=2 * number, domain=8))
            expected = 4 * len(bad)

            def all_there():
                path = service.directory / "flows.json"
                rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
                return len([r for r in rows if r["observationDomainId"] in (7, 8)]) >= expected

            wait_until(all_there, 20, "the good exporters' records")
        counters = service.all_counters()
        self.assertEqual(counters["col1"]["lost"], {})
        for reason in ("length", "version", "template", "no_template", "set_length", "framing"):
            self.assertGreater(counters["col1"]["errors"].get(reason, 0), 0, reason)
        self.assertEqual(unaccounted(counters), {})
        self.assertNotIn("Traceback", service.output())

    def test_an_address_that_is_taken_leaves_out_only_its_stack(self):
        """And the message says who might have it."""
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            config = CONFIG.replace("{port}", str(free_port("both"))) + f'[col2]\nlisten="tcp:127.0.0.1:{port}"\n'
            with Service(["col2:COLLECTOR,json1:JSON", *STACKS], config) as service:
                self.assertIn("col2:COLLECTOR", service.output())
                self.assertIn("Address already in use", service.output())
                self.assertIn("stacks running (1)", service.output())

    def test_forged_sources_do_not_fill_the_log(self):
        """Hundreds of new exporters: a bounded number of lines, and every record is there."""
        with self.service(["col1:COLLECTOR,json1:JSON"]) as service:
            octets = message(template(), data(1))
            sockets = []
            for _ in range(400):
                sockets.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
                sockets[-1].bind((f"127.0.{len(sockets) // 200}.{len(sockets) % 200 + 1}", 0))
                sockets[-1].sendto(octets, ("127.0.0.1", self.port))
            service.wait_for("json1", "rows_written", 400)
            for one in sockets:
                one.close()
        self.assertLess(len(service.output().splitlines()), 130)
        self.assertEqual(service.counters("col1")["log_lines_left_out"], 300)
