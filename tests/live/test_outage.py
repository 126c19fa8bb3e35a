"""Databases that go away for 10 s while rows arrive, a stop while one is away, files that are rotated."""

import json
import os
import signal
import sqlite3
import subprocess
import time

from twisted.trial.unittest import TestCase

from tests.live.service import Service, generate, ipfixgen, sleep, unaccounted
from tests.live.test_collector import data, message, template
from tests.support import PrivateMariaDB, free_port, wait_until

AWAY = 10.0
KEYS = "sourceIPv4Address,destinationIPv4Address,octetDeltaCount,packetDeltaCount,flowEndMilliseconds"
CONFIG = """
[col1]
listen="udp:127.0.0.1:{port} tcp:127.0.0.1:{port}"
[db1]
db="{dir}/flows.sqlite3"
table="flows"
create=1
keys="{keys}"
spool="{dir}/spool"
[my1]
socket="{socket}"
host="localhost"
user="root"
pass=""
db="ulogd"
table="flows"
create=1
keys="{keys}"
[json1]
file="{dir}/flows.json"
"""
SUMS = "select count(*), sum(octetDeltaCount), sum(packetDeltaCount) from flows"


class OutageTests(TestCase):
    """What happens to rows while an output cannot take them."""

    timeout = 150

    def service(self, stacks, socket="", **keywords):
        self.port = free_port("both")
        config = CONFIG.replace("{port}", str(self.port)).replace("{socket}", socket).replace("{keys}", KEYS)
        return Service(stacks, config, **keywords)

    def load(self, seconds):
        """An exporter over TCP that sends 3000 records a second for so long."""
        words = ["-t", "tcp", "-n", int(3000 * seconds), "-r", 3000, "-6", 0]
        return subprocess.Popen(
            [ipfixgen(), "-d", f"127.0.0.1:{self.port}", *map(str, words)], stdout=subprocess.PIPE, text=True
        )

    def finished(self, load):
        return json.loads(load.communicate(timeout=60)[0].splitlines()[-1])

    def check(self, service, instance, sent, sums):
        counters = service.all_counters()
        self.assertEqual(counters["col1"]["rows_received"], sent["records"])
        self.assertEqual(tuple(map(int, sums)), (sent["records"], sent["octets"], sent["packets"]))
        self.assertEqual((counters[instance]["dropped"], counters[instance]["rows_written"]), ({}, sent["records"]))
        self.assertEqual(unaccounted(counters), {})

    def test_mariadb_away(self):
        """Killed, not stopped; every row is there once when it is back."""
        with PrivateMariaDB() as maria, self.service(["col1:COLLECTOR,my1:MYSQL"], maria.socket) as service:
            load = self.load(AWAY + 4)
            service.wait_for("my1", "rows_written", 2000)
            maria.stop(signal.SIGKILL)
            sleep(AWAY)
            self.assertGreater(service.counters("my1")["rows_waiting"], 10_000)
            maria.start()
            sent = self.finished(load)
            service.wait_for("my1", "rows_written", sent["records"], 40)
            service.stop()
            self.check(service, "my1", sent, maria.execute(SUMS)[0])

    def test_sqlite_locked(self):
        """Another program holds the file; every row is there once when it lets go, and reception never stopped."""
        with self.service(["col1:COLLECTOR,db1:SQLITE3", "col1:COLLECTOR,json1:JSON"]) as service:
            load = self.load(AWAY + 4)
            service.wait_for("db1", "rows_written", 2000)
            other = sqlite3.connect(service.directory / "flows.sqlite3", isolation_level=None, timeout=10)
            other.execute("begin exclusive")
            sleep(AWAY)
            counters = service.all_counters()
            self.assertGreater(counters["db1"]["rows_waiting"], 10_000)
            self.assertGreater(counters["json1"]["rows_written"], 25_000)
            other.execute("rollback")
            other.close()
            sent = self.finished(load)
            service.wait_for("db1", "rows_written", sent["records"], 40)
        with sqlite3.connect(service.directory / "flows.sqlite3") as database:
            self.check(service, "db1", sent, database.execute(SUMS).fetchone())

    def test_what_a_stop_leaves_over_is_spooled(self):
        """The file stays locked over the whole stop: the rows wait on the disk and are stored by the next run."""
        stacks, settings = ["col1:COLLECTOR,db1:SQLITE3"], "stop_timeout=1"
        with self.service(stacks, settings=settings) as service:
            first = generate(f"127.0.0.1:{self.port}", "-n", 1000, "-t", "tcp", "-6", 0)
            service.wait_for("db1", "rows_written", 1000)
            other = sqlite3.connect(service.directory / "flows.sqlite3", isolation_level=None, timeout=10)
            other.execute("begin exclusive")
            second = generate(f"127.0.0.1:{self.port}", "-n", 5000, "-t", "tcp", "-6", 0, "-s", 3)
            service.wait_for("col1", "rows_received", 6000)
            service.stop()
            counters = service.all_counters()
            self.assertEqual((counters["db1"]["rows_spooled"], counters["db1"]["dropped"]), (5000, {}))
            self.assertEqual(unaccounted(counters), {})
            other.execute("rollback")
            other.close()
            service.start()
            service.wait_for("db1", "rows_written", 5000)
            service.stop()
            self.assertEqual(service.counters("db1")["rows_unspooled"], 5000)
            self.assertEqual(os.listdir(service.directory / "spool"), [])
        with sqlite3.connect(service.directory / "flows.sqlite3") as database:
            sums = database.execute(SUMS).fetchone()
        self.assertEqual(sums[:2], (6000, first["octets"] + second["octets"]))

    def test_killed_while_it_reads_the_spool(self):
        """A run that is killed while it stores what waited on the disk: the next one stores the rest, none twice."""
        with self.service(["col1:COLLECTOR,db1:SQLITE3"], settings="stop_timeout=0.5") as service:
            path = service.directory / "flows.sqlite3"
            sent = generate(f"127.0.0.1:{self.port}", "-n", 1, "-t", "tcp", "-6", 0)
            service.wait_for("db1", "rows_written", 1)
            other = sqlite3.connect(path, isolation_level=None, timeout=10)
            other.execute("begin exclusive")
            sent = generate(f"127.0.0.1:{self.port}", "-n", 100_000, "-t", "tcp", "-6", 0, "-s", 3)
            service.wait_for("col1", "rows_received", 100_001)
            service.stop()
            other.execute("rollback")
            for _ in range(3):
                rows = other.execute("select count(*) from flows").fetchone()[0]
                service.start()
                more = f"select count(*) > {rows} from flows"
                wait_until(lambda query=more: other.execute(query).fetchone()[0], what="rows")
                service.daemon.stop(signal.SIGKILL)
            left = len(os.listdir(service.directory / "spool"))
            self.assertGreater(left, 0)
            service.start()
            wait_until(lambda: not os.listdir(service.directory / "spool"), 30, "an empty spool")
            service.stop()
            other.close()
        with sqlite3.connect(path) as database:
            self.assertEqual(database.execute(SUMS).fetchone()[0], 1 + sent["records"])

    def test_files_are_rotated(self):
        """logrotate renames and sends SIGHUP: no line is lost or torn."""
        import socket

        with self.service(["col1:COLLECTOR,json1:JSON"]) as service, socket.socket() as exporter:
            exporter.connect(("127.0.0.1", self.port))
            exporter.sendall(message(template()))
            sent, path = 0, service.directory / "flows.json"
            for turn in range(5):
                end = time.monotonic() + 0.3
                while time.monotonic() < end:
                    exporter.sendall(message(data(20), sequence=sent))
                    sent += 20
                    time.sleep(0.001)
                wait_until(path.exists, what="the file")
                path.rename(path.with_suffix(f".{turn}"))
                os.kill(service.pid, signal.SIGHUP)
            service.wait_for("json1", "rows_written", sent)
        lines = [json.loads(line) for file in service.directory.glob("flows.*")
                 if file.suffix not in (".conf", ".sqlite3") for line in file.read_text().splitlines()]  # fmt: skip
        self.assertEqual(len(lines), sent)
