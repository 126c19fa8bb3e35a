"""The log of questions about stored flows: who asked what, when, and how many answers there were.

A line of JSON for each question, on the disk before the answer is given. Where it cannot be written, nothing is told.
"""

from __future__ import annotations

import errno
import json
import os
import pwd
import socket
import stat
import struct
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from ulogd_tw.core.errors import UlogdError
from ulogd_tw.core.paths import unwritable

_CREDENTIALS = struct.Struct("3i")


class NotLogged(UlogdError):
    """A question that could not be logged, and so is not answered."""

    status = 2


def append(
    paths: Iterable[str],
    now: float,
    asker: Mapping[str, Any],
    question: Mapping[str, Any],
    found: int | None,
) -> None:
    """Add a line to each log; `found` answers, None where they are not counted before. Raises `NotLogged`."""
    entry: dict[str, Any] = {
        "time": datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "asker": dict(asker), "question": dict(question),
    }  # fmt: skip
    if found is not None:
        entry["answers"] = found
    line = json.dumps(entry, separators=(",", ":"), default=str).encode() + b"\n"
    for path in sorted(set(paths)):
        try:
            _append(path, line)
        except OSError as error:
            raise NotLogged(f"question_log {path}: {error.strerror}; without it there is no answer") from None


def obstacle(path: str) -> str:
    """Why a log cannot be written, as far as looking shows; empty where nothing stands against it."""
    if text := unwritable(path):
        return text
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        mode = stat.S_IFREG
    except OSError as error:
        return f"{path}: {error.strerror}"
    if not stat.S_ISREG(mode):
        return f"{path} is {'a link' if stat.S_ISLNK(mode) else 'no regular file'}; name a regular file"
    folder = os.path.dirname(os.path.abspath(path))
    if os.statvfs(folder).f_flag & os.ST_RDONLY:
        return f"{path} is on a read-only file system; name a file elsewhere"
    return ""


def fault(path: str) -> str:
    """Why a log cannot be written by this process, which tries it and may begin the file; empty where it can be."""
    if text := obstacle(path):
        return text
    try:
        os.close(_opened(path))
    except OSError as error:
        return f"{path}: {error.strerror}; make it writable for the user of the service"
    return ""


def _opened(path: str) -> int:
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NOCTTY | os.O_NONBLOCK
    return os.open(path, flags, 0o600)


def _append(path: str, line: bytes) -> None:
    fd = _opened(path)
    try:
        if not os.fstat(fd).st_size:  # the mode of a file that another program has begun is not ours to change
            os.fchmod(fd, 0o600)
        if os.write(fd, line) < len(line):
            os.write(fd, b"\n")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        os.fsync(fd)
    finally:
        os.close(fd)


def asker_of(request: Any) -> dict[str, Any]:
    """Who sends a request: the user of the process at a Unix socket, else the user that a proxy names, or an address.

    The user at a Unix socket is that of its process, whatever the request says.
    """
    transport = request.channel.transport
    handle = transport.getHandle() if hasattr(transport, "getHandle") else None
    if getattr(handle, "family", None) == socket.AF_UNIX:
        return _user(handle)
    found: dict[str, Any] = {"address": getattr(transport.getPeer(), "host", "")}
    remote = getattr(request.door, "remote_user", None)
    if remote is not None and (user := remote(request)):
        found["user"] = user
    else:
        found["known"] = bool(getattr(request, "known", False))
    return found


def this_user() -> dict[str, Any]:
    """The user of this process."""
    return _named(os.getuid())


def _user(connection: Any) -> dict[str, Any]:
    size = _CREDENTIALS.size
    pid, uid, _ = _CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return _named(uid) | {"pid": pid}


def _named(uid: int) -> dict[str, Any]:
    try:
        return {"uid": uid, "user": pwd.getpwuid(uid).pw_name}
    except KeyError:
        return {"uid": uid}
