"""The flows that NFCT follows, in a file, so that those which end while the service does not run are reported.

``connections`` has a head in JSON, then parts: length, checksum, and a batch of rows as NumPy's npz with the words of
each flow in another array. A part without octets is the end. ``connections.ended`` has the identities of flows whose
end was reported since, 8 octets each, written before their rows are passed on.
"""

from __future__ import annotations

import io
import json
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from twisted.internet import defer, threads

from ulogd_tw.core import durable
from ulogd_tw.core.batch import Batch
from ulogd_tw.core.regular_file import open_regular, read_regular
from ulogd_tw.netfilter.followed_flows import FACTORS, Flows

VERSION = 1
_HEAD = {"ulogd_tw": "connections", "version": VERSION}
_PART = struct.Struct("<QI")
_OF_FLOW = 2048
"""Octets of a flow at most: about 300 are usual."""
_REST = 10.0
"""The pause is at least so many times as long as the work of the last writing."""


class KeptConnections:
    """The files in `directory` of the flows of one NFCT. `errors` counts what goes wrong as ``state``."""

    def __init__(self, directory: Path, every: float, flows: Flows, plugin: Any, reactor: Any) -> None:
        self.path = directory / "connections"
        self._ended_path = directory / "connections.ended"
        self._every = every
        self._flows = flows
        self._plugin = plugin
        self._reactor = reactor
        self._log = -1
        self._written = -1
        self._steps: Iterator[None] | None = None
        self._saving: defer.Deferred[Any] | None = None
        self._timer: Any = None
        self.restored = 0
        self.stopped = False

    # start

    def begin(self) -> None:
        """Go on with the flows of an earlier run, and save from now on."""
        try:
            self._load()
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError, IndexError, RecursionError, EOFError) as error:
            self._set_aside(error)
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._log = os.open(self._ended_path, flags, 0o600)
        self._flows.on_end = self._note
        self._timer = self._reactor.callLater(self._every, self._wake)

    def _load(self) -> None:
        most = _OF_FLOW * self._flows.most + (16 << 20)
        with open_regular(self.path) as file:
            if os.fstat(file.fileno()).st_size > most:
                raise ValueError(f"it has more than {most} octets")
            head = _head(file.readline(1 << 16))
            parts = list(_parts(file))
        self._flows.factors = [int(factor) & 0xFFFFFFFFFFFFFFFF | 1 for factor in head["factors"]]
        for batch, words in parts:
            self._flows.restore(batch, words)
        if self._ended_path.exists():
            ended = read_regular(self._ended_path)
            self._flows.forget(np.frombuffer(ended[: len(ended) // 8 * 8], np.uint64))
        self.restored = len(self._flows)
        if self.restored:
            self._plugin.log.info("{instance}: {path} has {flows} flows; those that are gone are reported",
                                  instance=self._plugin.instance, path=str(self.path), flows=self.restored)  # fmt: skip

    def _set_aside(self, error: Exception) -> None:
        self._plugin.counters.errors["state"] += 1
        aside = self.path.with_name("connections.aside")
        try:
            os.replace(self.path, aside)
            where = f"it is {aside} now"
        except OSError as failure:
            where = f"it stays there ({failure})"
        self._plugin.log.error(
            "{instance}: {path} is not used: {error}; {where}, and flows that ended meanwhile are not reported",
            instance=self._plugin.instance, path=str(self.path), error=error, where=where,
        )  # fmt: skip

    # while it runs

    def _note(self, identities: np.ndarray) -> None:
        """The ends of these flows are reported next."""
        if self._log >= 0:
            os.write(self._log, np.ascontiguousarray(identities, np.uint64).tobytes())

    def _wake(self) -> None:
        self._timer = None
        if self.stopped:
            return
        if self._flows.changes == self._written:
            self._timer = self._reactor.callLater(self._every, self._wake)
        elif self._saving is None:
            self._saving = self._save()
            self._saving.addBoth(self._saved)

    def _saved(self, work: Any) -> None:
        self._saving = None
        if not isinstance(work, float):
            self._plugin.counters.errors["state"] += 1
            self._plugin.fault(work.value)
            work = 0.0
        if not self.stopped:
            self._timer = self._reactor.callLater(max(self._every, _REST * work), self._wake)

    @defer.inlineCallbacks
    def _save(self) -> Any:
        """Write the flows, a part in each turn of the reactor; the seconds of work."""
        began, changes = self._reactor.seconds(), self._flows.changes
        offset = os.fstat(self._log).st_size
        beside = self.path.with_name("connections.new")
        file = durable.opened(beside)
        try:
            file.write(json.dumps(_HEAD | {"factors": self._flows.factors}).encode() + b"\n")
            for batch, words in self._flows.living():
                yield threads.deferToThreadPool(
                    self._reactor, self._reactor.getThreadPool(), _write_part, file, batch, words
                )
            yield threads.deferToThreadPool(self._reactor, self._reactor.getThreadPool(), _finish, file)
            durable.rename(beside, self.path)
        finally:
            file.close()
            beside.unlink(missing_ok=True)
        self._written = changes
        self._shorten(offset)
        return self._reactor.seconds() - began

    def _shorten(self, offset: int) -> None:
        """Ends reported before the writing began are not among its flows: only later ones stay."""
        rest = os.pread(self._log, 1 << 30, offset)
        beside = self._ended_path.with_name("connections.ended.new")
        with durable.opened(beside) as file:
            file.write(rest)
        os.replace(beside, self._ended_path)
        os.close(self._log)
        self._log = os.open(self._ended_path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)

    # stop

    @defer.inlineCallbacks
    def stop(self) -> Any:
        """Write all that is known; nothing comes any more."""
        self.stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._saving is not None:
            yield self._saving
        if self._log < 0:
            return
        try:
            if self._flows.changes != self._written:
                yield self._save()
        except OSError as error:
            self._plugin.counters.errors["state"] += 1
            self._plugin.fault(error)
        finally:
            os.close(self._log)
            self._log = -1


def _write_part(file: BinaryIO, batch: Batch, words: np.ndarray) -> None:
    part = io.BytesIO()
    np.save(part, words, allow_pickle=False)
    batch.save(part)
    octets = part.getvalue()
    file.write(_PART.pack(len(octets), zlib.crc32(octets)) + octets)


def _finish(file: BinaryIO) -> None:
    file.write(_PART.pack(0, 0))
    durable.settle(file)


def _head(line: bytes) -> dict[str, Any]:
    try:
        head = json.loads(line)
        found = {name: head[name] for name in _HEAD}
        factors = head["factors"]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise ValueError("it is damaged") from None
    if found != _HEAD:
        raise ValueError(f"it is of another kind or release; this one reads version {VERSION}")
    if not isinstance(factors, list) or len(factors) != FACTORS:
        raise ValueError("it is damaged")
    return head


def _parts(file: BinaryIO) -> Iterator[tuple[Batch, np.ndarray]]:
    """The parts up to the end. Raises ValueError for a file that is not whole."""
    whole = os.fstat(file.fileno()).st_size
    while True:
        head = file.read(_PART.size)
        if len(head) < _PART.size:
            raise ValueError("it is cut")
        length, crc = _PART.unpack(head)
        if not length:
            return
        if length > whole - file.tell():
            raise ValueError("it is cut")
        octets = file.read(length)
        if len(octets) < length or zlib.crc32(octets) != crc:
            raise ValueError("its checksum is wrong")
        part = io.BytesIO(octets)
        words = np.load(part, allow_pickle=False)
        batch = Batch.load(io.BytesIO(octets[part.tell() :]))
        if words.dtype != np.uint64 or words.ndim != 2 or len(words) != batch.n:
            raise ValueError("it is damaged")
        yield batch, words
