"""Rows to a broker of Kafka and back: Tansu, killed and away, consumers killed and joined."""

import json

from twisted.trial.unittest import SynchronousTestCase

from tests.kafka import Broker, require
from tests.live.service import Service, temporary, unaccounted
from tests.live.test_parquet import Numbered
from tests.support import free_port, wait_until

MOST_S = 90.0
"""Seconds that anything may take on a busy machine."""
COLLECTOR = """
[col1]
listen="udp:127.0.0.1:{port}"
"""
KAFKA = """
[kafka1]
brokers="{broker}"
topic="flows"
create=1
flush=0.2
timeout=5
"""


def numbers(messages):
    """The numbers of all rows in messages of JSON."""
    return [json.loads(line)["octetDeltaCount"] for one in messages for line in one.value().splitlines()]


class OutputTests(SynchronousTestCase):
    """The output KAFKA."""

    def setUp(self):
        require()

    def service(self, broker, more="", settings=""):
        self.port = free_port()
        config = (COLLECTOR + KAFKA + more).replace("{port}", str(self.port)).replace("{broker}", broker.address)
        return Service(["col1:COLLECTOR,kafka1:KAFKA"], config, settings=settings)

    def send(self, service, messages):
        """Send so many messages of numbered rows, slowly; how many rows there were."""
        exporter = Numbered(self.port)
        for _ in range(messages):
            exporter.socket.send(exporter.one())
            exporter.messages += 1
            wait_until(lambda: service.all_counters(), MOST_S, "counters")
        exporter.socket.close()
        return exporter.sent

    def test_each_row_once(self):
        """Each row is an object in a message of its own, in the partition of its key, and nothing is lost."""
        with Broker() as broker, self.service(broker, 'key="5tuple"\n') as service:
            sent = self.send(service, 50)
            service.wait_for("kafka1", "rows_written", sent, MOST_S)
            messages = broker.messages("flows", lambda found: len(found) >= sent)
            self.assertEqual(list(range(sent)), sorted(numbers(messages)))
            self.assertEqual({1}, {len(one.value().splitlines()) for one in messages})
            partitions = {}
            for one in messages:
                partitions.setdefault(one.key(), set()).add(one.partition())
            self.assertEqual({1}, set(map(len, partitions.values())))
            self.assertLess(1, len({one.partition() for one in messages}))
            service.wait_for("kafka1", "messages_sent", sent, MOST_S)
            self.assertEqual({}, unaccounted(service.all_counters()))

    def test_broker_killed(self):
        """While the broker is away rows wait and the state says why; when it is back they come, none is missing."""
        with Broker() as broker, self.service(broker) as service:
            exporter = Numbered(self.port)
            exporter.start()
            service.wait_for("kafka1", "rows_written", 500, MOST_S)
            before = broker.messages("flows", lambda found: len(found) >= 500)
            exporter.end()
            sent = exporter.sent
            service.wait_for("kafka1", "rows_written", sent, MOST_S)
            before = broker.messages("flows", lambda found: len(found) >= sent)
            broker.kill()
            more = Numbered(self.port)
            more.messages = exporter.messages
            more.start()
            wait_until(lambda: "rows wait" in service.output(), MOST_S, "the log says that rows wait")
            more.end()
            broker.start()
            service.wait_for("kafka1", "rows_written", more.sent, MOST_S)
            after = broker.messages("flows", lambda found: len(found) >= more.sent - sent)
            self.assertEqual(set(range(more.sent)), set(numbers(before)) | set(numbers(after)))
            self.assertEqual(more.sent - sent, len(set(numbers(after))))
            self.assertEqual({}, service.counters("kafka1")["dropped"])
            self.assertEqual({}, unaccounted(service.all_counters()))

    def test_spool(self):
        """Rows that no broker took at the stop are in the spool; the next start sends them."""
        with Broker() as broker:
            service = self.service(broker, f'spool="{temporary("spool")}"\n')
            with service:
                sent = self.send(service, 10)
                service.wait_for("kafka1", "rows_written", sent, MOST_S)
                broker.kill()
                more = self.send(service, 20)
                service.wait_for("kafka1", "rows_waiting", more, MOST_S)
            self.assertEqual(more, service.counters("kafka1")["rows_spooled"])
            broker.start()
            with service:
                service.wait_for("kafka1", "rows_written", more, MOST_S)
                messages = broker.messages("flows", lambda found: len(found) >= more)
            self.assertEqual(list(range(more)), sorted(set(numbers(messages))))
