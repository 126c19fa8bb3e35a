"""Changes of the files of an hour that readers see at once, and that a kill leaves whole.

A new directory is made beside the store (``DIR/.new``) with links to the files that stay, and takes the place of the
old one by a single exchange of names (Linux: RENAME_EXCHANGE). So whoever lists an hour sees the files of before or
those of after, each row once. A kill leaves one of the two in place, and `recover` removes the other.

File systems without exchange or links get a note of the change first, then the new file, and then lose the old ones;
there a reader may see rows twice for a moment. `recover` ends what a kill has interrupted.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import shutil
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from ulogd_tw.core import durable
from ulogd_tw.storing.parquet.directory import StoredFile, files, hour_directory, octets_of, parts, stored_file

NEW = ".new"
_NOTE = ".replaces.json"
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
_IMPOSSIBLE = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EXDEV, errno.EPERM, errno.EMLINK})
"""What file systems say that have no exchange, or no links."""


def stage(directory: Path) -> Path:
    """The directory for what is not yet in the store, made if needed."""
    found = directory / NEW
    found.mkdir(mode=0o750, exist_ok=True)
    return found


def replace(directory: Path, old: Collection[StoredFile], part: Path, new: StoredFile) -> None:
    """Put `part` in the place of `old`, all of one hour, as `new`. Raises OSError, FileNotFoundError if one is gone."""
    for file in old:
        file.path.stat()
    try:
        _exchange(directory, {file.path.name for file in old}, part, new)
    except OSError as error:
        if error.errno not in _IMPOSSIBLE or not part.exists():
            raise
        _one_by_one(directory, old, part, new)


def remove_hour(directory: Path, hour: int) -> tuple[int, int]:
    """Remove an hour; returns how many rows and octets. Its directory goes first, so that readers miss all of it."""
    target, gone = hour_directory(directory, hour), stage(directory) / f"gone-{hour}"
    shutil.rmtree(gone, ignore_errors=True)
    os.rename(target, gone)
    with suppress(OSError):  # other hours are there
        target.parent.rmdir()
    rows = octets = 0
    for path in sorted(gone.iterdir()):
        found = stored_file(path, hour)
        octets += octets_of(path)
        rows += max(found.rows, 0) if found is not None else 0
    shutil.rmtree(gone)
    return rows, octets


def recover(directory: Path) -> tuple[int, int]:
    """End what a killed process has left; returns how many files became whole, and how many were removed.

    All files of a write are complete before the first gets its name. So where one has it, the others get theirs.
    """
    _end_note(directory)
    shutil.rmtree(directory / NEW, ignore_errors=True)
    left = list(parts(directory))
    begun = writes(directory) if left else frozenset()
    whole = 0
    for part, file in left:
        if (file.run, file.number) in begun:
            os.replace(part, file.path)
            whole += 1
        else:
            part.unlink(missing_ok=True)
    for place in {part.parent for part, _ in left}:
        durable.settle_names(place)
    return whole, len(left) - whole


def writes(directory: Path) -> frozenset[tuple[str, int]]:
    """(run, number) of the writes with a complete file that was not merged yet."""
    return frozenset((file.run, file.number) for file in files(directory) if not file.level)


# the two ways


def _exchange(directory: Path, names: Collection[str], part: Path, new: StoredFile) -> None:
    target = new.path.parent
    place = stage(directory) / "exchange" / target.name
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(mode=0o750, parents=True)
    for name in os.listdir(target):
        if name not in names:
            os.link(target / name, place / name)
    os.link(part, place / new.path.name)
    durable.settle_names(place)
    _exchange_names(place, target)
    durable.settle_names(target.parent)
    part.unlink()
    shutil.rmtree(place, ignore_errors=True)


def _exchange_names(one: Path, other: Path) -> None:
    """Let two directories take each other's place. Raises OSError."""
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:  # glibc has it since 2.28, musl since 1.2.6
        raise OSError(errno.ENOSYS, "there is no renameat2") from None
    if call(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), os.fspath(other))


def _one_by_one(directory: Path, old: Collection[StoredFile], part: Path, new: StoredFile) -> None:
    """Without an exchange: a note on the disk, the new file, then the old ones go."""
    hour = new.path.parent.relative_to(directory)
    note = {"hour": os.fspath(hour), "new": new.path.name, "old": [file.path.name for file in old]}
    text = json.dumps(note).encode()
    durable.write(directory / _NOTE, lambda file: file.write(text))
    durable.rename(part, new.path)
    _end_note(directory)


def _end_note(directory: Path) -> None:
    """Remove the files of a note whose new file is there, then the note."""
    path = directory / _NOTE
    try:
        note = json.loads(path.read_bytes())
        place, new, old = directory / note["hour"], str(note["new"]), list(map(str, note["old"]))
    except FileNotFoundError:
        return
    except (ValueError, KeyError, TypeError):  # it was never whole: nothing had begun
        path.unlink(missing_ok=True)
        return
    if (place / new).exists():
        for name in old:
            (place / os.path.basename(name)).unlink(missing_ok=True)
        durable.settle_names(place)
    path.unlink()
