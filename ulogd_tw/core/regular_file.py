"""Reading files that an administrator names: only regular ones, since a FIFO or a terminal would block for ever."""

from __future__ import annotations

import errno
import os
import stat
from typing import BinaryIO


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """The file, open for reading. Raises OSError, also for what is no regular file."""
    number = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise OSError(errno.EINVAL, "it is not a regular file", os.fspath(path))
    return open(number, "rb")


def read_regular(path: str | os.PathLike[str]) -> bytes:
    """All of the file. Raises OSError, also for what is no regular file."""
    with open_regular(path) as file:
        return file.read()
