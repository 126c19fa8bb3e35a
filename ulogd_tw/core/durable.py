"""Files that a crash leaves whole: the old content or the new one."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO


def place(path: str | Path) -> Path:
    """Where the file of this name is, behind symbolic links, which stay.

    Raises OSError for a directory, a device or a pipe: a rename would put a file in its place, also of /dev/null.
    """
    real = Path(os.path.realpath(path) if os.path.islink(path) else path)
    with suppress(FileNotFoundError):
        if not stat.S_ISREG(os.stat(real).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", os.fspath(path))
    return real


def write(
    path: Path, put: Callable[[BinaryIO], object], suffix: str = ".part", *, mode: int = 0o600, lasting: bool = True
) -> None:
    """Write a file under another name, and rename it when it is whole. Raises OSError; the file is as it was then.

    Without `lasting` it does not wait for the disk: readers never see a part, but a power failure may leave one.
    """
    path = place(path)
    beside = path.with_name(path.name + suffix)
    with opened(beside, mode) as file:
        try:
            put(file)
            if lasting:
                settle(file)
                rename(beside, path)
            else:
                file.flush()
                os.replace(beside, path)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise


def opened(path: Path, mode: int = 0o600) -> BinaryIO:
    """A new file of this name, for writing; one that a killed process left is removed."""
    path.unlink(missing_ok=True)
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), "wb")


def private(path: str, flags: int) -> int:
    """An opener for `open`, whose new files only their owner reads."""
    return os.open(path, flags, 0o600)


def settle(file: BinaryIO) -> None:
    """Return once what was written is on the disk."""
    file.flush()
    os.fsync(file.fileno())


def rename(beside: str | Path, path: str | Path) -> None:
    """Give a settled file its name, which is on the disk when this returns."""
    os.replace(beside, path)
    settle_names(os.path.dirname(path) or ".")


def settle_names(directory: str | Path) -> None:
    """Return once the names in a directory are on the disk."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
