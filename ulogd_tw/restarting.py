"""What a process leaves to the next one: its sockets, with all that the kernel holds for them.

Without systemd, `Succession.execute` replaces the program in this process, so that its number stays: also as the first
process of a container. With systemd, copies of the sockets are in its store from the start on, so that they outlive a
restart, a crash and kill -9.
"""

from __future__ import annotations

import atexit
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

from twisted.logger import Logger

from ulogd_tw import privileges
from ulogd_tw.core import durable
from ulogd_tw.operating import notify
from ulogd_tw.transports.descriptors import descriptors

_NOTES = "sockets.json"
"""In state_dir: what the former owners of systemd's copies noted."""
_MOST = 1 << 20
_CGROUP = "/proc/self/cgroup"


class Succession:
    """The sockets of a service between two processes. `state_dir` may be empty."""

    log = Logger()

    def __init__(self, state_dir: str = "") -> None:
        self._notes = Path(state_dir) / _NOTES if state_dir else None
        self._stored: set[str] = set()
        """Names of sockets of which systemd has a copy."""
        self.executes = False
        """Whether this program is executed anew at the end."""

    def obstacle(self) -> str:
        """Why this program cannot be executed again; empty where it can."""
        program = os.path.realpath(sys.executable)
        if os.access(program, os.X_OK):
            return ""
        return f"the service runs as user {os.geteuid()}, who may not execute {program}; stop it, and start it again"

    def inherit(self) -> None:
        """Before anything is opened: take over what the former process left."""
        notes = self._read_notes()
        copies = notify.handed_over()
        self._stored = {name for name, _ in copies}
        descriptors.dropped = self._dropped
        descriptors.inherit(os.environ, [(name, number, notes.get(name, {})) for name, number in copies])

    def _dropped(self, name: str) -> None:
        """A socket of the former process stands in the way of a new one."""
        self.log.info("the socket {name} of the former process is given up", name=name)
        if name in self._stored:
            self._stored.discard(name)
            notify.remove(name)

    def settle(self) -> None:
        """All inputs have begun, or a reload is over: let systemd have copies of the present sockets only."""
        descriptors.release()
        present = descriptors.names()
        fresh = {name for name in present if not descriptors.adopted(name)}
        for name in self._stored:
            if name not in present or name in fresh:
                notify.remove(name)
        for name in present:
            if name not in self._stored or name in fresh:
                notify.store(name, present[name])
        self._stored = set(present) if notify.is_there() else set()

    def stop(self) -> None:
        """Before the inputs stop: they leave their sockets as they are, where somebody goes on with them."""
        if self.executes or self._stored:
            descriptors.hold()

    def end(self) -> None:
        """All is stopped."""
        if self._stored and self._notes is not None:
            try:
                durable.write(self._notes, lambda file: file.write(json.dumps(descriptors.all_notes()).encode()))
            except OSError as error:
                self.log.warn("{path}: {why}; counters of drops begin anew", path=str(self._notes), why=error)
        if self.executes:
            atexit.register(self.execute)
        else:
            descriptors.release()

    def execute(self) -> None:
        """The last act of the process: the same command line again, with the sockets."""
        sys.stdout.flush()
        sys.stderr.flush()
        environment = os.environ | descriptors.environment()
        privileges.hand_on(environment)
        try:
            os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)
        except OSError as error:  # there is no log any more
            os.write(2, f"{sys.executable} cannot be executed again: {error.strerror}; start the service\n".encode())

    def _read_notes(self) -> dict[str, dict[str, int]]:
        """What was noted at the stop; nothing after a crash."""
        if self._notes is None:
            return {}
        try:
            with open(self._notes, "rb") as file:
                found: Any = json.loads(file.read(_MOST))
            self._notes.unlink()
            return {str(name): {str(k): int(v) for k, v in notes.items()} for name, notes in found.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            return {}


def unit() -> str:
    """The systemd unit that this process is the main process of; empty without one that can be told."""
    if not notify.is_there():
        return ""
    try:
        with open(_CGROUP, encoding="ascii", errors="replace") as file:
            found = re.findall(r"/([^/\n]+\.service)$", file.read(_MOST), re.M)
    except OSError:
        return ""
    return found[-1] if found else ""
