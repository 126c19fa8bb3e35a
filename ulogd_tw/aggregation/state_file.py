"""The file with an AGGREGATE's open intervals over a restart, and the marks of emitted ones.

The file is a NumPy npz without pickles: for each interval its tables in pieces, and at the end a `head` in JSON. An
interval is written while rows keep arriving; a group has each of its rows completely or not at all. The new file
replaces the former one only when it is complete and on disk.

Beside it ``PATH.emitted`` has a line for each emitted interval, written before its first row goes out: groups of this
interval in the file are not emitted again. The process using a file holds a lock on this one.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import threading
import zipfile
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from ulogd_tw.aggregation.functions import unsaved
from ulogd_tw.aggregation.group_table import FLOWS, PLACES, Group, Slice
from ulogd_tw.aggregation.interval import OTHER, IntervalTable, Present
from ulogd_tw.aggregation.relocation import AT_ONCE
from ulogd_tw.aggregation.settings import Overflow, Settings
from ulogd_tw.core import durable, types
from ulogd_tw.core.columns import Octets
from ulogd_tw.core.errors import StartError
from ulogd_tw.core.keys import Key
from ulogd_tw.core.regular_file import open_regular

VERSION = 1
PIECE_OCTETS = 4 << 20
"""Copied in one turn of the reactor, about: some milliseconds."""
_ROWS = re.compile(r"\.g\d+\.p\d+\.rows$")
"""The arrays with the keys and values of groups."""
_LEAST = 8 * len(PLACES)
"""Octets of a group in the file, at least."""

Work = Callable[[], None]


class Snapshot(NamedTuple):
    """The contents of a state file: `tables`, with the clock of those waiting for emission, and the closed intervals.

    Intervals that began before `closed` (seconds since 1970) were emitted. `former` has the settings of the tables
    where they are not those of the reader: nothing can be added to such tables.
    """

    tables: list[tuple[IntervalTable, float | None]]
    closed: int
    former: Settings | None = None

    @property
    def groups(self) -> int:
        """The groups of all tables."""
        return sum(len(table) for table, _ in self.tables)


class Disturbed(Exception):
    """Entries were moved while they were copied."""


def described(settings: Settings) -> dict[str, Any]:
    """The settings on which the sums of a state file depend: only an AGGREGATE with the same ones reads it."""
    return {
        "key": list(settings.key),
        "functions": [spec.saved for spec in settings.functions],
        "interval": settings.interval,
        "time": settings.time,
        "window": bool(settings.window),
        "age": bool(settings.age),
        "change": settings.change,
    }


def undescribed(saved: dict[str, Any], own: Settings, most: int) -> Settings:
    """The settings with which at most so many groups were written, as far as their emission needs them.

    Raises ValueError for functions that are not there any more.
    """
    return replace(
        own,
        key=tuple(map(str, saved["key"])),
        functions=tuple(map(unsaved, saved["functions"])),
        interval=int(saved["interval"]),
        time=str(saved["time"]),
        window=int(saved["window"]),
        age=float(saved["age"]),
        change=str(saved["change"]),
        top=0,
        max_keys=max(own.max_keys, most),
        overflow=Overflow.EMIT,
    )


class StateFile:
    """The file at `path` of the intervals of one AGGREGATE with these settings."""

    def __init__(self, path: str, settings: Settings) -> None:
        self.path = Path(path)
        self._own = settings
        self._settings = described(settings)
        self._marks = -1
        self._lock = threading.Lock()
        self._newest: object = None
        """The writing that may replace the file: a thread that is still at an older one must not."""

    # marks

    def open(self) -> None:
        """Take the file for this process. Raises `StartError`."""
        try:
            self.path = durable.place(self.path)
            path = self.path.with_name(self.path.name + ".emitted")
            self._marks = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._marks, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise StartError(f"state_file {self.path} is in use by another AGGREGATE") from None
        except OSError as error:
            self.close()
            raise StartError(f"state_file {self.path}: {error}") from None

    def close(self) -> None:
        if self._marks >= 0:
            os.close(self._marks)
            self._marks = -1

    def mark(self, ident: str, closed: int) -> None:
        """Note that the table of this name is emitted, and until when intervals are closed."""
        os.write(self._marks, f"{ident} {closed}\n".encode())

    def sync(self) -> None:
        """Wait until the marks are on the disk."""
        os.fdatasync(self._marks)

    def forget(self, still: bool) -> None:
        """Empty the marks, as a new file is in place; unless it has intervals that were emitted (`still`)."""
        if not still:
            os.ftruncate(self._marks, 0)

    def emitted(self) -> tuple[set[str], int]:
        """The marks: names of tables, and the time until which intervals are closed. A cut line counts as none."""
        lines = os.pread(self._marks, os.fstat(self._marks).st_size, 0).decode("ascii", "replace").split("\n")[:-1]
        words = [line.split(" ") for line in lines]
        good = [(ident, int(closed)) for ident, closed in (w for w in words if len(w) == 2) if closed.isdecimal()]
        return {ident for ident, _ in good}, max((closed for _, closed in good), default=0)

    # write

    def steps(self, snapshot: Snapshot, suffix: str) -> Generator[Work, None, None]:
        """Write the intervals. Each step copies a piece, and gives what has to be done next, perhaps in a thread.

        Raises `Disturbed`.
        """
        beside = self.path.with_name(self.path.name + suffix)
        file = durable.opened(beside)
        archive = zipfile.ZipFile(file, "w")
        with self._lock:
            self._newest = archive
        try:
            heads = []
            for place, (table, now) in enumerate(snapshot.tables):
                head = {"ident": table.ident, "start": table.start, "now": now, "groups": [], "strings": {}}
                yield from _table_steps(archive, f"t{place}", table, head)
                if not table.gone:
                    heads.append((f"t{place}", head))
            whole = {"ulogd_tw": "aggregate", "version": VERSION, "settings": self._settings}
            whole |= {"closed": snapshot.closed}
            octets = np.frombuffer(json.dumps(whole | {"tallies": heads}).encode(), np.uint8)
            yield lambda: _put(archive, {"head": octets})
            yield lambda: self._finish(archive, file, beside)
        finally:
            with contextlib.suppress(OSError):  # a full disk was reported before
                archive.close()
                file.close()
            beside.unlink(missing_ok=True)

    def _finish(self, archive: zipfile.ZipFile, file: BinaryIO, beside: Path) -> None:
        archive.close()
        durable.settle(file)
        with self._lock:
            if self._newest is archive:
                durable.rename(beside, self.path)

    def discard(self) -> None:
        """Remove the file; a thread that writes one does so in vain."""
        with self._lock:
            self._newest = None
            self.path.unlink(missing_ok=True)

    # read

    def load(self, new_table: Callable[[int, Settings], IntervalTable]) -> Snapshot | None:
        """The part of the file not yet emitted; None: there is no file.

        Groups of other settings come in tables of those (`Snapshot.former`). Raises ValueError for a damaged file.
        """
        gone, closed = self.emitted()
        try:
            with open_regular(self.path) as file, np.load(file, allow_pickle=False) as arrays:
                head = json.loads(arrays["head"].tobytes())
                if (head["ulogd_tw"], head["version"]) != ("aggregate", VERSION):
                    raise ValueError("it is not a state file of this version")
                former = None
                if head["settings"] != self._settings:
                    former = undescribed(head["settings"], self._own, os.fstat(file.fileno()).st_size // _LEAST)
                found: list[tuple[IntervalTable, float | None]] = []
                for name, saved in head["tallies"]:
                    if saved["ident"] not in gone:
                        table = new_table(int(saved["start"]), former or self._own)
                        table.ident = str(saved["ident"])
                        _restore(arrays, name, saved, table)
                        found.append((table, None if saved["now"] is None else float(saved["now"])))
                return Snapshot(found, max(closed, int(head["closed"])), former)
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            raise
        except Exception as error:  # whatever reading damaged zip files, arrays and JSON raises
            raise ValueError(f"it is damaged: {type(error).__name__}: {error}") from None

    def others(self, former: Settings) -> str:
        """The options that differ from those of the groups in the file, such as ``key, interval``."""
        found = described(former)
        return ", ".join(name for name in self._settings if found[name] != self._settings[name])

    def set_aside(self) -> Path:
        """Rename the file; returns the new name."""
        aside = self.path.with_name(self.path.name + ".aside")
        os.replace(self.path, aside)
        return aside


def rows_kept(path: Path) -> int:
    """The rows in the groups of a state file that were not emitted; 0 where it cannot be read.

    Nobody uses the file at the moment.
    """
    try:
        with open_regular(path) as file, np.load(file, allow_pickle=False) as arrays:
            head = json.loads(arrays["head"].tobytes())
            gone = _marks_beside(path)
            names = {name for name, saved in head["tallies"] if saved["ident"] not in gone}
            pieces = [arrays[name] for name in arrays.files if _ROWS.search(name) and name.partition(".")[0] in names]
            return sum(int(Slice(rows, {}, []).value(FLOWS).sum()) for rows in pieces)
    except Exception:  # whatever reading damaged zip files, arrays and JSON raises
        return 0


def _marks_beside(path: Path) -> set[str]:
    """The names of tables that were emitted."""
    try:
        with open_regular(path.with_name(path.name + ".emitted")) as file:
            return {line.split(" ")[0] for line in file.read().decode("ascii", "replace").split("\n")[:-1]}
    except FileNotFoundError:
        return set()


def copied(table: IntervalTable, new_table: Callable[[int], IntervalTable]) -> IntervalTable:
    """The same groups in another table of the same settings, under the same name."""
    other = new_table(table.start)
    other.ident = table.ident
    for name, dictionary in table.dictionaries.items():
        if dictionary.values:
            other.dictionaries[name].restore(list(dictionary.values))
    for present, group in table.groups.items():
        into = other.table(present, group.table.n)
        for first in range(1, group.table.n + 1, AT_ONCE):
            other.take(present, into, group.piece(first, min(first + AT_ONCE, group.table.n + 1)), None)
    return other


def _put(archive: zipfile.ZipFile, arrays: dict[str, np.ndarray]) -> None:
    for name, array in arrays.items():
        with archive.open(zipfile.ZipInfo(name + ".npy"), "w", force_zip64=True) as member:
            np.lib.format.write_array(member, np.ascontiguousarray(array), allow_pickle=False)


def _table_steps(archive: zipfile.ZipFile, name: str, table: IntervalTable, head: dict[str, Any]) -> Iterator[Work]:
    """The steps of one table, as far as it does not go away meanwhile; `head` gets what is written."""
    moves = table.moves
    # what is made after this moment is not in the file
    groups = [(present, group, group.table.n) for present, group in table.groups.items()]
    for place, (present, group, n) in enumerate(groups):
        keys = None if isinstance(present, str) else [[k.name, k.type.name, list(k.elements)] for k in present]
        at_once, pieces = _at_once(group), 0
        for first in range(1, n + 1, at_once):
            if table.gone:
                return
            if table.moves != moves:
                raise Disturbed
            piece = group.piece(first, min(first + at_once, n + 1))
            yield _work(archive, f"{name}.g{place}.p{pieces}", piece)
            pieces += 1
        head["groups"].append({"keys": keys, "pieces": pieces, "n": n})
    for place, (key, dictionary) in enumerate(table.dictionaries.items()):
        if dictionary.values:
            values = list(dictionary.values)
            head["strings"][key] = place
            yield _strings(archive, f"{name}.d{place}", values)


def _at_once(group: Group) -> int:
    """Entries of a piece."""
    octets = 8 * group.table.stride + sum(state.width * state.values.itemsize for state in group.states)
    return max(min(PIECE_OCTETS // octets, AT_ONCE), 1)


def _work(archive: zipfile.ZipFile, name: str, piece: Slice) -> Work:
    arrays = {f"{name}.rows": piece.rows}
    arrays |= {f"{name}.{key.name}": column for key, column in piece.more.items()}
    for place, (values, flags) in enumerate(piece.states):
        arrays |= {f"{name}.v{place}": values, f"{name}.f{place}": flags}
    return lambda: _put(archive, arrays)


def _strings(archive: zipfile.ZipFile, name: str, values: list[bytes]) -> Work:
    def work() -> None:
        column = Octets.of(values)
        _put(archive, {f"{name}.offsets": column.offsets, f"{name}.data": column.data})

    return work


def _restore(arrays: Any, name: str, saved: dict[str, Any], table: IntervalTable) -> None:
    """Put what was saved into an empty table."""
    for key, place in saved["strings"].items():
        offsets, data = arrays[f"{name}.d{place}.offsets"], arrays[f"{name}.d{place}.data"]
        if (offsets.dtype, data.dtype, offsets.ndim, data.ndim) != (np.int64, np.uint8, 1, 1):
            raise ValueError(f"it is damaged: {name}.d{place}")
        if offsets[0] or offsets[-1] != len(data) or (np.diff(offsets) < 0).any():
            raise ValueError(f"it is damaged: {name}.d{place}")
        table.dictionaries[key].restore(Octets(offsets, data).to_list())
    for place, group in enumerate(saved["groups"]):
        present: Present = OTHER
        if group["keys"] is not None:
            present = tuple(Key(n, types.TYPES[t], tuple(map(tuple, elements))) for n, t, elements in group["keys"])
        into = table.table(present, int(group["n"]))
        for number in range(group["pieces"]):
            table.take(present, into, _piece(arrays, f"{name}.g{place}.p{number}", into), None)


def _piece(arrays: Any, name: str, into: Group) -> Slice:
    """A piece as it was saved. Raises ValueError where it cannot be one of such a group."""
    rows = arrays[f"{name}.rows"]
    if rows.dtype != np.uint64 or rows.ndim != 2 or rows.shape[1] != into.packing.words + len(PLACES):
        raise ValueError(f"it is damaged: {name}")
    more = {key: arrays[f"{name}.{key.name}"] for key in into.MORE if f"{name}.{key.name}" in arrays}
    states = []
    for place, state in enumerate(into.states):
        values, flags = arrays[f"{name}.v{place}"], arrays[f"{name}.f{place}"]
        if values.dtype != state.dtype or values.shape != (len(flags) * state.width,) or flags.dtype != np.uint8:
            raise ValueError(f"it is damaged: {name}")
        states.append((values, flags))
    if any(column.shape != (len(rows),) or column.dtype != np.uint64 for column in more.values()):
        raise ValueError(f"it is damaged: {name}")
    piece = Slice(rows, more, states)
    into.packing.check(piece.words)
    return piece
