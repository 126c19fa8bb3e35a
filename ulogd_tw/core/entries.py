"""The lines of a file that is in memory, a piece at a time, so that other threads get their turn."""

from __future__ import annotations

import io
from collections.abc import Iterator


def lines(octets: bytes) -> Iterator[str]:
    """Each line without its end; octets that are no UTF-8 stay as surrogates."""
    for line in io.TextIOWrapper(io.BytesIO(octets), "utf-8-sig", "surrogateescape"):
        yield line.rstrip("\n")


def entries(octets: bytes, comments: str = "#") -> Iterator[tuple[int, str]]:
    """(number from 1, text) of each line that has something; what begins with one of `comments` is none of it."""
    for number, line in enumerate(lines(octets), 1):
        for mark in comments:
            line = line.partition(mark)[0]
        if text := line.strip():
            yield number, text
