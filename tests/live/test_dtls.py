"""DTLS with the `openssl` command at the other end, over UDP on loopback; datagrams that get lost."""

import os
import signal
import socket
import subprocess
import time

from twisted.trial.unittest import TestCase

from tests.certificates import CA
from tests.live.service import temporary
from tests.support import Daemon, free_port, require_program, wait_until
from ulogd_tw.transports.dtls.layer import CookieExchange, client
from ulogd_tw.transports.tls.credentials import Credentials, Files


class DtlsTests(TestCase):
    """Our ends and openssl's."""

    timeout = 120

    def setUp(self):
        (self.openssl,) = require_program("openssl")
        self.ca = CA(temporary("dtls"))
        self.collector = self.ca.issue("collector", "localhost")
        self.exporter = self.ca.issue("exporter", "exporter.example")
        self.port = free_port("udp")
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.addCleanup(self.socket.close)

    def credentials(self, pair, server, names):
        found = Credentials(Files(self.ca.file, *pair), server, names, datagrams=True)
        found.open()
        return found

    def run_end(self, end, done, peer, lose=()):
        """Carry datagrams between an end and the socket until `done`; what it heard. `lose`: sent, but lost."""
        heard, sent, deadline = [], 0, time.monotonic() + 20
        while not done(heard):
            self.assertLess(time.monotonic(), deadline, end.fault)
            self.assertIsNone(end.fault)
            for datagram in end.datagrams():
                if sent not in lose:
                    self.socket.sendto(datagram, peer)
                sent += 1
            self.socket.settimeout(end.timeout() or 0.2)
            try:
                datagram, _ = self.socket.recvfrom(65535)
            except TimeoutError:
                end.expire()
            else:
                heard += end.take(datagram)
        return heard

    def check_client(self, *words, lose=()):
        """Our exporter's end sends two messages to `openssl s_server`."""
        output = temporary("dtls") / "octets"
        read, write = os.pipe()
        argv = [self.openssl, "s_server", "-dtls1_2", "-accept", self.port, "-cert", self.collector[0], "-key",
                self.collector[1], "-CAfile", self.ca.file, "-Verify", "1", "-verify_return_error", "-quiet",
                *words]  # fmt: skip
        script = f'exec "$@" >{output} 2>/dev/null </dev/fd/{read}'
        daemon = Daemon(["sh", "-c", script, "sh", *argv], lambda _: self.bound(), pass_fds=(read,))
        try:
            with daemon:
                end = client(self.credentials(self.exporter, False, ("localhost",)), 1200)
                peer = ("127.0.0.1", self.port)
                end.take(b"")
                self.run_end(end, lambda _: end.secured, peer, lose)
                for message in (b"first\n", b"x" * 1000 + b"\n"):
                    self.assertTrue(end.send(message))
                for datagram in end.datagrams():
                    self.socket.sendto(datagram, peer)
                wait_until(lambda: output.read_bytes() == b"first\n" + b"x" * 1000 + b"\n", what="both messages")
                daemon.stop(signal.SIGKILL)
        finally:
            os.close(read)
            os.close(write)

    def bound(self):
        found = subprocess.run(["ss", "-Hlun", f"sport = :{self.port}"], capture_output=True, text=True, check=True)
        return bool(found.stdout.strip())

    def test_client(self):
        """A server without and with a cookie exchange."""
        self.check_client()

    def test_client_with_cookie(self):
        """A server that wants its cookie first."""
        self.check_client("-listen")

    def test_client_loses(self):
        """The ClientHello, and a part of the last flight, are lost: they are sent again."""
        self.check_client(lose=(0, 2))

    def check_server(self, lose=()):
        """`openssl s_client` sends a message to our collector's end."""
        self.socket.bind(("127.0.0.1", self.port))
        porch = CookieExchange(self.credentials(self.collector, True, ("exporter.example",)), 1200)
        argv = [self.openssl, "s_client", "-dtls1_2", "-connect", f"127.0.0.1:{self.port}", "-CAfile", self.ca.file,
                "-verify_return_error", "-cert", self.exporter[0], "-key", self.exporter[1], "-quiet"]  # fmt: skip
        process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        session, greetings = None, 0
        self.socket.settimeout(10)
        while session is None:
            datagram, peer = self.socket.recvfrom(65535)
            session, answer = porch.greet(repr(peer).encode(), datagram, time.monotonic())
            greetings += 1
            for place, octets in enumerate(answer):
                if session is None or place not in lose:
                    self.socket.sendto(octets, peer)
        self.assertEqual(2, greetings)
        self.run_end(session, lambda _: session.secured, peer)
        process.stdin.write(b"hello\n")
        process.stdin.flush()
        self.assertEqual([b"hello\n"], self.run_end(session, lambda heard: heard, peer))

    def test_server(self):
        """A client comes through the cookie exchange."""
        self.check_server()

    def test_server_loses(self):
        """A part of the server's flight is lost, and sent again."""
        self.check_server(lose=(0,))
