"""COLLECTOR with workers: it has the sockets, and other processes receive; see `collecting.workers`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from twisted.internet import defer

from ulogd_tw.collecting.workers import Plan, Pool, SharedSockets
from ulogd_tw.collecting.workers.plan import take_untold
from ulogd_tw.core.errors import StartError
from ulogd_tw.core.plugin import Plugin
from ulogd_tw.core.plurals import plural
from ulogd_tw.peers import parse
from ulogd_tw.plugins.inputs.collector import COLLECTOR, remedy


class DividedCollector(COLLECTOR):
    """A COLLECTOR with workers other than 1; its class is COLLECTOR for everybody else."""

    def __init__(self, instance: str, config: Any = None) -> None:
        super().__init__(instance, config)
        self._pool: Pool | None = None
        self._sockets: SharedSockets | None = None
        self._own_unread = 0
        self.counters.figures["datagrams_unread"] = lambda: self._own_unread

    @property
    def workers(self) -> int:  # type: ignore[override]
        """The number of its processes."""
        return self.config.workers or len(os.sched_getaffinity(0))

    def divide(self, plan: Callable[[], Plan], node_of: Callable[[str], Any]) -> None:
        self._pool = Pool(self.instance, plan, node_of, self.reactor, self.clock, lambda *a, **k: self.tell(*a, **k))

    @property
    def pool(self) -> Pool:
        """After `divide`."""
        assert self._pool is not None
        return self._pool

    # start and stop

    def open(self) -> None:
        """Bind every address for all workers; `StartError` where one is taken or not allowed."""
        self._sockets = sockets = SharedSockets(self.workers, self.config.receive_buffer)
        urls = [parse(text) for text in self.config.listen]
        for url in urls:
            try:
                sockets.bind(url)
            except OSError as error:
                sockets.close()
                raise StartError(f"listen on {url}: {error.strerror or error}", remedy(error, url)) from None
        self.pool.sockets = sockets
        self.log.info("{instance}: listens on {here} with {workers}", instance=self.instance,
                      here=" ".join(map(str, urls)), workers=plural(sockets.count, "worker"))  # fmt: skip

    def begin(self) -> None:
        self.pool.start()

    def halt(self) -> Any:
        return self.pool.stop(self.stop_within / 2)

    def go_on(self) -> None:
        self.pool.start()

    @defer.inlineCallbacks
    def stop(self) -> Any:
        """Let the workers read what is in the kernel, and hand all rows on."""
        yield self.halt()
        if self._sockets is not None:
            self._own_unread += self._sockets.unread()
            self._sockets.close()

    def rewire(self, twin: Plugin) -> None:
        """The workers begin anew with each reload."""
        self.wanted, self.seldom_wanted, self.copied = twin.wanted, twin.seldom_wanted, twin.copied

    def reopen(self) -> None:
        self.pool.order("reopen")

    def catch_up(self) -> None:
        """The workers are asked by `read_now`."""

    def read_now(self) -> None:
        self.pool.order("now")

    def pause(self) -> None:
        self.pool.order("pause")

    def resume(self) -> None:
        self.pool.order("resume")

    def wake(self, now: float) -> float | None:
        return None

    # what outlives it

    def keep_state(self, directory: Path, every: float) -> None:
        """Each worker has a directory of its own beside this one."""
        if rows := take_untold(directory):
            self.counters.lost["unsaved"] += rows

    def kept(self) -> dict[str, Any]:
        return {}

    def give_state(self) -> Any:
        return self.pool.known

    def take_state(self, state: Any) -> bool:
        self.pool.known = list(state)
        return True

    # what they know

    def each_exporter(self) -> Iterator[dict[str, Any]]:
        return self.pool.exporters()

    def sessions_told(self) -> Iterator[Any]:
        """What workers have told of their sessions, with the numbers of `ipfix.session.Session`."""
        sessions: dict[tuple[str, int], Any] = {}
        for one in self.pool.exporters():
            session = sessions.get((one["exporter"], one["port"]))
            if session is None:
                session = SimpleNamespace(
                    peer=one["exporter"], messages=one["messages"], malformed=one["malformed"], lost=one["lost"],
                    last_received=one["last_received"], domains={},
                )  # fmt: skip
                sessions[one["exporter"], one["port"]] = session
            session.domains[len(session.domains)] = SimpleNamespace(
                rows=one["records"], templates=range(one["templates"]), skewed=one["clock_wrong"]
            )
        return iter(sessions.values())

    def each_template(self, exporter: str = "") -> Iterator[dict[str, Any]]:
        return (one for one in self.pool.templates() if exporter in ("", one["exporter"]))
