"""pipx itself, in an environment of its own: it installs the wheel, and the program does everything there."""

import os
import pwd
import subprocess
import sys
import tempfile
from pathlib import Path
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from tests.live.test_package import built_wheel, quietly
from tests.support import Daemon, require_setuptools
from ulogd_tw import __version__

UNREACHABLE = ("Could not find a version", "No matching distribution", "Connection", "Temporary failure", "Timeout")
"""What pip says where no index is in reach; any other word is our fault."""
ROWS = '[global]\nstack=d:DEMO,g:GROUP,j:JSON\n[g]\ncountry="{file}"\n[j]\nfile="stdout"\n'


class PipxTests(SynchronousTestCase):
    """From the wheel to a running service."""

    def setUp(self):
        require_setuptools()
        self.folder = Path(tempfile.mkdtemp(prefix="utw-apps-"))
        self.addCleanup(quietly, "rm", "-rf", self.folder)
        quietly(sys.executable, "-m", "venv", self.folder / "own")
        self.from_index(self.folder / "own/bin/pip", "install", "--quiet", "pipx")
        plain = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
        # no directory of this path is called pipx, so advice about libraries cannot go by the path
        places = {"PIPX_HOME": "apps", "PIPX_BIN_DIR": "bin", "PIPX_MAN_DIR": "man"}
        self.environment = plain | {name: str(self.folder / place) for name, place in places.items()}
        self.run_here = {"cwd": self.folder, "env": self.environment}

    def from_index(self, *words, **keywords):
        """A command that needs a package index; left out where there is none."""
        done = quietly(*words, check=False, timeout=600, **keywords)
        if done.returncode and any(text in done.stdout + done.stderr for text in UNREACHABLE):
            raise SkipTest(f"no package index is in reach: {done.stderr[-300:]}")
        self.assertEqual(0, done.returncode, done.stdout + done.stderr)
        return done

    def ours(self, *words, status=0):
        """What ulogd-tw prints, as pipx installed it."""
        done = quietly(self.folder / "bin/ulogd-tw", *words, check=False, **self.run_here)
        self.assertEqual(status, done.returncode, done.stdout + done.stderr)
        return done.stdout + done.stderr

    def test_pipx(self):
        """Version, plugins, examples, check, twistd's switches, a daemon, and the advice about a library."""
        pipx = self.folder / "own/bin/pipx"
        installed = self.from_index(pipx, "install", f"{built_wheel()}[console]", **self.run_here)
        self.assertIn("ulogd-tw", installed.stdout)
        self.assertEqual(f"ulogd-tw {__version__}\n", self.ours("--version"))
        self.assertIn("COLLECTOR", self.ours("--list-plugins"))
        self.assertIn("listen", self.ours("-i", "COLLECTOR"))
        self.assertIn("examples/nat-log.conf", self.ours("examples"))
        self.ours("examples", "demo.conf", "mine.conf")
        self.assertIn("mine.conf: OK", self.ours("--check", "-c", "mine.conf"))
        self.assertIn("stack: ", self.ours("doctor", "-c", "mine.conf"))
        self.serves()
        self.daemon()
        self.advice(pipx)

    def serves(self):
        """In the foreground it gives rows, and answers query and top."""
        words = [self.folder / "bin/ulogd-tw", "-l", "info", "-c", "mine.conf"]
        with Daemon(words, lambda d: "octets=" in d.output(), within=120, **self.run_here) as service:
            self.assertIn("count", self.ours("query", "-c", "mine.conf", "select count(*) as count from agg1"))
            self.assertIn("agg1 by octets", self.ours("top", "--once", "-c", "mine.conf"))
            self.assertNotIn("Traceback", service.output())

    def daemon(self):
        """With -d, -p and -u it runs as that user, as under ulogd2's unit."""
        me = pwd.getpwuid(os.geteuid()).pw_name
        self.ours("-d", "-p", "u.pid", "-u", me, "-c", "mine.conf")
        pid = int((self.folder / "u.pid").read_text())
        try:
            os.kill(pid, 0)
        finally:
            subprocess.run(["kill", str(pid)], check=True)

    def advice(self, pipx):
        """The command that is printed for a missing library is pipx's, and brings it."""
        (self.folder / "geo.conf").write_text(ROWS.format(file="/nonexistent/geo.mmdb"))
        said = self.ours("--check", "-c", "geo.conf", status=1)
        self.assertIn("needs maxminddb: pipx inject ulogd_tw maxminddb", said)
        self.from_index(pipx, "inject", "ulogd_tw", "maxminddb", **self.run_here)
        self.assertNotIn("needs maxminddb", self.ours("--check", "-c", "geo.conf", status=1))
