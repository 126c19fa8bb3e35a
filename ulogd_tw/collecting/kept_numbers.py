"""The Sequence Numbers of a COLLECTOR over a restart: read at the start, noted before records go on."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.internet import defer, threads
from twisted.python.failure import Failure

from ulogd_tw.collecting.positions import Position, Positions, load, newest, resume
from ulogd_tw.ipfix.exporters import peer_of

if TYPE_CHECKING:
    from ulogd_tw.collecting.input import Collecting
    from ulogd_tw.collecting.reception import Reception


_MOST_OF_OTHERS = 1_000_000
"""Domains in the file of another collector, at most."""


class KeptNumbers:
    """The file at `path` with the numbers of one collector."""

    def __init__(self, path: str, collector: Collecting) -> None:
        self.path = path
        self._collector = collector
        self._positions: Positions | None = None
        self._reception: Reception | None = None
        self._syncing: defer.Deferred[Any] | None = None
        self._former: list[Position] = []

    def look(self, places: Sequence[str], others: Iterable[Path]) -> None:
        """Read what an earlier run has left, before any collector begins a file of its own.

        An address may have been that of another collector: its file is one of `others`.
        """
        found = self._load(places)
        for path in others:
            with suppress(OSError, ValueError):  # its owner sets it aside
                found += load(str(path), _MOST_OF_OTHERS, places)
        self._former = newest(found)

    def begin(self, reception: Reception, places: Sequence[str]) -> None:
        """Go on where an earlier run ended, if there was a `look`; note numbers from now on."""
        now, had = reception.now(), self._collector.had
        former = [entry for entry in self._former if had(peer_of(entry.sender)[0])]
        idle = self._collector.config.idle_timeout
        resume(former, places, reception.datagrams, reception.exporters, idle, now)
        self._former = []
        try:
            self._positions = Positions(self.path, self._collector.config.max_domains_in_all)
        except OSError as error:
            self._fault(error)
            return
        self._reception = reception
        reception.exporters.heard = set(reception.exporters)
        self.note(now)

    def _load(self, places: Sequence[str]) -> list[Position]:
        try:
            return load(self.path, self._collector.config.max_domains_in_all, places)
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as error:
            self._fault(error)
            return []

    def _fault(self, error: Exception) -> None:
        """The file cannot be used: it is set aside, counted, and said."""
        self._collector.counters.errors["state"] += 1
        aside = f"{self.path}.aside"
        try:
            os.replace(self.path, aside)
            where = f"it is {aside} now"
        except OSError:
            where = "it stays there"
        self._collector.log.error(
            "{instance}: {path} is not used: {error}; {where}, and what was lost over the restart is not counted",
            instance=self._collector.instance, path=self.path, error=error, where=where,
        )  # fmt: skip

    def note(self, now: float) -> None:
        """Note how far the exporters are of which something came."""
        if self._positions is None or self._reception is None:
            return
        exporters = self._reception.exporters
        if exporters.heard:
            try:
                self._positions.note(exporters.heard, exporters, now)
            except OSError as error:  # no room for more
                self._collector.fault(error)
            exporters.heard.clear()

    def sync(self) -> None:
        """Put the numbers on the disk in a thread, if they have changed."""
        positions = self._positions
        if positions is not None and positions.changed and self._syncing is None:
            positions.changed = False
            self._syncing = threads.deferToThread(positions.sync)
            self._syncing.addBoth(self._synced)

    def _synced(self, result: Any) -> None:
        self._syncing = None
        if isinstance(result, Failure) and isinstance(result.value, Exception):
            self._collector.fault(result.value)

    @defer.inlineCallbacks
    def close(self) -> Any:
        """The collector is stopped: all numbers are on the disk."""
        if self._syncing is not None:
            yield self._syncing
        if self._positions is not None and self._reception is not None:
            self.note(self._reception.now())
            self.sync()
            if self._syncing is not None:
                yield self._syncing
            self._positions.close()
            self._positions = None
