"""The README, walked literally in a Debian that has only what it asks for: as root, and as an ordinary user.

The times that the steps took are printed; nothing is asserted about them.
"""

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from functools import partial
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.support import TOP, Daemon, NetworkNamespaces, require_program, require_root, wait_until
from ulogd_tw import kernels

README = (TOP / "README.md").read_text("utf-8")
WANTED = "git make python3-venv nftables procps iproute2 iputils-ping ca-certificates"
"""What README asks for, the programs of the remedies in the log, and ping."""
NOT_HERE = ("Failed to fetch", "Could not resolve", "Could not connect", "Operation not permitted", "cannot mount")
"""What mmdebstrap and apt say where no mirror is in reach or nothing may be mounted; any other word is our fault."""
COMPILER = "gcc libc6-dev python3-dev"
WITHOUT = "not compiled: apt-get install gcc python3-dev"
GENEROUS = 600.0
"""Seconds for one step on a busy machine."""
ROW = re.compile(r"^exporter=.*sourceAddress=.*octets=\d+", re.M)


def first_block():
    """The commands of README's first block."""
    block = re.search(r"^## .*?^```\n(.*?)^```", README, re.S | re.M)[1]
    return [line for line in block.splitlines() if line]


class CleanRoot:
    """A Debian with those packages in a directory of its own, with this machine's package settings; root only."""

    def __init__(self):
        require_root()
        require_program("mmdebstrap")
        self.path = Path(tempfile.mkdtemp(prefix="utw-root-"))

    def __enter__(self):
        try:
            self._make()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _make(self):
        sources = [*Path("/etc/apt").glob("sources.list"), *Path("/etc/apt/sources.list.d").glob("*.sources")]
        argv = [
            "mmdebstrap",
            "--quiet",
            "--variant=minbase",
            f"--include={WANTED.replace(' ', ',')}",
            "",
            self.path,
            *sources,
        ]
        made = subprocess.run(
            [str(word) for word in argv], capture_output=True, text=True, timeout=GENEROUS, check=False
        )
        if made.returncode:
            said = made.stderr[-600:]
            if any(words in made.stderr for words in NOT_HERE):
                raise SkipTest(f"mmdebstrap cannot make a root here: {said}")
            raise AssertionError(f"mmdebstrap made no root: {said}")
        for name in ("etc/pip.conf", "etc/resolv.conf", "etc/hosts", "root/.config/pip/pip.conf"):
            if Path("/", name).exists():
                (self.path / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(Path("/", name), self.path / name)
        shutil.copy("/etc/ssl/certs/ca-certificates.crt", self.path / "etc/ssl/certs/ca-certificates.crt")
        subprocess.run(["mount", "-t", "proc", "proc", self.path / "proc"], check=True, timeout=60)
        subprocess.run(["git", "clone", "--quiet", "--bare", TOP, self.path / "src.git"], check=True, timeout=60)
        self.run(["git", "config", "--system", "safe.directory", "*"])
        self.run(["useradd", "--create-home", "--shell", "/bin/bash", "flo"])

    def __exit__(self, *_):
        if os.path.ismount(self.path / "proc"):
            subprocess.run(["umount", "--lazy", self.path / "proc"], check=False, timeout=60)
        shutil.rmtree(self.path, ignore_errors=True)

    def argv(self, words, user="root"):
        """The words that run `words` inside as a user, with a plain environment and the settings of pip."""
        home = "/root" if user == "root" else f"/home/{user}"
        pip = [f"{name}={value}" for name, value in os.environ.items() if name.startswith("PIP_")]
        environment = ["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", f"HOME={home}", "TERM=dumb", *pip]
        return ["chroot", f"--userspec={user}", str(self.path), *environment, *map(str, words)]

    def run(self, words, user="root", **keywords):
        """The finished process; its status is checked."""
        check = keywords.pop("check", True)
        keywords = {"timeout": GENEROUS, "capture_output": True, "text": True} | keywords
        done = subprocess.run(self.argv(words, user), check=False, **keywords)
        if check and done.returncode:
            raise AssertionError(f"{words} ended with status {done.returncode}: {(done.stderr or '')[-600:]}")
        return done


class Steps:
    """Names of steps, and the seconds that each took."""

    def __init__(self):
        self.taken = {}
        self._last = time.monotonic()

    def done(self, name):
        """A step has ended."""
        now = time.monotonic()
        self.taken[name] = round(now - self._last, 1)
        self._last = now

    def __str__(self):
        return ", ".join(f"{name} {seconds} s" for name, seconds in self.taken.items())


class ReadmeTests(SynchronousTestCase):
    """From the clone to the first row."""

    def test_walk(self):
        """As root: clone, make run, what the log says to run, a ping, its row. As a user: clone, make demo, a row."""
        clone, run = first_block()
        clone = clone.replace("URL", "file:///src.git")
        self.assertEqual("make run", run)
        with CleanRoot() as root, NetworkNamespaces() as namespaces:
            self.as_root(root, namespaces, clone, run)
            root.run(["bash", "-c", f"apt-get -qq update && apt-get -qq -y install --no-install-recommends {COMPILER}"])
            self.as_user(root, clone)

    def as_root(self, root, namespaces, clone, run):
        """The first row is of a real ping."""
        steps = Steps()
        root.run(["bash", "-c", f"cd /root && {clone}"])
        steps.done("clone")
        # the part that needs the network of this machine
        installed = root.run(["bash", "-c", f"cd /root/ulogd_tw && {run.replace('run', '.venv/installed')}"])
        self.assertIn(f"the compiled kernels are left out, NumPy does their work: {WITHOUT}", installed.stdout)
        steps.done("install")
        own = self.own_part(root)
        argv = root.argv(["bash", "-c", f"cd /root/ulogd_tw && exec {run}"])
        inside = partial(namespaces.argv, "a")
        with Daemon(inside(argv), lambda d: "stacks run" in d.output(), within=GENEROUS, patience=60) as service:
            steps.done("start")
            log = wait_until(lambda: "tracks no connections" in service.output() and service.output(), 60, "the remedy")
            for remedy in re.findall(r"Run: (.*?)(?: \(affects.*)?$", log, re.M):
                subprocess.run(inside(root.argv(["sh", "-c", remedy])), check=True, timeout=60)
            pinged = namespaces.ipv4["b"]
            subprocess.run(inside(root.argv(["ping", "-c", "1", pinged])), check=True, timeout=60, capture_output=True)
            steps.done("remedies and ping")
            wait_until(lambda: self.rows(service.output(), f"destinationAddress={pinged}"), 120, "the row of the ping")
            steps.done("row of the ping")
            top = subprocess.run(
                inside(root.argv(["bash", "-c", "cd /root/ulogd_tw && .venv/bin/ulogd-tw query -c etc/ulogd.conf "
                                  "'select count(*) from agg1'"])),
                check=False, timeout=60, capture_output=True, text=True,
            )  # fmt: skip
            self.assertEqual(0, top.returncode, top.stderr)
            # no export of the service itself among the rows
            self.assertFalse(self.rows(service.output(), "TransportPort=4739"))
            os.killpg(service.process.pid, signal.SIGINT)  # as the terminal does for Ctrl-C
            service.process.wait(60)
            self.assertNotIn("Traceback", service.output())
        own += steps.taken["start"] + steps.taken["row of the ping"]
        print(f"\n    as root: {steps}\n    {own:.1f} s of it ours (build, start, row), the rest is network and pip")

    def own_part(self, root):
        """Seconds of `make .venv/installed` that are ours: building the package without downloads, compiling Python."""
        pip = ".venv/bin/python -m pip install -qq"
        steps = f"{pip} --no-deps --no-build-isolation --config-settings editable_mode=compat -e ."
        root.run(["bash", "-c", f"cd /root/ulogd_tw && {pip} -U 'setuptools>=70.1' cffi"])
        root.run(["bash", "-c", "cd /root/ulogd_tw && find ulogd_tw twisted -name __pycache__ | xargs rm -r"])
        began = time.monotonic()
        root.run(["bash", "-c", f"cd /root/ulogd_tw && {steps} && .venv/bin/python -m compileall -q ulogd_tw twisted"])
        return time.monotonic() - began

    def as_user(self, root, clone):
        """Without privilege and traffic: make demo."""
        steps = Steps()
        root.run(["bash", "-c", f"cd ~ && {clone}"], "flo")
        steps.done("clone")
        argv = root.argv(["bash", "-c", "cd ~/ulogd_tw && exec make demo"], "flo")
        with Daemon(argv, lambda d: self.rows(d.output(), "sourceAddress"), within=GENEROUS, patience=60) as service:
            steps.done("make demo to the first row")
            self.assertNotIn("Traceback", service.output())
            self.assertNotIn("left out", service.output())
        told = root.run(
            ["bash", "-c", "cd ~/ulogd_tw && .venv/bin/ulogd-tw doctor -c etc/demo.conf"], "flo", check=False
        )
        self.assertIn(f"compiled kernels: {', '.join(kernels.SUBJECTS)}", told.stdout)
        print(f"    as a user, with a compiler: {steps}")

    def rows(self, output, text):
        """Rows on the terminal that have this text."""
        return [row for row in ROW.findall(output) if text in row]
