"""IPFIX over DTLS: our exporter and collector, and the `openssl` command in the place of either."""

import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from functools import partial

import numpy as np
from twisted.internet import defer, reactor, task, threads

from tests.certificates import CA, DAY
from tests.live.service import sleep, temporary
from tests.live.test_collector import data, message, template
from tests.live.test_tls import Server, TlsCase, taken
from tests.support import NetworkNamespaces, free_port, require_program, wait_until
from tests.unit.exporting.doubles import flows
from ulogd_tw.transports.dtls import layer, sender
from ulogd_tw.transports.tls.credentials import Credentials, Files


class DtlsCase(TlsCase):
    """A collector that listens for DTLS, and exporters."""

    def setUp(self):
        super().setUp()
        self.port = free_port("udp")

    def service(self, more="", namespace=None, **changed):
        found = super().service(more, **changed)
        if namespace is not None:
            found.daemon.argv = namespace(found.daemon.argv)
        text = found.config.read_text().replace("tls:", "dtls:")
        found.config.write_text(text)
        return found

    def export(self, url, n, **options):
        return super().export(url, n, **{"template_refresh": 0.5} | options)

    def more(self, plugin, first, n):
        """Further flows."""
        for begin in range(0, n, 500):
            ids = first + begin + np.arange(min(500, n - begin))
            plugin.write(flows(len(ids), ct__id=ids, orig__l4__sport=1, reply__l4__dport=1))

    def seen(self, service):
        return Counter((row["flowId"], row["flowDirection"]) for row in self.rows(service))

    def counted(self, service):
        return Counter(service.all_counters().get("col1", {}).get("errors", {}))

    def pause(self, seconds):
        return task.deferLater(reactor, seconds, lambda: None)


class OursTests(DtlsCase):
    """Our exporter and our collector."""

    @defer.inlineCallbacks
    def check(self, url, **options):
        with self.service(more='peers="other.example exporter.example"') as service:
            plugin = self.export(url, 5000, **options)
            yield self.until(lambda: len(self.rows(service)) >= 10_000, 20)
            self.assertEqual("connected", self.figures(plugin)["state"])
            self.assertTrue(self.figures(plugin)["tls"].startswith("DTLSv1.2 ECDHE"))
            yield threads.deferToThread(service.wait_for, "col1", "associations", 1)
            yield self.stop(plugin)
            yield self.until(lambda: service.counters("col1")["associations"] == 0)
            seen = self.seen(service)
            self.assertEqual((10_000, {1}), (len(seen), set(seen.values())))
            figures = self.figures(plugin)
            self.assertEqual((10_000, {}, {}), tuple(figures[name] for name in ("records_sent", "dropped", "errors")))
        counters = service.counters("col1")
        self.assertEqual(({}, {}, 0), (counters["errors"], counters["lost"], counters["handshakes"]))
        self.assertIn("has disconnected: closed by the peer", service.output())

    def test_ipv4(self):
        """10,000 records over IPv4, known by its address, arrive once."""
        return self.check(f"dtls:127.0.0.1:{self.port}")

    def test_ipv6(self):
        """10,000 records over IPv6, known by its address, arrive once."""
        return self.check(f"dtls:[::1]:{self.port}")

    def test_name(self):
        """TLS-3: 10,000 records to a host, known by its name, arrive once."""
        return self.check(f"dtls:localhost:{self.port}")

    def test_other_address(self):
        """A collector answers from the address that was asked for, where it listens on all of them."""
        return self.check(f"dtls:127.0.0.9:{self.port}", peer_name="localhost")


class Client:
    """`openssl s_client` in the place of an exporter; each `send` is a datagram."""

    def __init__(self, case, *words, pair=None, host="127.0.0.1", argv=list, wait=True):
        (openssl,) = require_program("openssl")
        cert, key = pair or case.exporter
        self.output = temporary("s_client") / "output"
        command = [openssl, "s_client", "-dtls1_2", "-connect", f"{host}:{case.port}", "-CAfile", case.ca.file,
                   "-cert", cert, "-key", key, *words]  # fmt: skip
        with open(self.output, "wb") as output:
            self.process = subprocess.Popen(
                argv(command), stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT
            )
        case.addCleanup(self.kill)
        if wait:
            self.wait()

    def wait(self):
        """Until the handshake has ended."""
        wait_until(lambda: b"Verify return code: 0" in self.output.read_bytes(), what="a handshake")

    def send(self, octets):
        self.process.stdin.write(octets)
        self.process.stdin.flush()

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stdin.close()

    def close(self):
        """Leave in order."""
        self.process.stdin.close()
        self.process.wait(10)


class CollectorTests(DtlsCase):
    """Our collector and `openssl s_client`."""

    def test_openssl(self):
        """TLS-1: what openssl sends by DTLS 1.2 arrives, and its end is an end."""
        with self.service() as service:
            client = Client(self, "-no_ign_eof", "-verify_return_error")
            client.send(message(template()))
            service.wait_for("col1", "messages_received", 1)
            for number in range(20):
                client.send(message(data(50), sequence=50 * number))
                service.wait_for("col1", "rows_received", 50 * (number + 1))
            client.close()
            wait_until(lambda: service.counters("col1")["associations"] == 0, what="the end")
            self.assertIn("has disconnected: closed by the peer", service.output())
        counters = service.counters("col1")
        self.assertEqual(({}, {}), (counters["errors"], counters["lost"]))

    def test_stop(self):
        """A collector that stops tells its exporters."""
        with self.service():
            client = Client(self)
        client.process.wait(10)
        self.assertIn(b"closed", client.output.read_bytes().lower())

    def silent(self):
        """A peer that shows its cookie and says no more."""
        credentials = Credentials(Files(self.ca.file, *self.exporter), False, ("localhost",), datagrams=True)
        credentials.open()
        end = layer.client(credentials, 1200)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
            peer.connect(("127.0.0.1", self.port))
            peer.settimeout(5)
            for _ in range(2):
                end.take(b"")
                for datagram in end.datagrams():
                    peer.send(datagram)
                end.take(peer.recv(65535))

    def stray(self, octets):
        """A datagram of somebody without an association; the answer, if there is one."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
            peer.connect(("127.0.0.1", self.port))
            peer.send(octets)
            peer.settimeout(0.3)
            try:
                return peer.recv(65535)
            except TimeoutError:
                return b""

    def test_refused(self):
        """TLS-2, TLS-6: every bad peer is refused with its reason; a good exporter beside them loses nothing."""
        other = CA(temporary("tls"), "other")
        late = self.ca.issue("late", "exporter.example", ends=-DAY / 2)
        stranger = self.ca.issue("stranger", "stranger.example")
        server = self.ca.issue("server", "exporter.example", use="server")
        octets = message(template(), data(3), domain=66)
        record = b"\x17\xfe\xfd\0\1" + bytes(6) + b"\0\x40" + os.urandom(64)
        with self.service(more='peers="exporter.example"\nhandshake_timeout=1') as service:
            good, sent, expected = Client(self), 0, Counter()
            good.send(message(template(), domain=9))
            for reason, text, words, pair in (
                ("tls_no_certificate", "it has shown no certificate", ("-dtls1_2",), ()),
                ("tls_expired", "its certificate has expired (2", ("-dtls1_2",), late),
                ("tls_name", "is for stranger.example, not for exporter.example", ("-dtls1_2",), stranger),
                ("tls_unknown_ca", "signed by an unknown CA", ("-dtls1_2",), other.issue("x", "exporter.example")),
                ("tls_certificate", "it is not for this use", ("-dtls1_2",), server),
                ("tls_version", "older version than TLS 1.2", ("-dtls1", "-cipher", "ALL:@SECLEVEL=0"), None),
                ("tls_cipher", "no cipher suite that we take", ("-dtls1_2", "-cipher", "AES128-SHA"), None),
                ("tls_timeout", "its handshake did not end within 1 s", self.silent, None),
                ("tls_plain", "it is IPFIX without DTLS", octets, None),
                ("tls_garbage", "it is not DTLS", b"GET / HTTP/1.0\r\n\r\n", None),
                ("tls_garbage", "it is not DTLS", b"", None),
                ("dtls_unknown", "an association that is not known here", record, None),
            ):
                if isinstance(words, tuple):
                    self.client(*words, octets=octets, pair=pair)
                elif isinstance(words, bytes):
                    self.assertEqual(words is record, bool(self.stray(words)))
                else:
                    words()
                expected[reason] += 1
                wait_until(lambda want=expected: self.counted(service) == want, what=str(expected))
                self.assertIn(text, service.output())
                good.send(message(data(2), sequence=sent, domain=9))
                sent += 2
                service.wait_for("col1", "rows_received", sent)
            wait_until(lambda: service.counters("col1")["handshakes"] == 0, what="no handshake")
            self.assertEqual(1, service.counters("col1")["associations"])
        rows = self.rows(service)
        self.assertEqual((sent, {9}), (len(rows), {row["observationDomainId"] for row in rows}))
        self.assertEqual({}, service.counters("col1")["lost"])
        self.assertNotIn("Traceback", service.output())

    def test_same_port(self):
        """An exporter that is killed comes again from the same port: a new Transport Session, with new templates."""
        port = free_port("udp")
        with self.service() as service:
            for number in (1, 2):
                client = Client(self, "-bind", f"127.0.0.1:{port}")
                client.send(message(template(ident=255 + number)))
                service.wait_for("col1", "messages_received", 2 * number - 1)
                client.send(message(data(5, ident=255 + number)))
                service.wait_for("col1", "rows_received", 5 * number)
                self.assertEqual(1, service.counters("col1")["associations"])
                client.kill()
        counters = service.counters("col1")
        self.assertEqual(({}, {}), (counters["errors"], counters["lost"]))

    def test_reload(self):
        """Certificates that are replaced count for the next handshake, and by SIGHUP; associations live on."""
        with self.service() as service:
            good = Client(self)
            good.send(message(template()))
            service.wait_for("col1", "messages_received", 1)
            self.ca.issue("collector", "localhost")
            os.kill(service.pid, signal.SIGHUP)
            wait_until(lambda: "DTLS: certificates have been read again" in service.output(), what="a line")
            fresh = Client(self)
            good.send(message(data(5)))
            service.wait_for("col1", "rows_received", 5)
        shown = [client.output.read_bytes().partition(b"BEGIN CERTIFICATE")[2][:400] for client in (good, fresh)]
        self.assertTrue(all(shown))
        self.assertNotEqual(*shown)


class DtlsServer(Server):
    """`openssl s_server` in the place of a collector, of DTLS: `reader` has what it received."""

    kind, words = "udp", ("-dtls1_2", "-listen")


class ExporterTests(DtlsCase):
    """Our exporter and `openssl s_server`."""

    @defer.inlineCallbacks
    def test_openssl(self):
        """It sends to openssl's server, each message in a datagram of the path's size."""
        with DtlsServer(self.port, self.collector, self.ca.file) as server:
            plugin = self.export(f"dtls:localhost:{self.port}", 1000, mtu=1280, template_refresh=60.0)
            yield self.until(lambda: len(server.reader.records) >= 2000, 15)
            figures = self.figures(plugin)
            yield self.stop(plugin)
            reader = server.reader
        self.assertEqual((2000, [], 0), (len(reader.records), reader.gaps, reader.unreadable))
        longest = max(header["length"] for header in reader.headers)
        self.assertTrue(1100 < longest <= 1280 - 28 - 37 == figures["message_octets"], longest)
        self.assertEqual({}, figures["errors"])

    @defer.inlineCallbacks
    def test_wrong_collector(self):
        """TLS-2, TLS-3: a collector of another name, of another CA or that has expired gets nothing."""
        other = CA(temporary("tls"), "other").issue("x", "localhost")
        named = self.ca.issue("named", "other.example", common_name="localhost")
        late = self.ca.issue("late", "localhost", ends=-DAY / 2)
        for pair, reason in ((named, "tls_name"), (other, "tls_unknown_ca"), (late, "tls_expired")):
            with DtlsServer(self.port, pair, self.ca.file) as server:
                plugin = self.export(f"dtls:localhost:{self.port}", 100)
                yield self.until(lambda plugin=plugin: self.figures(plugin)["errors"])
                self.assertEqual([reason], list(self.figures(plugin)["errors"]))
                self.assertEqual((0, {}), (self.figures(plugin)["records_sent"], self.figures(plugin)["dropped"]))
                self.assertEqual([], server.reader.records)
                self.waking.stop()
                plugin.collectors[0]._queue.clear()
                yield plugin.stop()
                self.stopped = defer.succeed(None)

    @defer.inlineCallbacks
    def test_rejected(self):
        """A server that rejects our certificate loses us nothing: one that takes it gets every record."""
        other = CA(temporary("tls"), "other")
        with DtlsServer(self.port, self.collector, other.file):
            plugin = self.export(f"dtls:localhost:{self.port}", 1000)
            yield self.until(lambda: self.figures(plugin)["errors"].get("tls_refused", 0) >= 1)
            self.assertIn("it refuses our certificate (unknown_ca)", self.figures(plugin)["last_error"])
        with DtlsServer(self.port, self.collector, self.ca.file) as server:
            yield self.until(lambda: len(server.reader.records) >= 2000, 15)
            yield self.stop(plugin)
            self.assertEqual((2000, []), (len(server.reader.records), server.reader.gaps))


class RestartTests(DtlsCase):
    """Either end goes away and comes again: records flow without anybody's help."""

    @defer.inlineCallbacks
    def test_collector_stops(self):
        """A collector that stops in order costs no record: all wait until it is back, and come once."""
        service = self.service()
        with service:
            plugin = self.export(f"dtls:localhost:{self.port}", 1000, dtls_rehandshake=0)
            yield self.until(lambda: len(self.rows(service)) >= 2000)
            yield threads.deferToThread(service.stop)
            yield self.until(lambda: self.figures(plugin)["state"] != "connected")
            self.assertIn("closed by the peer", self.figures(plugin)["last_error"])
            self.more(plugin, 5000, 1000)
            yield self.pause(0.3)
            yield threads.deferToThread(service.start)
            yield self.until(lambda: len(self.rows(service)) >= 4000, 20)
            yield self.stop(plugin)
        seen = self.seen(service)
        self.assertEqual((4000, {1}), (len(seen), set(seen.values())))

    @defer.inlineCallbacks
    def test_collector_is_killed(self):
        """A collector that is killed is noticed by its closed port: what is exported then waits until it is back."""
        service = self.service()
        with service:
            plugin = self.export(f"dtls:localhost:{self.port}", 1000, dtls_rehandshake=0)
            yield self.until(lambda: len(self.rows(service)) >= 2000)
            yield threads.deferToThread(service.kill)
            yield self.until(lambda: self.figures(plugin)["state"] != "connected")  # templates told it
            self.assertIn("refused", self.figures(plugin)["last_error"])
            self.more(plugin, 5000, 1000)
            yield self.pause(0.3)
            yield threads.deferToThread(service.start)
            yield self.until(lambda: len(self.rows(service)) >= 4000, 20)
            yield self.stop(plugin)
        seen = self.seen(service)
        self.assertEqual((4000, {1}), (len(seen), set(seen.values())))

    @defer.inlineCallbacks
    def test_collector_forgets(self):
        """A collector that is back before anything was sent says that it knows no association: one datagram is lost."""
        service = self.service()
        with service:
            plugin = self.export(f"dtls:localhost:{self.port}", 1000, dtls_rehandshake=0, template_refresh=3600.0)
            yield self.until(lambda: len(self.rows(service)) >= 2000)
            yield threads.deferToThread(service.kill)
            yield threads.deferToThread(service.start)
            yield self.until(lambda: taken(self.port, "udp"))
            self.assertEqual("connected", self.figures(plugin)["state"])
            self.more(plugin, 5000, 1)
            yield self.until(lambda: self.figures(plugin)["connects"] == 2)
            self.more(plugin, 6000, 1000)
            yield self.until(lambda: len(self.rows(service)) >= 4000, 20)
            self.assertEqual({"dtls_unknown": 1}, self.figures(plugin)["errors"])
            # the datagram, and the end of the association that follows it
            yield self.until(lambda: self.counted(service) == {"dtls_unknown": 2})
            yield self.stop(plugin)
        seen = self.seen(service)
        self.assertEqual((4000, {1}), (len(seen), set(seen.values())))
        self.assertEqual({}, service.counters("col1")["lost"])

    @defer.inlineCallbacks
    def test_silent_collector(self):
        """TLS-5: a collector that is gone without a sign is noticed by a new handshake, and so is its return."""
        self.patch(sender, "HANDSHAKE_SECONDS", 1.0)
        service = self.service()
        with service:
            plugin = self.export(f"dtls:localhost:{self.port}", 1000, dtls_rehandshake=1.0)
            yield self.until(lambda: len(self.rows(service)) >= 2000)
            yield self.until(lambda: self.figures(plugin)["connects"] >= 3)  # new associations, and nothing is lost
            self.more(plugin, 5000, 1000)
            yield self.until(lambda: len(self.rows(service)) >= 4000)
            yield self.until(lambda: service.counters("col1")["associations"] == 1)
            self.assertEqual(({}, {}), (service.counters("col1")["errors"], service.counters("col1")["lost"]))
            yield threads.deferToThread(service.kill)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as hole:
                hole.bind(("127.0.0.1", self.port))
                yield self.until(lambda: self.figures(plugin)["state"] != "connected")
                self.assertIn("no new association in its place", self.figures(plugin)["last_error"])
                self.more(plugin, 7000, 1000)
                yield self.pause(0.3)
            yield threads.deferToThread(service.start)
            yield self.until(lambda: len(self.rows(service)) >= 6000, 20)
            yield self.stop(plugin)
        seen = self.seen(service)
        self.assertEqual((6000, {1}), (len(seen), set(seen.values())))

    @defer.inlineCallbacks
    def test_exporter_restarts(self):
        """An exporter that is stopped leaves no association; the next one sends at once."""
        with self.service() as service:
            for number in (1, 2):
                plugin = self.export(f"dtls:localhost:{self.port}", 500)
                yield self.until(lambda number=number: len(self.rows(service)) >= 1000 * number)
                yield self.stop(plugin)
            yield self.until(lambda: service.counters("col1")["associations"] == 0)


FLOOD = """
import os, random, socket, struct, sys, time
target, port, hello, count = sys.argv[1], int(sys.argv[2]), bytes.fromhex(sys.argv[3]), int(sys.argv[4])
chance = random.Random(1)
sender = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
udp = struct.Struct("!HHHH")
ip = struct.Struct("!BBHHHBBH4s4s")
to = socket.inet_aton(target)
for number in range(count):
    source = bytes([11, *chance.randbytes(3)])
    body = udp.pack(chance.randrange(1024, 65536), port, 8 + len(hello), 0) + hello
    sender.sendto(ip.pack(0x45, 0, 20 + len(body), 0, 0, 64, 17, 0, source, to) + body, (target, 0))
    if number % 100 == 0:
        time.sleep(0.002)
"""
"""100,000 datagrams of as many senders, in four seconds or so."""


class FloodTests(DtlsCase):
    """Forged senders."""

    timeout = 120

    def hello(self):
        """A ClientHello as a good exporter sends it."""
        credentials = Credentials(Files(self.ca.file, *self.exporter), False, ("localhost",), datagrams=True)
        credentials.open()
        end = layer.client(credentials, 1200)
        end.take(b"")
        return end.datagrams()[0]

    def standing(self, service):
        counters = service.counters("col1")
        return counters["handshakes"], counters["associations"]

    def megabytes(self, service):
        with open(f"/proc/{service.pid}/status") as file:
            return next(int(line.split()[1]) / 1024 for line in file if line.startswith("VmRSS"))

    def test_forged(self):
        """100,000 ClientHellos of forged senders leave no state; exporters send, and new ones come in, meanwhile."""
        with NetworkNamespaces() as spaces:
            in_a, in_b = (partial(spaces.argv, which) for which in "ab")
            spaces.run("b", ["ip", "route", "add", "11.0.0.0/8", "via", spaces.ipv4["a"]])
            for device in ("all", "veth0"):
                spaces.run("b", ["sh", "-c", f"echo 0 >/proc/sys/net/ipv4/conf/{device}/rp_filter"])
            with self.service(namespace=in_b) as service:
                host = spaces.ipv4["b"]
                good = Client(self, host=host, argv=in_a)
                good.send(message(template()))
                service.wait_for("col1", "messages_received", 1)
                before = self.megabytes(service)
                words = [sys.executable, "-c", FLOOD, host, self.port, self.hello().hex(), 100_000]
                flood = subprocess.Popen(spaces.argv("a", words))
                self.addCleanup(flood.wait)
                self.addCleanup(flood.kill)
                sent = 0
                while flood.poll() is None:
                    good.send(message(data(2), sequence=sent))
                    sent += 2
                    sleep(0.02)
                    if sent == 10:
                        late = Client(self, host=host, argv=in_a, wait=False)
                service.wait_for("col1", "rows_received", sent)
                late.wait()
                wait_until(lambda: self.standing(service) == (0, 2), what="all are through")
                counters = service.counters("col1")
                self.assertLess(self.megabytes(service) - before, 20)
                self.assertGreater(sent, 100)
                self.assertEqual((["limit_greetings"], {}), (list(counters["errors"]), counters["lost"]))
                self.assertGreater(counters["errors"]["limit_greetings"], 10_000)
        self.assertNotIn("Traceback", service.output())
