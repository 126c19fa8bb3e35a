"""Opening sockets in another network namespace."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

_CLONE_NEWNET = 0x40000000
_setns = ctypes.CDLL(None, use_errno=True).setns
"""Python 3.12 has os.setns."""


def _enter(descriptor: int) -> None:
    if _setns(descriptor, _CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


@contextmanager
def inside(path: str) -> Iterator[None]:
    """This thread is in the network namespace of this file (``/run/netns/NAME``) meanwhile; "" changes nothing.

    A socket stays in the namespace in which it was made. Raises OSError; EPERM without CAP_SYS_ADMIN.
    """
    if not path:
        yield
        return
    ours = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        theirs = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _enter(theirs)
        finally:
            os.close(theirs)
        try:
            yield
        finally:
            _enter(ours)
    finally:
        os.close(ours)
