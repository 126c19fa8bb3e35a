"""The end of a file that is to be continued: a killed process or a crash may have left a part of a record there."""

from __future__ import annotations

import mmap
import os
import stat
from collections.abc import Callable
from typing import NamedTuple

from ulogd_tw.core.errors import UlogdError

LONGEST = 1 << 20
"""Octets of a text's last record at most; an end without a line break for longer is not of our writing."""


class DamagedFile(UlogdError):
    """A file that cannot be continued: from some place on nobody can read it."""


class Tail(NamedTuple):
    """The complete records of a file, in octets, and the text that must follow them."""

    whole: int
    end: bytes = b""


Find = Callable[[mmap.mmap], Tail]
"""Finds the `Tail` of a format; raises `DamagedFile`."""


def of_text(cut: Callable[[bytes, int], tuple[int, int]], complete: Callable[[bytes], bool]) -> Find:
    """For text whose records `cut` knows: what stands behind the last line break goes, unless it is `complete`."""

    def find(octets: mmap.mmap) -> Tail:
        size = len(octets)
        if octets[size - 1] == ord("\n"):
            return Tail(size)
        after = max(size - LONGEST, 0)
        start, _ = cut(octets[after:] + b"?", size - after)
        if after and not start or complete(octets[after + start :]):
            return Tail(size, b"\n")
        return Tail(after + start)

    return find


def mend(fd: int, path: str, find: Find) -> int:
    """Cut a file, open as `fd`, to its last complete record; the octets removed. Raises OSError, `DamagedFile`.

    A file that is not regular, or cannot be read, stays as it is.
    """
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode) or not status.st_size:
        return 0
    try:
        reading = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        if not os.path.samestat(os.fstat(reading), status):
            return 0
        with mmap.mmap(reading, status.st_size, access=mmap.ACCESS_READ) as octets:
            tail = find(octets)
    finally:
        os.close(reading)
    if tail.whole < status.st_size:
        os.ftruncate(fd, tail.whole)
    if tail.end:
        append(fd, tail.end)
    return status.st_size - tail.whole


def set_aside(path: str) -> str:
    """Rename a file that cannot be continued; returns the new name. Raises OSError."""
    aside, number = path + ".damaged", 0
    while os.path.lexists(aside):
        number += 1
        aside = f"{path}.damaged{number}"
    os.rename(path, aside)
    return aside


def append(fd: int, octets: bytes) -> None:
    """Append all of it or nothing. Raises OSError."""
    rest = memoryview(octets)
    try:
        while rest:
            rest = rest[os.write(fd, rest) :]
    except OSError:
        done = len(octets) - len(rest)
        if done and stat.S_ISREG(os.fstat(fd).st_mode):
            os.ftruncate(fd, os.fstat(fd).st_size - done)
        raise
