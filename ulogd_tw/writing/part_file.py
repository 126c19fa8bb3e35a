"""Files with a name only when complete: written as ``NAME.part``, renamed at their end.

Everything here except making objects blocks; it is called in a thread, by one thread at a time. An open file is locked
(flock), to distinguish the leftover of a dead process from a file in use.
"""

from __future__ import annotations

import fcntl
import glob
import mmap
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ulogd_tw.core import durable

PART = ".part"
Whole = Callable[[memoryview], tuple[int, int]]
"""The complete messages at the beginning of a file: how many, and their octets."""
_DIRECTIVE = re.compile(r"%[-_0^#]?[A-Za-z%]")


class Names:
    """Names of files by a pattern of `time.strftime`, in UTC. A second file of the same name gets ``_01`` before its
    suffix."""

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        head = _DIRECTIVE.split(pattern, maxsplit=1)[0]
        self.directory = os.path.dirname(head) or ("/" if head.startswith("/") else ".")
        """The directory that must exist; directories below it made by the pattern are created."""
        self._last = ("", 0)

    def at(self, seconds: float) -> str:
        """The name of a file beginning at this time."""
        return time.strftime(self.pattern, time.gmtime(seconds))

    def free(self, path: str) -> str:
        """`path`, or the next similar name without a file, complete or not."""
        number = self._last[1] if self._last[0] == path else 0
        root, end = os.path.splitext(path)
        while True:
            name = f"{root}_{number:02d}{end}" if number else path
            if not os.path.lexists(name) and not os.path.lexists(name + PART):
                self._last = (path, number)
                return name
            number += 1

    def leftovers(self) -> list[str]:
        """Unfinished files with names of this pattern, oldest name first."""
        root, end = os.path.splitext(self.pattern)
        files = glob.glob(self._each(root, glob.escape, "*") + "*" + self._each(end, glob.escape, "*") + PART)
        ours = re.compile(
            self._each(root, re.escape, "[^/]+?") + r"(_\d+)?" + self._each(end, re.escape, "[^/]+?") + re.escape(PART)
        )
        return sorted(file for file in files if ours.fullmatch(file))

    @staticmethod
    def _each(text: str, literal: Any, directive: str) -> str:
        parts, at = [], 0
        for match in _DIRECTIVE.finditer(text):
            parts += [literal(text[at : match.start()]), "%" if match[0] == "%%" else directive]
            at = match.end()
        return "".join([*parts, literal(text[at:])])


class PartFile:
    """One file. `path` is its future name; if a file of that name exists at the end, another is used."""

    def __init__(self, names: Names, path: str, sync: bool = False) -> None:
        self.names = names
        self.path = self._wanted = path
        self.sync = sync
        self.octets = 0
        """Octets in the file: complete messages."""
        self.fd = -1
        self._part = ""

    def append(self, octets: Sequence[Any]) -> None:
        """Write these buffers, or nothing: OSError when the disk is full, and the file is unchanged."""
        if self.fd < 0:
            self._open()
        try:
            written = sum(_written(self.fd, memoryview(buffer).cast("B")) for buffer in octets)
            if self.sync:
                os.fdatasync(self.fd)
        except OSError:
            os.ftruncate(self.fd, self.octets)
            raise
        self.octets += written

    def _open(self) -> None:
        os.makedirs(os.path.dirname(self.path) or ".", exist_ok=True)
        self.path = self.names.free(self._wanted)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        self._part = self.path + PART
        self.fd = os.open(self._part, flags, 0o666)
        _lock(self.fd)

    def end(self) -> str | None:
        """Sync it to disk under its name, and return the name; None if it is empty or was removed.

        OSError: the file is still there under the other name, and this can be repeated.
        """
        if self.fd < 0:
            return None
        part = self._part
        if not _is(part, self.fd):
            self._close()
            return None
        if not self.octets:
            os.unlink(part)
            self._close()
            return None
        os.fsync(self.fd)
        if os.path.lexists(self.path):
            self.path = self.names.free(self._wanted)
        durable.rename(part, self.path)
        self._close()
        return self.path

    def _close(self) -> None:
        os.close(self.fd)
        self.fd = -1


@dataclass(frozen=True, slots=True)
class Leftover:
    """The outcome for an unfinished file of a killed process: its name now, or None without a complete message."""

    part: str
    path: str | None
    messages: int
    cut: int
    """Octets of an incomplete message cut off at its end."""


def recover(names: Names, whole: Whole) -> Iterator[Leftover | OSError]:
    """End the files of a killed process: cut to the last complete message, synced, renamed.

    Files in use by a process are left alone. OSError: this file cannot be recovered.
    """
    for part in names.leftovers():
        try:
            found = _recover(names, part, whole)
        except OSError as error:
            yield error
            continue
        if found is not None:
            yield found


def _recover(names: Names, part: str, whole: Whole) -> Leftover | None:
    fd = os.open(part, os.O_RDWR | os.O_CLOEXEC)
    try:
        if not _lock(fd) or not _is(part, fd):
            return None
        size = os.fstat(fd).st_size
        messages = octets = 0
        if size:
            with mmap.mmap(fd, size, access=mmap.ACCESS_READ) as file, memoryview(file) as view:
                messages, octets = whole(view)
        if not octets:
            os.unlink(part)
            return Leftover(part, None, 0, size)
        os.ftruncate(fd, octets)
        os.fsync(fd)
        path = part.removesuffix(PART)
        if os.path.lexists(path):
            path = names.free(path)
        durable.rename(part, path)
        return Leftover(part, path, messages, size - octets)
    finally:
        os.close(fd)


def _is(path: str, fd: int) -> bool:
    """Whether the open file is still the file of this name."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(fd))
    except FileNotFoundError:
        return False


def _lock(fd: int) -> bool:
    """Lock the file; False if another process holds it, or the file system has no locks."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _written(fd: int, octets: memoryview) -> int:
    """Write all of it; returns the number of octets."""
    size = len(octets)
    while octets:
        octets = octets[os.write(fd, octets) :]
    return size
