"""Floods: what one exporter sends does not hurt the others, and the collector does not grow without bound.

A tenth of the size that `make soak` has.
"""

import json
import os
import random
import socket
import struct
import time
from concurrent.futures import ThreadPoolExecutor

from twisted.trial.unittest import TestCase

from tests.live.service import Service, generate, ipfixgen, unaccounted
from tests.live.test_collector import data, message, template
from tests.support import free_port, wait_until

SCALE = 10 if os.environ.get("ULOGD_TW_SOAK") else 1
MOST_MEGABYTES = 500
"""Resident memory that no flood may bring the service to; docs/explanation.md names what the limits add up to."""
OCTETS_A_KEY = 350
"""What a group of a full AGGREGATE costs at most, with the tables that wait to go out; see docs/performance.md."""
CONFIG = """
[col1]
listen="udp:127.0.0.1:{port} tcp:127.0.0.1:{port}"
{options}
[agg1]
key="exporter,observationDomainId"
interval=3600
[json1]
file="{{dir}}/sums.json"
"""
GOOD = 1_000_000
"""The domain of the exporter that does nothing wrong."""


def megabytes(service, what="VmRSS"):
    """Resident memory; VmHWM: the most there was."""
    with open(f"/proc/{service.pid}/status") as file:
        return next(int(line.split()[1]) >> 10 for line in file if line.startswith(what))


class FloodTests(TestCase):
    """COLLECTOR -> AGGREGATE -> JSON, with a good exporter beside a bad one."""

    timeout = 120 * SCALE

    def service(self, *options):
        self.port = free_port("both")
        config = CONFIG.format(port=self.port, options="\n".join(options))
        return Service(["col1:COLLECTOR,agg1:AGGREGATE,json1:JSON"], config)

    def sender(self, host="127.0.0.1"):
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.addCleanup(made.close)
        made.bind((host, 0))
        made.connect(("127.0.0.1", self.port))
        return made

    def good(self):
        """A function that sends 20 records of the good exporter, over UDP and TCP in turn."""
        by_udp = self.sender("127.9.9.9")
        by_tcp = socket.create_connection(("127.0.0.1", self.port), source_address=("127.9.9.8", 0))
        self.addCleanup(by_tcp.close)
        sent = [0, 0]

        def send():
            for place, one in enumerate((by_udp, by_tcp)):
                tell = template() if sent[place] % 200 == 0 else b""
                one.send(message(tell, data(10), sequence=sent[place], domain=GOOD))
                sent[place] += 10

        send.sent = sent
        return send

    def finish(self, service, good, messages):
        """Wait for all messages; the good exporter's records are all there, memory is bounded, no row is lost."""
        expected = messages + sum(good.sent) // 10
        service.wait_for("col1", "messages_received", expected, 300 * SCALE)
        self.assertLess(megabytes(service), MOST_MEGABYTES)
        service.stop()
        counters = service.all_counters()
        self.assertEqual({}, unaccounted(counters))
        self.assertNotIn("Traceback", service.output())
        self.assertLess(len(service.output().splitlines()), 1000 * SCALE)
        rows = [json.loads(line) for line in (service.directory / "sums.json").read_text().splitlines()]
        flows = {row["exporter"]: row["flows"] for row in rows if row["observationDomainId"] == GOOD}
        self.assertEqual({"127.9.9.9": good.sent[0], "127.9.9.8": good.sent[1]}, flows)
        return counters["col1"], rows

    def slowly(self, service, sent):
        """What is sent shall not outrun the collector: then the kernel would drop, which is another matter."""
        wait_until(lambda: service.all_counters()["col1"]["messages_received"] >= sent - 20_000, 300, "the collector")

    def test_templates(self):
        """104,000 templates of 13 exporters without records: at the limit of all, one of them makes room for others."""
        chance = random.Random(1)
        with self.service("clock_skew=0") as service:
            good, sent = self.good(), 0
            for exporter in range(13 * SCALE):
                bad = self.sender(f"127.1.0.{exporter + 1}")
                for first in range(0, 8000, 20):
                    fields = [[(chance.randrange(1, 450), 4) for _ in range(10)] for _ in range(20)]
                    body = b"".join(
                        struct.pack("!HH", 256 + first + n, 10) + b"".join(struct.pack("!HH", *f) for f in of)
                        for n, of in enumerate(fields)
                    )
                    bad.send(message(struct.pack("!HH", 2, 4 + len(body)) + body))
                    sent += 1
                    if sent % 10 == 0:
                        good()
                self.slowly(service, sent)
            counters, _ = self.finish(service, good, sent)
        self.assertTrue(85_000 < counters["templates"] <= 100_000)  # or a million fields
        self.assertGreater(counters["sessions_evicted"], 0)
        self.assertEqual({}, counters["lost"])

    def test_exporters(self):
        """A hundred exporters with their own templates at once: every record of each."""
        with self.service() as service:
            good, sent = self.good(), 0
            exporters = [self.sender(f"127.2.{n // 200}.{n % 200 + 1}") for n in range(100 * SCALE)]
            for turn in range(50):
                for number, one in enumerate(exporters):
                    fields = ((8, 4), (12, 4), (1, 8), *[(210, 1)] * (number % 7))
                    records = b"".join(
                        struct.pack("!IIQ", n, number, 100) + bytes(number % 7) for n in range(turn % 3 + 1)
                    )
                    octets = struct.pack("!HH", 300, 4 + len(records)) + records
                    tell = template(300, fields) if turn % 10 == 0 else b""
                    one.send(message(tell, octets, sequence=sum(n % 3 + 1 for n in range(turn)), domain=number))
                    sent += 1
                good()
                self.slowly(service, sent)
            counters, rows = self.finish(service, good, sent)
        self.assertEqual({}, counters["errors"])
        self.assertEqual({}, counters["lost"])
        each = sum(turn % 3 + 1 for turn in range(50))
        found = {(row["exporter"], row["observationDomainId"]): row["flows"] for row in rows}
        for number in range(100 * SCALE):
            self.assertEqual(each, found[f"127.2.{number // 200}.{number % 200 + 1}", number])

    def test_long_messages(self):
        """Messages of 65,535 octets over TCP and 65,507 over UDP, without a pause."""
        records = (65535 - 20) // 16
        with self.service("max_buffered=1M") as service:
            good, sent = self.good(), 0
            by_tcp = socket.create_connection(("127.0.0.1", self.port), source_address=("127.3.0.1", 0))
            self.addCleanup(by_tcp.close)
            by_udp = self.sender("127.3.0.2")
            by_tcp.sendall(message(template()))
            by_udp.send(message(template()))
            sent = 2
            long_, less = data(records), data((65507 - 20) // 16)
            for n in range(200 * SCALE):
                by_tcp.sendall(message(long_, sequence=n * records))
                by_udp.send(message(less, sequence=n * ((65507 - 20) // 16)))
                sent += 2
                good()
                if n % 50 == 0:
                    self.slowly(service, sent + 19_900)
            counters, rows = self.finish(service, good, sent)
        self.assertEqual({}, counters["lost"])
        found = {row["exporter"]: row["flows"] for row in rows}
        self.assertEqual(200 * SCALE * records, found["127.3.0.1"])
        self.assertEqual(200 * SCALE * ((65507 - 20) // 16), found["127.3.0.2"])

    def test_template_changes(self):
        """Each message has another template of the same id, and records of it."""
        chance = random.Random(2)
        with self.service("clock_skew=0") as service:
            good, sent = self.good(), 0
            bad = self.sender("127.4.0.1")
            for n in range(3000 * SCALE):
                fields = [(1, 8), *[(chance.randrange(100, 200), chance.randrange(1, 9)) for _ in range(9)]]
                record = struct.pack("!Q", 1000) + bytes(sum(octets for _, octets in fields[1:]))
                octets = struct.pack("!HH", 256, 4 + 3 * len(record)) + 3 * record
                bad.send(message(template(256, fields), octets, sequence=3 * n))
                sent += 1
                if n % 10 == 0:
                    good()
                if n % 500 == 0:
                    time.sleep(0.01)
            counters, rows = self.finish(service, good, sent)
        self.assertEqual({}, counters["lost"])
        (row,) = [row for row in rows if row["exporter"] == "127.4.0.1"]
        self.assertEqual((9000 * SCALE, 9_000_000 * SCALE), (row["flows"], row["octets"]))


class KeyFloodTests(TestCase):
    """Many more keys than an AGGREGATE has room for."""

    timeout = 120 * SCALE
    MOST = 50_000
    RECORDS = 400_000 * SCALE

    def received(self, service, ways):
        """How many rows there were; no table is larger than it may be."""
        counters = service.all_counters()
        for way in ways if counters else ():
            self.assertLessEqual(counters[way]["keys"], self.MOST + 1, way)
        return counters["col1"]["rows_received"] if counters else 0

    def test_keys(self):
        """However it makes room: never more groups, memory is bounded, and every record is in a row or counted."""
        ways, port = ("emit", "other", "refuse", "fold", "evict"), free_port("udp")
        config = f'[col1]\nlisten="udp:127.0.0.1:{port}"\nreceive_buffer=64M\n'
        for way in ways:
            config += f'[{way}]\ninterval=36000\nmax_keys={self.MOST}\noverflow="{way}"\n'
            config += f'[j{way}]\nfile="{{dir}}/{way}.json"\n'
        with Service([f"col1:COLLECTOR,{way}:AGGREGATE,j{way}:JSON" for way in ways], config) as service:
            before = megabytes(service)
            ipfixgen()  # before the thread, from which a test cannot be left out
            with ThreadPoolExecutor(1) as pool:
                words = ("-n", self.RECORDS, "-r", 50_000, "-F", 10**6, "-s", 3, "-W", 110)
                sending = pool.submit(generate, f"127.0.0.1:{port}", *words)
                wait_until(lambda: self.received(service, ways) == self.RECORDS, 300 * SCALE, "all is read")
                sent = sending.result()
            grown = megabytes(service, "VmHWM") - before
        self.assertLess(grown, 60 + len(ways) * self.MOST * OCTETS_A_KEY / 1e6)
        counters = service.all_counters()
        self.assertEqual({}, unaccounted(counters))
        for way in ways:
            flows = octets = rows = 0
            with open(service.directory / f"{way}.json") as file:
                for line in file:
                    row = json.loads(line)
                    flows, octets, rows = flows + row["flows"], octets + row["octets"], rows + 1
            dropped = counters[way]["dropped"].get("max_keys", 0)
            self.assertEqual(self.RECORDS, flows + dropped, way)
            if way == "refuse":
                self.assertEqual((self.MOST, True), (rows, dropped > 0))
            else:
                self.assertEqual((sent["octets"], 0), (octets, dropped), way)
            self.assertTrue(rows <= self.MOST + 1 or way in ("emit", "evict"), (way, rows))
