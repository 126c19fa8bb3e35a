"""The lines of a file that is in memory, a piece at a time, so that other threads get their turn."""

from __future__ import annotations

import io
from collections.abc import Iterator


def lines(octets: bytes) -> Iterator[str]:
    """Each line without its end; octets that are no UTF-8 stay as surrogates."""
    for line in io.TextIOWrapper(io.BytesIO(octets), "utf-8-sig", "surrogateescape"):
        yield line.rstrip("\n")
