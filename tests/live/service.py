"""The running service for live tests: `twistd ulogd` on a configuration, with its counters."""

import atexit
import contextlib
import functools
import http.client
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.support import TOP, Daemon, require_program, shared_path, wait_until


def temporary(what):
    """A new directory, removed when the test run ends: tests look into it after their service has ended."""
    path = tempfile.mkdtemp(prefix=f"utw-{what}-")
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return Path(path)


class Service:
    """`twistd -n ulogd` in a process of its own, there while the `with` lasts.

    `config` is the text of ulogd.conf without [global]; `stacks` the stack lines. {dir} in either is the working
    directory. `namespace` is a function that puts words before a command line (`NetworkNamespaces.argv`, half done).
    """

    STATS_INTERVAL = 0.2
    """Tests look often; what is measured has the default (None)."""

    def __init__(self, stacks, config="", *, directory=None, namespace=None, settings="", ready="stacks run", **daemon):
        self.directory = Path(directory) if directory else temporary("service")
        self.directory.mkdir(parents=True, exist_ok=True)
        often = f"stats_interval={self.STATS_INTERVAL}" if self.STATS_INTERVAL else ""
        lines = ["[global]", f'stats_file="{self.directory}/stats.json"', often, settings]
        text = "\n".join([*lines, *(f"stack={stack}" for stack in stacks), config])
        self.config = self.directory / "ulogd.conf"
        self.config.write_text(text.replace("{dir}", str(self.directory)))
        argv = [Path(sys.executable).with_name("twistd"), "-n", "--pidfile=", "ulogd", "--config", self.config]
        daemon.setdefault("patience", 30.0)
        self.daemon = Daemon(
            namespace(argv) if namespace else argv,
            lambda d: ready in d.output(),
            within=20.0,
            cwd=TOP,
            **daemon,
        )
        self.start, self.stop, self.kill, self.output = (
            self.daemon.start, self.daemon.stop, self.daemon.kill, self.daemon.output,
        )  # fmt: skip

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stop()

    @property
    def pid(self):
        return self.daemon.pid

    def counters(self, instance):
        """The counters of one instance, as the stats file has them now."""
        return self.all_counters()[instance]

    def all_counters(self):
        path = self.directory / "stats.json"
        return json.loads(path.read_text())["instances"] if path.exists() else {}

    def wait_for(self, instance, figure, value, within=20.0):
        """Wait until a counter is at least `value`."""

        def reached():
            found = self.all_counters().get(instance, {}).get(figure, 0)
            return found >= value

        try:
            wait_until(reached, within, f"{instance}.{figure} >= {value}")
        except AssertionError as failure:
            raise AssertionError(f"{failure}\n{self.all_counters()}\n{self.output()[-3000:]}") from None


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path):
        super().__init__("localhost", timeout=20)
        self._path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def ask(service, method, path):
    """The answer of the API of a service whose control socket is {dir}/control."""
    with contextlib.closing(UnixConnection(service.directory / "control")) as connection:
        connection.request(method, path)
        return json.loads(connection.getresponse().read())


def unaccounted(counters):
    """Instances of a stats file whose rows do not add up: received = emitted, written, filtered, ... or dropped."""
    found = {}
    for name, c in counters.items():
        emitted = 0 if c["plugin"] in ("AGGREGATE", "FLOWCACHE") else c["rows_emitted"]
        gone = (
            emitted + c["rows_filtered"] + c["rows_merged"] + c["rows_written"] + c["rows_waiting"] + c["rows_spooled"]
        )
        rest = c["rows_received"] - gone - sum(c["dropped"].values())
        if rest:
            found[name] = rest
    return found


@functools.cache
def ipfixgen():
    """The load generator, compiled; leaves the test out where it or a compiler is not there."""
    source = shared_path("tools", "loadgen", "ipfixgen.c")
    (gcc,) = require_program("gcc")
    program = temporary("gen") / "ipfixgen"
    subprocess.run([gcc, "-O2", "-o", program, source, "-lm"], check=True, timeout=120)
    return program


def generate(target, *words):
    """Run the generator to its end; what it sent, as a dict (records, octets, packets, ...)."""
    done = subprocess.run(
        [ipfixgen(), "-d", target, *map(str, words)], capture_output=True, text=True, timeout=120, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def sleep(seconds):
    """For traffic that has to take some time; every wait for a state is `wait_until` instead."""
    time.sleep(seconds)
