"""IPFIX over TLS: our exporter and collector, and the `openssl` command in the place of either."""

import json
import os
import signal
import socket
import ssl
import subprocess
from collections import Counter

import numpy as np
from twisted.internet import defer, reactor, task, threads

from tests.certificates import CA, DAY
from tests.live.service import Service, temporary
from tests.live.test_collector import data, message, template
from tests.live.test_ipfix_export import ExportCase
from tests.support import Daemon, free_port, require_program, wait_until
from tests.unit.exporting.doubles import Reader, flows
from tests.unit.test_documents import HOWTO, block
from ulogd_tw.transports.tls.credentials import Credentials, Files

CONFIG = """
[col1]
listen="tls:{port}"
ca="{ca}"
cert="{cert}"
private_key="{key}"
{more}
[json1]
file="{dir}/flows.json"
sync=1
"""


class TlsCase(ExportCase):
    """A CA, a collector and an exporter."""

    def setUp(self):
        self.ca = CA(temporary("tls"))
        self.collector = self.ca.issue("collector", "localhost", "127.0.0.1", "::1")
        self.exporter = self.ca.issue("exporter", "exporter.example")
        self.port = free_port()

    def service(self, more="", **changed):
        """Our collector."""
        words = {"port": self.port, "ca": self.ca.file, "cert": self.collector[0], "key": self.collector[1]} | changed
        config = CONFIG.replace("{more}", more)
        for name, value in words.items():
            config = config.replace(f"{{{name}}}", str(value))
        return Service(["col1:COLLECTOR,json1:JSON"], config)

    def export(self, url, n, **options):
        """Our exporter, with n flows: 2 n records."""
        batch = flows(n, ct__id=np.arange(n), orig__l4__sport=1, reply__l4__dport=1)
        cert, key = self.exporter
        files = {"ca": self.ca.file, "cert": cert, "private_key": key}
        plugin = self.start(batch, **{"collectors": (url,), "reconnect": 0.3, "flush": 0.05} | files | options)
        for begin in range(0, n, 500):
            plugin.write(batch.take(slice(begin, begin + 500)))
        return plugin

    def rows(self, service):
        """What it has written; the last line may be half there."""
        path = service.directory / "flows.json"
        lines = path.read_text().split("\n")[:-1] if path.exists() else []
        return list(map(json.loads, lines))

    def client(self, *words, octets=b"", pair=None):
        """`openssl s_client` sends octets to the collector: its status and what it prints."""
        (openssl,) = require_program("openssl")
        cert, key = pair or self.exporter
        argv = [openssl, "s_client", "-connect", f"127.0.0.1:{self.port}", "-CAfile", self.ca.file, "-no_ign_eof",
                *(("-cert", cert, "-cert_chain", cert, "-key", key) if pair != () else ()), *words]  # fmt: skip
        done = subprocess.run(argv, input=octets, capture_output=True, timeout=20, check=False)
        return done.returncode, (done.stdout + done.stderr).decode(errors="replace")


class OursTests(TlsCase):
    """Our exporter and our collector."""

    @defer.inlineCallbacks
    def check(self, url):
        with self.service(more='peers="other.example exporter.example"') as service:
            plugin = self.export(url, 5000)
            yield self.until(lambda: len(self.rows(service)) >= 10_000, 20)
            yield self.stop(plugin)
            seen = Counter((row["flowId"], row["flowDirection"]) for row in self.rows(service))
            self.assertEqual((10_000, {1}), (len(seen), set(seen.values())))
            figures = self.figures(plugin)
            self.assertEqual((10_000, 0, {}, {}), tuple(
                figures[name] for name in ("records_sent", "records_resent", "dropped", "errors")))  # fmt: skip
        counters = service.counters("col1")
        self.assertEqual(({}, {}), (counters["errors"], counters["lost"]))
        self.assertIn("has disconnected: closed by the peer", service.output())
        self.assertNotIn("close_notify", service.output())

    def test_ipv4(self):
        """10,000 records over IPv4, known by its address, arrive once."""
        return self.check(f"tls:127.0.0.1:{self.port}")

    def test_ipv6(self):
        """10,000 records over IPv6, known by its address, arrive once."""
        return self.check(f"tls:[::1]:{self.port}")

    def test_name(self):
        """TLS-3: 10,000 records to a host, known by its name, arrive once."""
        return self.check(f"tls:localhost:{self.port}")

    @defer.inlineCallbacks
    def test_collector_goes_away(self):
        """A collector that is stopped and started again gets every record once."""
        service = self.service()
        with service:
            plugin = self.export(f"tls:localhost:{self.port}", 1000)
            yield self.until(lambda: len(self.rows(service)) >= 2000)
            yield threads.deferToThread(service.stop)
            plugin.write(flows(1000, ct__id=5000 + np.arange(1000), orig__l4__sport=1, reply__l4__dport=1))
            yield task.deferLater(reactor, 0.3, lambda: None)
            yield threads.deferToThread(service.start)
            yield self.until(lambda: len(self.rows(service)) >= 4000, 20)
            yield self.stop(plugin)
        seen = Counter((row["flowId"], row["flowDirection"]) for row in self.rows(service))
        self.assertEqual((4000, {1}), (len(seen), set(seen.values())))


class CollectorTests(TlsCase):
    """Our collector and `openssl s_client`."""

    def test_openssl(self):
        """TLS-1: what openssl sends by TLS 1.2 and 1.3 arrives."""
        with self.service() as service:
            for number, version in enumerate(("-tls1_2", "-tls1_3"), 1):
                octets = message(template(), domain=number) + message(data(50), domain=number)
                status, text = self.client(version, "-verify_return_error", octets=octets)
                self.assertEqual(0, status, text)
                service.wait_for("col1", "rows_received", 50 * number)
        self.assertEqual({}, service.counters("col1")["errors"])

    def good(self):
        """A good exporter's connection, by Python's ssl."""
        context = ssl.create_default_context(cafile=self.ca.file)
        context.load_cert_chain(*self.exporter)
        plain = socket.create_connection(("127.0.0.1", self.port))
        found = context.wrap_socket(plain, server_hostname="localhost")
        self.addCleanup(found.close)
        found.sendall(message(template(), domain=9))
        return found

    def test_refused(self):
        """TLS-2, TLS-6: every bad peer is refused with its reason; a good exporter beside them loses nothing."""
        other = CA(temporary("tls"), "other")
        late = self.ca.issue("late", "exporter.example", ends=-DAY / 2)
        stranger = self.ca.issue("stranger", "stranger.example")
        server = self.ca.issue("server", "exporter.example", use="server")
        octets = message(template(), data(3), domain=66)
        with self.service(more='peers="exporter.example"\nhandshake_timeout=1') as service:
            good, sent = self.good(), 0
            expected = Counter()
            for reason, text, words, pair in (
                ("tls_no_certificate", "it has shown no certificate", ("-tls1_2",), ()),
                ("tls_no_certificate", "it has shown no certificate", ("-tls1_3",), ()),
                ("tls_expired", "its certificate has expired (2", ("-tls1_3",), late),
                ("tls_expired", "its certificate has expired (2", ("-tls1_2",), late),
                ("tls_name", "is for stranger.example, not for exporter.example", (), stranger),
                ("tls_unknown_ca", "signed by an unknown CA", (), other.issue("x", "exporter.example")),
                ("tls_certificate", "it is not for this use", (), server),
                ("tls_version", "older version than TLS 1.2", ("-tls1_1", "-cipher", "ALL:@SECLEVEL=0"), None),
                ("tls_cipher", "no cipher suite that we take", ("-tls1_2", "-cipher", "AES128-SHA"), None),
            ):
                self.client(*words, octets=octets, pair=pair)
                expected[reason] += 1
                wait_until(lambda want=expected: self.counted(service) == want, what=str(expected))
                self.assertIn(text, service.output())
                good.sendall(message(data(2), sequence=sent, domain=9))
                sent += 2
            for first, reason in ((octets, "tls_plain"), (b"GET / HTTP/1.0\r\n\r\n", "tls_garbage"),
                                  (b"", "tls_timeout")):  # fmt: skip
                with socket.create_connection(("127.0.0.1", self.port)) as peer:
                    peer.sendall(first)
                    expected[reason] += 1
                    wait_until(lambda want=expected: self.counted(service) == want, what=str(expected))
                good.sendall(message(data(2), sequence=sent, domain=9))
                sent += 2
            service.wait_for("col1", "rows_received", sent)
        rows = self.rows(service)
        self.assertEqual((sent, {9}), (len(rows), {row["observationDomainId"] for row in rows}))
        self.assertNotIn("Traceback", service.output())
        self.assertRegex(service.output(), r"TLS: 127\.0\.0\.1 port \d+ is refused: it speaks IPFIX without TLS")

    def counted(self, service):
        return Counter(service.all_counters().get("col1", {}).get("errors", {}))

    def test_many_unfinished(self):
        """Connections that never begin a handshake are bounded; a good exporter gets through beside them."""
        with self.service(more="max_handshakes=20") as service:
            idle = [socket.create_connection(("127.0.0.1", self.port)) for _ in range(100)]
            try:
                good = self.good()
                good.sendall(message(data(5), domain=9))
                service.wait_for("col1", "rows_received", 5)
                self.assertGreaterEqual(self.counted(service)["tls_limit"], 80)
                self.assertLessEqual(service.counters("col1")["handshakes"], 20)
            finally:
                for peer in idle:
                    peer.close()

    def test_without_certificates(self):
        """verify=0 takes exporters without a certificate, and the log warns."""
        with self.service(more="verify=0", ca="") as service:
            self.client(octets=message(template(), data(7)), pair=())
            service.wait_for("col1", "rows_received", 7)
            self.assertIn("verify=0: exporters need no certificate, anybody can send flows", service.output())

    def test_reload(self):
        """Certificates that are replaced count at once, and by SIGHUP; a broken one is told and changes nothing."""

        def shown():
            return ssl.get_server_certificate(("127.0.0.1", self.port), timeout=5)

        with self.service(more="verify=0") as service:
            found = [shown()]
            self.ca.issue("collector", "localhost")
            found.append(shown())
            self.ca._write("collector.pem", b"broken")
            os.kill(service.pid, signal.SIGHUP)
            wait_until(lambda: "the previous certificates stay in use" in service.output(), what="a line")
            found.append(shown())
            self.ca.issue("collector", "localhost")
            os.kill(service.pid, signal.SIGHUP)
            found.append(shown())
        self.assertEqual(found[1], found[2])
        self.assertEqual(3, len(set(found)))
        self.assertIn("no certificate in PEM form", service.output())


class Server:
    """`openssl s_server` in the place of a collector: `reader` has what it received."""

    kind, words = "tcp", ("-naccept", "50")

    def __init__(self, port, pair, ca, *words):
        (openssl,) = require_program("openssl")
        self.output = temporary("s_server") / "octets"
        argv = [openssl, "s_server", "-accept", port, "-cert", pair[0], "-key", pair[1], "-CAfile", ca, "-quiet",
                "-Verify", "3", "-verify_return_error", *self.words, *words]  # fmt: skip
        # What it receives goes to its standard output; at the end of its standard input it would stop.
        self.read, self.write = os.pipe()
        script = f'exec "$@" >{self.output} 2>/dev/null </dev/fd/{self.read}'
        ready = lambda _: taken(port, self.kind)  # noqa: E731
        self.daemon = Daemon(["sh", "-c", script, "sh", *argv], ready, pass_fds=(self.read,))

    @property
    def reader(self):
        reader = Reader()
        reader.stream(self.output.read_bytes() if self.output.exists() else b"")
        return reader

    def __enter__(self):
        self.daemon.start()
        return self

    def __exit__(self, *_):
        self.daemon.stop(signal.SIGKILL)
        os.close(self.read)
        os.close(self.write)


def taken(port, kind="tcp"):
    """Whether some process has this port, of tcp or udp; asks the kernel, as a connection would be a peer to it."""
    words = ["ss", "-Hln", f"--{kind}", f"sport = :{port}"]
    return bool(subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip())


class ExporterTests(TlsCase):
    """Our exporter and `openssl s_server`."""

    @defer.inlineCallbacks
    def check(self, *words, records=2000, **options):
        with Server(self.port, self.collector, self.ca.file, *words) as server:
            plugin = self.export(f"tls:localhost:{self.port}", records // 2, **options)
            yield self.until(lambda: len(server.reader.records) >= records, 15)
            figures = self.figures(plugin)
            yield self.stop(plugin)
        self.assertEqual((records, [], 0), (len(server.reader.records), server.reader.gaps, server.reader.unreadable))
        defer.returnValue(figures)

    @defer.inlineCallbacks
    def test_versions(self):
        """TLS-1: it speaks TLS 1.2 and 1.3."""
        for word, version in (("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")):
            figures = yield self.check(word)
            self.assertTrue(figures["tls"].startswith(version))

    @defer.inlineCallbacks
    def test_no_ticket(self):
        """A server of TLS 1.3 that sends no ticket gets its records after tls_settle."""
        figures = yield self.check("-tls1_3", "-num_tickets", "0", tls_settle=0.5)
        self.assertEqual({}, figures["errors"])

    @defer.inlineCallbacks
    def test_old_version(self):
        """TLS-1: a server that knows only TLS 1.1 gets nothing."""
        with Server(self.port, self.collector, self.ca.file, "-tls1_1", "-cipher", "ALL:@SECLEVEL=0") as server:
            plugin = self.export(f"tls:localhost:{self.port}", 100)
            yield self.until(lambda: self.figures(plugin)["errors"])
            self.assertEqual(["tls_version"], list(self.figures(plugin)["errors"]))
            self.assertEqual([], server.reader.records)

    @defer.inlineCallbacks
    def test_rejected(self):
        """A server of TLS 1.3 that rejects our certificate loses us nothing: one that takes it gets every record."""
        other = CA(temporary("tls"), "other")
        with Server(self.port, self.collector, other.file, "-tls1_3") as server:
            plugin = self.export(f"tls:localhost:{self.port}", 1000)
            yield self.until(lambda: self.figures(plugin)["errors"].get("tls_refused", 0) >= 2)
            figures = self.figures(plugin)
            self.assertEqual((0, 2000, {}), tuple(
                figures[name] for name in ("records_sent", "records_waiting", "dropped")))  # fmt: skip
            self.assertIn("it refuses our certificate (unknown_ca)", figures["last_error"])
            self.assertEqual([], server.reader.records)
        with Server(self.port, self.collector, self.ca.file, "-tls1_3") as server:
            yield self.until(lambda: len(server.reader.records) >= 2000, 15)
            yield self.stop(plugin)
            self.assertEqual((2000, []), (len(server.reader.records), server.reader.gaps))

    @defer.inlineCallbacks
    def test_wrong_collector(self):
        """TLS-2, TLS-3: a collector of another name, of another CA or that has expired gets nothing."""
        other = CA(temporary("tls"), "other").issue("x", "localhost")
        named = self.ca.issue("named", "other.example", common_name="localhost")
        late = self.ca.issue("late", "localhost", ends=-DAY / 2)
        for pair, reason in ((named, "tls_name"), (other, "tls_unknown_ca"), (late, "tls_expired")):
            with Server(self.port, pair, self.ca.file) as server:
                plugin = self.export(f"tls:localhost:{self.port}", 100)
                yield self.until(lambda plugin=plugin: self.figures(plugin)["errors"])
                self.assertEqual([reason], list(self.figures(plugin)["errors"]))
                self.assertEqual([], server.reader.records)
                self.waking.stop()
                plugin.collectors[0]._queue.clear()
                yield plugin.stop()
                self.stopped = defer.succeed(None)

    @defer.inlineCallbacks
    def test_plain_collector(self):
        """A collector that listens without TLS gets no record in plain."""
        factory = self.listen()
        heard = []
        self.patch(Reader, "stream", lambda reader, octets: heard.append(octets))
        plugin = self.export(f"tls:127.0.0.1:{factory.port.getHost().port}", 100)
        yield self.until(lambda: heard)
        self.assertEqual(b"\x16\x03", b"".join(heard)[:2])
        self.assertEqual("connecting", self.figures(plugin)["state"])
        yield self.stop(plugin)


class HowtoTests(TlsCase):
    """The commands of the how-to."""

    def test_certificates(self):
        """They make certificates with which a collector and a router accept each other, and keys that we take."""
        require_program("openssl")
        directory = temporary("howto")
        commands = block(HOWTO, "sh", "openssl req -x509")
        subprocess.run(["sh", "-e", "-c", commands], cwd=directory, check=True, capture_output=True, timeout=30)
        files = {}
        for host in ("collector.example", "router.example"):
            files[host] = Files(*(str(directory / name) for name in ("ca.pem", f"{host}.pem", f"{host}.key")))
            self.assertEqual([], list(files[host].mistakes()))
        client = Credentials(files["router.example"], False, ("collector.example",))
        server = Credentials(files["collector.example"], True, ("router.example",))
        client.open()
        server.open()
        ends = client.layer(), server.layer()
        for _ in range(4):
            for one, other in (ends, ends[::-1]):
                one.feed(b"")
                other.feed(one.outgoing())
        self.assertEqual([True, True, None, None], [end.accepted for end in ends] + [end.fault for end in ends])
