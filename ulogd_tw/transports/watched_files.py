"""Files that a plugin reads at its start, and again in a thread when one of them has changed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

from twisted.internet import defer, threads
from twisted.logger import Logger

from ulogd_tw.core.errors import StartError, UlogdError, in_words
from ulogd_tw.core.plugin import Plugin
from ulogd_tw.core.regular_file import open_regular

MOST_OCTETS = 1 << 30
"""Of one file."""

Made = TypeVar("Made")
_State = tuple[int, int, int]


class Watched(Generic[Made]):
    """The result made of some files: `make` gets the octets of each in a thread, `take` the result in the reactor.

    At the start a `UlogdError` of `make` becomes a `StartError`; later the former result stays, and ``errors.`` `what`
    counts it.
    """

    log = Logger()

    def in_thread(self, call: Callable[..., Any], *arguments: Any) -> defer.Deferred[Any]:
        """Do it in a thread."""
        return threads.deferToThread(call, *arguments)

    def __init__(
        self,
        plugin: Plugin,
        what: str,
        paths: Iterable[str],
        make: Callable[[list[bytes]], Made],
        take: Callable[[Made], None],
    ) -> None:
        self._plugin = plugin
        self._what = what
        self._paths = tuple(paths)
        self._make, self._take = make, take
        self._read: dict[str, _State] = {}
        """How each file was when it was read last."""
        self._reading = False

    def open(self) -> None:
        """Read them now. Raises `StartError`."""
        try:
            self._keep(self._load())
        except OSError as error:
            raise StartError(
                f"{self._what}: {in_words(error)}", "make the file, readable for the user of the service"
            ) from None
        except UlogdError as error:
            names = ", ".join(self._paths)
            raise StartError(f"{self._what}: {names}: {error}", "mend the file") from None

    def poll(self) -> None:
        """Read them again where one has changed."""
        if not self._reading and self._changed():
            self._reading = True
            done: Any = self.in_thread(self._load).addCallbacks(self._loaded, self._not_loaded)
            done.addErrback(lambda failure: self._plugin.fault(failure.value))

    def read_anew(self) -> None:
        """Read them again, changed or not."""
        self._read = {}
        self.poll()

    def _load(self) -> tuple[Made, dict[str, _State]]:
        octets, read = [], {}
        for path in self._paths:
            with open_regular(path) as file:
                read[path] = _state(os.fstat(file.fileno()))
                octets.append(file.read(MOST_OCTETS + 1))
            if len(octets[-1]) > MOST_OCTETS:
                raise UlogdError(f"{path} has more than {MOST_OCTETS >> 20} MB")
        return self._make(octets), read

    def _keep(self, found: tuple[Made, dict[str, _State]]) -> None:
        made, self._read = found
        self._take(made)

    def _changed(self) -> bool:
        for path in self._paths:
            state = _now(path)  # None: perhaps it is being replaced; what was read stays
            if state is not None and self._read.get(path) != state:
                return True
        return False

    def _loaded(self, found: tuple[Made, dict[str, _State]]) -> None:
        self._reading = False
        self._keep(found)
        self.log.info("{instance}: {what}: read again", instance=self._plugin.instance, what=self._what)

    def _not_loaded(self, failure: Any) -> None:
        self._reading = False
        failure.trap(OSError, UlogdError)
        self._plugin.counters.errors[self._what] += 1
        self._read = {path: state for path in self._paths if (state := _now(path))}  # not again before it changes
        self.log.error(
            "{instance}: {what}: {paths}: {reason}; the previous version stays in use",
            instance=self._plugin.instance, what=self._what, paths=", ".join(self._paths),
            reason=failure.getErrorMessage(),
        )  # fmt: skip


def _state(status: os.stat_result) -> _State:
    return status.st_mtime_ns, status.st_size, status.st_ino


def _now(path: str) -> _State | None:
    try:
        return _state(os.stat(path))
    except OSError:
        return None
