"""A PostgreSQL server of our own for tests, and what PGSQL writes into it."""

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

from twisted.trial.unittest import SkipTest

from tests.support import Daemon, free_port

PACKAGE = "postgresql"


def programs():
    """The directory of Debian's newest initdb and postgres; leaves the test out without one."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if not found:
        raise SkipTest(f"install: {PACKAGE}" if os.geteuid() == 0 else f"needs {PACKAGE}, which root can install")
    return found[-1].parent


class PrivatePostgreSQL:
    """A server in a temporary folder, on a port of 127.0.0.1 and a Unix socket, with a database `ulogd`.

    stop() and start() take it away and give it back with the same data. `access`: lines of pg_hba.conf before the one
    that trusts everybody.
    """

    def __init__(self, options=(), access=()):
        self._bin = programs()
        self.port = free_port("tcp")
        self.user = "nobody" if os.geteuid() == 0 else None
        self.folder = Path(tempfile.mkdtemp(prefix="utw-pg-"))
        self.access = access
        settings = {
            "listen_addresses": "127.0.0.1", "unix_socket_directories": self.folder, "shared_buffers": "64MB",
            "fsync": "off", "max_wal_size": "256MB", "log_min_messages": "fatal", "jit": "off",
        }  # fmt: skip
        words = [f"--{name}={value}" for name, value in settings.items()]
        self._daemon = Daemon(
            [self._bin / "postgres", "-D", self.folder / "data", "-p", self.port, *words, *options],
            lambda daemon: self._answers(), within=30.0, patience=20.0, log=self.folder / "output", **self._as_user(),
        )  # fmt: skip

    @property
    def pid(self):
        return self._daemon.pid

    @property
    def where(self):
        """Keywords for psycopg.connect."""
        return {"host": str(self.folder), "port": self.port, "user": "postgres", "dbname": "ulogd"}

    @property
    def options(self):
        """Options of PGSQL."""
        return {"host": str(self.folder), "port": self.port, "user": "postgres", "db": "ulogd"}

    def _as_user(self):
        """Keywords of Popen: postgres refuses to run as root."""
        if self.user is None:
            return {"cwd": self.folder}
        return {"cwd": self.folder, "user": self.user, "group": pwd.getpwnam(self.user).pw_gid, "extra_groups": []}

    def _answers(self):
        import psycopg

        try:
            psycopg.connect(**self.where | {"dbname": "postgres", "connect_timeout": 2}).close()
        except psycopg.OperationalError:
            return False
        return True

    def start(self):
        """Start the server and return when it answers."""
        self._daemon.start()

    def stop(self, number=signal.SIGINT):
        """End the server; its data stay for start(). SIGKILL for a crash."""
        if number == signal.SIGKILL:
            self._kill_children()
        return self._daemon.stop(number)

    def _kill_children(self):
        """Kill the processes of sessions first: they would keep the shared memory."""
        self._daemon.process.send_signal(signal.SIGSTOP)
        for child in self._children():
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)

    def _children(self):
        """The processes of sessions and of the server's own work."""
        for status in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                if int(status.read_text().rpartition(") ")[2].split()[1]) == self.pid:
                    yield int(status.parent.name)

    def hang(self, number=signal.SIGSTOP):
        """Stop all its processes; SIGCONT lets them go on."""
        for process in (self.pid, *self._children()):
            with contextlib.suppress(ProcessLookupError):  # one that has just ended
                os.kill(process, number)

    def execute(self, statement, *arguments, **where):
        """The rows of one statement, on a connection of its own."""
        import psycopg

        with psycopg.connect(**self.where | where, autocommit=True) as connection:
            cursor = connection.execute(statement, arguments or None)
            return cursor.fetchall() if cursor.description else []

    def __enter__(self):
        try:
            self._prepare()
            self.start()
            self.execute("CREATE DATABASE ulogd", dbname="postgres")
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, *_):
        self._close()

    def _prepare(self):
        if self.user is not None:
            user = pwd.getpwnam(self.user)
            os.chown(self.folder, user.pw_uid, user.pw_gid)
        initdb = [self._bin / "initdb", "-D", self.folder / "data", "-A", "trust", "-E", "UTF8", "-U", "postgres",
                  "--locale=C", "--no-sync"]  # fmt: skip
        done = subprocess.run(initdb, capture_output=True, text=True, timeout=120, **self._as_user())
        if done.returncode:
            raise AssertionError(done.stdout + done.stderr)
        rules = self.folder / "data" / "pg_hba.conf"
        rules.write_text("\n".join([*self.access, rules.read_text()]))

    def _close(self):
        self._daemon.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
