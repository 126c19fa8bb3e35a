"""The pidfile: who holds its lock runs, whatever number it has."""

import fcntl
import os
import stat
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from ulogd_tw.core.errors import NotStarted
from ulogd_tw.pidfile import PidFile

HOLDER = """
import fcntl, os, sys, time
fd = os.open(sys.argv[1], os.O_RDWR)
fcntl.lockf(fd, fcntl.LOCK_EX)
print("locked", flush=True)
time.sleep(60)
"""


class PidFileTests(SynchronousTestCase):
    """One file, in turn new, stale, foreign and held."""

    def setUp(self):
        self.path = Path(self.mktemp())

    def take(self):
        made = PidFile(str(self.path))
        made.take()
        self.addCleanup(made.give_back)
        return made

    def test_new(self):
        """It has our number and mode 0644 whatever the mask, and is removed at the end, once."""
        before = os.umask(0o077)
        try:
            made = self.take()
        finally:
            os.umask(before)
        self.assertEqual(f"{os.getpid()}\n", self.path.read_text())
        self.assertEqual(0o644, stat.S_IMODE(self.path.stat().st_mode))
        made.give_back()
        self.assertFalse(self.path.exists())
        made.give_back()

    def test_stale(self):
        """What a killed process left, the number of a process that is something else, and no number block nothing."""
        for content in ("999999999", f"{os.getppid()}\n", "1\n", "", "rubbish " * 100):
            self.path.write_text(content)
            self.take().give_back()

    def test_held(self):
        """A lock of another process, such as ulogd2's, keeps the service from starting, and stays."""
        self.path.write_text("4711\n")
        holder = subprocess.Popen([sys.executable, "-c", HOLDER, self.path], stdout=subprocess.PIPE)
        try:
            holder.stdout.readline()
            refused = PidFile(str(self.path))
            error = self.assertRaises(NotStarted, refused.take)
            refused.give_back()
            self.assertIn("is locked by a running process (4711)", str(error))
            self.assertEqual("4711\n", self.path.read_text())
        finally:
            holder.kill()
            holder.wait()
            holder.stdout.close()
        self.take()

    def test_removed_meanwhile(self):
        """A file that its process removes while we lock it is made anew."""
        self.path.write_text("1\n")
        real = fcntl.lockf

        def lock(fd, kind):
            self.patch(fcntl, "lockf", real)
            self.path.unlink()
            real(fd, kind)

        self.patch(fcntl, "lockf", lock)
        self.take()
        self.assertEqual(f"{os.getpid()}\n", self.path.read_text())

    def test_no_directory(self):
        """The reason and what to do."""
        error = self.assertRaises(NotStarted, PidFile(f"{self.path}/no/ulogd.pid").take)
        self.assertIn("No such file or directory; choose another one", str(error))
