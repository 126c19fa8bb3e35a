"""The directory `state_dir`: one place for all that outlives a restart, with a directory for each instance.

    layout              {"ulogd_tw": "state", "version": 1}; locked by the process that uses the directory
    ledger              where rows are at this moment (`core.ledger`)
    instances/ID/...    what the instance ID keeps; each file has a version of its own

Files have mode 0600 and directories 0700, whatever the umask. State of a newer layout is set aside as a whole.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from itertools import chain, count
from pathlib import Path
from typing import Any
from urllib.parse import quote

from twisted.internet import defer, task, threads
from twisted.logger import Logger
from twisted.python.failure import Failure

from ulogd_tw.core import durable
from ulogd_tw.core.errors import StartError
from ulogd_tw.core.graph import Graph, Node
from ulogd_tw.core.ledger import Former, Ledger, former
from ulogd_tw.core.plugin import Plugin

VERSION = 1
LOOK_S = 5.0
"""Seconds between two looks whether the directory can be written, at least."""
_MOST = 4096
"""Octets of the file `layout`, at most."""


def kept(graph: Graph) -> dict[str, dict[str, Any]]:
    """What each instance keeps for the time after a restart, by instance; without those that keep nothing."""
    found = {node.ident: node.plugin.kept() for node in graph.nodes}
    return {ident: state for ident, state in found.items() if state}


class StateDirectory:
    """The directory at `path`; state that has changed is written every `every` seconds."""

    log = Logger()

    def __init__(self, path: str, every: float) -> None:
        self.path = Path(path)
        self.every = every
        self._lock = -1
        self._aside: Path | None = None
        """Where the instances of a newer layout are."""
        self._former: Former | None = None
        self._ledger: Ledger | None = None
        self._syncing: defer.Deferred[Any] | None = None
        self._timer = task.LoopingCall(self._sync)
        self._look = task.LoopingCall(self._try_to_write)
        self._looking: defer.Deferred[Any] = defer.succeed(None)
        self.fault = ""
        """Why it cannot be written at the moment, so that state is not kept; empty where it can be."""
        self.lost: dict[str, int] = {}
        """Rows that a killed run had in instances that are in no stack now."""

    @property
    def spool(self) -> Path:
        """The directory for rows of outputs without `spool`."""
        return self.path / "spool"

    def open(self) -> None:
        """Take the directory for this process, and make what is missing. Raises `StartError`."""
        try:
            if not self.path.is_dir():
                self.path.parent.mkdir(parents=True, exist_ok=True)
                private(self.path)
            self._lock = os.open(self.path / "layout", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._check()
            private(self.path / "instances")
            self._former = self._read_ledger()
        except BlockingIOError:
            self.close()
            raise StartError(f"state_dir {self.path} is in use by another ulogd_tw", "name another one") from None
        except OSError as error:
            self.close()
            raise StartError(f"state_dir {self.path}: {error.strerror or error}; nothing outlives a restart") from None

    def _check(self) -> None:
        """Set aside what a newer release has written, or a layout that cannot be read; write our version."""
        octets = os.pread(self._lock, _MOST, 0)
        wrong = _wrong(octets)
        if wrong and (self.path / "instances").exists():
            self._aside = _free(self.path / "instances.aside")
            os.rename(self.path / "instances", self._aside)
            self.log.error(
                "state_dir {path}: {wrong}; all of it is {aside} now, and the service begins without state",
                path=str(self.path), wrong=wrong, aside=str(self._aside),
            )  # fmt: skip
        if wrong or not octets:
            line = json.dumps({"ulogd_tw": "state", "version": VERSION}).encode() + b"\n"
            os.ftruncate(self._lock, 0)
            os.pwrite(self._lock, line, 0)
            os.fsync(self._lock)

    def keep(self, node: Node) -> None:
        """Let an instance keep its state here."""
        plugin = node.plugin
        if self._aside is not None and (self._aside / _name(node.ident)).exists():
            plugin.counters.errors["state"] += 1
        plugin.keep_state(private(self.path / "instances" / _name(node.ident)), self.every)

    def _read_ledger(self) -> Former | None:
        """The ledger of an earlier run."""
        path = self.path / "ledger"
        try:
            return former(path)
        except (OSError, ValueError) as error:
            aside = path.with_name("ledger.aside")
            os.replace(path, aside)
            self.log.error(
                "state_dir: {path} is not used: {error}; it is {aside} now, and rows that an earlier run lost are not "
                "counted", path=str(path), error=error, aside=str(aside),
            )  # fmt: skip
            return None

    def forget(self, ident: str) -> None:
        """Remove what an instance kept: it has handed everything on, and is gone. Raises OSError."""
        with suppress(FileNotFoundError):
            shutil.rmtree(self.path / "instances" / _name(ident))

    def begin(self, graph: Graph, clock: Any) -> None:
        """All instances are open: they count what an earlier run lost, and the ledger begins. Raises OSError."""
        found, self._former = self._former, None
        if found is not None:
            for node in graph.nodes:
                node.plugin.count_unsaved(found, node.ident)
            self.lost = self._lost_by_others(found, {node.ident for node in graph.nodes})
        self._ledger = Ledger(self.path / "ledger", graph)
        for timer, every in ((self._timer, self.every), (self._look, max(self.every, LOOK_S))):
            timer.clock = clock
            timer.start(every, now=False)

    def _lost_by_others(self, former: Former, present: set[str]) -> dict[str, int]:
        """The rows that a killed run had in instances that are gone, but for those in kept groups."""
        from ulogd_tw.aggregation.state_file import rows_kept  # at need: a start without AGGREGATE loads none of it

        return {
            ident: former.unsaved(ident, rows_kept(of_instance(self.path, ident) / "intervals"))
            for ident in former.nodes
            if ident not in present
        }

    def begin_again(self, graph: Graph, waiting: Mapping[Plugin, int]) -> None:
        """The graph was replaced in part, and its new instances are open; `waiting`: rows before outputs.

        Raises OSError.
        """
        self._ledger = Ledger(self.path / "ledger", graph, self._ledger, waiting)

    def _try_to_write(self) -> None:
        """Learn in a thread whether there is room and a right to write."""
        if self._looking.called:
            self._looking = threads.deferToThread(_write_a_little, self.path / "instances")
            self._looking.addBoth(self._tried)

    def _tried(self, result: Any) -> None:
        error = result.value if isinstance(result, Failure) else None
        fault = getattr(error, "strerror", "") or str(error or "")
        if fault and not self.fault:
            self.log.error("state_dir {path} cannot be written: {why}; state is not kept, and a restart loses it",
                           path=str(self.path), why=fault)  # fmt: skip
        elif self.fault and not fault:
            self.log.info("state_dir {path} can be written again", path=str(self.path))
        self.fault = fault

    def _sync(self) -> None:
        """Put the ledger on the disk in a thread, where it has changed."""
        ledger = self._ledger
        if ledger is not None and self._syncing is None and ledger.changed:
            self._syncing = threads.deferToThread(ledger.sync)
            self._syncing.addBoth(self._synced)

    def _synced(self, result: Any) -> None:
        self._syncing = None
        if isinstance(result, Failure):
            self.log.error("state_dir {path}: {error}", path=str(self.path), error=result.value)

    @defer.inlineCallbacks
    def end(self) -> Any:
        """All instances are stopped in order: close the ledger, and let go of the directory."""
        for timer in (self._timer, self._look):
            if timer.running:
                timer.stop()
        yield self._looking
        if self._syncing is not None:
            yield self._syncing
        if self._ledger is not None:
            self._ledger.close()
            self._ledger = None
        self.close()

    def close(self) -> None:
        """Let go of the directory."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1
        with suppress(OSError):
            _remove_empty(self.path / "instances")


def _write_a_little(directory: Path) -> None:
    """Make and remove a small file. Raises OSError."""
    path = directory / ".written"
    number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.write(number, bytes(_MOST))
    finally:
        os.close(number)
        path.unlink()


def private(directory: Path) -> Path:
    """A directory that only its owner enters, made if it is missing. Raises OSError."""
    with suppress(FileExistsError):
        directory.mkdir()
    if directory.is_symlink() or not directory.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    directory.chmod(0o700)
    return directory


def of_instance(path: Path, ident: str) -> Path:
    """Where an instance keeps its state below a `state_dir`."""
    return path / "instances" / _name(ident)


def _name(ident: str) -> str:
    """The name of an instance's directory: its id, with odd characters as %XX."""
    return quote(ident, safe="#@ ").replace(".", "%2E")


def _wrong(octets: bytes) -> str:
    """Why the contents of `layout` cannot be used; empty if they can, or if there are none."""
    if not octets:
        return ""
    try:
        found = json.loads(octets)
        kind, version = found["ulogd_tw"], int(found["version"])
    except (ValueError, TypeError, KeyError):
        return "its file layout is damaged"
    if kind != "state":
        return "its file layout is of something else"
    return f"it is of a newer release (layout {version}, this one reads {VERSION})" if version > VERSION else ""


def _free(path: Path) -> Path:
    """This name, or the first with a number that nobody has."""
    names = (path.with_name(f"{path.name}-{number}") for number in count(2))
    return next(name for name in chain([path], names) if not name.exists())


def _remove_empty(directory: Path) -> None:
    """Remove the directories of instances that kept nothing."""
    for inside in directory.iterdir():
        with suppress(OSError):
            inside.rmdir()
    durable.settle_names(directory)
