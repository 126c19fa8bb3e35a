"""Writes of batches into files, and what a kill leaves of them."""

import os
from pathlib import Path
from unittest import mock
from uuid import UUID

import numpy as np
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.storing.parquet.flows import COLUMNS, HOUR, NOON, flows, names, ports, rows, writer
from ulogd_tw.core.columns import Coded, Octets
from ulogd_tw.core.keys import known
from ulogd_tw.storing.parquet import description
from ulogd_tw.storing.parquet.directory import files, part_of
from ulogd_tw.storing.parquet.errors import StoreFull, StoreGone, StoreLocked
from ulogd_tw.storing.stored_columns import StoredColumn

MS = NOON * 1000


class Killed(BaseException):
    """Stands for the end of the process: nothing is tidied up."""


class WriterTests(SynchronousTestCase):
    """Rows that are in files, each once."""

    def setUp(self):
        self.place = Path(self.mktemp())
        self.writer = writer(self.place)
        self.addCleanup(lambda: self.writer.end())

    def again(self):
        """The store as the next process finds it."""
        self.writer.end()
        self.writer = writer(self.place, "fedcba987654")
        return self.writer

    def test_rows(self):
        """Both families are in one file, as they were; the arrival is there where the time is odd."""
        found = self.writer.write([flows([MS], [MS - 7000]), flows([None], first=1, ipv6=True)], COLUMNS, 1)
        arrival = MS + 1_800_000
        self.assertEqual(
            rows(self.place),
            [
                (UUID("00000000-0000-0000-0000-ffff0a000000"), 0, MS - 7000, MS, None),
                (UUID("20010db8-0000-0000-0000-000000000001"), 1, None, None, arrival),
            ],
        )
        self.assertEqual(names(self.place), [f"date=2026-10-01/hour=12/{NOON - 7}-0-2.0123456789ab.1.0.parquet"])
        self.assertEqual((found.odd, found.left_out), (1, 0))

    def test_modes(self):
        """Only the owner writes, and others than the group do not read, whatever the umask."""
        old = os.umask(0)
        self.addCleanup(os.umask, old)
        self.writer.write([flows([MS])], COLUMNS, 1)
        path = files(self.place)[0].path
        modes = [oct(one.stat().st_mode & 0o777) for one in (path, path.parent, self.place / "store.json")]
        self.assertEqual(modes, ["0o640", "0o750", "0o640"])

    def test_hours(self):
        """The rows of each hour go to its file, in one write."""
        self.writer.write([flows([MS - 1, MS, MS + 3_600_000, MS])], COLUMNS, 1)
        self.assertEqual(
            [(file.hour, file.rows) for file in files(self.place)], [(HOUR - 1, 1), (HOUR, 2), (HOUR + 1, 1)]
        )
        self.assertEqual(ports(self.place), [0, 1, 2, 3])

    def test_missing_keys(self):
        """Keys that a batch does not have are NULL, also those that were added later."""
        self.writer.write([flows([MS]).select(["sourceAddress", "flowEndMilliseconds"])], COLUMNS, 1)
        more = (*COLUMNS, StoredColumn(known("octets")))
        self.writer.write([flows([MS], first=5)], more, 2)
        found = rows(self.place, "select sourceTransportPort, octets from t order by 1")
        self.assertEqual(found, [(5, None), (None, None)])

    def test_mixed_batches(self):
        """Batches with a key, with it as codes, and without it are in one file; a key that nobody has is NULL."""
        key = known("interfaceName")
        coded = flows([MS], first=1).with_columns({key: Coded(np.array([0]), [b"eth0"])})
        plain = flows([MS], first=2).with_columns({key: Octets.of([b"eth1"])})
        columns = (*COLUMNS, StoredColumn(key), StoredColumn(known("octets")))
        found = self.writer.write([flows([MS]), coded, plain], columns, 1)
        self.assertEqual(len(found.pieces), 1)
        there = rows(self.place, "select sourceTransportPort, interfaceName, octets from t order by 1")
        self.assertEqual(there, [(0, None, None), (1, "eth0", None), (2, "eth1", None)])
        (piece,) = found.pieces
        self.assertEqual([name for name, *_ in piece.stream(columns, every=True).fields][-2:], ["octets", "arrival"])

    def test_wide_values(self):
        """A value too wide for its column is there exactly, in a file of its own."""
        batch = flows([MS, MS])
        key = known("sourceTransportPort")
        numbers = batch.columns[key.name].astype("u8") + 2**40
        wide = batch.with_columns({key.typed(known("octets").type): numbers})
        self.writer.write([batch, wide], COLUMNS, 1)
        self.assertEqual(ports(self.place), [0, 1, 2**40, 2**40 + 1])

    def test_room(self):
        """Below min_free nothing is written; without a directory neither, and it is not made again."""
        full = writer(self.place / "x", min_free=1.0)
        self.addCleanup(full.end)
        self.assertRaises(StoreFull, full.write, [flows([MS])], COLUMNS, 1)
        os.rename(self.place, self.place.with_name("away"))
        self.assertRaises(StoreGone, self.writer.write, [flows([MS])], COLUMNS, 1)
        self.assertFalse(self.writer.begun)
        self.assertFalse(self.place.exists())

    def test_lock(self):
        """A second writer does not touch the store."""
        self.assertRaises(StoreLocked, writer, self.place)

    def test_repeated(self):
        """A write that is repeated is there once."""
        batches = [flows([MS, MS - 1])]
        self.writer.write(batches, COLUMNS, 1)
        self.writer.write(batches, COLUMNS, 1)
        self.assertEqual(ports(self.place), [0, 1])

    def test_failure(self):
        """After a failure nothing is there, and the repetition writes all, once."""
        batches = [flows([MS, MS - 1])]
        real, calls = os.replace, []

        def replace(part, path):
            calls.append(path)
            if len(calls) == 2:
                raise OSError(5, "the disk fails")
            real(part, path)

        with mock.patch("ulogd_tw.storing.parquet.writer.os.replace", replace):
            self.assertRaises(OSError, self.writer.write, batches, COLUMNS, 1)
        self.assertEqual(files(self.place), [])
        self.writer.write(batches, COLUMNS, 1)
        self.assertEqual(ports(self.place), [0, 1])

    def killed_at(self, name, call):
        """Write two hours, and be killed before the call of this number of an os function."""
        real, calls = getattr(os, name), []

        def killing(*arguments, **keywords):
            calls.append(arguments)
            if len(calls) == call:
                raise Killed
            return real(*arguments, **keywords)

        with mock.patch.object(os, name, killing), mock.patch.object(Path, "unlink", lambda *a, **k: None):
            self.assertRaises(Killed, self.writer.write, [flows([MS, MS - 1])], COLUMNS, 1)

    def test_killed_while_writing(self):
        """Parts of which none has its name are removed: the journal says that their rows are lost."""
        self.killed_at("replace", 1)
        self.assertEqual(len(names(self.place)), 2)
        self.assertEqual(self.again().recovered, (0, 2))
        self.assertEqual(names(self.place), [])

    def test_killed_between_names(self):
        """Where one file of a write has its name, the others get theirs."""
        self.killed_at("replace", 2)
        self.assertEqual(len(files(self.place)), 1)
        self.assertEqual(self.again().recovered, (1, 0))
        self.assertEqual(ports(self.place), [0, 1])

    def test_half_a_part(self):
        """A cut part file disappears, those of other programs stay."""
        self.writer.write([flows([MS])], COLUMNS, 1)
        path = files(self.place)[0].path
        part_of(path.with_name(path.name.replace("789ab.1.", "789ab.2."))).write_bytes(b"PAR1")
        path.with_name("other.part").write_bytes(b"")
        self.assertEqual(self.again().recovered, (0, 1))
        self.assertEqual(ports(self.place), [0])
        self.assertTrue(path.with_name("other.part").exists())


class DescriptionTests(SynchronousTestCase):
    """store.json."""

    def test_columns_of_older_files(self):
        """Keys that are not written any more stay described, behind the others."""
        place = Path(self.mktemp())
        place.mkdir()
        one, two = (description.Description("pq1", (StoredColumn(known(name)),), ()) for name in ("octets", "packets"))
        one.write(place)
        two.with_columns_of(description.read(place)).write(place)
        self.assertEqual([column.name for column in description.read(place).columns], ["packets", "octets"])

    def test_roll_up(self):
        """The facts of an AGGREGATE come back."""
        place = Path(self.mktemp())
        place.mkdir()
        facts = {"interval": 300, "by": ["sourceAddress/24:48"], "time": "flow"}
        description.Description("pq1", COLUMNS, ("sourceAddress",), facts).write(place)
        self.assertEqual(description.read(place), description.Description("pq1", COLUMNS, ("sourceAddress",), facts))

    def test_strange(self):
        """A file of another kind or release is an error that names it; none is no description."""
        place = Path(self.mktemp())
        place.mkdir()
        self.assertIsNone(description.read(place))
        for text in ("[]", "{}", '{"version": 2}', "x", '{"version": 1, "keys": 7}', '{"version": 1, "keys": [7]}'):
            (place / "store.json").write_text(text)
            self.assertRaises(ValueError, description.read, place)
