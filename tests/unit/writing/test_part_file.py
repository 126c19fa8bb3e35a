"""Files under another name until they are whole, and what is found of them after a kill."""

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.unit.ipfix.wire import counts
from ulogd_tw.ipfix.message import whole_messages
from ulogd_tw.writing.part_file import Leftover, Names, PartFile, recover

MESSAGE = counts(1, 2, 3)
AT = 1790000000  # 2026-09-21 14:13:20 UTC


class PartFileCase(SynchronousTestCase):
    """With a directory."""

    def setUp(self):
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()

    def names(self, pattern="f-%Y%m%d-%H%M%S.ipfix"):
        return Names(f"{self.folder}/{pattern}")

    def file(self, names=None, **more):
        names = names or self.names()
        return PartFile(names, names.at(AT), **more)

    def files(self):
        return {str(path.relative_to(self.folder)): path.read_bytes()
                for path in self.folder.rglob("*") if path.is_file()}  # fmt: skip


class NamesTests(PartFileCase):
    """Names of files."""

    def test_time(self):
        """In UTC, whatever the local zone."""
        self.assertEqual(f"{self.folder}/f-20260921-141320.ipfix", self.names().at(AT + 0.9))

    def test_directory(self):
        """The part that must be there: up to the first directive."""
        for pattern, expected in (
            ("/a/b/f-%H.ipfix", "/a/b"), ("/a/%Y/f.ipfix", "/a"), ("/a/b%Y/%m/f", "/a"), ("f.ipfix", "."),
            ("/%Y", "/"), ("/a/f.ipfix", "/a"),
        ):  # fmt: skip
            self.assertEqual(expected, Names(pattern).directory, pattern)

    def test_taken(self):
        """A name that a file has, whole or not, is not used again; names of one time sort in order."""
        names, found = self.names("f-%Y.ipfix"), []
        for number in range(4):
            found.append(os.path.basename(names.free(names.at(AT))))
            (self.folder / (found[-1] + (".part" if number % 2 else ""))).touch()
        self.assertEqual(["f-2026.ipfix", "f-2026_01.ipfix", "f-2026_02.ipfix", "f-2026_03.ipfix"], found)
        self.assertEqual(sorted(found), found)

    def test_leftovers(self):
        """Only files with names of this pattern, in any directory that it makes."""
        ours = ["2026/f-1.%x.ipfix.part", "2025/f-12.%x_01.ipfix.part"]
        others = ["2026/f-1.%x.ipfix", "2026/g-1.%x.ipfix.part", "f-1.%x.ipfix.part", "2026/x/f-1.%x.ipfix.part",
                  "2026/f-1.y.ipfix.part"]  # fmt: skip
        for name in ours + others:
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        names = self.names("%Y/f-%H.%%x.ipfix")
        self.assertEqual(sorted(f"{self.folder}/{name}" for name in ours), names.leftovers())


class WrittenTests(PartFileCase):
    """A file from its first octet to its name."""

    def test_life(self):
        """Nothing before the first octet, .part until the end, then the whole file under its name."""
        file = self.file()
        self.assertEqual({}, self.files())
        file.append([MESSAGE[:10], MESSAGE[10:]])
        self.assertEqual({"f-20260921-141320.ipfix.part": MESSAGE}, self.files())
        file.append([MESSAGE])
        self.assertEqual(f"{self.folder}/f-20260921-141320.ipfix", file.end())
        self.assertEqual({"f-20260921-141320.ipfix": 2 * MESSAGE}, self.files())
        self.assertIsNone(file.end())

    def test_nothing_is_overwritten(self):
        """Neither a file that was there before, nor one that came meanwhile."""
        (self.folder / "f-20260921-141320.ipfix").write_bytes(b"old")
        file = self.file()
        file.append([MESSAGE])
        (self.folder / "f-20260921-141320_01.ipfix").write_bytes(b"new")
        file.end()
        self.assertEqual({"f-20260921-141320.ipfix": b"old", "f-20260921-141320_01.ipfix": b"new",
                          "f-20260921-141320_02.ipfix": MESSAGE}, self.files())  # fmt: skip

    def test_directories(self):
        """Those that the pattern names are made."""
        file = self.file(self.names("%Y/%m/f.ipfix"), sync=True)
        file.append([MESSAGE])
        file.end()
        self.assertEqual({"2026/09/f.ipfix": MESSAGE}, self.files())

    def test_disk_full(self):
        """What is written in part is taken back; later it goes on."""
        file, write = self.file(), os.write
        file.append([MESSAGE])

        def full(fd, octets):
            if len(octets) == len(MESSAGE):
                return write(fd, octets[:7])
            raise OSError(28, "No space left on device")

        self.patch(os, "write", full)
        self.assertRaises(OSError, file.append, [MESSAGE])
        self.assertEqual([MESSAGE], list(self.files().values()))
        self.patch(os, "write", write)
        file.append([MESSAGE])
        self.assertEqual([2 * MESSAGE], list(self.files().values()))

    def test_taken_away(self):
        """A file that somebody has removed or renamed ends without a fault, and harms no other of that name."""
        file = self.file()
        file.append([MESSAGE])
        os.rename(file.path + ".part", file.path + ".mine")
        Path(file.path + ".part").write_bytes(b"other")
        self.assertIsNone(file.end())
        self.assertEqual({b"other", MESSAGE}, set(self.files().values()))


class RecoverTests(PartFileCase):
    """What a killed process left."""

    def left(self, octets, name="f-20260921-141320.ipfix.part"):
        (self.folder / name).write_bytes(octets)
        return list(recover(self.names(), whole_messages))

    def test_cut(self):
        """Cut back to the last whole message, wherever the kill was."""
        for cut in (0, 1, 15, len(MESSAGE) - 1):
            (found,) = self.left(2 * MESSAGE + MESSAGE[:cut])
            path = f"{self.folder}/f-20260921-141320.ipfix"
            self.assertEqual(Leftover(path + ".part", path, 2, cut), found)
            self.assertEqual({"f-20260921-141320.ipfix": 2 * MESSAGE}, self.files())
            os.unlink(path)

    def test_nothing_whole(self):
        """A file without a whole message is removed."""
        for octets in (b"", MESSAGE[:-1], b"\0" * 4096, b"something else"):
            (found,) = self.left(octets)
            self.assertEqual((None, 0, len(octets)), (found.path, found.messages, found.cut))
            self.assertEqual({}, self.files())

    def test_name_is_taken(self):
        """What was recovered gets the next name where a file has its own."""
        (self.folder / "f-20260921-141320.ipfix").write_bytes(b"old")
        self.left(MESSAGE)
        self.assertEqual({"f-20260921-141320.ipfix": b"old", "f-20260921-141320_01.ipfix": MESSAGE}, self.files())

    def test_in_use(self):
        """A file that is being written is left alone."""
        file = self.file()
        file.append([MESSAGE])
        self.assertEqual([], list(recover(self.names(), whole_messages)))
        file.append([MESSAGE])
        file.end()
        self.assertEqual([2 * MESSAGE], list(self.files().values()))

    def test_others(self):
        """Files with other names are not looked at."""
        self.assertEqual([], self.left(MESSAGE[:-1], "g.ipfix.part"))
        self.assertEqual({"g.ipfix.part": MESSAGE[:-1]}, self.files())

    def test_cannot(self):
        """One that cannot be opened is told of, and the others are recovered."""
        (self.folder / "f-20260921-141319.ipfix.part").mkdir()
        error, found = self.left(MESSAGE, "f-20260921-141320.ipfix.part")
        self.assertIsInstance(error, OSError)
        self.assertEqual(f"{self.folder}/f-20260921-141320.ipfix", found.path)
