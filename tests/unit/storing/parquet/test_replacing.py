"""Files that take the place of others: readers and a kill see all rows once."""

import errno
import itertools
import os
import shutil
import threading
from pathlib import Path
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from tests.unit.storing.parquet.flows import COLUMNS, HOUR, NOON, flows, names, ports, writer
from ulogd_tw.storing.parquet import replacing
from ulogd_tw.storing.parquet.compaction import Merge
from ulogd_tw.storing.parquet.directory import files, files_of_hour, hour_directory
from ulogd_tw.storing.parquet.merge_process import merge
from ulogd_tw.storing.parquet.replacing import recover, remove_hour, replace, stage

MS = NOON * 1000


class Killed(BaseException):
    """Stands for the end of the process."""


class ReplacingTests(SynchronousTestCase):
    """Three writes of an hour, of which the first two are merged."""

    def setUp(self):
        self.place = Path(self.mktemp())
        self.writer = writer(self.place)
        self.addCleanup(self.writer.end)
        for number in (1, 2, 3):
            self.writer.write([flows([MS], first=number)], COLUMNS, number)
        self.old = files(self.place)[:2]
        self.new = Merge(tuple(self.old), False).result("fedc", 1)
        self.part = stage(self.place) / "merge-1"
        merge([str(file.path) for file in self.old], self.part, ["sourceAddress"], "zstd")

    def replace(self):
        replace(self.place, self.old, self.part, self.new)

    def assert_whole(self):
        self.assertEqual(ports(self.place), [1, 2, 3])

    def test_exchange(self):
        """The merged file is in the place of the others, and nothing else is left."""
        self.replace()
        self.assert_whole()
        self.assertEqual([(file.level, file.rows) for file in files(self.place)], [(0, 1), (1, 2)])
        self.assertEqual([name for name in names(self.place) if name.startswith(".")], [])

    def test_each_step(self):
        """A kill before any step of it leaves the old files or the new one; what is left over goes at the start."""
        kept = Path(self.mktemp())
        self.writer.end()
        shutil.copytree(self.place, kept)
        for way in ("exchange", "one by one"):
            for step in itertools.count(1):
                shutil.rmtree(self.place)
                shutil.copytree(kept, self.place)
                done = self.killed_at(step, way)
                self.assertGreaterEqual(sum(file.rows for file in files(self.place)), 3)
                recover(self.place)
                self.assertIn([file.rows for file in files(self.place)], ([1, 1, 1], [1, 2]), (way, step))
                self.assertEqual([name for name in names(self.place) if name.startswith(".")], [])
                self.assertFalse((self.place / replacing._NOTE).exists())
                if done:
                    break
            self.assert_whole()
            self.assertGreater(step, 5)

    def killed_at(self, step, way):
        """Replace, and be killed before the call of this number that changes the disk; True if there are fewer."""
        calls = []

        def killing(real):
            def call(*arguments, **keywords):
                calls.append(real)
                if len(calls) >= step:
                    raise Killed
                return real(*arguments, **keywords)

            return call

        changes = ("replace", "rename", "link", "unlink", "rmdir", "mkdir", "fsync")
        patches = [mock.patch.object(os, name, killing(getattr(os, name))) for name in changes]
        patches += [mock.patch.object(replacing, "_exchange_names", killing(self.exchange(way)))]
        patches += [mock.patch.object(replacing.shutil, "rmtree", killing(shutil.rmtree))]
        try:
            for patch in patches:
                patch.start()
            self.replace()
        except Killed:
            return False
        finally:
            for patch in patches:
                patch.stop()
        return True

    def exchange(self, way):
        """The exchange of names, or that of a file system without one."""
        if way == "exchange":
            return replacing._exchange_names

        def impossible(one, other):
            raise OSError(errno.EINVAL, "no exchange")

        return impossible

    def test_without_links(self):
        """A file system without links."""
        with mock.patch.object(os, "link", side_effect=OSError(errno.EPERM, "no links")):
            self.replace()
        self.assert_whole()

    def test_deleted_meanwhile(self):
        """Where a file is gone, its rows do not come back."""
        self.old[0].path.unlink()
        self.assertRaises(FileNotFoundError, self.replace)
        self.assertEqual(ports(self.place), [2, 3])

    def test_readers(self):
        """A reader that lists the hour while files are exchanged sees each row once, at any moment."""
        listings, there, stop = set(), [3], threading.Event()

        def read():
            while not stop.is_set():
                before = there[0]
                found = sum(file.rows for file in files_of_hour(self.place, HOUR))
                if before == there[0]:
                    listings.add((before, found))

        reader = threading.Thread(target=read)
        reader.start()
        try:
            for number in range(4, 40):
                there[0] = 0
                self.writer.write([flows([MS], first=number)], COLUMNS, number)
                there[0] = number
                old = files_of_hour(self.place, HOUR)[:2]
                merge([str(file.path) for file in old], self.part, [], "zstd")
                replace(self.place, old, self.part, Merge(tuple(old), False).result("fedc", number))
        finally:
            stop.set()
            reader.join()
        self.assertEqual({(before, found) for before, found in listings if before and before != found}, set())
        self.assertGreater(len(listings), 10)

    def test_remove_hour(self):
        """An hour goes with its rows counted; its day too, if it was the last one."""
        octets = sum(file.octets for file in files(self.place))
        self.assertEqual(remove_hour(self.place, HOUR), (3, octets))
        self.assertFalse(hour_directory(self.place, HOUR).parent.exists())
        self.writer.write([flows([MS], first=9)], COLUMNS, 9)
        self.assertEqual(ports(self.place), [9])

    def test_remove_one_of_two(self):
        """The other hours of the day stay."""
        self.writer.write([flows([MS + 3_600_000], first=9)], COLUMNS, 9)
        remove_hour(self.place, HOUR)
        self.assertEqual(ports(self.place), [9])
