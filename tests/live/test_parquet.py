"""The flow store under fire: kills, a full disk, a directory that is gone, retention and merges while records come."""

import os
import random
import shlex
import struct
import subprocess
import threading
import time

import duckdb
from twisted.trial.unittest import SynchronousTestCase

from tests.live.service import Service, generate, temporary, unaccounted
from tests.live.test_state import Exporter
from tests.support import free_port, require_program, require_root, wait_until
from tests.unit.ipfix.wire import a_set, message, template

FIELDS = template(256, (8, 4), (12, 4), (1, 8), (153, 8))
"""Source, destination, octets, end in ms."""
ROWS = 10
KILLS = 20
STATE = 'state_dir="{dir}/state"\nstate_interval=0.1'
SLACK_S = 1.5
"""Seconds between the arrival of a row and its file, beyond `flush`, on a busy machine."""


class Numbered(Exporter):
    """Sends records whose octets are their number; their ends go round the last `hours` hours."""

    def __init__(self, port, pause=0.002, hours=1):
        super().__init__("ipfix", port)
        self.pause, self.hours = pause, hours
        self.times = []
        """When each message was sent."""

    @property
    def sent(self):
        return self.messages * ROWS

    def run(self):
        while not self.ends.is_set():
            try:
                self.socket.send(self.one())
            except ConnectionRefusedError:
                time.sleep(self.pause)
                continue
            self.messages += 1
            self.times.append(time.time())
            time.sleep(self.pause)

    def one(self):
        first, now = self.messages * ROWS, time.time()
        end = int(now * 1000) - self.messages % self.hours * 3_600_000
        rows = [
            struct.pack("!IIQQ", 0x0A000000 | one & 0xFFFF, 0xC0000201, one, end) for one in range(first, first + ROWS)
        ]
        return message(a_set(2, FIELDS), a_set(256, *rows), number=first, export_time=int(now))


def rows(store, query="select octets from t order by 1"):
    """What any reader finds in a store: a query of the table t."""
    with duckdb.connect() as connection:
        there = f"read_parquet('{store}/date=*/hour=*/*.parquet', union_by_name=true)"
        return connection.execute(query.replace("from t", f"from {there}")).fetchall()


class StoreCase(SynchronousTestCase):
    """A COLLECTOR before a PARQUET."""

    def setUp(self):
        self.directory = temporary("parquet")
        self.store = self.directory / "store"
        self.port = free_port("udp")

    def service(self, options, stacks=(), sections="", port=None, **more):
        port = port or self.port
        text = f'[col]\nlisten="udp:127.0.0.1:{port}"\n[pq]\ndirectory="{{dir}}/store"\n{options}\n{sections}'
        return Service(["col:COLLECTOR,pq:PARQUET", *stacks], text, **{"directory": self.directory, **more})

    def exporter(self, port=None, **more):
        exporter = Numbered(port or self.port, **more)
        self.addCleanup(exporter.ends.set)
        exporter.start()
        return exporter


class Lane(threading.Thread):
    """A store of its own whose service is killed again and again at random moments, while numbered records come."""

    FLUSH_S = 0.3

    def __init__(self, case, kills, seed):
        super().__init__(daemon=True)
        self.case, self.kills = case, kills
        self.directory, self.port = temporary("parquet"), free_port("udp")
        self.chance = random.Random(seed)
        self.lost = {"restart": 0, "unsaved": 0}
        self.ends = []
        self.exporter = None
        self.service = None

    def run(self):
        self.begin()
        for _ in range(self.kills):
            self.exporter = self.exporter or self.case.exporter(port=self.port)
            time.sleep(0.2 + self.chance.random() * 0.5)
            self.service.kill()
            ended = time.time()
            self.count()
            self.begin()
            self.ends.append((ended, time.time()))
        time.sleep(0.5)
        self.exporter.end()
        time.sleep(0.5)
        self.service.stop()
        self.count()

    def begin(self):
        """Start, and wait until what the former run lost is counted."""
        stats = self.directory / "stats.json"
        stats.unlink(missing_ok=True)
        self.service = self.case.service(
            f"flush={self.FLUSH_S}", settings=STATE, directory=self.directory, port=self.port
        )
        self.service.start()
        wait_until(stats.exists, what="the counters")

    def count(self):
        for counted in self.service.all_counters().values():
            for reason in self.lost:
                self.lost[reason] += counted["lost"].get(reason, 0)

    def near_a_kill(self, number):
        """Whether the row of this number came within `flush` before a kill, or while no service ran."""
        came = self.exporter.times[number // ROWS]
        return any(end - self.FLUSH_S - SLACK_S < came < again for end, again in self.ends)


class KilledTests(StoreCase):
    """kill -9 while records come."""

    def test_killed(self):
        """Twenty times at a random moment: every file is readable, no row is there twice, what is missing is counted,
        and came within `flush` before a kill."""
        lanes = [Lane(self, KILLS // 2, seed) for seed in (7, 8)]
        for lane in lanes:
            lane.start()
        for lane in lanes:
            lane.join()
            self.assertEqual(len(lane.ends), KILLS // 2, "the lane has failed")
            self.check(lane)

    def check(self, lane):
        store, sent, lost = lane.directory / "store", lane.exporter.sent, lane.lost
        self.assertEqual({}, unaccounted(lane.service.all_counters()))
        found = [row[0] for row in rows(store)]
        self.assertEqual(len(found), len(set(found)))
        self.assertLessEqual(len(found) + lost["unsaved"], sent)
        self.assertGreaterEqual(len(found) + lost["unsaved"] + lost["restart"], sent, lost)
        self.assertGreater(lost["unsaved"], 0)
        far = [number for number in sorted(set(range(sent)) - set(found)) if not lane.near_a_kill(number)]
        self.assertEqual([], far)
        self.assertEqual([], list(store.rglob("*.part")))


class DiskTests(StoreCase):
    """A disk without room, and a directory that is gone: the other output takes its rows all the same."""

    BESIDE = ["col:COLLECTOR,db:SQLITE3"]
    SQLITE = '[db]\ndb="{dir}/db.sqlite3"\ntable="flows"\ncreate=1\nkeys="octets"\nflush=0.1'

    def test_full(self):
        """Rows wait while the disk is full; with room again all of them are there, once."""
        require_root()
        unshare, nsenter = require_program("unshare", "nsenter")
        self.store.mkdir()
        mount = f'mount -t tmpfs -o size=320k none {self.store} && exec "$@"'
        service = self.service(
            "flush=0.1\nmin_free=0%", self.BESIDE, self.SQLITE,
            namespace=lambda argv: [unshare, "-m", "sh", "-c", mount, "sh", *argv],
        )  # fmt: skip
        with service:
            exporter = self.exporter(pause=0.001)
            wait_until(lambda: service.counters("pq")["errors"].get("full", 0) > 2, 20, "a full disk")
            before = service.counters("db")["rows_written"]
            service.wait_for("db", "rows_written", before + 1000)
            self.assertGreater(service.counters("pq")["rows_waiting"], 0)
            inside = [nsenter, "-t", str(service.pid), "-m"]
            subprocess.run([*inside, "mount", "-o", "remount,size=64m", self.store], check=True)
            exporter.end()
            service.wait_for("pq", "rows_written", exporter.sent)
            kept = self.directory / "kept"
            subprocess.run([*inside, "cp", "-r", self.store, kept], check=True)
        self.assertEqual([row[0] for row in rows(kept)], list(range(exporter.sent)))
        self.assertEqual({}, unaccounted(service.all_counters()))

    def test_little_room(self):
        """With less than min_free rows wait, and go to the spool at a stop; the next run stores them."""
        options = 'flush=0.1\nspool="{dir}/spool"\nmin_free='
        with self.service(f"{options}100%") as service:
            exporter = self.exporter()
            wait_until(lambda: service.counters("pq")["errors"].get("full", 0) > 1, 20, "no room")
            exporter.end()
            time.sleep(0.3)
        self.assertEqual(service.counters("pq")["rows_spooled"], exporter.sent)
        with self.service(f"{options}0%") as service:
            service.wait_for("pq", "rows_written", exporter.sent)
        self.assertEqual([row[0] for row in rows(self.store)], list(range(exporter.sent)))

    def test_gone(self):
        """Rows wait while the directory is gone, which is not made again; when it is back they are there."""
        away = self.directory / "away"
        with self.service("flush=0.1", self.BESIDE, self.SQLITE) as service:
            exporter = self.exporter()
            service.wait_for("pq", "rows_written", 500)
            os.rename(self.store, away)
            wait_until(lambda: service.counters("pq")["errors"].get("gone", 0) > 2, 20, "the directory is gone")
            before = service.counters("db")["rows_written"]
            service.wait_for("db", "rows_written", before + 500)
            self.assertFalse(self.store.exists())
            os.rename(away, self.store)
            exporter.end()
            service.wait_for("pq", "rows_written", exporter.sent)
        self.assertEqual([row[0] for row in rows(self.store)], list(range(exporter.sent)))

    def test_not_mounted(self):
        """A restart without the store's file system begins no other store; mounted again, it gets all rows."""
        require_root()
        unshare, nsenter = require_program("unshare", "nsenter")
        disk = self.directory / "disk"
        self.store.mkdir()
        disk.mkdir()
        bind = ["mount", "--bind", str(disk), str(self.store)]
        own = [unshare, "-m"]
        exporter = self.exporter()
        for mounts in (["sh", "-c", f'{shlex.join(bind)} && exec "$@"', "sh"], []):
            with self.service(
                "flush=0.1", settings=STATE, namespace=lambda argv, mounts=mounts: [*own, *mounts, *argv]
            ) as service:
                if mounts:
                    service.wait_for("pq", "rows_written", 500)
                    continue
                wait_until(lambda: service.counters("pq")["errors"].get("gone", 0) > 2, 20, "another directory")
                self.assertEqual([], list(self.store.iterdir()))
                subprocess.run([nsenter, "-t", str(service.pid), "-m", *bind], check=True)
                service.wait_for("pq", "rows_written", 500)
        exporter.end()
        self.assertEqual([], list(self.store.iterdir()))
        found = [row[0] for row in rows(disk)]
        self.assertEqual(len(set(found)), len(found))
        self.assertGreaterEqual(len(found), 1000)
        self.assertEqual({}, unaccounted(service.all_counters()))


class UpkeepTests(StoreCase):
    """Deletion and merges beside load."""

    def test_retention(self):
        """The oldest hours go while rows of all hours come; each row is there, or was deleted and counted."""
        with self.service("flush=0.1\nmax_size=600k") as service:
            exporter = self.exporter(pause=0.001, hours=6)
            service.wait_for("pq", "rows_deleted", 3000, 30)
            exporter.end()
            service.wait_for("pq", "rows_written", exporter.sent)
        counted = service.counters("pq")
        found = [row[0] for row in rows(self.store)]
        self.assertEqual(len(found), len(set(found)))
        self.assertEqual(len(found) + counted["rows_deleted"], exporter.sent)
        self.assertGreater(counted["octets_deleted"], 0)
        self.assertEqual({}, unaccounted(service.all_counters()))

    def test_merges(self):
        """Merges beside 20,000 records a second: none is lost, readers see each one once all the time, and the reactor
        is never held for 50 ms by them."""
        seen, stop = [], threading.Event()
        reader = threading.Thread(target=self.read, args=(seen, stop), daemon=True)
        with self.service("flush=0.1") as service:
            reader.start()
            try:
                sent = generate(f"127.0.0.1:{self.port}", "-n", 130_000, "-r", 20_000)["records"]
                service.wait_for("pq", "rows_written", sent)
                service.wait_for("pq", "merges", 1)
            finally:
                stop.set()
                reader.join()
        self.assertEqual(rows(self.store, "select count(*) from t"), [(sent,)])
        self.assertEqual(seen, sorted(seen))
        self.assertGreater(len(set(seen)), 10)

    def read(self, seen, stop):
        """Count the rows again and again; a file that is gone meanwhile is a reason to list again."""
        while not stop.is_set():
            try:
                seen += rows(self.store, "select count(*) from t")[0]
            except duckdb.IOException:
                continue
