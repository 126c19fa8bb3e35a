"""What tests share: properties that trial can show, reasons to leave a test out, and real peers that are ended again.

Reasons begin with `install:` when an installation would let the test run (with CI=true that fails the run). Every wait
here is bounded, and what is started is ended by its own process id. The peers block the caller, so a test that also
needs the reactor starts them before it waits for a Deferred, or calls them in a thread.
"""

import ast
import ctypes
import functools
import itertools
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from importlib import metadata
from pathlib import Path
from unittest import SkipTest

import hypothesis
from hypothesis import settings
from hypothesis.configuration import set_hypothesis_home_dir
from twisted.trial.unittest import FailTest

__all__ = [
    "Daemon",
    "NetworkNamespaces",
    "PrivateMariaDB",
    "free_port",
    "given",
    "require_netns",
    "require_program",
    "require_root",
    "settings",
    "shared_path",
    "show_notes",
    "sized",
    "wait_until",
]

TOP = Path(__file__).resolve().parents[1]

# Debian's package of a program, where the two names differ.
PACKAGES = {
    "busybox": "busybox-static",
    "dh_virtualenv": "dh-virtualenv",
    "dpkg-buildpackage": "dpkg-dev",
    "ip": "iproute2",
    "linux.uml": "user-mode-linux",
    "ipfixDump": "libfixbuf-tools",
    "mariadb-install-db": "mariadb-server",
    "mariadbd": "mariadb-server",
    "nfacctd": "pmacct",
    "nfcapd": "nfdump",
    "nfpcapd": "nfdump",
    "nft": "nftables",
    "ping": "iputils-ping",
    "promtool": "prometheus",
    "pmacctd": "pmacct",
    "sfcapd": "nfdump-sflow",
    "ss": "iproute2",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "systemd-nspawn": "systemd-container",
    "ulogd": "ulogd2",
}


# --- properties -----------------------------------------------------------------------------------------------------


def _load_profile():
    """Our settings of hypothesis: no deadline, the same cases each time in CI, nothing written into the tree."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    set_hypothesis_home_dir(cache / "ulogd_tw-hypothesis")
    settings.register_profile(
        "ulogd_tw",
        deadline=None,
        derandomize=os.environ.get("CI") == "true",
        database=None,
        max_examples=int(os.environ.get("HYPOTHESIS_EXAMPLES", "100")),
        report_multiple_bugs=False,
    )
    settings.load_profile("ulogd_tw")


_load_profile()


def show_notes(test):
    """`test`, whose exceptions carry their notes in the message.

    hypothesis puts the falsifying example into notes, which trial (26.10) does not print.
    """

    @functools.wraps(test)
    def shown(*arguments, **keywords):
        # settings, example and seed may stand above given: they then set attributes of this function.
        vars(test).update({name: value for name, value in vars(shown).items() if "hypothesis" in name})
        try:
            return test(*arguments, **keywords)
        except Exception as failure:
            notes = getattr(failure, "__notes__", ())
            if not notes:
                raise
            kind = "" if isinstance(failure, AssertionError) else f"{type(failure).__name__}: "
            text = "\n".join([f"{kind}{failure}", *notes])
            raise FailTest(text).with_traceback(failure.__traceback__) from failure

    return shown


def given(*arguments, **keywords):
    """hypothesis.given for methods of trial's test cases, so that trial shows the falsifying example.

    The method must be synchronous. `assume`, `example` and strategies come from hypothesis itself.
    """

    def decorate(test):
        return show_notes(hypothesis.given(*arguments, **keywords)(test))

    return decorate


def examples(usual):
    """Settings of a property that takes `usual` examples where others take 100; HYPOTHESIS_EXAMPLES changes all."""
    return settings(max_examples=max(usual * settings.default.max_examples // 100, 5))


@functools.cache
def import_nodes(path):
    """The import statements of a module, anywhere in it; each module is parsed once a process."""
    tree = ast.parse(path.read_text("utf-8"), str(path))
    return [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]


def sized(usual, full):
    """`usual`, or with `make soak` (ULOGD_TW_SOAK=1) `full`: the size of a test that CI runs smaller."""
    return full if os.environ.get("ULOGD_TW_SOAK") == "1" else usual


# --- reasons to leave a test out ------------------------------------------------------------------------------------


def _which(program):
    """Where the program is; an ordinary user's PATH has no sbin."""
    return shutil.which(program, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"]))


def require_setuptools():
    """Leave the test out where setuptools cannot build a wheel by itself: then no index is needed either."""
    version = re.match(r"(\d+)\.(\d+)", metadata.version("setuptools"))
    if tuple(map(int, version.groups())) < (70, 1):
        raise SkipTest("install: setuptools 70.1, which the extra test names")


def require_root():
    """Leave the test out unless it is run as root."""
    if os.geteuid() != 0:
        raise SkipTest("needs root")


def require_program(*names):
    """Paths of the programs; leaves the test out when one is not installed.

    Only root can install one, so for others that is no `install:` reason.
    """
    for name in names:
        if _which(name) is None:
            package = PACKAGES.get(name, name)
            wanted = package if package == name else f"{package} (for {name})"
            raise SkipTest(f"install: {wanted}" if os.geteuid() == 0 else f"needs {wanted}, which root can install")
    return [_which(name) for name in names]


def require_library(name, package):
    """Leave the test out unless the shared library can be loaded."""
    try:
        ctypes.CDLL(name)
    except OSError:
        reason = f"install: {package}" if os.geteuid() == 0 else f"needs {package}, which root can install"
        raise SkipTest(reason) from None


@functools.cache
def _namespaces_refused():
    """What `ip` says when it may not make a network namespace; empty when it may."""
    name = f"utw{os.getpid()}probe"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, timeout=30)
    subprocess.run(["ip", "netns", "del", name], capture_output=True, timeout=30)
    return made.stderr.strip() if made.returncode else ""


def require_netns():
    """Leave the test out unless this kernel lets us make network namespaces."""
    require_root()
    require_program("ip")
    if refused := _namespaces_refused():
        raise SkipTest(f"needs network namespaces: {refused}")


def shared_path(*parts):
    """A file or folder of `shared`, which stands beside the checkout or where ULOGD_TW_SHARED says."""
    shared = Path(os.environ.get("ULOGD_TW_SHARED") or TOP.parent / "shared")
    path = shared.joinpath(*parts)
    if not path.exists():
        raise SkipTest(f"corpus: {Path('shared', *parts)} not beside this checkout (see README, Tests)")
    return path


# --- waiting, ports -------------------------------------------------------------------------------------------------


def wait_until(predicate, within=10.0, what="the condition"):
    """The first true value of `predicate()`, tried every 20 ms; AssertionError after `within` seconds."""
    deadline = time.monotonic() + within
    while not (value := predicate()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {within} s")
        time.sleep(0.02)
    return value


def free_port(kind="tcp"):
    """A port of 127.0.0.1 that nobody uses now; kind is tcp, udp or both."""
    for _ in range(50):
        with socket.socket(type=socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM) as first:
            first.bind(("127.0.0.1", 0))
            port = first.getsockname()[1]
            if kind != "both":
                return port
            with socket.socket(type=socket.SOCK_DGRAM) as second:
                try:
                    second.bind(("127.0.0.1", port))
                except OSError:
                    continue
            return port
    raise AssertionError("no port is free for both tcp and udp")


# --- processes ------------------------------------------------------------------------------------------------------


class Daemon:
    """A process in its own group, there from `with` until its end; what it prints goes to `log`, else a nameless file.

    `ready(daemon)` is tried until it is true, at most `within` seconds. At the end the process (never another) gets
    SIGTERM, and SIGKILL after `patience` seconds. Other keywords go to subprocess.Popen. It may be started again.
    """

    def __init__(self, argv, ready=None, *, within=10.0, patience=10.0, log=None, **popen):
        self.argv = [str(word) for word in argv]
        self.ready = ready
        self.within, self.patience = within, patience
        self.log = Path(log) if log else None
        self.popen = popen
        self.process = None
        self._output = None

    @property
    def pid(self):
        return self.process.pid

    @property
    def running(self):
        return self.process is not None and self.process.poll() is None

    def output(self):
        """Everything it printed so far, on both streams; also after its end."""
        if self._output is None:
            return ""
        descriptor = self._output.fileno()
        return os.pread(descriptor, os.fstat(descriptor).st_size, 0).decode(errors="replace")

    def start(self):
        """Start it and return when it is ready; AssertionError, with what it printed, when it does not get so."""
        if self._output is None:
            self._output = self.log.open("a+b") if self.log else tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            self.argv, stdin=subprocess.DEVNULL, stdout=self._output, stderr=subprocess.STDOUT, process_group=0,
            **self.popen,
        )  # fmt: skip
        try:
            wait_until(self._is_ready, self.within, f"{self.argv[0]} ready")
        except BaseException as failure:
            self.stop()
            if isinstance(failure, AssertionError):
                raise AssertionError(f"{failure}; it printed:\n{self.output()[-4000:]}") from None
            raise
        return self

    def _is_ready(self):
        if not self.running:
            raise AssertionError(f"{' '.join(self.argv)}: ended with status {self.process.returncode}")
        return self.ready is None or self.ready(self)

    def stop(self, number=signal.SIGTERM):
        """End it, at first with the signal `number`, and return its exit status (negative: by that signal)."""
        if self.process is None:
            return None
        if self.running:
            self.process.send_signal(number)
        try:
            return self.process.wait(self.patience)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait(self.patience)

    def kill(self):
        """End it without a chance to tidy up."""
        return self.stop(signal.SIGKILL)

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()


def _command(argv, **keywords):
    """subprocess.run, captured as text, at most 30 s; AssertionError with its standard error when it fails."""
    keywords = {"capture_output": True, "text": True, "timeout": 30, "check": True} | keywords
    check = keywords.pop("check")
    result = subprocess.run([str(word) for word in argv], **keywords)
    if check and result.returncode:
        raise AssertionError(f"{' '.join(map(str, argv))}: status {result.returncode}: {result.stderr}")
    return result


# --- network namespaces ---------------------------------------------------------------------------------------------

# A rule on `ct state` in a namespace is what makes its kernel follow connections.
CONNTRACK_RULES = """
table inet utw {
    chain input { type filter hook input priority 0; ct state new counter accept; }
    chain forward { type filter hook forward priority 0; ct state new counter accept; }
    chain output { type filter hook output priority 0; ct state new counter accept; }
}
"""
CONNTRACK_SYSCTLS = ("nf_conntrack_acct", "nf_conntrack_timestamp", "nf_conntrack_events")


class NetworkNamespaces:
    """Two network namespaces `a` and `b`, joined by a veth pair, there while the `with` lasts.

    `ipv4` and `ipv6` map a and b to their addresses: 10.77.N.1 and .2 (/24), fd77:N::1 and ::2 (/64); the device is
    `veth0` on both sides. With `conntrack` both sides follow connections, count them, stamp them and send all events.
    """

    _numbers = itertools.count(1)

    def __init__(self, conntrack=False):
        require_netns()
        if conntrack:
            require_program("nft")
        self.conntrack = conntrack
        self.number = next(self._numbers) % 250 + 1
        self.names = {which: f"utw{os.getpid()}n{self.number}{which}" for which in "ab"}
        self.ipv4 = {"a": f"10.77.{self.number}.1", "b": f"10.77.{self.number}.2"}
        self.ipv6 = {"a": f"fd77:{self.number}::1", "b": f"fd77:{self.number}::2"}
        self._made = []

    def argv(self, which, argv):
        """The words that run `argv` inside a or b, for a Daemon; its process id is that of the program itself."""
        return ["ip", "netns", "exec", self.names[which], *map(str, argv)]

    def run(self, which, argv, **keywords):
        """The finished process of `argv` inside a or b: text captured, 30 s, status checked, unless keywords differ."""
        return _command(self.argv(which, argv), **keywords)

    def __enter__(self):
        try:
            self._make()
        except BaseException:
            self._delete()
            raise
        return self

    def __exit__(self, *_):
        self._delete()

    def _make(self):
        for name in self.names.values():
            _command(["ip", "netns", "add", name])
            self._made.append(name)
        a, b = self.names["a"], self.names["b"]
        _command(["ip", "-n", a, "link", "add", "veth0", "type", "veth", "peer", "name", "veth0", "netns", b])
        for which, name in self.names.items():
            _command(["ip", "-n", name, "address", "add", f"{self.ipv4[which]}/24", "dev", "veth0"])
            _command(["ip", "-n", name, "address", "add", f"{self.ipv6[which]}/64", "dev", "veth0", "nodad"])
            _command(["ip", "-n", name, "link", "set", "lo", "up"])
            _command(["ip", "-n", name, "link", "set", "veth0", "up"])
            if self.conntrack:
                self._follow_connections(which)
        wait_until(self._is_up, what="carrier of veth0")

    def _follow_connections(self, which):
        self.run(which, ["nft", "-f", "-"], input=CONNTRACK_RULES)
        # The sysctls are there only once conntrack is loaded, so after the rules.
        for name in CONNTRACK_SYSCTLS:
            self.run(which, ["sh", "-c", f"echo 1 >/proc/sys/net/netfilter/{name}"])

    def _is_up(self):
        links = [_command(["ip", "-n", name, "link", "show", "veth0"]).stdout for name in self.names.values()]
        return all("LOWER_UP" in link for link in links)

    def _delete(self):
        while self._made:
            name = self._made.pop()
            # Whatever still runs in there was started through us, and would keep the namespace.
            pids = _command(["ip", "netns", "pids", name], check=False).stdout.split()
            for pid in map(int, pids):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            _command(["ip", "netns", "del", name], check=False)


# --- MariaDB --------------------------------------------------------------------------------------------------------


class PrivateMariaDB:
    """A MariaDB server of our own in a temporary folder, there while the `with` lasts, with a database `ulogd`.

    It listens on a unix socket, with `networking` on a port of 127.0.0.1 instead of none. `connect_kwargs` are those of
    pymysql.connect. stop() and start() take it away and give it back with the same data, socket and port.
    """

    def __init__(self, networking=False, options=()):
        self._install, server = require_program("mariadb-install-db", "mariadbd")
        self.port = free_port("tcp") if networking else None
        self.user = "nobody" if os.geteuid() == 0 else None
        # Not in trial's folder: a path of a unix socket has at most 107 octets, and nobody has to reach it.
        self.folder = Path(tempfile.mkdtemp(prefix="utw-maria-"))
        network = [f"--port={self.port}", "--bind-address=127.0.0.1"] if networking else ["--skip-networking"]
        self._daemon = Daemon(
            [server, "--no-defaults", f"--datadir={self.folder}/data", f"--socket={self.socket}",
             f"--pid-file={self.folder}/pid", f"--log-error={self.folder}/error.log", "--skip-name-resolve",
             "--local-infile=1", "--innodb-buffer-pool-size=64M", "--innodb-flush-log-at-trx-commit=2",
             *network, *options],
            lambda daemon: self._answers(), within=30.0, patience=30.0, log=self.folder / "output",
            **self._as_user(),
        )  # fmt: skip

    @property
    def socket(self):
        return str(self.folder / "socket")

    @property
    def pid(self):
        return self._daemon.pid

    @property
    def connect_kwargs(self):
        """Keywords for pymysql.connect."""
        where = {"host": "127.0.0.1", "port": self.port} if self.port else {"unix_socket": self.socket}
        return where | {"user": "root", "password": "", "database": "ulogd"}

    def _as_user(self):
        """Keywords of Popen that make the process an unprivileged user's: mariadbd refuses to run as root."""
        if self.user is None:
            return {"cwd": self.folder}
        return {"cwd": self.folder, "user": self.user, "group": pwd.getpwnam(self.user).pw_gid, "extra_groups": []}

    def _answers(self):
        import pymysql

        try:
            pymysql.connect(**self.connect_kwargs | {"database": None}, connect_timeout=2).close()
        except pymysql.err.OperationalError:
            return False
        return True

    def start(self):
        """Start the server and return when it answers."""
        try:
            self._daemon.start()
        except AssertionError as failure:
            log = self.folder / "error.log"
            raise AssertionError(f"{failure}\n{log.read_text()[-4000:] if log.exists() else ''}") from None

    def stop(self, number=signal.SIGTERM):
        """End the server; its data stay for start(). SIGKILL for a crash."""
        return self._daemon.stop(number)

    def execute(self, statement, *arguments):
        """The rows of one statement, on a connection of its own."""
        import pymysql

        with pymysql.connect(**self.connect_kwargs, autocommit=True) as connection, connection.cursor() as cursor:
            cursor.execute(statement, arguments or None)
            return list(cursor.fetchall())

    def __enter__(self):
        try:
            self._prepare()
            self.start()
            _create_database(self.connect_kwargs)
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
        _command(
            [self._install, "--no-defaults", f"--datadir={self.folder}/data", "--skip-test-db", "--skip-name-resolve",
             "--auth-root-authentication-method=normal"],
            timeout=120, **self._as_user(),
        )  # fmt: skip

    def _close(self):
        try:
            self._daemon.stop()
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)


def _create_database(connect_kwargs):
    """Make the database that the keywords of pymysql.connect name."""
    import pymysql

    with pymysql.connect(**connect_kwargs | {"database": None}) as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {connect_kwargs['database']}")
