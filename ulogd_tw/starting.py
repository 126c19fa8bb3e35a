"""A start that is cheap: threads and libraries which no stack needs are left out, and its objects are set aside.

The command calls `begin` before it imports what is heavy, the service calls `settle` when its stacks are built.
"""

from __future__ import annotations

import gc
import os
import sys
import time
from collections.abc import Callable

_USUAL = gc.get_threshold()
_OF_A_START = 200_000
"""More objects than a start makes: they are some 50,000."""
_LONGEST_S = 0.01
"""A collection of 100,000 objects takes so long."""


def begin() -> None:
    """Garbage is looked for no more until `settle`, or until there are far more objects; no threads for matrices.

    A start makes hardly a circle of objects; looking for one takes 30 ms. OpenBLAS starts a thread for each core when
    NumPy is imported, which takes 50 ms; no plugin multiplies matrices.
    """
    gc.set_threshold(_OF_A_START)
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def install_reactor(tls: bool = False) -> None:
    """Make Twisted's reactor, without its TLS unless `tls`: OpenSSL would take 60 ms and 13 MB.

    Our own transports call OpenSSL themselves. Twisted goes without where it is not installed, so it is told that: an
    import of a module that is None in `sys.modules` fails as if there were none (Python's reference, section 5.3.1).
    """
    if tls or "OpenSSL" in sys.modules:
        from twisted.internet import reactor  # noqa: F401

        return
    sys.modules["OpenSSL"] = None  # type: ignore[assignment]
    try:
        from twisted.internet import reactor  # noqa: F401
    finally:
        del sys.modules["OpenSSL"]


def settle() -> None:
    """Full collections pass over all objects that are there now; those of the start stay to the end of the process.

    They are not collected before: that would take 25 ms, to free 1,400 objects of 51,000. Without `begin` nothing
    happens: in a process with other work, as of tests, objects that are set aside would never be freed.
    """
    if gc.get_threshold()[0] == _OF_A_START:
        gc.freeze()
        gc.set_threshold(*_USUAL)
        gc.callbacks.append(SetAside())


class SetAside:
    """A callback of the collector of garbage: objects that have made a full collection long are set aside.

    50,000 exporters are 800,000 objects, and a collection of all of them stops the service for 0.4 s. From then on it
    passes over new ones only. Sessions and connections that end make no circles, so they are freed without it.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._began = 0.0

    def __call__(self, phase: str, info: dict[str, int]) -> None:
        """Called by Python before and after each collection."""
        if info["generation"] < 2:
            return
        if phase == "start":
            self._began = self._clock()
        elif self._clock() - self._began > _LONGEST_S:
            gc.freeze()
