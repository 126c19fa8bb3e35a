"""What `pip install` brings: the wheel alone, in an environment of its own, away from the source tree."""

import functools
import os
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.live.service import temporary
from tests.support import TOP, Daemon, require_setuptools


def quietly(*words, **keywords):
    """The finished process, whose status is checked, with its output as text."""
    keywords = {"capture_output": True, "text": True, "timeout": 300} | keywords
    check = keywords.pop("check", True)
    done = subprocess.run([str(word) for word in words], check=False, **keywords)
    if check and done.returncode:
        raise AssertionError(f"{words}: status {done.returncode}: {done.stdout}{done.stderr}")
    return done


@functools.cache
def built_wheel():
    """The wheel of what is committed here, built once a run, without an index."""
    folder = temporary("wheel")
    source = folder / "source"
    quietly("git", "clone", "--quiet", TOP, source)
    options = ("--quiet", "--no-deps", "--no-build-isolation", "--no-index")
    quietly(sys.executable, "-m", "pip", "wheel", *options, "-w", folder, source)
    (wheel,) = folder.glob("*.whl")
    return wheel


class WheelTests(SynchronousTestCase):
    """Build, install, run."""

    def setUp(self):
        require_setuptools()
        self.folder = Path(tempfile.mkdtemp(prefix="utw-wheel-"))
        self.addCleanup(quietly, "rm", "-rf", self.folder)
        self.wheel = built_wheel()

    def test_contents(self):
        """The twistd plugins, the tables and the examples are in it; tests and benchmarks are not."""
        names = zipfile.ZipFile(self.wheel).namelist()
        for wanted in ("twisted/plugins/ulogd_tw_plugin.py", "ulogd_tw/core/data/ipfix_elements.csv"):
            self.assertIn(wanted, names)
        shared = {name.partition("/share/ulogd_tw/")[2] for name in names if "/share/ulogd_tw/" in name}
        kit = {"prometheus/ulogd-tw.rules.yml", "grafana/ulogd-tw-flows.json"}
        self.assertLessEqual(
            {"ulogd.conf", "demo.conf", "examples/nat-log.conf", "systemd/ulogd-tw.service", *kit}, shared
        )
        self.assertFalse([name for name in names if name.startswith(("tests/", "benchmarks/", "docs/"))])
        self.assertNotIn("twisted/plugins/__init__.py", names)

    def test_runs(self):
        """Installed, it lists its plugins, writes an example and runs it."""
        quietly(sys.executable, "-m", "venv", "--without-pip", self.folder / "venv")
        programs = self.folder / "venv" / "bin"
        python = programs / "python"
        quietly(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", self.wheel)
        site = quietly(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").stdout.strip()
        # the libraries of this environment, without its ulogd_tw
        Path(site, "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
        plain = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        self.assertTrue(list(Path(site, "ulogd_tw", "__pycache__").glob("tap.*.pyc")), "no byte code")
        command = programs / "ulogd-tw"
        run = {"cwd": self.folder, "env": plain}
        where = quietly(python, "-c", "import ulogd_tw; print(ulogd_tw.__file__)", **run).stdout
        self.assertTrue(where.startswith(site), where)
        self.assertIn("COLLECTOR", quietly(command, "--list-plugins", **run).stdout)
        self.assertIn("examples/nat-log.conf", quietly(command, "examples", **run).stdout)
        quietly(command, "examples", "demo.conf", "mine.conf", **run)
        self.assertIn("OK", quietly(command, "--check", "-c", "mine.conf", **run).stdout)
        with Daemon([command, "-c", "mine.conf"], lambda d: "octets=" in d.output(), within=120, **run) as service:
            self.assertNotIn("Traceback", service.output())
