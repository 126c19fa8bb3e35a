"""Files of a flow store by their names."""

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.unit.storing.parquet.flows import HOUR, NOON, RUN
from ulogd_tw.storing.parquet.directory import (
    files,
    hour_directory,
    hours,
    name_of,
    part_of,
    parts,
    stored_file,
    whole_of,
)


class DirectoryTests(SynchronousTestCase):
    """Names, and the listing by time."""

    def setUp(self):
        self.place = Path(self.mktemp())

    def touch(self, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        return path

    def file(self, hour, start, level=0, number=1):
        return self.touch(hour_directory(self.place, hour) / name_of(start, level, 10, RUN, number, 0))

    def test_names(self):
        """The directory of an hour is its date and hour in UTC; the name says what the listing needs."""
        self.assertEqual(hour_directory(Path("s"), HOUR), Path("s/date=2026-10-01/hour=12"))
        self.assertEqual(hour_directory(Path("s"), 0), Path("s/date=1970-01-01/hour=00"))
        found = stored_file(self.file(HOUR, NOON - 5, 2, 7), HOUR)
        self.assertEqual((found.start, found.level, found.rows, found.run, found.number), (NOON - 5, 2, 10, RUN, 7))

    def test_strange_names(self):
        """Files of other programs with the fixed part of the name are read; others are not there."""
        self.assertEqual(stored_file(Path("17-3-abc.parquet"), HOUR)[2:5], (17, 3, -1))
        for name in ("a.parquet", "17-3-abc.csv", ".17-3-1.a.1.0.parquet.part", "17-3-.parquet", "store.json"):
            self.assertIsNone(stored_file(Path(name), HOUR), name)

    def test_parts(self):
        """The part of a file is hidden, and leads back to it."""
        path = hour_directory(self.place, HOUR) / name_of(1, 0, 10, RUN, 1, 0)
        self.assertEqual(whole_of(part_of(path)), path)
        self.assertIsNone(whole_of(path))
        self.touch(part_of(path))
        self.assertEqual([file.path for _, file in parts(self.place)], [path])
        self.assertEqual(files(self.place), [])

    def test_times(self):
        """A file can hold flows of a time if its hour ends after the beginning, and its first flow starts before the
        end."""
        path = self.file(HOUR, NOON - 60)
        for since, until, there in (
            (None, None, True), (NOON + 3599, None, True), (NOON + 3600, None, False), (None, NOON - 60, False),
            (None, NOON - 59, True), (NOON - 100, NOON - 30, True), (NOON + 10_000, NOON + 20_000, False),
        ):  # fmt: skip
            self.assertEqual([file.path for file in files(self.place, since, until)], [path] if there else [])

    def test_order(self):
        """Hours come in order, whatever else is in the directory."""
        for hour in (HOUR + 1, HOUR - 24, HOUR):
            self.file(hour, hour * 3600)
        self.touch(self.place / "store.json")
        self.touch(self.place / "date=2026-13-01" / "hour=00" / name_of(1, 0, 1, RUN, 1, 0))
        self.touch(self.place / "date=2026-10-01" / "x")
        self.assertEqual(hours(self.place), [HOUR - 24, HOUR, HOUR + 1])
        self.assertEqual([file.hour for file in files(self.place)], [HOUR - 24, HOUR, HOUR + 1])
