"""A Unix stream socket that listens: its file with its owner and mode, and one that an earlier run has left."""

from __future__ import annotations

import grp
import os
import pwd
import socket
import stat
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.protocol import ServerFactory

from ulogd_tw.core.errors import StartError

BACKLOG = 64


class UnixListener:
    """A listening Unix socket at `path`. `owner` and `group` are names, "" for ours; `mode` as of chmod.

    `option` is the option with the path, for messages.
    """

    def __init__(
        self, path: str, mode: int, owner: str = "", group: str = "", reactor: Any = None, option: str = "socket_path"
    ) -> None:
        if reactor is None:
            from twisted.internet import reactor
        self.path, self.mode, self.owner, self.group = path, mode, owner, group
        self._option = option
        self._reactor = reactor
        self._port: Any = None

    def open(self, factory: ServerFactory) -> None:
        """Make the socket and its file. Raises `StartError`."""
        owner, group = self._ids()
        self._remove_old()
        # Nobody may connect before mode and owner are right.
        mask = os.umask(0o177)
        try:
            self._port = self._reactor.listenUNIX(self.path, factory, BACKLOG, self.mode)
        except Exception as error:
            why = getattr(error, "socketError", error)
            why = getattr(why, "strerror", None) or why
            raise StartError(
                f"{self.path}: {why}", "make its directory, writable for the user of the service"
            ) from error
        finally:
            os.umask(mask)
        try:
            if owner != -1 or group != -1:
                os.chown(self.path, owner, group)
        except OSError as error:
            self._port.stopListening()
            raise StartError(f"{self.path}: {error.strerror}", "changing the owner needs CAP_CHOWN") from error

    def _ids(self) -> tuple[int, int]:
        try:
            owner = pwd.getpwnam(self.owner).pw_uid if self.owner else -1
            group = grp.getgrnam(self.group).gr_gid if self.group else -1
        except KeyError as error:
            raise StartError(f"{self.path}: {error.args[0]}", "use names of users and groups of this system") from error
        return owner, group

    def _remove_old(self) -> None:
        """Remove a socket that nobody listens on any more; whatever else is there stays."""
        try:
            kind = os.lstat(self.path).st_mode
        except OSError:
            return
        if not stat.S_ISSOCK(kind):
            raise StartError(f"{self.path} exists, and is not a socket", f"remove it, or set {self._option}")
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.settimeout(1)
                probe.connect(self.path)
            except ConnectionRefusedError:
                os.unlink(self.path)
            except OSError as error:
                raise StartError(f"{self.path}: {error.strerror}") from error
            else:
                raise StartError(f"{self.path}: another program listens on it", "set socket_path")

    def stop(self) -> Deferred[Any]:
        """Listen no more and remove the file."""
        if self._port is None:
            return succeed(None)
        port, self._port = self._port, None
        # Whoever has given up privileges may not be able to remove it; the next start does.
        return port.stopListening().addErrback(lambda _: None)
