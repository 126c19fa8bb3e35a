"""Dead letters: rows that cannot be stored, in files of JSON lines with the error, for the administrator to look at."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ulogd_tw.core import text, types
from ulogd_tw.core.batch import Batch
from ulogd_tw.core.columns import Coded
from ulogd_tw.core.counters import Counters
from ulogd_tw.core.durable import private
from ulogd_tw.core.keys import Key
from ulogd_tw.core.lines import ColumnField, Field, Lines

FILES = 10
"""Files of an instance at least, so that the oldest rows can go."""
_ERROR = Key("error", types.STRING)


class DeadLetters:
    """The files of one instance in `directory`, ``INSTANCE-TIME-NUMBER.jsonl``.

    They have about `most_octets` in all; the oldest go first. False without a directory. `keep` is called in one thread
    at a time, and raises OSError.
    """

    def __init__(self, directory: str, most_octets: int, instance: str, counters: Counters) -> None:
        self.directory = directory
        self._most = most_octets
        self._instance = instance
        self._counters = counters
        self._lines = Lines(b"\n{", b",", b"}")
        self._path: Path | None = None
        self._latest = ("", 0)

    def __bool__(self) -> bool:
        return bool(self.directory)

    def keep(self, batches: Sequence[Batch], refused: Sequence[tuple[int, str]]) -> None:
        """Append the refused rows of a write, by their numbers over all batches, with their errors."""
        Path(self.directory).mkdir(mode=0o700, parents=True, exist_ok=True)
        for batch, errors in _rows_of(batches, refused):
            for octets, rows in self._lines.render(list(_members(batch, errors)), batch.n):
                self._append(octets, rows)

    def _append(self, octets: bytes, rows: int) -> None:
        path = self._file()
        with open(path, "ab", opener=private) as file:
            file.write(octets)
            file.flush()
            os.fsync(file.fileno())
        self._counters.figures["dead_letters"] += rows
        self._remove_oldest(path)

    def _file(self) -> Path:
        """The file of now: another one once it has its part of the octets."""
        if self._path is None or self._full(self._path):
            stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
            number = self._latest[1] + 1 if self._latest[0] == stamp else 1
            while self._full(self._named(stamp, number)):
                number += 1
            self._latest, self._path = (stamp, number), self._named(stamp, number)
        return self._path

    def _full(self, path: Path) -> bool:
        return _size(path) * FILES >= self._most

    def _named(self, stamp: str, number: int) -> Path:
        return Path(self.directory) / f"{self._instance}-{stamp}-{number:06d}.jsonl"

    def _remove_oldest(self, latest: Path) -> None:
        paths = sorted(Path(self.directory).glob(f"{self._instance}-????????T??????Z-*.jsonl"))
        octets = sum(map(_size, paths))
        for path in paths:
            if octets <= self._most or path == latest:
                break
            octets -= _size(path)
            path.unlink(missing_ok=True)
            self._counters.figures["dead_letters_removed"] += 1


def _rows_of(batches: Sequence[Batch], refused: Sequence[tuple[int, str]]) -> Iterator[tuple[Batch, Sequence[str]]]:
    """For each batch its refused rows, and their errors."""
    errors = dict(refused)
    numbers = np.array(sorted(errors), np.int64)
    first = 0
    for batch in batches:
        own = numbers[(numbers >= first) & (numbers < first + batch.n)]
        if len(own):
            yield batch.take(own - first), [errors[number] for number in own.tolist()]
        first += batch.n


def _members(batch: Batch, errors: Sequence[str]) -> Iterator[Field]:
    """The members of the objects: when, the error, and every key of the row."""
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    yield Field(b'"time":' + json.dumps(now).encode())
    different = {error: code for code, error in enumerate(dict.fromkeys(errors))}
    codes = np.array([different[error] for error in errors], np.int32)
    column = Coded(codes, [error.encode() for error in different])
    yield ColumnField(b'"error":', column, None, _ERROR, text.JSON)
    for key in batch.schema.values():
        name = json.dumps(key.name, ensure_ascii=False).encode()
        yield ColumnField(name + b":", batch.columns[key.name], batch.missing.get(key.name), key, text.JSON)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
