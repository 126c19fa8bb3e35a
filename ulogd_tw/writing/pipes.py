"""Named pipes whose readers come and go."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor
from zope.interface import implementer


def unwatched() -> None:
    """The end of a watch that is none."""


@implementer(IReadDescriptor)
class _Readers:
    """The writing end of a pipe, which becomes faulty when its last reader goes."""

    def __init__(self, fd: int, gone: Callable[[], None]) -> None:
        self._fd, self._gone = fd, gone

    def fileno(self) -> int:
        return self._fd

    def logPrefix(self) -> str:
        return "pipe"

    def doRead(self) -> None:
        """Never called for a writing end, but by reactors that take a fault for something to read."""
        self._gone()

    def connectionLost(self, reason: Any) -> None:
        self._gone()


def watch_readers(reactor: Any, fd: int, gone: Callable[[], None]) -> Callable[[], None]:
    """Call `gone` when the last reader of a named pipe goes, also while nothing is written; gives what ends the watch.

    Without this the next reader of a capture would get no head. A clock of a test cannot watch.
    """
    if not stat.S_ISFIFO(os.fstat(fd).st_mode) or not IReactorFDSet.providedBy(reactor):
        return unwatched
    watched = _Readers(fd, gone)
    reactor.addReader(watched)
    return lambda: reactor.removeReader(watched)
