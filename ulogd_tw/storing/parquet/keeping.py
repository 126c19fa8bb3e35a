"""The reactor's side of a store's upkeep: one look after the other, one merge at a time, nothing that waits."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from twisted.internet import defer, threads

from ulogd_tw.storing.parquet import merging
from ulogd_tw.storing.parquet.upkeep import Job, Upkeep

REST_S = 60.0
"""Seconds without a look after one has failed."""


class Keeping:
    """Runs `plan` and `Upkeep.finish` by `in_thread`, the thread of the writes; `failed` takes what goes wrong."""

    def __init__(
        self,
        reactor: Any,
        in_thread: Callable[..., defer.Deferred[Any]],
        plan: Callable[[], Job | None],
        upkeep: Upkeep,
        failed: Callable[[Exception], None],
    ) -> None:
        self._reactor = reactor
        self._in_thread = in_thread
        self._plan = plan
        self._upkeep = upkeep
        self._failed = failed
        self._stopping = False
        self._rests_until = 0.0
        self._running: defer.Deferred[None] | None = None
        self._job: Job | None = None

    def look(self) -> None:
        """Begin to delete and merge what is due, unless that goes on already."""
        if self._running is None and not self._stopping and self._reactor.seconds() >= self._rests_until:
            running = self._running = defer.Deferred.fromCoroutine(self._run())
            running.addBoth(self._ended)
            if running.called:
                self._running = None

    def _ended(self, result: Any) -> Any:
        self._running = None
        return result

    async def _run(self) -> None:
        """One merge after the other until none is due."""
        try:
            while not self._stopping:
                job = await self._in_thread(self._plan)
                if job is None:
                    return
                await self._merge(job)
        except Exception as error:
            if not self._stopping:
                self._rests_until = self._reactor.seconds() + REST_S
                self._failed(error)

    async def _merge(self, job: Job) -> None:
        try:
            rows = await self._rows(job)
            if not self._stopping:
                await self._in_thread(self._upkeep.finish, job, rows)
        except Exception as error:
            await self._in_thread(self._upkeep.abandon, job)
            if not isinstance(error, FileNotFoundError):  # else its hour was deleted meanwhile
                raise

    async def _rows(self, job: Job) -> int:
        """The rows of the merged file, once its process has ended."""
        self._job = job
        if self._stopping:
            job.process.kill()
        try:
            return await threads.deferToThreadPool(
                self._reactor, self._reactor.getThreadPool(), merging.result, job.process
            )  # fmt: skip
        finally:
            self._job = None

    async def stop(self) -> None:
        """End a merge under way; its files stay as they are."""
        self._stopping = True
        if self._job is not None:
            with suppress(ProcessLookupError):
                self._job.process.kill()
        if (running := self._running) is not None:
            waiting: defer.Deferred[None] = defer.Deferred()
            running.addBoth(lambda result: waiting.callback(None))
            await waiting
