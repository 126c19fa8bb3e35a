"""The stores of the running service: which outputs are one store, their figures, and questions to them.

An answer has each row once: those in files and those that wait, as they are in one turn of the reactor.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from twisted.internet import defer, reactor, task, threads

from ulogd_tw.core.batch import Batch
from ulogd_tw.core.columns import numbers
from ulogd_tw.core.graph import Node
from ulogd_tw.core.keys import nearest
from ulogd_tw.flow import OutputQueue
from ulogd_tw.flows.errors import FlowsError
from ulogd_tw.flows.held import Moment, stored
from ulogd_tw.flows.questions import Question
from ulogd_tw.flows.stores import INTERVAL_START, read
from ulogd_tw.flows.values import kind_of
from ulogd_tw.operating import question_log, store_child, store_options
from ulogd_tw.operating.store_process import NoAnswer, Sink, StoreChildren
from ulogd_tw.storing.parquet import directory

_EMISSION_S = 2.0
"""So long a question waits for the end of an emission, where only a roll-up has its rows."""
_LOOK_S = 0.05


class NoSuchStore(NoAnswer):
    """There is no store of this name."""


@dataclass(frozen=True)
class Member:
    """One output PARQUET of a store; `maker` is the AGGREGATE above a roll-up."""

    node: Node
    queue: OutputQueue | None
    maker: Any

    @property
    def directory(self) -> str:
        return os.path.abspath(str(self.node.plugin.directory))  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Group:
    """A store: its outputs, and the values of its section."""

    name: str
    members: tuple[Member, ...]
    values: Any

    @property
    def rolled_only(self) -> bool:
        """Whether no output has the flows themselves."""
        return all(member.maker is not None for member in self.members)


class Stores:
    """The stores of a service; `ulogd` has the graph, the queues and the sections."""

    def __init__(self, ulogd: Any, clock: Any = reactor) -> None:
        self._ulogd, self._clock = ulogd, clock
        self._children: StoreChildren | None = None

    def groups(self) -> dict[str, Group]:
        """All stores by name: those with a section, then each output that is in none."""
        members = {member.node.ident: member for member in self._members()}
        found: dict[str, Group] = {}
        for name, values in getattr(self._ulogd, "stores", {}).items():
            chosen = tuple(members[ident] for ident in values.outputs if ident in members)
            if chosen:
                found[name] = Group(name, chosen, values)
        grouped = {member.node.ident for group in found.values() for member in group.members}
        for ident, member in members.items():
            if ident not in grouped:
                found.setdefault(ident, Group(ident, (member,), _DEFAULTS))
        return found

    def _members(self) -> Iterator[Member]:
        queues = {queue.node: queue for queue in getattr(self._ulogd, "queues", ())}
        for node in self._ulogd.graph.nodes:
            if node.plugin.name == store_options.PLUGIN:
                makers = [maker for maker in getattr(node.plugin, "makers", ()) if hasattr(maker, "rollup")]
                yield Member(node, queues.get(node), makers[0] if makers else None)

    def chosen(self, name: str) -> Group:
        """The store of a name; the only one for an empty name. Raises `NoSuchStore`."""
        groups = self.groups()
        if not groups:
            raise NoSuchStore("there is no store: no stack has a PARQUET")
        if not name and len(groups) == 1:
            return next(iter(groups.values()))
        if name in groups:
            return groups[name]
        near = nearest(name, groups) if name else None
        hint = f"did you mean {near}?" if near else f"there are {', '.join(groups)}"
        raise NoSuchStore(f"there is no store {name}; {hint}" if name else f"which store? {hint}")

    # figures

    def listed(self) -> defer.Deferred[list[dict[str, Any]]]:
        """The figures of each store, which are counted in a thread."""
        places = [(group.name, [(m.node.ident, m.directory, m.maker) for m in group.members])
                  for group in self.groups().values()]  # fmt: skip
        return threads.deferToThread(lambda: [_figures(name, members) for name, members in places])

    def keys(self, name: str) -> defer.Deferred[dict[str, str]]:
        """The type of each key of a store, read in a thread; none before its first file. Raises `NoSuchStore`."""
        members = self.chosen(name).members
        raw = [member for member in members if member.maker is None] or members
        places = [member.directory for member in raw]
        return threads.deferToThread(lambda: {key: kind for place in places for key, kind in _keys(place).items()})

    # questions

    def ask(
        self, name: str, question: Question, form: str, asker: Mapping[str, Any], sink: Sink
    ) -> defer.Deferred[dict[str, Any]]:
        """The end of an answer whose octets go to `sink`. Fails with `NoAnswer`, and `NotLogged`."""
        try:
            group = self.chosen(name)
        except NoAnswer as error:
            return defer.fail(error)
        values = group.values
        asked = {"command": "flows", "store": group.name} | question.asdict()

        def begin(_: Any) -> defer.Deferred[dict[str, Any]]:
            prepare = functools.partial(self._prepared, group, question, form)
            return self._processes().ask(prepare, values.memory, values.timeout, sink)

        logged = threads.deferToThread(question_log.append, self._logs(group), time.time(), asker, asked, None)
        return logged.addCallback(lambda _: self._settled(group)).addCallback(begin)

    def _logs(self, group: Group) -> list[str]:
        """The logs of questions of all sections with one of these outputs."""
        outputs = {member.node.ident for member in group.members}
        sections = getattr(self._ulogd, "stores", {}).values()
        return [one.question_log for one in sections if one.question_log and outputs.intersection(one.outputs)]

    def stop(self) -> defer.Deferred[Any]:
        """End the processes; fires when they have ended."""
        return defer.succeed(None) if self._children is None else self._children.stop()

    def _processes(self) -> StoreChildren:
        if self._children is None:
            self._children = StoreChildren(self._clock)
            self._clock.addSystemEventTrigger("before", "shutdown", self.stop)
        return self._children

    def _settled(self, group: Group) -> defer.Deferred[None]:
        return defer.Deferred.fromCoroutine(self._quiet(group))

    async def _quiet(self, group: Group) -> None:
        """Wait a moment for an emission to end, where nothing but the roll-up has its rows."""
        until = self._clock.seconds() + _EMISSION_S
        while group.rolled_only and any(m.maker.emitting for m in group.members) and self._clock.seconds() < until:
            await task.deferLater(self._clock, _LOOK_S, lambda: None)

    def _prepared(self, group: Group, question: Question, form: str) -> tuple[store_child.Request, Iterator[bytes]]:
        """What a process needs for a question, and the waiting rows in slices. All is seen in this turn."""
        moments, copies = [], []
        for member in group.members:
            rows = [] if member.queue is None else member.queue.present()
            moment = _moment(member, rows, group.rolled_only)
            moments.append(moment)
            if member.maker is None or group.rolled_only:
                copies.append(_copied(member, moment, rows, group.rolled_only))
        request = store_child.Request(question.asdict(), form, tuple(moments))
        return request, (part for copy in copies for part in copy)


_DEFAULTS = SimpleNamespace(memory=store_options.MEMORY, timeout=store_options.TIMEOUT_S, question_log="")


def _moment(member: Member, rows: Sequence[Batch], alone: bool) -> Moment:
    """A store as it is now."""
    output: Any = member.node.plugin
    number = output.write_number + (0 if member.queue is not None and member.queue.writes else 1)
    notes: tuple[str, ...] = ()
    until = None
    if member.maker is not None:
        until = _until(member.maker, rows)
        if alone and member.maker.emitting:
            notes = (f"an interval of {member.maker.instance} ends just now, and some of its groups may be missing",)
    columns = tuple(output.columns(rows))
    return Moment(member.node.ident, member.directory, output.run, number, time.time_ns(), until, columns, notes)


def _until(maker: Any, rows: Sequence[Batch]) -> int:
    """The begin of the oldest interval of which rows are not in files, in milliseconds."""
    interval = maker.rollup["interval"] or 1
    starts = [*maker.starts(), int(time.time()) // interval * interval]
    for batch in rows:
        found = batch.columns.get(INTERVAL_START)
        starts.append(int(numbers(found).min()) if found is not None and batch.n else 0)
    return min(starts) * 1000


def _copied(member: Member, moment: Moment, rows: Sequence[Batch], alone: bool) -> Iterator[bytes]:
    """The rows that wait, and the groups of open intervals where only this store has them; a batch at a time."""
    output: Any = member.node.plugin
    for batch in rows:
        yield store_child.packed(moment.name, stored(batch, moment.columns, output.find))
    if not alone or member.maker is None:
        return
    before = member.maker.counters.rows_emitted
    names = frozenset(member.maker.columns)
    for batch in member.maker.peek(names):
        yield store_child.packed(moment.name, stored(batch, moment.columns, output.find))
    if member.maker.counters.rows_emitted != before:
        yield store_child.again()


def _figures(name: str, members: list[tuple[str, str, Any]]) -> dict[str, Any]:
    return {"name": name, "outputs": [_output(ident, place, maker) for ident, place, maker in members]}


def _keys(place: str) -> dict[str, str]:
    """The type of each key of a store; none before its first file."""
    try:
        return {name: kind_of(key) for name, key in read(place).keys.items()}
    except FlowsError:
        return {}


def _output(ident: str, place: str, maker: Any) -> dict[str, Any]:
    """The figures of one directory; those of files in it by their names."""
    found: dict[str, Any] = {"id": ident, "directory": place, "rollup": None if maker is None else maker.rollup}
    found["keys"] = _keys(place)
    try:
        files = directory.files(directory.Path(place))
    except OSError as error:
        return found | {"error": error.strerror}
    hours = sorted({file.hour for file in files})
    return found | {
        "files": len(files),
        "octets": sum(file.octets for file in files),
        "rows": sum(file.rows for file in files if file.rows > 0),
        "hours": len(hours),
        "oldest": hours[0] * directory.HOUR_S if hours else None,
        "newest": (hours[-1] + 1) * directory.HOUR_S if hours else None,
    }
