"""The file with the process id, whose lock tells whether that process runs: the number alone may be anybody's."""

from __future__ import annotations

import fcntl
import os

from ulogd_tw.core.errors import NotStarted

MODE = 0o644


class PidFile:
    """A file that is locked, as by ulogd2, while this process runs. One that nobody has locked is stale."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._fd = -1

    def take(self) -> None:
        """Lock the file, and write our process id into it. Raises `NotStarted` if another process has it."""
        try:
            while not self._locked():
                pass
            os.fchmod(self._fd, MODE)
            os.ftruncate(self._fd, 0)
            os.write(self._fd, b"%d\n" % os.getpid())
        except OSError as error:
            raise NotStarted(f"pidfile {self.path}: {error.strerror}; choose another one with --pidfile") from error

    def _locked(self) -> bool:
        """Whether the file is locked and still has its name: the process that had it may be removing it."""
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, MODE)
        try:
            # A record lock, since ulogd2 takes one: it is not passed on to children, and ends with the process.
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(fd), os.stat(self.path)):
                self._fd = fd
                return True
        except (BlockingIOError, PermissionError):
            holder = os.read(fd, 32).split(b"\n")[0].decode("ascii", "replace") or "unknown"
            os.close(fd)
            raise NotStarted(
                f"pidfile {self.path} is locked by a running process ({holder}): stop it, or choose another file with "
                "--pidfile"
            ) from None
        except FileNotFoundError:
            pass
        os.close(fd)
        return False

    def give_back(self) -> None:
        """Remove the file; where that is not allowed, empty it. Does nothing a second time."""
        if self._fd < 0:
            return
        try:
            os.unlink(self.path)
        except OSError:
            os.ftruncate(self._fd, 0)
        os.close(self._fd)
        self._fd = -1
