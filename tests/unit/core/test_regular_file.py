"""Files that an administrator names."""

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from ulogd_tw.core import paths
from ulogd_tw.core.regular_file import open_regular, read_regular


class RegularFileTests(SynchronousTestCase):
    """`open_regular` and `read_regular`."""

    def test_file(self):
        """What is in it, also through a link."""
        path, link = Path(self.mktemp()), self.mktemp()
        path.write_bytes(b"x" * 70_000)
        os.symlink(path.absolute(), link)
        self.assertEqual(b"x" * 70_000, read_regular(link))
        with open_regular(str(path)) as file:
            self.assertEqual(b"x", file.read(1))

    def test_others(self):
        """A FIFO without a writer, a device and a directory are refused at once, with the path; nothing stays open."""
        fifo = self.mktemp()
        os.mkfifo(fifo)
        before = len(os.listdir("/proc/self/fd"))
        for path in (fifo, "/dev/zero", "."):
            error = self.assertRaises(OSError, read_regular, path)
            self.assertIn(path, str(error))
        self.assertRaises(FileNotFoundError, read_regular, self.mktemp())
        self.assertEqual(before, len(os.listdir("/proc/self/fd")))

    def test_check(self):
        """--check says so before anything is opened."""
        fifo = self.mktemp()
        os.mkfifo(fifo)
        self.assertEqual(f"{fifo} is not a regular file; name one", paths.problem(paths.input_file, fifo))
