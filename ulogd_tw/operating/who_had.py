"""Who had an address, asked of the running service: its stores, the rows that are in no file yet, and the kernel.

The order makes sure that nothing falls between two places: the kernel's table first, then the events that it has
queued, then the rows that wait, then the files. A connection that ends meanwhile is seen twice, never not at all.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from twisted.internet import defer, reactor, threads

from ulogd_tw.core.errors import UlogdError
from ulogd_tw.core.graph import Node
from ulogd_tw.flows.nat_answers import address_of
from ulogd_tw.flows.nat_batches import open_connections, waiting_rows
from ulogd_tw.flows.nat_rows import NatRow, Question
from ulogd_tw.operating import question_log, store_options
from ulogd_tw.operating.nat_child import NatRequest
from ulogd_tw.operating.store_process import StoreChildren

_LONGEST_MS = 3660 * 86_400_000
_LATEST_MS = 253_402_300_799_999


class WrongQuestion(UlogdError):
    """A question that is none, or about a store that is not there."""


class WhoHad:
    """Answers of the service `ulogd`, which has the graph, the queues before the outputs, and the stores."""

    def __init__(self, ulogd: Any, clock: Any = reactor, now: Callable[[], float] = time.time) -> None:
        self._ulogd, self._clock, self._now = ulogd, clock, now
        self._children: StoreChildren | None = None

    def answer(self, body: Mapping[str, Any], asker: Mapping[str, Any]) -> defer.Deferred[dict[str, Any]]:
        """The answer as `nat_answers.Found` has it. Fails with `WrongQuestion`, `NotLogged`, and `NoAnswer`.

        Cancelling it ends the process that reads.
        """
        return defer.Deferred.fromCoroutine(self._answer(body, asker))

    def stop(self) -> defer.Deferred[Any]:
        """End the processes; fires when they have ended."""
        return defer.succeed(None) if self._children is None else self._children.stop()

    async def _answer(self, body: Mapping[str, Any], asker: Mapping[str, Any]) -> dict[str, Any]:
        question = question_of(body)
        stores = self._chosen(body.get("stores") or [])
        notes: list[str] = []
        places = {name: os.path.abspath(node.plugin.config.directory) for name, node in stores.items()}
        sections = self._sections(stores)
        memory = max((one.memory for one in sections), default=store_options.MEMORY)
        seconds = max((one.timeout for one in sections), default=store_options.TIMEOUT_S)
        open_rows = await self._open(stores.values(), question, notes)

        def prepared() -> tuple[NatRequest, Iterator[bytes]]:
            return NatRequest(question, places, (*open_rows, *self._waiting(stores, question))), _no_parts()

        found = await self._processes().ask(prepared, memory, seconds, _Nowhere())
        if notes:
            found = found | {"notes": [*found["notes"], *notes], "status": 3}
        await threads.deferToThread(
            question_log.append, self._logs(stores), self._now(), asker, _asked(found, stores), len(found["answers"])
        )
        return found

    def _waiting(self, stores: Mapping[str, Node], question: Question) -> Iterator[NatRow]:
        """The rows in the queues before the stores."""
        for queue in self._ulogd.queues:
            if queue.node in stores.values():
                for batch in queue.present():
                    yield from waiting_rows(batch, queue.output.find, question)

    def _processes(self) -> StoreChildren:
        if self._children is None:
            self._children = StoreChildren(self._clock)
            self._clock.addSystemEventTrigger("before", "shutdown", self.stop)
        return self._children

    def _chosen(self, names: Any) -> dict[str, Node]:
        """The outputs of the stores that are asked: those named, else all that can have translations."""
        have = {node.ident: node for node in self._ulogd.graph.outputs if node.plugin.name == "PARQUET"}
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise WrongQuestion("stores must be a list of names")
        if not names:
            found = {ident: node for ident, node in have.items() if _translates(node)}
        else:
            found = {ident: have[ident] for name in names for ident in self._members(name, have)}
        if not found:
            raise WrongQuestion("there is no store with addresses after NAT; PARQUET below NFCT or COLLECTOR makes one")
        return found

    def _members(self, name: str, have: Mapping[str, Node]) -> Iterator[str]:
        """The outputs of a store, by the section [store:NAME] or an id."""
        section = getattr(self._ulogd, "stores", {}).get(name)
        if section is None and name not in have:
            known = ", ".join([*getattr(self._ulogd, "stores", {}), *have]) or "none"
            raise WrongQuestion(f"there is no store {name}; there are {known}")
        yield from (ident for ident in (section.outputs if section is not None else (name,)) if ident in have)

    def _logs(self, stores: Mapping[str, Node]) -> list[str]:
        """The logs of questions of all sections with one of these outputs."""
        return [one.question_log for one in self._sections(stores) if one.question_log]

    def _sections(self, stores: Mapping[str, Node]) -> list[Any]:
        """The values of the sections with one of these outputs."""
        sections = getattr(self._ulogd, "stores", {}).values()
        return [one for one in sections if not set(one.outputs).isdisjoint(stores)]

    async def _open(self, outputs: Any, question: Question, notes: list[str]) -> list[NatRow]:
        """The open connections of all kernels above the outputs; `notes` get why some could not be asked."""
        rows: list[NatRow] = []
        above = set().union(*(node.above() for node in outputs))
        for node in sorted(above, key=lambda one: one.ident):
            connections = getattr(node.plugin, "connections", None)
            if connections is None:
                continue
            try:
                await connections(lambda batch: rows.extend(open_connections(batch, question)))
            except UlogdError as error:
                notes.append(f"{node.ident}: connections that are still open could not be read: {error}")
        return rows


def _no_parts() -> Iterator[bytes]:
    """No rows in slices; `close` is asked of it."""
    yield from ()


class _Nowhere:
    """The answer is in the end of it; there is nothing else to write."""

    def begin(self, producer: Any) -> None:
        """The process has answered."""

    def write(self, octets: bytes) -> None:
        """Nothing comes."""


def _asked(found: Mapping[str, Any], stores: Mapping[str, Node]) -> dict[str, Any]:
    words = ("address", "port", "at", "within", "longest", "status")
    return {"command": "who-had", "stores": list(stores)} | {word: found[word] for word in words}


def _translates(node: Node) -> bool:
    """Whether rows of an output can be of one flow or event, and have addresses after NAT."""
    if any(hasattr(maker, "rollup") for maker in getattr(node.plugin, "makers", ())):
        return False
    recipes = node.plugin.sources.recipes
    return any(found for name, found in recipes.items() if name.startswith(("postNAT", "xlate_", "reply.ip.")))


def question_of(body: Mapping[str, Any]) -> Question:
    """The question in the body of a request. Raises `WrongQuestion`."""
    try:
        address = address_of(str(body.get("address")))
    except ValueError:
        raise WrongQuestion('the body needs an "address", such as "192.0.2.1"') from None
    port = body.get("port")
    if port is not None and (type(port) is not int or not 0 <= port < 65536):
        raise WrongQuestion('"port" must be a number of 0 to 65535, or null')
    numbers = []
    for name, default, most in (
        ("at", None, _LATEST_MS),
        ("within", 5000, _LONGEST_MS),
        ("longest", 86_400_000, _LONGEST_MS),
    ):
        value = body.get(name, default)
        if type(value) is not int or not 0 <= value <= most:
            raise WrongQuestion(f'"{name}" must be a whole number of milliseconds, up to {most}')
        numbers.append(value)
    return Question(address, port, *numbers)
