"""Words with systemd (sd_notify(3)): ready, status, signs of life, reload, stop, and descriptors that it keeps for us.

Each is one datagram to the socket that NOTIFY_SOCKET names. Without systemd nothing is sent, and every function says so
by False. Nothing here raises or waits: a service that cannot be heard goes on.
"""

from __future__ import annotations

import array
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote, unquote

from twisted.internet import task

_FIRST = 3
"""The number of the first descriptor that systemd hands over (sd_listen_fds(3))."""
_ENVIRONMENT = "/proc/self/environ"
_LONGEST_NAME = 255
_PLAIN = " !#$&'()*+,/;=?@[]{}|^<>\"\\`"
"""Characters that a descriptor's name may have, besides letters, digits and _.-~ ; the colon separates names."""
_WAIT_S = 1.0
"""For room in the queue of systemd, which may be busy with others."""


def send(*lines: str, descriptors: Sequence[int] = (), wait: float = _WAIT_S) -> bool:
    """Send one notification. False where there is no systemd, or it does not take it within `wait` seconds."""
    if not is_there():
        return False
    address = os.environ["NOTIFY_SOCKET"]
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.settimeout(wait)
            sender.connect("\0" + address[1:] if address[0] == "@" else address)
            sender.sendmsg(["\n".join(lines).encode()], rights)
    except OSError:
        return False
    return True


def is_there() -> bool:
    """Whether systemd, or another supervisor with its protocol, started this process."""
    return os.environ.get("NOTIFY_SOCKET", "")[:1] in ("/", "@")


def ready(text: str) -> bool:
    """The start, or the reload that `reloading` began, is done."""
    return send("READY=1", _status(text))


def status(text: str) -> bool:
    """One line for ``systemctl status``."""
    return send(_status(text), wait=0.0)


def reloading(text: str = "reloading") -> bool:
    """A reload begins; `ready` ends it, also where the old configuration goes on. The clock is that of systemd 253."""
    return send("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}", _status(text))


def stopping(text: str, seconds: float) -> bool:
    """The stop begins, and may take this long, whatever TimeoutStopSec= is."""
    return send("STOPPING=1", f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}", _status(text))


def failed(text: str) -> bool:
    """Why the process is about to end with status 1."""
    return send(_status(text))


def store(name: str, descriptor: int) -> bool:
    """Let systemd keep a duplicate under this name until `remove`, over a restart too (FileDescriptorStoreMax=).

    Without polling, which would drop a socket with an error of the network on it, such as a lost netlink event.
    """
    named = stored_name(name)
    if len(named) > _LONGEST_NAME:
        return False
    return send("FDSTORE=1", "FDPOLL=0", f"FDNAME={named}", descriptors=[descriptor])


def remove(name: str) -> bool:
    """Let systemd close all descriptors that it keeps under this name."""
    return send("FDSTOREREMOVE=1", f"FDNAME={stored_name(name)}")


def handed_over() -> list[tuple[str, int]]:
    """Names and numbers of the descriptors that systemd gave to this process, of its store and of .socket units.

    They do not outlive an exec of this process or a child unless somebody makes them inheritable.
    """
    given = os.environ if "LISTEN_PID" in os.environ else _first_environment()
    if given.get("LISTEN_PID") != str(os.getpid()):
        return []
    count = given.get("LISTEN_FDS", "")
    names = given.get("LISTEN_FDNAMES", "").split(":")
    numbers = range(_FIRST, _FIRST + int(count)) if count.isdecimal() else range(0)
    for number in numbers:
        os.set_inheritable(number, False)
    return [(unquote(name), number) for name, number in zip(names, numbers, strict=False)]


def _first_environment() -> Mapping[str, str]:
    """The variables at the start of the process. Twisted's endpoints delete systemd's as soon as they are imported."""
    try:
        with open(_ENVIRONMENT, "rb") as file:
            lines = file.read().decode(errors="replace").split("\0")
    except OSError:
        return {}
    return {name: value for name, mark, value in (line.partition("=") for line in lines) if mark}


def stored_name(name: str) -> str:
    """The name in the form that systemd takes: ASCII without colons; `handed_over` gives the first form back."""
    return quote(name, safe=_PLAIN)


def watchdog_period() -> float | None:
    """Seconds between two signs of life, half of WatchdogSec=; None where nobody waits for them."""
    limit = os.environ.get("WATCHDOG_USEC", "")
    if not limit.isdecimal() or int(limit) == 0 or os.environ.get("WATCHDOG_PID") not in (None, str(os.getpid())):
        return None
    return int(limit) / 2e6


def _status(text: str) -> str:
    return "STATUS=" + " ".join(text.split())


class LifeSigns:
    """Signs of life from the reactor, and the status line, from `begin` to `end`.

    A reactor that does not turn for WatchdogSec= lets systemd end the process and start it again. `text` gives the
    status line, asked for every `SECONDS` or more often.
    """

    SECONDS = 5.0

    def __init__(self, clock: Any, text: Callable[[], str]) -> None:
        self._clock = clock
        self._text = text
        self._call: task.LoopingCall | None = None

    def begin(self) -> None:
        """Say READY, and go on; without systemd nothing happens."""
        if self._call is not None or not ready(self._text()):
            return
        self._call = task.LoopingCall(self._say)
        self._call.clock = self._clock
        self._call.start(min(watchdog_period() or self.SECONDS, self.SECONDS), now=False)

    def say_ready(self) -> None:
        """A reload is over."""
        if self._call is not None and self._call.running:
            ready(self._text())

    def end(self, seconds: float) -> None:
        """Say STOPPING; the stop takes up to this many seconds."""
        if self._call is not None and self._call.running:
            self._call.stop()
            stopping("stopping: rows are written", seconds)

    def _say(self) -> None:
        send("WATCHDOG=1", _status(self._text()), wait=0.0)
