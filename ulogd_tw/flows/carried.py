"""Which files of a store have an event whose session goes beyond their hour: others need not be read for other times.

A session that begins and ends in one hour is only of interest to questions about this hour. Of other events, a file has
a number of 64 bits for the outside address and port: about one in a hundred with sessions of some seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from ulogd_tw.flows import nat_sql
from ulogd_tw.flows.nat_rows import Question
from ulogd_tw.flows.nat_sql import Columns

MOST_FILES = 200_000
_ANY_PORT, _WHOLE = -1, 0
_MASK = (1 << 64) - 1
_NONE = np.zeros(0, np.uint64)


class Carried:
    """What is known of files by their path. `run` gives all rows of a statement."""

    def __init__(self, run: Callable[[str], list[tuple[Any, ...]]]) -> None:
        self._run = run
        self._codes: dict[str, np.ndarray | None] = {}
        """By path; None for a file that is always read, since the times in it are not of its hour."""

    def concerns(self, path: str, question: Question) -> bool:
        """Whether a file of another hour has to be read for a question."""
        codes = self._codes.get(path)
        if codes is None:
            return True
        ports = (_ANY_PORT,) if question.port is None else (question.port, _WHOLE)
        wanted = np.array([_code(question.address, port) for port in ports], np.uint64)
        found = np.searchsorted(codes, wanted)
        return bool((codes.take(np.minimum(found, len(codes) - 1)) == wanted).any()) if len(codes) else False

    def learn(self, files: Iterable[tuple[str, int, Columns]], seconds: float) -> bool:
        """Read files (path, hour since 1970, columns) that are not known, for so long; False if some are left.

        Raises DuckDB's errors.
        """
        begun = time.monotonic()
        if len(self._codes) > MOST_FILES:
            self._codes.clear()
        for path, hour, columns in files:
            if path not in self._codes:
                if time.monotonic() - begun > seconds:
                    return False
                self._codes[path] = self._read(path, hour, columns)
        return True

    def _read(self, path: str, hour: int, columns: Columns) -> np.ndarray | None:
        if not (columns.translated and columns.events):
            return _NONE
        if self._run(nat_sql.strays(columns, path, hour))[0][0]:
            return None
        codes: set[int] = set()
        for text in nat_sql.unresolved(columns, path, hour):
            for address, port in self._run(text):
                codes |= {_code(address.int, port), _code(address.int, _ANY_PORT)}
        return np.sort(np.fromiter(codes, np.uint64, len(codes)))


def _code(address: int, port: int) -> int:
    return hash((address, port)) & _MASK
