"""Who had an address, asked of the running service: its stores, the rows that are in no file yet, and the kernel.

The order makes sure that nothing falls between two places: the kernel's table first, then the events that it has
queued, then the rows that wait, then the files. A connection that ends meanwhile is seen twice, never not at all.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from twisted.internet import defer, threads
from twisted.logger import Logger

from ulogd_tw.core.errors import UlogdError
from ulogd_tw.core.graph import Node
from ulogd_tw.flows.nat_answers import address_of, ask
from ulogd_tw.flows.nat_batches import open_connections, waiting_rows
from ulogd_tw.flows.nat_rows import NatRow, Question
from ulogd_tw.flows.nat_store import NatStore
from ulogd_tw.operating import question_log

MOST_AT_ONCE = 2
LEARN_S = 5.0
"""So long files are learnt in a thread after an answer."""
_LONGEST_MS = 3660 * 86_400_000
_LATEST_MS = 253_402_300_799_999
Read = Callable[[Mapping[str, Path], Question, list[NatRow]], dict[str, Any]]


class WrongQuestion(UlogdError):
    """A question that is none, or about a store that is not there."""


class WhoHad:
    """Answers of the service `ulogd`, which has the graph, the queues before the outputs, and the stores."""

    def __init__(self, ulogd: Any, read: Read | None = None, now: Callable[[], float] = time.time) -> None:
        self._ulogd, self._now = ulogd, now
        self._files = _Files()
        self._read = read or self._files.read
        self._turns = defer.DeferredSemaphore(MOST_AT_ONCE)

    def answer(self, body: Mapping[str, Any], asker: Mapping[str, Any]) -> defer.Deferred[dict[str, Any]]:
        """The answer as `nat_answers.Found` has it. Fails with `WrongQuestion`, `NotLogged`, or what a file raises."""
        return self._turns.run(lambda: defer.Deferred.fromCoroutine(self._answer(body, asker)))

    async def _answer(self, body: Mapping[str, Any], asker: Mapping[str, Any]) -> dict[str, Any]:
        question = question_of(body)
        stores = self._chosen(body.get("stores") or [])
        rows, notes = await self._open(stores.values(), question)
        for queue in self._ulogd.queues:
            if queue.node in stores.values():
                for batch in queue.present():
                    rows += waiting_rows(batch, queue.output.find, question)
        places = {name: Path(node.plugin.config.directory) for name, node in stores.items()}
        found = await threads.deferToThread(self._read, places, question, rows)
        if notes:
            found = found | {"notes": [*found["notes"], *notes], "status": 3}
        await threads.deferToThread(
            question_log.append, self._logs(stores), self._now(), asker, _asked(found, stores), len(found["answers"])
        )
        self._files.learn(places.values())
        return found

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
        sections = getattr(self._ulogd, "stores", {}).values()
        return [one.question_log for one in sections if one.question_log and not set(one.outputs).isdisjoint(stores)]

    async def _open(self, outputs: Any, question: Question) -> tuple[list[NatRow], list[str]]:
        """The open connections of all kernels above the outputs, and why some could not be asked."""
        rows: list[NatRow] = []
        notes = []
        above = set().union(*(node.above() for node in outputs))
        for node in sorted(above, key=lambda one: one.ident):
            connections = getattr(node.plugin, "connections", None)
            if connections is None:
                continue
            try:
                await connections(lambda batch: rows.extend(open_connections(batch, question)))
            except UlogdError as error:
                notes.append(f"{node.ident}: connections that are still open could not be read: {error}")
        return rows, notes


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
    if port is not None and (type(port) is not int or not 0 < port < 65536):
        raise WrongQuestion('"port" must be a number of 1 to 65535, or null')
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


class _Files:
    """The files of the stores, read in a thread of the service."""

    log = Logger()

    def __init__(self) -> None:
        self._store: NatStore | None = None
        self._learning = False

    def read(self, places: Mapping[str, Path], question: Question, rows: list[NatRow]) -> dict[str, Any]:
        """The answer of files and further rows. Raises OSError and DuckDB's errors."""
        if self._store is None:
            self._store = NatStore(_runner())
        return ask(self._store, places, question, int(time.time() * 1000), rows, live=True).as_dict()

    def learn(self, places: Iterable[Path]) -> None:
        """Go on to learn the files in a thread: later questions are answered faster."""
        if self._store is not None and not self._learning:
            self._learning = True
            threads.deferToThread(self._learn, list(places)).addErrback(self._not_learnt)

    def _learn(self, places: list[Path]) -> None:
        try:
            assert self._store is not None
            for place in places:
                self._store.learn(self._store.listing.files(place), LEARN_S)
        finally:
            self._learning = False

    def _not_learnt(self, failure: Any) -> None:
        """Files are merged at any time; the next question goes on."""
        self.log.debug("files of a store: {why}", why=failure.value)


def _runner() -> Callable[[str], list[tuple[Any, ...]]]:
    """Statements for DuckDB; each has a cursor of its own, so that threads may run them."""
    import duckdb

    database = duckdb.connect(
        config={"memory_limit": "512MB", "autoinstall_known_extensions": False, "autoload_known_extensions": False}
    )
    database.execute("SET parquet_metadata_cache = true")
    return lambda text: database.cursor().execute(text).fetchall()
