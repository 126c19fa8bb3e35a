"""What systemd hears, by a socket in its place; forms are those of sd_notify(3) and sd_listen_fds(3)."""

import os
import socket
import tempfile
from pathlib import Path

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ulogd_tw.operating import notify


class Systemd:
    """The socket of NOTIFY_SOCKET for one test, with what came."""

    def __init__(self, test, abstract=False):
        folder = tempfile.TemporaryDirectory(prefix="utw-notify-")
        test.addCleanup(folder.cleanup)
        path = str(Path(folder.name, "notify"))
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        test.addCleanup(self.socket.close)
        self.socket.bind("\0" + path if abstract else path)
        self.socket.setblocking(False)
        test.patch(os, "environ", {"NOTIFY_SOCKET": "@" + path if abstract else path})

    def came(self):
        """Lines and descriptors of the next notification."""
        octets, descriptors, *_ = socket.recv_fds(self.socket, 4096, 4)
        return octets.decode().split("\n"), descriptors

    def all(self):
        """The lines of each notification so far."""
        found = []
        while True:
            try:
                found.append(self.came()[0])
            except BlockingIOError:
                return found


class NotifyTests(SynchronousTestCase):
    """Single notifications."""

    def test_without_systemd(self):
        """Nothing is sent, whatever the variable holds, and nothing raises."""
        for value in ({}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1"}, {"NOTIFY_SOCKET": "/nonexistent/x"}):
            self.patch(os, "environ", value)
            self.assertFalse(notify.ready("up"))

    def test_addresses(self):
        """A path, and the abstract name that a container's manager uses."""
        for abstract in (False, True):
            systemd = Systemd(self, abstract)
            self.assertTrue(notify.ready("2 stacks run"))
            self.assertEqual((["READY=1", "STATUS=2 stacks run"], []), systemd.came())

    def test_one_line(self):
        """A text of several lines cannot add assignments."""
        systemd = Systemd(self)
        notify.failed("no stack\nMAINPID=1")
        self.assertEqual([["STATUS=no stack MAINPID=1"]], systemd.all())

    def test_reload(self):
        """RELOADING with the monotonic time in microseconds, as Type=notify-reload wants it."""
        self.patch(notify.time, "clock_gettime_ns", lambda clock: 12_345_678_900)
        systemd = Systemd(self)
        notify.reloading()
        notify.ready("goes on")
        lines = [["RELOADING=1", "MONOTONIC_USEC=12345678", "STATUS=reloading"], ["READY=1", "STATUS=goes on"]]
        self.assertEqual(lines, systemd.all())

    def test_full_queue(self):
        """A status line is given up at once where systemd does not read."""
        Systemd(self)
        sent = 0
        while notify.status("x" * 100):
            sent += 1
            self.assertLess(sent, 10_000)
        self.assertGreater(sent, 0)


class StoreTests(SynchronousTestCase):
    """Descriptors to systemd and back."""

    def test_store(self):
        """The socket itself arrives, under its name, and is not polled."""
        systemd = Systemd(self)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ours:
            ours.bind(("127.0.0.1", 0))
            self.assertTrue(notify.store("col1-udp", ours.fileno()))
            lines, (got,) = systemd.came()
            with socket.socket(fileno=got) as theirs:
                self.assertEqual(ours.getsockname(), theirs.getsockname())
        self.assertEqual(["FDSTORE=1", "FDPOLL=0", "FDNAME=col1-udp"], lines)
        notify.remove("col1-udp")
        self.assertEqual([["FDSTOREREMOVE=1", "FDNAME=col1-udp"]], systemd.all())

    def test_names(self):
        """Colons and letters beyond ASCII come back; a name too long for systemd is not stored."""
        name = "col1 udp:[::1]:4739 %é"
        stored = notify.stored_name(name)
        self.assertTrue(stored.isascii() and ":" not in stored, stored)
        self.assertEqual("col1 udp%3A[%3A%3A1]%3A4739 %25%C3%A9", stored)
        there = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "2", "LISTEN_FDNAMES": f"{stored}:b"}
        self.patch(os, "environ", there)
        self.patch(os, "set_inheritable", lambda number, yes: None)
        self.assertEqual([(name, 3), ("b", 4)], notify.handed_over())
        Systemd(self)
        self.assertFalse(notify.store("x" * 256, 0))

    def test_deleted_variables(self):
        """Twisted's endpoints delete the variables at their import: they are found all the same."""
        there = f"LISTEN_PID={os.getpid()}\0HOME=/a=b\0LISTEN_FDS=1\0LISTEN_FDNAMES=udp/x\0"
        file = Path(self.mktemp())
        file.write_text(there)
        self.patch(notify, "_ENVIRONMENT", str(file))
        self.patch(os, "environ", {})
        self.patch(os, "set_inheritable", lambda number, yes: None)
        self.assertEqual([("udp/x", 3)], notify.handed_over())

    def test_not_for_us(self):
        """Descriptors of another process, as of the shell that started us, are not ours."""
        for there in ({}, {"LISTEN_PID": "1", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "a"}):
            self.patch(os, "environ", there)
            self.assertEqual([], notify.handed_over())


class LifeSignsTests(SynchronousTestCase):
    """From READY to STOPPING."""

    def signs(self, **more):
        """Life signs under a clock, and systemd."""
        systemd = Systemd(self)
        os.environ.update(more)
        clock = Clock()
        return notify.LifeSigns(clock, lambda: f"at {clock.seconds():g}"), clock, systemd

    def test_watchdog(self):
        """Twice in each WatchdogSec=, from READY on; the last word is STOPPING with the time that it may take."""
        life, clock, systemd = self.signs(WATCHDOG_USEC="3000000", WATCHDOG_PID=str(os.getpid()))
        clock.advance(9)
        self.assertEqual([], systemd.all())
        life.begin()
        clock.pump([0.5] * 6)
        life.end(60)
        clock.advance(9)
        expected = [["READY=1", "STATUS=at 9"], ["WATCHDOG=1", "STATUS=at 10.5"], ["WATCHDOG=1", "STATUS=at 12"]]
        stop = ["STOPPING=1", "EXTEND_TIMEOUT_USEC=60000000", "STATUS=stopping: rows are written"]
        self.assertEqual([*expected, stop], systemd.all())

    def test_no_watchdog(self):
        """Without WatchdogSec=, or with that of another process, the status line comes every 5 seconds."""
        for more in ({}, {"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "x"}):
            life, clock, systemd = self.signs(**more)
            life.begin()
            clock.pump([1] * 10)
            self.assertEqual(3, len(systemd.all()))

    def test_without_systemd(self):
        """No timer, and no words at the stop."""
        life, clock, systemd = self.signs()
        self.patch(os, "environ", {})
        life.begin()
        life.end(1)
        self.assertEqual(([], []), (clock.getDelayedCalls(), systemd.all()))
