"""The lines of a file in memory, given in pieces so that other threads get their turn."""

from __future__ import annotations

import io
from collections.abc import Iterator


def lines(octets: bytes) -> Iterator[str]:
    """Each line without its end; octets outside UTF-8 stay as surrogates."""
    for line in io.TextIOWrapper(io.BytesIO(octets), "utf-8-sig", "surrogateescape"):
        yield line.rstrip("\n")


def entries(octets: bytes, comments: str = "#") -> Iterator[tuple[int, str]]:
    """(number from 1, text) of each line that is not empty; text after one of `comments` is cut off."""
    for number, line in enumerate(lines(octets), 1):
        for mark in comments:
            line = line.partition(mark)[0]
        if text := line.strip():
            yield number, text
