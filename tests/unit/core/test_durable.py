"""Files that are whole after a crash."""

import errno
import os
import stat
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from ulogd_tw.core import durable


class WriteTests(SynchronousTestCase):
    """The old content or the new one, never a part."""

    def setUp(self):
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        self.path = self.directory / "state"
        self.calls = []
        for name in ("fsync", "replace"):
            self.patch(durable.os, name, self.noted(name, getattr(os, name)))

    def noted(self, name, call):
        """The same function, which notes that it was called, and on what."""

        def noting(first, *rest):
            kind = first if name == "replace" else stat.S_IFMT(os.fstat(first).st_mode)
            self.calls.append((name, kind))
            return call(first, *rest)

        return noting

    def test_symbolic_link(self):
        """The file behind it is written; the link stays."""
        link = self.directory / "link"
        link.symlink_to("state")
        for content in (b"old", b"new"):
            durable.write(link, lambda file, content=content: file.write(content))
            self.assertEqual((True, content), (link.is_symlink(), self.path.read_bytes()))
        self.assertEqual({"link", "state"}, set(os.listdir(self.directory)))

    def test_no_file(self):
        """A directory, a pipe and a device are not replaced, nor what a link to one names."""
        (self.directory / "inner").mkdir()
        os.mkfifo(self.directory / "pipe")
        (self.directory / "link").symlink_to("/dev/null")

        def state(name):  # without the time of the last access: listing a directory changes it
            status = os.lstat(self.directory / name)
            return status.st_mode, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns

        before = {name: state(name) for name in ("inner", "pipe", "link")}
        for name, status in before.items():
            for lasting in (True, False):
                self.assertRaises(OSError, durable.write, self.directory / name, lambda file: None, lasting=lasting)
            self.assertEqual(status, state(name))
        self.assertEqual(set(before), set(os.listdir(self.directory)))
        self.assertTrue(stat.S_ISCHR(os.stat("/dev/null").st_mode))

    def test_order(self):
        """The file is on the disk before it has its name, and the name is on the disk at the end."""
        durable.write(self.path, lambda file: file.write(b"new"))
        self.assertEqual(b"new", self.path.read_bytes())
        self.assertEqual(
            [("fsync", stat.S_IFREG), ("replace", self.directory / "state.part"), ("fsync", stat.S_IFDIR)], self.calls
        )

    def test_not_lasting(self):
        """Without `lasting` nothing waits for the disk."""
        durable.write(self.path, lambda file: file.write(b"new"), lasting=False)
        self.assertEqual((b"new", ["replace"]), (self.path.read_bytes(), [name for name, _ in self.calls]))

    def test_failure(self):
        """A disk that is full leaves the old file, and nothing beside it."""
        self.path.write_bytes(b"old")

        def put(file):
            file.write(b"ne")
            raise OSError(errno.ENOSPC, "full")

        self.assertRaises(OSError, durable.write, self.path, put)
        self.assertEqual((b"old", ["state"]), (self.path.read_bytes(), os.listdir(self.directory)))

    def test_leftover(self):
        """What a killed process left beside it is no obstacle, and its permissions are not taken over."""
        left = self.directory / "state.part"
        left.write_bytes(b"a long rest of an earlier attempt")
        left.chmod(0o666)
        durable.write(self.path, lambda file: file.write(b"new"), mode=0o600)
        self.assertEqual((b"new", 0o600), (self.path.read_bytes(), stat.S_IMODE(self.path.stat().st_mode)))
