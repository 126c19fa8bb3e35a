"""SQLITE3 on a file that another process locks, or that may not be written."""

import os
import pwd
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.task import LoopingCall, deferLater
from twisted.trial.unittest import TestCase

from tests.support import TOP, Daemon, require_root, sized
from tests.unit.storing.sql_rows import numbers, opened, output, told
from ulogd_tw.core.errors import NotWritten
from ulogd_tw.plugins.outputs.sqlite3 import SQLITE3

ROWS = 500

HOLDER = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=5)
connection.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
time.sleep(float(sys.argv[2]))
connection.execute("COMMIT")
"""
"""Another program that keeps the file locked for some seconds."""

STARTER = """
import os, sys
from twisted.internet import defer, reactor, task
from tests.unit.storing.sql_rows import NUMBER_KEYS, output
from ulogd_tw.core.errors import StartError
from ulogd_tw.plugins.outputs.sqlite3 import SQLITE3

async def run(reactor):
    made = output(SQLITE3, db=sys.argv[1], table="flows", create=True, keys=("sourceIPv4Address",))
    os.setgroups([])
    os.setgid(int(sys.argv[3]))
    os.setuid(int(sys.argv[2]))
    try:
        made.prepare()
        await made.open()
        await made.stop()
        print("started")
    except StartError as error:
        print("refused:", error)

task.react(lambda reactor: defer.Deferred.fromCoroutine(run(reactor)))
"""
"""Opens an output as an unprivileged user and says how that went; what it imports may be root's alone."""


class SQLITE3LiveTests(TestCase):
    """With other processes."""

    timeout = 120

    def setUp(self):
        self.path = str(Path(self.mktemp()).absolute())
        self.told = told(self)

    def output(self, **options):
        return output(SQLITE3, **{"db": self.path, "table": "flows", "create": True, "reconnect": 0.5} | options)

    def locked(self, seconds):
        """Another process that holds the lock for so long, from when this returns."""
        holder = Daemon([sys.executable, "-c", HOLDER, self.path, str(seconds)], lambda d: "locked" in d.output())
        holder.start()
        self.addCleanup(holder.stop)
        return holder

    def count(self):
        """The rows that are there, and the different ones among them."""
        connection = sqlite3.connect(self.path)
        try:
            return connection.execute("SELECT COUNT(*), COUNT(DISTINCT number) FROM flows").fetchone()
        finally:
            connection.close()

    async def test_locked_file(self):
        """Rows wait while the file is locked, in a log line or two; the reactor does not; then each is there once."""
        made = await opened(self, self.output())
        await made.write(numbers(0, ROWS))
        ticks = []
        ticking = LoopingCall(lambda: ticks.append(time.monotonic()))
        self.locked(sized(4, 10))
        ticking.start(0.01)
        for first in range(ROWS, 5 * ROWS, ROWS):
            await made.write(numbers(first, ROWS))
        ticking.stop()
        self.assertEqual(self.count(), (5 * ROWS, 5 * ROWS))
        self.assertGreater(made.counters.errors["locked"], 1)
        waits = [line for line in self.told if "rows wait" in line]
        self.assertEqual(len(waits), 1)
        self.assertRegex(waits[0], "database is locked; another program has locked it; rows wait")
        self.assertLess(max(b - a for a, b in zip(ticks, ticks[1:], strict=False)), 1)

    async def test_locked_at_start(self):
        """A file that is locked at the start is waited for."""
        made = await opened(self, self.output())
        await made.write(numbers(0, ROWS))
        await made.stop()
        self.locked(3)
        made = await opened(self, self.output())
        await made.write(numbers(ROWS, ROWS))
        self.assertEqual(self.count(), (2 * ROWS, 2 * ROWS))

    async def test_stop_while_locked(self):
        """A batch that waits for the lock is given back at a stop."""
        made = await opened(self, self.output())
        await made.write(numbers(0, ROWS))
        holder = self.locked(30)
        given_back = self.assertFailure(made.write(numbers(ROWS, ROWS)), NotWritten)
        await deferLater(reactor, 1.0, lambda: None)
        began = time.monotonic()
        await made.stop()
        await given_back
        self.assertLess(time.monotonic() - began, 4)
        holder.stop()
        self.assertEqual(self.count(), (ROWS, ROWS))

    def start_as_nobody(self):
        """What an unprivileged user's attempt to open the file gives."""
        require_root()
        nobody = pwd.getpwnam("nobody")
        argv = [sys.executable, "-c", STARTER, self.path, str(nobody.pw_uid), str(nobody.pw_gid)]
        found = subprocess.run(argv, cwd=TOP, env=os.environ | {"PYTHONPATH": str(TOP)}, capture_output=True, text=True,
                               timeout=30)  # fmt: skip
        return found.stdout + found.stderr

    async def test_read_only_file(self):
        """A file that may be read and not written keeps the stack from starting, with the reason."""
        folder = Path(tempfile.mkdtemp())
        folder.chmod(0o755)
        self.path = str(folder / "flows")
        self.addCleanup(lambda: [*map(os.unlink, folder.iterdir()), folder.rmdir()])
        made = await opened(self, self.output(keys=("sourceIPv4Address",)))
        await made.stop()
        Path(self.path).chmod(0o644)
        self.assertRegex(self.start_as_nobody(), "refused: .*readonly database; make the file and its directory wri")
        self.path = str(folder / "none")
        self.assertRegex(self.start_as_nobody(), "refused: .*unable to open database file; the directory must be there")
