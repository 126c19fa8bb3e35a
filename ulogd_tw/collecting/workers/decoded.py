"""How far a worker has come, in memory that it shares with the service: known even if it is killed."""

from __future__ import annotations

import mmap
import os

_ROWS, _READ, _DONE, _PARKED = range(4)


class Decoded:
    """Its numbers, in new memory or in that of a `descriptor` from the service."""

    def __init__(self, descriptor: int = -1) -> None:
        self.descriptor = os.memfd_create("decoded") if descriptor < 0 else descriptor
        if descriptor < 0:
            os.ftruncate(self.descriptor, mmap.PAGESIZE)
        self._map = mmap.mmap(self.descriptor, mmap.PAGESIZE)
        self._words = memoryview(self._map).cast("Q")

    def read(self, datagrams: int) -> None:
        """So many more datagrams were read."""
        self._words[_READ] += datagrams

    def decode(self, rows: int, parked: int) -> None:
        """So many rows in all are decoded, and so many Sets wait for their template."""
        self._words[_ROWS], self._words[_PARKED] = rows, parked

    def end(self, datagrams: int) -> None:
        """So many of the datagrams that were read are decoded."""
        self._words[_DONE] += datagrams

    @property
    def rows(self) -> int:
        """Rows decoded so far, without those of datagrams that are being decoded."""
        return self._words[_ROWS]

    @property
    def undecoded(self) -> int:
        """Datagrams that were read and not decoded, and Sets that wait for their template."""
        return self._words[_READ] - self._words[_DONE] + self._words[_PARKED]

    def close(self) -> None:
        """Let go of the memory."""
        self._words.release()
        self._map.close()
        os.close(self.descriptor)
