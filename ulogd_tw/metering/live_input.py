"""What inputs have in common that read on this machine as things happen: the reactor, the wall clock and a log."""

from __future__ import annotations

import time
from typing import Any

from twisted.logger import Logger

from ulogd_tw.core.plugin import Input


class LiveInput(Input):
    """An input with Twisted's reactor, or the one that a test gives."""

    clock = staticmethod(time.time)
    log = Logger()

    def __init__(self, instance: str, config: Any = None, reactor: Any = None) -> None:
        super().__init__(instance, config)
        if reactor is None:
            from twisted.internet import reactor
        self._reactor = reactor
