"""Merges files in a process of its own, at low priority: the service neither waits for it nor keeps its memory.

The process gets this file alone, without the package, so that it starts quickly. It reads a line of JSON with the job
from its input, writes the number of rows of the new file to its output, and ends with the service. The statements that
write Parquet are here for both.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROW_GROUP = 61_440
"""Rows of a row group: a look-up reads few more rows than it finds, and a group is still worth compressing."""
MEMORY = 1 << 30
"""Memory of a merge; beyond it, files beside the new one."""
TEMPORARY = "temporary"
"""The directory of these files."""
_NICE = 10
_PR_SET_PDEATHSIG = 1
_MODE = 0o640
_WIDE = ("HUGEINT", "UHUGEINT")
"""Types of mixed signed and unsigned numbers, which Parquet would have as fractions."""


def connected(memory: int, temporary: str = "") -> Any:
    """A connection of DuckDB with one thread, the caller's, and so much memory; beyond it, files in `temporary`."""
    import duckdb  # an extra, and 30 MB of memory

    config: dict[str, Any] = {
        "threads": 1,
        "memory_limit": f"{memory >> 20}MiB",
        "temp_directory": temporary,
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
        "allow_community_extensions": False,
    }
    connection = duckdb.connect(":memory:", config=config)
    connection.execute("set enable_progress_bar = false").fetchall()  # it would go to standard output after 2 s
    return connection


def new_file(path: Path) -> None:
    """Make an empty file, which DuckDB then writes."""
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, _MODE))


def copy(connection: Any, rows: str, path: Path, compression: str) -> int:
    """Write the rows of a query into a Parquet file, so that they are on the disk; returns how many."""
    new_file(path)
    statement = (
        f"copy ({rows}) to {_text(os.fspath(path))} (format parquet, compression {compression}, "
        f"row_group_size {ROW_GROUP}, use_tmp_file false)"
    )
    found = connection.execute(statement).fetchall()
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
    return int(found[0][0])


def merge(files: Sequence[str], part: Path, order: Sequence[str], compression: str, memory: int = MEMORY) -> int:
    """Write the rows of all files into `part`, sorted by these columns; returns how many."""
    with connected(memory, os.fspath(part.parent / TEMPORARY)) as connection:
        there = "read_parquet([" + ", ".join(map(_text, files)) + "], union_by_name=true, hive_partitioning=false)"
        types = {row[0]: row[1] for row in connection.execute(f"describe from {there}").fetchall()}
        columns = ", ".join(_column(name, type_) for name, type_ in types.items())
        sorting = ", ".join(quoted(name) for name in order if name in types)
        rows = f"select {columns} from {there}" + (f" order by {sorting}" if sorting else "")
        return copy(connection, rows, part, compression)


def _column(name: str, type_: str) -> str:
    word = quoted(name)
    return f"{word}::decimal(38, 0) as {word}" if type_ in _WIDE else word


def quoted(name: str) -> str:
    """A name in an SQL statement."""
    return '"' + name.replace('"', '""') + '"'


def _text(path: str) -> str:
    return "'" + path.replace("'", "''") + "'"


def main(parent: int) -> None:
    """Do the one job of the process `parent`."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("the service has ended")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; the service decides
    os.nice(_NICE)
    job = json.loads(sys.stdin.readline())
    try:
        print(merge(job["files"], Path(job["part"]), job["order"], job["compression"]), flush=True)
    except Exception as error:
        sys.exit(str(error).partition("\n")[0])
