"""A file of 64-bit words in memory: a word written there outlives a kill of the process, without a system call.

After `sync` it outlives the machine too.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import Any

from ulogd_tw.core import durable
from ulogd_tw.core.regular_file import open_regular

WORD = 8
_PAGE = 4096


class MappedWords:
    """A new file at `path` with a `head` of octets and so many words, all 0, in the place of an older one.

    `words` are the words in native order; one of them is written completely or not at all. Raises OSError.
    """

    def __init__(self, path: str | Path, head: bytes, words: int) -> None:
        self.path = durable.place(path)
        self._head = head
        self.count = 0
        self._map: Any = None
        self.words: memoryview = memoryview(b"")
        beside = self.path.with_name(self.path.name + ".new")
        beside.unlink(missing_ok=True)
        self._fd = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.fchmod(self._fd, 0o600)
            os.pwrite(self._fd, head, 0)
            self.grow(words)
            os.replace(beside, self.path)
        except BaseException:
            self.close()
            beside.unlink(missing_ok=True)
            raise

    @property
    def offset(self) -> int:
        """Octets before the first word: the head in whole pages."""
        return _whole(len(self._head))

    def grow(self, words: int) -> None:
        """Make room for so many words; the new ones are 0. The disk has their place, since a hole may find none."""
        length = self.offset + _whole(max(words, 1) * WORD)
        os.posix_fallocate(self._fd, 0, length)
        whole = mmap.mmap(self._fd, length)
        self.words.release()
        if self._map is not None:
            self._map.close()
        self._map = whole
        self.count = words
        self.words = memoryview(whole)[self.offset : self.offset + words * WORD].cast("Q")

    def sync(self) -> None:
        """Return once all words are on the disk; for a thread."""
        os.fdatasync(self._fd)

    def close(self) -> None:
        """Let go of the file, which stays."""
        self.words.release()
        if self._map is not None:
            self._map.close()
            self._map = None
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def read(path: str | Path, most: int) -> bytes:
    """The octets of such a file. Raises OSError, and ValueError for one of more than `most` octets."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise ValueError(f"it has {size} octets, more than {most}")
        return file.read()


def split(octets: bytes, head: int) -> memoryview:
    """The words of a file whose head has so many octets. Raises ValueError where it has none."""
    first = _whole(head)
    if len(octets) <= first or (len(octets) - first) % _PAGE:
        raise ValueError("it is cut")
    return memoryview(octets)[first:].cast("Q")


def _whole(octets: int) -> int:
    return -(-octets // _PAGE) * _PAGE
