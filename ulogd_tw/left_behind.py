"""What instances that are in no stack any more have left: rows on the disk that nobody reads, and rows lost by a kill.

A stack that was taken out of the configuration leaves its spool, the open intervals of its AGGREGATE, and messages for
a collector. They wait for an instance of the same name; until then they are in no other counter.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from twisted.internet import defer, task, threads
from twisted.logger import Logger

from ulogd_tw import state_directory
from ulogd_tw.core.graph import Graph
from ulogd_tw.core.plugin import Aggregator, Output
from ulogd_tw.core.plurals import plural
from ulogd_tw.spool import rows_spooled

ROWS, GROUPS, RECORDS, LOST = "rows", "groups", "records", "lost"
"""Of an output; in groups of an AGGREGATE; for a collector; rows that were lost when an earlier run was killed."""
AGAIN_S = 60.0
"""Between two looks while there is something."""
_BATCH = re.compile(r"(?P<ident>.+)-\d{12}-[0-9a-f]{8}-\d{6}(?:@[^/]+)?\.batch")
_SHOWN = 3
"""Files named in a line."""


@dataclass
class Left:
    """So many rows of an instance, in these files."""

    instance: str
    kind: str
    rows: int
    files: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        what = {ROWS: "row", GROUPS: "row in groups", RECORDS: "record for a collector", LOST: "row"}[self.kind]
        several = {ROWS: "rows", GROUPS: "rows in groups", RECORDS: "records for a collector", LOST: "rows"}[self.kind]
        text = f"{plural(self.rows, what, several)} of {self.instance}, which is in no stack that runs"
        if self.kind == LOST:
            return f"{text}, lost when an earlier run was killed"
        more = f" and {len(self.files) - _SHOWN} more files" if len(self.files) > _SHOWN else ""
        return f"{text}, in {', '.join(self.files[:_SHOWN])}{more}"

    def as_dict(self) -> dict[str, Any]:
        """The form of the API."""
        return asdict(self)


REMEDY = "a stack with an instance of this name takes them; remove the files where nobody needs them"


@dataclass
class Present:
    """The instances in stacks, and where they look: what they find there is not left behind.

    `unsure` are ids of stacks that are left out now, and may be mended.
    """

    outputs: set[str]
    aggregates: set[str]
    spools: set[Path]
    """Directories for rows of outputs, and those with a directory for each collector."""
    collectors: set[Path]
    unsure: set[str]
    state: Path | None

    @classmethod
    def of(cls, graph: Graph, state_dir: str, spools: Iterable[str], left_out: Iterable[Mapping[str, str]]) -> Present:
        """Those of a graph; `spools` are all values of the option `spool` in the configuration."""
        state = Path(state_dir) if state_dir else None
        outputs = {node.ident: node.plugin for node in graph.outputs}
        found = {Path(name) for name in spools if name}
        collectors = set()
        for ident, plugin in outputs.items():
            assert isinstance(plugin, Output)
            own = None if state is None else state_directory.of_instance(state, ident)
            collectors |= set(plugin.spool_places(own))
        if state is not None:
            found.add(state / "spool")
        ids = {part.partition(":")[0].strip() for stack in left_out for part in stack["text"].split(",")}
        aggregates = {node.ident for node in graph.filters if isinstance(node.plugin, Aggregator)}
        return cls(set(outputs), aggregates, found, collectors, ids, state)

    def knows(self, ident: str, among: set[str]) -> bool:
        """Whether an instance is among the present ones, or may come back."""
        return ident in among or ident.partition("#")[0] in self.unsure


def found(present: Present) -> list[Left]:
    """All that is left, by instance and kind; for a thread, since it reads files."""
    left: dict[tuple[str, str], Left] = {}
    for ident, kind, path, rows in (*_rows(present), *_groups(present), *_records(present)):
        if rows:
            one = left.setdefault((ident, kind), Left(ident, kind, 0))
            one.rows += rows
            one.files.append(str(path))
    return list(left.values())


def _rows(present: Present) -> Iterator[tuple[str, str, Path, int]]:
    for directory in sorted(present.spools):
        for path in sorted(directory.glob("*.batch")):
            match = _BATCH.fullmatch(path.name)
            if match and not present.knows(match["ident"], present.outputs):
                yield match["ident"], ROWS, path, rows_spooled(path)


def _groups(present: Present) -> Iterator[tuple[str, str, Path, int]]:
    from ulogd_tw.aggregation.state_file import rows_kept  # at need: a start without AGGREGATE loads none of it

    for path in sorted(present.state.glob("instances/*/intervals")) if present.state is not None else ():
        ident = unquote(path.parent.name)
        if not present.knows(ident, present.aggregates):
            yield ident, GROUPS, path, rows_kept(path)


def _records(present: Present) -> Iterator[tuple[str, str, Path, int]]:
    from ulogd_tw.exporting.message_spool import records_kept  # at need, as above

    directories = set(present.spools)
    directories |= set(present.state.glob("instances/*/spool")) if present.state is not None else set()
    for path in sorted(path for directory in directories for path in directory.glob("*/*.ipfix")):
        place = path.parent
        known = any(place.name.startswith(f"{ident}-") for ident in present.unsure)
        if place not in present.collectors and not known:
            yield place.name, RECORDS, path, records_kept(path)


class LeftBehind:
    """What is left, as of the last look: after the start, after a reload, and each minute while there is something."""

    log = Logger()

    def __init__(self, clock: Any) -> None:
        self.found: list[Left] = []
        self._lost: list[Left] = []
        self._said: set[tuple[str, str]] = set()
        self._present: Present | None = None
        self._timer = task.LoopingCall(self._again)
        self._timer.clock = clock
        self._looking: defer.Deferred[Any] = defer.succeed(None)

    def lose(self, lost: Mapping[str, int]) -> None:
        """Rows that a killed run had in instances that are gone, by their ids."""
        self._lost = [Left(ident, LOST, rows) for ident, rows in lost.items() if rows]
        self._take([])

    def look(self, present: Present) -> defer.Deferred[Any]:
        """Look now, in a thread where there is a directory at all."""
        self._present = present
        places = [*present.spools, *([present.state] if present.state is not None else [])]
        if any(place.is_dir() for place in places):
            self._again()
        return self._looking

    def _again(self) -> None:
        if self._looking.called and self._present is not None:
            self._looking = threads.deferToThread(found, self._present)
            self._looking.addCallbacks(self._take, self._failed)

    def _failed(self, failure: Any) -> None:
        self.log.failure("a look at what is left", failure)

    def _take(self, left: list[Left]) -> None:
        self.found = [*self._lost, *left]
        for one in self.found:
            if (one.instance, one.kind) not in self._said:
                self.log.warn("{left}{remedy}", left=str(one), remedy="" if one.kind == LOST else f"; {REMEDY}")
        self._said = {(one.instance, one.kind) for one in self.found}
        if left and not self._timer.running:
            self._timer.start(AGAIN_S, now=False)
        elif not left and self._timer.running:
            self._timer.stop()

    def stop(self) -> defer.Deferred[Any]:
        """No more looks; fires when none is under way."""
        self._present = None
        if self._timer.running:
            self._timer.stop()
        return self._looking
