"""Reads stores with DuckDB: a question goes in, events come out: a head, rows, progress, an end.

A `Reader` keeps its connection between questions, with the footers of the files that it has seen.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ulogd_tw.core.errors import UlogdError
from ulogd_tw.flows.errors import FlowsError, Vanished
from ulogd_tw.flows.expressions import quoted
from ulogd_tw.flows.stores import Store
from ulogd_tw.storing.parquet.directory import StoredFile

PROGRESS_S = 0.25
"""Seconds between two looks at the progress of a statement."""
ROWS_AT_ONCE = 1000
MEMORY = 1 << 30
"""Octets of memory of a question, where nothing else is said."""
MOST_BROKEN = 100
"""Maximum number of unreadable files that one question leaves out."""
_GONE = re.compile(r"No such file or directory|No files found that match|Cannot open file", re.IGNORECASE)


class NoDuckDB(UlogdError):
    """The package duckdb is not installed."""

    status = 2


@dataclass
class Cut:
    """The rows of a store at one moment: its files, and the rows that are in none yet, as a stream of Arrow."""

    store: Store
    files: Sequence[StoredFile]
    waiting: Sequence[Any] = ()
    notes: list[str] = field(default_factory=list)


class Reader:
    """A connection to DuckDB that can read files and do nothing else.

    Raises `NoDuckDB`. With `later`, it has one thread and may read all, until `confine`.
    """

    def __init__(self, memory: int = MEMORY, threads: int = 0, later: bool = False) -> None:
        try:
            import duckdb
        except ImportError:
            raise NoDuckDB("the package duckdb is not installed; pip install ulogd_tw[store]") from None
        self._errors = duckdb.Error
        self._memory_error = duckdb.OutOfMemoryException
        self._database = duckdb.connect(config=_config(memory, 1 if later else threads, later))
        self._memory = memory
        for word in (
            "enable_progress_bar = true",
            "enable_progress_bar_print = false",
            "progress_bar_time = 0",
            "parquet_metadata_cache = true",
        ):
            self._database.execute(f"SET {word}")
        if not later:
            self._database.execute("SET lock_configuration = true")

    def confine(self, threads: int, directories: Iterable[str]) -> None:
        """Read nothing but these directories from now on, with so many threads, which begin now."""
        listed = ", ".join(text(f"{directory.rstrip('/')}/") for directory in directories)
        for word in (
            f"threads = {threads}",
            f"allowed_directories = [{listed}]",
            "enable_external_access = false",
            "lock_configuration = true",
        ):
            self._database.execute(f"SET {word}")

    def close(self) -> None:
        """Close the connection."""
        self._database.close()

    def interrupt(self) -> None:
        """End a running statement."""
        self._database.interrupt()

    def run(self, statement: str) -> Iterator[float | list[tuple]]:
        """The rows of a statement in lists, and before them its progress in percent, now and then.

        Raises `FlowsError`, and `Vanished` for a file that is not there any more.
        """
        run = _Run(self._database, statement)
        yield from run.progress()
        self._raise(run.error)
        while rows := self._database.fetchmany(ROWS_AT_ONCE):
            yield rows

    def rows(self, statement: str) -> list[tuple]:
        """All rows of a short statement. Raises as `run`."""
        try:
            return self._database.execute(statement).fetchall()
        except Exception as error:
            self._raise(error)
            raise

    def holding(self, name: str, stream: Any) -> frozenset[str]:
        """Keep the rows of a stream of Arrow as a table of this name; its columns."""
        self._database.register("stream", stream)
        try:
            self._database.execute(f"CREATE OR REPLACE TEMP TABLE {quoted(name)} AS SELECT * FROM stream")
        finally:
            self._database.unregister("stream")
        return self.columns(quoted(name))

    def columns(self, relation: str) -> frozenset[str]:
        """The columns of a relation."""
        return frozenset(row[0] for row in self.rows(f"DESCRIBE SELECT * FROM {relation}"))

    def make(self, statement: str, parameters: Sequence[Any]) -> None:
        """Make or fill a table."""
        self._database.execute(statement, parameters)

    def drop(self, name: str) -> None:
        """Forget a table of `holding`."""
        self._database.execute(f"DROP TABLE IF EXISTS {quoted(name)}")

    def readable(self, file: StoredFile) -> bool:
        """Whether the footer of a file can be read, and one row with all columns."""
        try:
            self._database.execute(f"SELECT * FROM read_parquet({text(str(file.path))}) LIMIT 1").fetchall()
        except self._errors:
            return False
        return True

    def _raise(self, error: BaseException | None) -> None:
        if error is None:
            return
        if isinstance(error, self._memory_error):
            megabytes = self._memory >> 20
            raise FlowsError(f"the question needs more than {megabytes} MB of memory; ask for fewer groups or flows")
        if not isinstance(error, self._errors):
            raise error
        words = str(error)
        raise (Vanished if _GONE.search(words) else Broken)(words)


class Broken(FlowsError):
    """DuckDB cannot do a statement; its message may name a file."""


class _Run:
    """A statement in a thread, so that its progress can be told."""

    def __init__(self, database: Any, statement: str) -> None:
        self._database, self._statement = database, statement
        self.error: BaseException | None = None

    def progress(self) -> Iterator[float]:
        """The progress in percent, until the statement has its rows."""
        thread = threading.Thread(target=self._execute, daemon=True)
        thread.start()
        try:
            while True:
                thread.join(PROGRESS_S)
                if not thread.is_alive():
                    return
                yield max(0.0, self._database.query_progress())
        finally:
            if thread.is_alive():
                self._database.interrupt()
                thread.join()

    def _execute(self) -> None:
        try:
            self._database.execute(self._statement)
        except BaseException as error:
            self.error = error


def _config(memory: int, threads: int, alone: bool) -> dict[str, Any]:
    found: dict[str, Any] = {
        "memory_limit": f"{memory}B", "temp_directory": "",
        "preserve_insertion_order": False,
        "autoinstall_known_extensions": False, "autoload_known_extensions": False,
        "allow_community_extensions": False, "python_enable_replacements": False,
    }  # fmt: skip
    return found | ({"threads": threads} if threads else {}) | ({"async_threads": 0} if alone else {})


def text(value: str) -> str:
    """A text in a statement."""
    return "'" + value.replace("'", "''") + "'"


def relation_of(files: Iterable[StoredFile], by_name: bool) -> str:
    """The relation of some files; `by_name`: their columns may differ."""
    listed = ", ".join(text(str(file.path)) for file in files)
    return f"read_parquet([{listed}], union_by_name={str(by_name).lower()}, hive_partitioning=false)"


def filled(relation: str, have: frozenset[str], types: Mapping[str, str]) -> str:
    """A relation with all of these columns: those that it lacks are NULL."""
    lacking = [f"NULL::{type_} AS {quoted(name)}" for name, type_ in types.items() if name not in have]
    return f"(SELECT {', '.join(('*', *lacking))} FROM {relation})" if lacking else relation


def nothing(types: Mapping[str, str]) -> str:
    """A relation of these columns without rows."""
    return f"(SELECT {', '.join(f'NULL::{type_} AS {quoted(name)}' for name, type_ in types.items())} LIMIT 0)"
