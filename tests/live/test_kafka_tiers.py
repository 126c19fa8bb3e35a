"""Receivers, Kafka, decoders: messages as they came through a broker, consumers killed and joined meanwhile."""

import json
import socket
import time

from twisted.trial.unittest import SynchronousTestCase

from tests.kafka import Broker, require
from tests.live.service import Service
from tests.live.test_parquet import FIELDS, ROWS, Numbered
from tests.support import free_port, wait_until
from tests.unit.ipfix.wire import a_set, message

MOST_S = 90.0
RECEIVER = """
[col1]
listen="udp:127.0.0.1:{port}"
decode=0
[kafka1]
brokers="{broker}"
topic="raw"
format="messages"
create=1
partitions=2
flush=0.1
"""
DECODER = """
[in1]
brokers="{broker}"
topic="raw"
group="g"
commit_interval=0.2
properties="session.timeout.ms=6000 heartbeat.interval.ms=500"
[json1]
file="{dir}/rows.json"
"""


class Once(Numbered):
    """Sends its template in the first message only, from an address of its own; its numbers begin at `first`."""

    def __init__(self, port, address, first):
        super().__init__(port)
        self.socket.close()
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((address, 0))
        self.socket.connect(("127.0.0.1", port))
        self.first = self.messages = first

    @property
    def numbers(self):
        return set(range(self.first * ROWS, self.messages * ROWS))

    def one(self):
        whole = super().one()
        if self.messages == self.first:
            return whole
        return message(whole[16 + len(a_set(2, FIELDS)) :], number=self.messages * ROWS, export_time=int(time.time()))


class TiersTests(SynchronousTestCase):
    """The input KAFKA behind the output KAFKA."""

    def setUp(self):
        require()

    def receiver(self, broker):
        self.port = free_port()
        config = RECEIVER.replace("{port}", str(self.port)).replace("{broker}", broker.address)
        return Service(["col1:COLLECTOR,kafka1:KAFKA"], config)

    def decoder(self, broker):
        return Service(["in1:KAFKA,json1:JSON"], DECODER.replace("{broker}", broker.address))

    @staticmethod
    def numbers(*services):
        """The numbers in the rows of these decoders; a line that a kill has cut is left out."""
        found = []
        for service in services:
            path = service.directory / "rows.json"
            for line in path.read_text().splitlines() if path.exists() else ():
                if line.startswith("{") and line.endswith("}"):
                    found.append(json.loads(line)["octetDeltaCount"])
        return found

    def wait(self, sent, *services):
        """Wait until each of these rows is there."""
        try:
            wait_until(lambda: sent <= set(self.numbers(*services)), MOST_S, "each row is there")
        except AssertionError as failure:
            missing = sorted(sent - set(self.numbers(*services)))
            told = [service.output()[-3000:] for service in services]
            raise AssertionError(f"{failure}: {len(missing)} missing, {missing[:5]}\n{told}") from None

    def test_decoded_as_by_a_collector(self):
        """Each record sent to the receiver is a row of the decoder, once, also after a stop in order and a start."""
        with Broker() as broker, self.receiver(broker) as receiver:
            exporter = Once(self.port, "127.0.0.1", 0)
            for _ in range(50):
                exporter.socket.send(exporter.one())
                exporter.messages += 1
            receiver.wait_for("kafka1", "rows_written", 50, MOST_S)
            with self.decoder(broker) as decoder:
                self.wait(set(range(exporter.sent)), decoder)
                decoder.wait_for("in1", "commits", 1, MOST_S)
                exporter.socket.send(exporter.one())
                exporter.messages += 1
                self.wait({exporter.sent - 1}, decoder)
            with decoder:
                exporter.socket.send(exporter.one())
                exporter.messages += 1
                self.wait({exporter.sent - 1}, decoder)
            self.assertEqual(list(range(exporter.sent)), sorted(self.numbers(decoder)))
            self.assertEqual(0, sum(decoder.counters("in1")["lost"].values()))

    def test_killed_and_joined(self):
        """A decoder killed with -9 and started again, and a second one that joins and leaves: each record is there.

        Exporters send their templates once, so each owner of a partition knows them from the one before.
        """
        with Broker() as broker, self.receiver(broker), self.decoder(broker) as first:
            exporters = [Once(self.port, "127.0.0.1", 0), Once(self.port, "127.0.0.2", 10**6)]
            for exporter in exporters:
                exporter.start()
            first.wait_for("in1", "commits", 2, MOST_S)
            first.kill()
            (first.directory / "stats.json").unlink()
            first.start()
            first.wait_for("in1", "commits", 2, MOST_S)
            second = self.decoder(broker)
            with second:
                second.wait_for("in1", "rebalances", 1, MOST_S)
                first.wait_for("in1", "rebalances", 2, MOST_S)
                before = self.received(first, second)
                wait_until(lambda: self.received(first, second) > before + 1000, MOST_S, "rows after the rebalance")
            for exporter in exporters:
                exporter.end()
            self.wait(exporters[0].numbers | exporters[1].numbers, first, second)
            for one in (first, second):
                self.assertEqual({}, {k: v for k, v in one.counters("in1")["dropped"].items() if v})
                self.assertEqual(0, one.counters("in1")["errors"].get("no_template", 0))

    @staticmethod
    def received(*services):
        """Rows that they have decoded."""
        return sum(one.counters("in1")["rows_received"] for one in services)
