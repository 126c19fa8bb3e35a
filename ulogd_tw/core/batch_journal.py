"""The batch under way to a database or a file: after a kill the next run looks what became of it."""

from __future__ import annotations

from typing import NamedTuple

from ulogd_tw.core.ledger import Written
from ulogd_tw.core.mapped import MappedWords, read, split

_HEAD = b"ulogd_tw batch 1\n"
_NUMBER, _BEFORE, _WEIGHT, _ROWS, _INODE, _OFFSET, _RUN = range(7)
_RUN_OCTETS = 40
_MOST_OCTETS = 1 << 20


class UnderWay(NamedTuple):
    """A batch: the run that wrote it, its number, its place in the ledger, and its rows.

    `inode` and `offset` are the file and the place where it begins, 0 for a database.
    """

    run: str
    number: int
    written: Written
    rows: int
    inode: int
    offset: int

    def part(self, rows: int) -> Written:
        """What is written where only the first of its rows are; rows that stand for others weigh the same."""
        share = self.written.weight * min(rows, self.rows) // max(self.rows, 1)
        return Written(self.written.before, share)


class BatchJournal:
    """The file at `path` of one output; `run` is the name of its batches. Raises OSError."""

    def __init__(self, path: str, run: str) -> None:
        self._file = MappedWords(path, _HEAD, _RUN + _RUN_OCTETS // 8)
        octets = run.encode()[:_RUN_OCTETS].ljust(_RUN_OCTETS, b"\0")
        for place in range(_RUN_OCTETS // 8):
            self._file.words[_RUN + place] = int.from_bytes(octets[8 * place : 8 * place + 8], "little")

    def begin(self, number: int, before: int, weight: int, rows: int, inode: int = 0, offset: int = 0) -> None:
        """A batch goes out now."""
        words = self._file.words
        words[_NUMBER] = 0  # in this order: what is read is of one batch
        words[_BEFORE], words[_WEIGHT], words[_ROWS] = before, weight, rows
        words[_INODE], words[_OFFSET] = inode, offset
        words[_NUMBER] = number

    def close(self) -> None:
        """No batch is under way any more."""
        self._file.words[_NUMBER] = 0
        self._file.close()


def under_way(path: str) -> UnderWay | None:
    """The batch that was under way at the end of an earlier run. Raises OSError, and ValueError for a damaged file."""
    try:
        octets = read(path, _MOST_OCTETS)
    except FileNotFoundError:
        return None
    if not octets.startswith(_HEAD):
        raise ValueError("it is damaged, or of a newer release")
    words = split(octets, len(_HEAD))
    run = b"".join(word.to_bytes(8, "little") for word in words[_RUN : _RUN + _RUN_OCTETS // 8])
    number = words[_NUMBER]
    name = run.rstrip(b"\0").decode("ascii", "replace")
    if not number:
        return None
    written = Written(words[_BEFORE], words[_WEIGHT])
    return UnderWay(name, number, written, words[_ROWS], words[_INODE], words[_OFFSET])
