"""Rows in each form through a broker of Kafka: the sums of what comes out are those of what went in."""

import json

from twisted.trial.unittest import SynchronousTestCase

from tests.certificates import CA
from tests.kafka import Broker, TlsProxy, require
from tests.live.service import Service, temporary
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


class TlsTests(SynchronousTestCase):
    """TLS to the brokers."""

    def setUp(self):
        require()

    def test_certificates(self):
        """Rows go to a broker whose certificate a CA of ours has signed; else they wait, and the log says why."""
        ca, other = CA(temporary("ca")), CA(temporary("other"))
        certificate, key = ca.issue("server", "localhost", use="server")
        own, own_key = ca.issue("client", use="client", common_name="us")
        with TlsProxy(certificate, key, ca.file) as proxy, Broker(proxy.address) as broker:
            proxy.broker = broker
            port = free_port()
            sections = SENDER.replace("{port}", str(port))
            for name, authority in (("good", ca), ("bad", other)):
                sections += (
                    f'[{name}]\nbrokers="{proxy.address}"\ntopic="{name}"\ncreate=1\nflush=0.1\ntimeout=5\ntls=1\n'
                    f'ssl_ca="{authority.file}"\nssl_cert="{own}"\nssl_key="{own_key}"\n'
                )
            with Service(["col1:COLLECTOR,good:KAFKA", "col1:COLLECTOR,bad:KAFKA"], sections) as service:
                exporter = Numbered(port)
                exporter.socket.send(exporter.one())
                exporter.socket.close()
                service.wait_for("good", "rows_written", 10, MOST_S)
                try:
                    wait_until(lambda: "certificate verify failed" in service.output(), MOST_S, "the log says why")
                except AssertionError as failure:
                    raise AssertionError(f"{failure}: {service.output()[-2000:]}") from None
                self.assertEqual(0, service.counters("bad")["rows_written"])
