"""SIGHUP and SIGUSR2, which would end the process by default, from its first moment on.

What comes before the service can answer is remembered, and answered once it can.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

from twisted.internet import error

ANSWERED = (signal.SIGHUP, signal.SIGUSR2)
UNUSED = (signal.SIGUSR1, signal.SIGALRM)
"""Sent by scripts written for ulogd2, which gives them to its plugins, none of which does anything."""
_came: set[int] = set()


def remember() -> None:
    """Note these signals until `answer`. For the start of a process that will be the service."""
    for number in ANSWERED:
        signal.signal(number, _note)
    for number in UNUSED:
        signal.signal(number, signal.SIG_IGN)


def forget() -> None:
    """The defaults again, for a command that only prints: a terminal that is closed ends it."""
    _came.clear()
    for number in (*ANSWERED, *UNUSED):
        signal.signal(number, signal.SIG_DFL)


def answer(number: int, call: Callable[[], object]) -> None:
    """Call this at each signal, and now if one came before. Python runs it between two steps of the main thread."""
    signal.signal(number, lambda *_: call())
    if number in _came:
        _came.discard(number)
        call()


def stop_once(reactor: Any) -> None:
    """A second request to stop, by a signal that comes at the moment of the first, is no error with a traceback."""
    stop = reactor.stop

    def once() -> None:
        try:
            stop()
        except error.ReactorNotRunning:
            if not reactor.running:
                raise

    reactor.stop = once


def _note(number: int, frame: Any) -> None:
    _came.add(number)
