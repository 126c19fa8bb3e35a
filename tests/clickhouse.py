"""ClickHouse servers of our own for tests: Debian's, which is of 2018, and today's engine in chdb behind HTTP."""

import http.client
import os
import shutil
import signal
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

from twisted.trial.unittest import SkipTest

from tests.support import Daemon, free_port

PACKAGE = "clickhouse-server"
SHIM = Path(__file__).with_name("clickhouse_shim.py")
_CONFIG = """<?xml version="1.0"?>
<yandex>
 <logger><level>warning</level><log>{folder}/log</log><errorlog>{folder}/errors</errorlog></logger>
 {ports}<listen_host>127.0.0.1</listen_host>
 <max_connections>100</max_connections><keep_alive_timeout>{keep_alive}</keep_alive_timeout>
 <path>{folder}/data/</path><tmp_path>{folder}/tmp/</tmp_path>
 <users_config>{folder}/users.xml</users_config><default_profile>default</default_profile>
 <default_database>default</default_database><mark_cache_size>67108864</mark_cache_size>{more}
</yandex>
"""
_USERS = """<?xml version="1.0"?>
<yandex><profiles><default><max_memory_usage>2000000000</max_memory_usage></default></profiles>
<users><default><password></password><networks><ip>127.0.0.1</ip></networks><profile>default</profile>
<quota>default</quota></default>
<flows><password>{password}</password><networks><ip>127.0.0.1</ip></networks><profile>default</profile>
<quota>default</quota></flows></users>
<quotas><default><interval><duration>3600</duration><queries>0</queries><errors>0</errors><result_rows>0</result_rows>
<read_rows>0</read_rows><execution_time>0</execution_time></interval></default></quotas></yandex>
"""
PASSWORD = "s'e&c <r> €"
"""The password of the user flows."""


class _Server:
    """A server on a port of 127.0.0.1. stop() and start() take it away and give it back with the same data."""

    end = signal.SIGTERM

    def __init__(self):
        self.port = free_port("tcp")
        self.folder = Path(tempfile.mkdtemp(prefix="utw-ch-"))
        self.daemon = None

    def ask(self, statement, **arguments):
        """The rows of a statement, each a tuple of texts."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            words = "&".join(f"{name}={quote(str(value))}" for name, value in arguments.items())
            connection.request("POST", f"/?default_format=TabSeparated&{words}", statement.encode())
            answer = connection.getresponse()
            text = answer.read().decode()
        finally:
            connection.close()
        if answer.status != 200:
            raise AssertionError(f"{statement[:200]}: {text[:500]}")
        return [tuple(line.split("\t")) for line in text.splitlines()]

    def _answers(self, _):
        try:
            return self.ask("SELECT 1") == [("1",)]
        except (OSError, http.client.HTTPException):
            return False

    def start(self):
        """Start it, and return when it answers."""
        self.daemon.start()

    def stop(self, number=None):
        """End it; SIGKILL for a crash."""
        return self.daemon.stop(number or self.end)

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        try:
            self.stop(signal.SIGKILL)
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)


class PrivateClickHouse(_Server):
    """Debian's clickhouse-server, 18.16, with a user `flows` that has a password. `more`: elements of its config."""

    def __init__(self, more="", tls=False):
        if not shutil.which(PACKAGE):
            raise SkipTest(f"install: {PACKAGE}" if os.geteuid() == 0 else f"needs {PACKAGE}, which root can install")
        super().__init__()
        self.tls_port = free_port("tcp") if tls else 0
        ports = [("http_port", self.port), ("tcp_port", free_port("tcp")), ("interserver_http_port", free_port("tcp"))]
        ports += [("https_port", self.tls_port)] if tls else []
        text = "".join(f"<{name}>{port}</{name}>" for name, port in ports)
        config = _CONFIG.format(folder=self.folder, ports=text, keep_alive=3, more=more)
        (self.folder / "config.xml").write_text(config)
        secret = PASSWORD.replace("&", "&amp;").replace("<", "&lt;")
        (self.folder / "users.xml").write_text(_USERS.format(password=secret))
        self.daemon = Daemon(
            [PACKAGE, f"--config-file={self.folder}/config.xml"], self._answers, within=60.0, patience=20.0,
            log=self.folder / "output", cwd=self.folder,
        )  # fmt: skip


def python_with_chdb():
    """The interpreter that has chdb: ours, or that of CHDB_PYTHON; leaves the test out without one."""
    found = os.environ.get("CHDB_PYTHON") or (sys.executable if find_spec("chdb") else "")
    if not found:
        raise SkipTest("needs chdb (pip install chdb, 500 MB), or CHDB_PYTHON with an interpreter that has it")
    return found


class Chdb(_Server):
    """The engine of chdb in a process of its own."""

    end = signal.SIGKILL

    def __init__(self):
        python = python_with_chdb()
        super().__init__()
        self.daemon = Daemon(
            [python, SHIM, self.port, self.folder / "data"], self._answers, within=60.0,
            log=self.folder / "output", cwd=self.folder,
        )  # fmt: skip
