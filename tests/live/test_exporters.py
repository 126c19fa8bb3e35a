"""Exporters as they really are: other ports, restarts of ours, sampling, strangers; through the running service."""

import json
import os
import socket
import struct
import time

from twisted.trial.unittest import TestCase

from tests.live.service import Service, unaccounted
from tests.live.test_collector import data, message, template
from tests.support import free_port, wait_until

CONFIG = """
[global]
stats_interval=0.2
[col1]
listen="udp:127.0.0.1:{port} tcp:127.0.0.1:{port}"
{options}
[json1]
file="{{dir}}/flows.json"
"""


class ExporterTests(TestCase):
    """COLLECTOR -> JSON."""

    timeout = 120

    def service(self, *options, **keywords):
        self.port = getattr(self, "port", None) or free_port("both")
        config = CONFIG.format(port=self.port, options="\n".join(options)).replace("{{", "{").replace("}}", "}")
        return Service(["col1:COLLECTOR,json1:JSON"], config, **keywords)

    def sender(self, host="127.0.0.1"):
        """A bound socket that sends datagrams to the collector."""
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.addCleanup(made.close)
        made.bind((host, 0))
        made.connect(("127.0.0.1", self.port))
        return made

    def rows(self, service):
        return [json.loads(line) for line in (service.directory / "flows.json").read_text().splitlines()]

    def test_templates_from_another_port(self):
        """auto: decoded, and said once, also for a third port; strict: not."""
        for key, rows in (("auto", 12), ("strict", 0), ("address", 12)):
            with self.service(f"session_key={key}") as service:
                one, two, three = self.sender(), self.sender(), self.sender()
                one.send(message(template()))
                for n in range(5):
                    two.send(message(data(2), sequence=2 * n))
                three.send(message(data(2), sequence=10))
                service.wait_for("col1", "messages_received", 7)
                service.wait_for("json1", "rows_written", rows)
            self.assertEqual(rows, len(self.rows(service)), key)
            self.assertEqual(int(key == "auto"), service.output().count("from different ports"), key)
            self.assertEqual({}, service.counters("col1")["lost"])

    def test_two_exporters_of_one_address(self):
        """auto: each has its own templates of the same id in the same domain."""
        with self.service() as service:
            one, two = self.sender(), self.sender()
            other = template(fields=((12, 4), (8, 4), (2, 8)))
            for n in range(3):
                one.send(message(template(), data(1), sequence=n))
                two.send(message(other, data(1), sequence=n))
            service.wait_for("json1", "rows_written", 6)
        rows = self.rows(service)
        self.assertEqual([3, 3], [sum(name in row for row in rows) for name in ("octetDeltaCount", "packetDeltaCount")])

    def test_restart(self):
        """With template_cache records are decoded at once after a stop, and after kill -9; without it they are not."""
        exporter = self.sender() if getattr(self, "port", None) else None
        for signal in (15, 9):
            with self.service('template_cache="{dir}/templates"') as service:
                exporter = exporter or self.sender()
                exporter.send(message(template()))
                service.wait_for("col1", "messages_received", 1)
                cache = service.directory / "templates"
                wait_until(lambda: cache.exists() and b"127.0.0.1" in cache.read_bytes(), 10, "the cache")  # noqa: B023
                os.kill(service.pid, signal)
                wait_until(lambda: not service.daemon.running, 20, "the end")
            for options, rows in (('template_cache="{dir}/templates"', 3), ("", 0)):
                with self.service(options, directory=service.directory) as then:
                    exporter.send(message(data(3), sequence=7))
                    then.wait_for("col1", "messages_received", 1)
                    then.wait_for("json1", "rows_written", rows)
                self.assertEqual(rows, then.counters("col1")["rows_received"])
                if rows:
                    self.assertIn("template_cache has 1 template of 1 exporter", then.output())

    def test_sampling(self):
        """Counts times the rate that the exporter told, and the factor beside them."""
        tell = struct.pack("!HHHHHHHHHH", 3, 20, 300, 2, 1, 143, 4, 34, 4, 0)[:-2] + b"\0\0"
        told = struct.pack("!HHII", 300, 12, 7, 100)
        with self.service("scale_sampled=1") as service:
            self.sender().send(message(tell, told, template(), data(2, octets=1000), sequence=0))
            service.wait_for("json1", "rows_written", 3)
        flows = [row for row in self.rows(service) if row["record_kind"] == "data"]
        self.assertEqual([(100_000, 100)] * 2, [(row["octetDeltaCount"], row["sampling_factor"]) for row in flows])

    def test_strangers(self):
        """allow: datagrams and connections of others are refused, counted, and said once a minute."""
        with self.service('allow="127.0.1.0/24"') as service:
            for _ in range(20):
                self.sender().send(message(template(), data(1)))
            stranger = socket.create_connection(("127.0.0.1", self.port))
            self.addCleanup(stranger.close)
            self.assertEqual(b"", stranger.recv(1))
            self.sender("127.0.1.5").send(message(template(), data(1)))
            service.wait_for("json1", "rows_written", 1)
        counters = service.counters("col1")
        self.assertEqual({"not_allowed": 21}, counters["errors"])
        self.assertEqual(21, counters["messages_received"])
        self.assertEqual(1, service.output().count("is refused"))
        self.assertEqual({}, unaccounted(service.all_counters()))

    def test_messages_that_do_not_end(self):
        """Connections that hold back the end of their messages: bounded by max_buffered; others go on."""
        with self.service("max_buffered=1M") as service:
            start = message(data(1), length=65535)
            held = []
            for _ in range(40):
                held.append(socket.create_connection(("127.0.0.1", self.port)))
                self.addCleanup(held[-1].close)
                held[-1].sendall(start + bytes(60_000))
            wait_until(lambda: service.counters("col1")["errors"].get("limit_buffered", 0) >= 20, 10, "refusals")
            self.sender().send(message(template(), data(2)))
            service.wait_for("json1", "rows_written", 2)

    def test_clock(self):
        """A clock that is wrong is said once, not once a message."""
        with self.service() as service:
            exporter = self.sender()
            for n in range(5):
                wrong = bytearray(message(template(), data(1), sequence=n))
                wrong[4:8] = struct.pack("!I", int(time.time()) - 3600)
                exporter.send(wrong)
                service.wait_for("json1", "rows_written", n + 1)
        self.assertEqual(1, service.output().count("s behind"))
