"""Whether a directory is the store that was written before, or an empty place where its file system is not mounted.

A store has an identity in its file ``.id``. The output knows it from this run, and with `state_dir` from earlier runs.
"""

from __future__ import annotations

import json
import os
import shlex
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

from ulogd_tw.core import durable
from ulogd_tw.storing.parquet.errors import StoreGone

NAME = ".id"
KEPT = "store"
"""The file in an instance's directory of `state_dir`."""
_MOUNT = "mount its file system"
_MOST = 200
"""Octets of an identity, at most."""


class Identity:
    """The identity of the store of one output. Its methods run in the thread of the writes, and may raise OSError."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._path: Path | None = None
        self._ident = ""
        """The store that was open in this run; empty before."""
        self._device = -1

    def keep(self, path: Path) -> None:
        """Remember the store in this file. Raises OSError, and ValueError for a file that is damaged."""
        self._path = path
        with suppress(FileNotFoundError):
            _read(path)

    @property
    def makes(self) -> bool:
        """Whether a missing directory may be made: no store was written there, as far as is known."""
        return not (self._ident if self._path is None else self._known())

    def _known(self) -> str:
        """The identity of the store that an earlier attempt, or run, had in this directory; empty for none."""
        if self._path is None:
            return self._ident
        try:
            found = _read(self._path)
        except (FileNotFoundError, ValueError):
            return ""
        return str(found["id"]) if found["directory"] == os.path.abspath(self._directory) else ""

    def check(self) -> None:
        """Raises `StoreGone` where the directory is missing or is not the store that was there before."""
        known = self._known()
        if not known or self._found() == known:
            return
        if not self._directory.is_dir():
            raise StoreGone(f"the directory {self._directory} is gone", self._remedy())
        if self._path is None and os.stat(self._directory).st_dev == self._device:
            return  # made anew by hand
        raise StoreGone(f"{self._directory} is not the store that was written before", self._remedy())

    def _remedy(self) -> str:
        if self._path is not None:
            return f"{_MOUNT}; to begin a new store there: rm -- {shlex.quote(str(self._path))}"
        return f"{_MOUNT}, or make the directory again" if not self._directory.is_dir() else (
            f"{_MOUNT}; to begin a new store there restart the service"
        )  # fmt: skip

    def settle(self, mode: int) -> None:
        """The store is open: mark it, unless it has a mark."""
        ident = self._found()
        if not ident:
            ident = uuid.uuid4().hex
            durable.write(self._directory / NAME, lambda file: file.write(ident.encode() + b"\n"), mode=mode)
        self._ident, self._device = ident, os.stat(self._directory).st_dev

    def remember(self) -> None:
        """Keep it for the next run."""
        if self._path is not None and self._known() != self._ident:
            text = json.dumps({"directory": os.path.abspath(self._directory), "id": self._ident}).encode() + b"\n"
            durable.write(self._path, lambda file: file.write(text))

    def _found(self) -> str:
        """The identity in the directory; empty without one."""
        try:
            with open(self._directory / NAME, "rb") as file:
                return file.read(_MOST).decode("ascii", "replace").strip()
        except (FileNotFoundError, NotADirectoryError):
            return ""


def _read(path: Path) -> dict[str, Any]:
    """What was remembered. Raises OSError and ValueError."""
    found = json.loads(path.read_bytes())
    if not isinstance(found, dict) or not found.get("id") or "directory" not in found:
        raise ValueError(f"{path} is damaged")
    return found
