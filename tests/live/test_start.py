"""A service that cannot start says why on the terminal, and leaves nothing behind; what loglevel= leaves out."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.support import TOP, wait_until


class StartTests(SynchronousTestCase):
    """`ulogd-tw`, in the foreground and as a daemon."""

    def setUp(self):
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        self.pidfile = self.directory / "pid"

    def configuration(self, port, settings=""):
        """A file with one stack, which listens on this TCP port of loopback."""
        path = self.directory / "ulogd.conf"
        path.write_text(
            f"[global]\n{settings}\nstack=c:COLLECTOR,t:GPRINT\n"
            f'[c]\nlisten="tcp:127.0.0.1:{port}"\n[t]\nfile="{self.directory.resolve()}/rows"\n'
        )
        return path.resolve()

    def run_ulogd(self, *switches):
        """The ended process."""
        argv = [Path(sys.executable).with_name("ulogd-tw"), "-p", self.pidfile.resolve(), *switches]
        environment = os.environ | {"PYTHONPATH": str(TOP)}
        return subprocess.run(
            argv, cwd=self.directory, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=60, check=False,
        )  # fmt: skip

    def test_port_is_taken(self):
        """The only stack cannot start: status 1, the reason on stderr, no pidfile; a daemon does not hang."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            path = self.configuration(taken.getsockname()[1], f'logfile="{self.directory.resolve()}/log"')
            for switches in (["-c", path], ["-d", "-c", path]):
                ended = self.run_ulogd(*switches)
                self.assertEqual(1, ended.returncode, ended.stderr)
                self.assertIn("Address already in use", ended.stderr)
                self.assertIn(f"{path}:3: stack c:COLLECTOR,t:GPRINT is left out", ended.stderr)
                self.assertNotIn("Traceback", ended.stderr)
                wait_until(lambda: not self.pidfile.exists(), 20, "the pidfile is gone")

    def test_log_cannot_be_opened(self):
        """Status 2, as with ulogd2, in the foreground and as a daemon."""
        path = self.configuration(_free_port(), 'logfile="/nonexistent/log"')
        for switches in (["-c", path], ["-d", "-c", path]):
            ended = self.run_ulogd(*switches)
            self.assertEqual(2, ended.returncode, ended.stderr)
            self.assertEqual("logfile /nonexistent/log: No such file or directory\n", ended.stderr)
            self.assertFalse(self.pidfile.exists())

    def test_daemon_without_logfile(self):
        """A daemon leaves no file in the working directory."""
        path = self.configuration(_free_port())
        ended = self.run_ulogd("-d", "-c", path)
        self.assertEqual((0, ""), (ended.returncode, ended.stderr))
        os.kill(int(self.pidfile.read_text()), signal.SIGTERM)
        wait_until(lambda: not self.pidfile.exists(), 60, "the daemon has ended")
        self.assertEqual({"ulogd.conf", "rows"}, set(os.listdir(self.directory)) | {"rows"})

    def test_signals_during_the_start(self):
        """SIGHUP and SIGUSR2 end nothing, whenever they come: here while a database that is silent is waited for."""
        with socket.create_server(("127.0.0.1", 0)) as silent:
            path = self.configuration(_free_port(), 'logfile="stdout"\nstack=c:COLLECTOR,d:MYSQL')
            with path.open("a") as file:
                file.write(f"[d]\nhost=127.0.0.1\nport={silent.getsockname()[1]}\nuser=x\ndb=x\ntable=flows\n"
                           "create=1\nkeys=octetDeltaCount\n")  # fmt: skip
            log = (self.directory / "log").open("w+b")
            self.addCleanup(log.close)
            argv = [Path(sys.executable).with_name("ulogd-tw"), "-c", path]
            environment = os.environ | {"PYTHONPATH": str(TOP)}
            running = subprocess.Popen(argv, cwd=self.directory, env=environment, stdout=log, stderr=log)
            self.addCleanup(running.wait, 60)
            self.addCleanup(running.kill)
            silent.settimeout(30)
            self.addCleanup(silent.accept()[0].close)  # it connects while it starts
            for number in (signal.SIGHUP, signal.SIGUSR2, signal.SIGHUP):
                running.send_signal(number)
            wait_until(lambda: b"stacks run" in (self.directory / "log").read_bytes(), 60, "the stacks run")
            self.assertIsNone(running.poll())
            running.send_signal(signal.SIGTERM)
            running.wait(60)

    def test_level_on_standard_output(self):
        """-l and loglevel= hold where the log goes to standard output; 1 shows Twisted's own lines too."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            path = self.configuration(taken.getsockname()[1])
            quiet = self.run_ulogd("-l", "8", "-c", path).stdout
            plain = self.run_ulogd("-c", path).stdout
            all_ = self.run_ulogd("-l", "1", "-c", path).stdout
        self.assertEqual(["no stack could start"], [line.split("] ", 1)[1] for line in _lines(quiet)])
        self.assertNotIn("starting up", plain)
        self.assertIn("is left out", plain)
        self.assertIn("starting up", all_)


def _lines(log):
    """Those that the service wrote itself; what goes to stderr is logged as well."""
    return [line for line in log.splitlines() if "[stderr" not in line]


def _free_port():
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]
