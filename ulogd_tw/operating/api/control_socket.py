"""The door for commands of this host: a Unix socket, trusted by the mode and the group of its file."""

from __future__ import annotations

import os
from typing import Any

from twisted.application import service
from twisted.internet import defer
from twisted.logger import Logger
from twisted.web import resource

from ulogd_tw.core.errors import StartError
from ulogd_tw.operating.api.door import Door
from ulogd_tw.transports.unix_listener import UnixListener


class ControlSocket(service.Service):
    """Listens at `path`. Where that is not possible, the log says so, and the stacks run without it."""

    log = Logger()

    def __init__(
        self, root: resource.Resource, path: str, mode: int = 0o600, group: str = "", option: str = "control_socket"
    ) -> None:
        self.path = path
        self._option = option
        self.door: Any = Door(root)
        self._listener = UnixListener(path, mode, group=group, option=option)

    def startService(self) -> None:
        super().startService()
        try:
            self._listener.open(self.door)
        except StartError as failure:
            self.log.error("{option}: {failure}", option=self._option, failure=failure)
            return
        self.log.info("{option}: ulogd-tw status -s {path}", option=self._option, path=os.path.abspath(self.path))

    @defer.inlineCallbacks
    def stopService(self) -> Any:
        super().stopService()
        yield self._listener.stop()
        self.door.close()
