"""Rows in each form through a broker of Kafka: the sums of what comes out are those of what went in."""

import json

from twisted.trial.unittest import SynchronousTestCase

from tests.kafka import Broker, require
from tests.live.service import Service
from tests.live.test_parquet import Numbered
from tests.support import free_port, wait_until

MOST_S = 90.0
SENDER = """
[col1]
listen="udp:127.0.0.1:{port}"
"""
OUTPUT = """
[{form}]
brokers="{broker}"
topic="{form}"
format="{form}"
key="exporter"
message_rows=7
create=1
partitions=2
flush=0.1
"""
INPUT = """
[in_{form}]
brokers="{broker}"
topic="{form}"
format="{form}"
commit_interval=0.2
properties="session.timeout.ms=6000 heartbeat.interval.ms=500"
[json_{form}]
file="{dir}/{form}.json"
"""
FORMS = ("json", "arrow", "protobuf")


class RowsTests(SynchronousTestCase):
    """Outputs and inputs of each form, in two services."""

    def setUp(self):
        require("pyarrow")

    def test_each_form(self):
        """Each row comes out once, and offsets are committed when it is written."""
        with Broker() as broker:
            port = free_port()
            texts = [SENDER.replace("{port}", str(port)), *(OUTPUT.replace("{form}", form) for form in FORMS)]
            stacks = [f"col1:COLLECTOR,{form}:KAFKA" for form in FORMS]
            with Service(stacks, "".join(texts).replace("{broker}", broker.address)) as sender:
                exporter = Numbered(port)
                for _ in range(30):
                    exporter.socket.send(exporter.one())
                    exporter.messages += 1
                exporter.socket.close()
                for form in FORMS:
                    sender.wait_for(form, "rows_written", exporter.sent, MOST_S)
            text = "".join(INPUT.replace("{form}", form) for form in FORMS).replace("{broker}", broker.address)
            with Service([f"in_{form}:KAFKA,json_{form}:JSON" for form in FORMS], text) as reader:
                for form in FORMS:
                    wait_until(lambda form=form: len(self.rows(reader, form)) >= exporter.sent, MOST_S, form)
                    reader.wait_for(f"in_{form}", "commits", 1, MOST_S)
            for form in FORMS:
                self.assertEqual(list(range(exporter.sent)), sorted(self.rows(reader, form)), form)

    @staticmethod
    def rows(service, form):
        """The numbers of the rows that came out."""
        path = service.directory / f"{form}.json"
        return [json.loads(line)["octetDeltaCount"] for line in path.open()] if path.exists() else []
