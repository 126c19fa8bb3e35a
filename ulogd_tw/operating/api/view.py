"""What the API sees of the service: always its present graph, which a reload replaces."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

from ulogd_tw import __version__
from ulogd_tw.core.graph import Graph, Node, Stack
from ulogd_tw.core.plugin import Aggregator, Input, Output
from ulogd_tw.core.states import DOWN, OK, State
from ulogd_tw.operating.exporter_metrics import ExporterNumbers
from ulogd_tw.operating.query import Database
from ulogd_tw.operating.stores import Stores
from ulogd_tw.state_directory import kept

SECRET = ("pass", "connstring")
"""Options that hold a password."""
_ROWS = ("received", "emitted", "written", "waiting", "filtered")


class View:
    """The service and what goes with it. `clock` is the reactor, or a clock; `database` has the tables for SQL."""

    def __init__(self, ulogd: Any, config: str = "", clock: Any = None, database: Database | None = None) -> None:
        if clock is None:
            from twisted.internet import reactor as clock
        self.ulogd = ulogd
        self.config = config
        self.clock = clock
        self.since = time.time()
        self.database = database or Database(ulogd)
        self.stores = Stores(ulogd, clock)
        self.doors: dict[str, Any] = {}
        """The doors by name, for the counters of requests."""
        self.stalls: Any = None
        """The measurement of the reactor's lateness, where there is one."""
        self.exporter_numbers = ExporterNumbers(100)
        self._who_had: Any = None

    @property
    def who_had(self) -> Any:
        """Who had an address: made at the first question."""
        if self._who_had is None:
            from ulogd_tw.operating.who_had import WhoHad

            self._who_had = WhoHad(self.ulogd)
        return self._who_had

    @property
    def graph(self) -> Graph:
        """The stacks of this moment."""
        return self.ulogd.graph

    @property
    def left_out(self) -> list[dict[str, str]]:
        """The stacks that could not start: text, where, reason."""
        return getattr(self.ulogd, "left_out", [])

    @property
    def state_fault(self) -> str:
        """Why state is not kept; empty where it is, or need not be."""
        return getattr(self.ulogd, "state_fault", "")

    @property
    def left_behind(self) -> list[Any]:
        """What instances that are in no stack any more have left (`left_behind.Left`)."""
        left = getattr(self.ulogd, "left", None)
        return [] if left is None else left.found

    def status(self) -> dict[str, Any]:
        """What runs, since when, and how each stack is."""
        settings = self.ulogd.settings
        return {
            "version": __version__,
            "pid": os.getpid(),
            "since": self.since,
            "now": time.time(),
            "config": self.config,
            "state_dir": getattr(settings, "state_dir", "") or "",
            "stacks": [_stack(number, stack) for number, stack in enumerate(self.graph.stacks)],
            "left_out": list(self.left_out),
            "mistakes": [str(mistake) for mistake in self.ulogd.mistakes if not mistake.remark],
            "kept": kept(self.graph),
        } | self._odd()

    def _odd(self) -> dict[str, Any]:
        """Members of the status that are not always there: what is wrong, and how late the reactor was."""
        left = [one.as_dict() for one in self.left_behind]
        fault: dict[str, Any] = {"state_fault": self.state_fault} if self.state_fault else {}
        if self.stalls is not None:
            fault["stalls"] = self.stalls.summary()
        return fault | ({"left_behind": left} if left else {})

    def readiness(self) -> dict[str, Any]:
        """Each stack with its state and the reasons, also those that are left out; `ready` if none is down.

        Further `reasons` are faults beside the stacks: state that is not kept.
        """
        found = [_stack_state(stack.spec.text, stack.spec.where, *state_of(stack)) for stack in self.graph.stacks]
        for stack in self.left_out:
            found.append(_stack_state(stack["text"], stack["where"], DOWN, (stack["reason"],)))
        reasons = {"reasons": [self.state_fault]} if self.state_fault else {}
        return {"ready": all(stack["state"] != DOWN for stack in found), "stacks": found} | reasons

    def nodes(self) -> Iterator[dict[str, Any]]:
        """Every instance with its place in the graph and its counters."""
        graph = self.graph
        for node in graph.nodes:
            yield {
                "node": node.ident,
                "id": node.plugin.instance,
                "plugin": node.plugin.name,
                "kind": kind_of(node),
                "stacks": [number for number, stack in enumerate(graph.stacks) if node in stack.path],
                "waiting": node.plugin.counters.rows_waiting,
                "open": getattr(node.plugin, "at_end", False) is False,
                "counters": node.plugin.counters.as_dict(),
            }

    def instances(self) -> Iterator[dict[str, Any]]:
        """Every instance as in `nodes`, with its options as they are written; a password is not shown."""
        for node, found in zip(self.graph.nodes, self.nodes(), strict=True):
            texts = node.plugin.config.texts
            yield found | {"options": {name: ["***"] if name in SECRET else list(texts[name]) for name in texts}}

    def edges(self) -> list[dict[str, Any]]:
        """The ways of rows from instance to instance, with the rows that went there."""
        return [
            {"from": node.ident, "to": child.ident, "rows": node.plugin.counters.rows_emitted}
            for node in self.graph.nodes
            for child in node.children
            if isinstance(child, Node)
        ]

    def stacks(self) -> list[dict[str, Any]]:
        """The lines of the stacks."""
        return [
            {"n": number, "text": stack.spec.text, "where": stack.spec.where}
            for number, stack in enumerate(self.graph.stacks)
        ]

    def exporters(self) -> Iterator[dict[str, Any]]:
        """Each exporter and Observation Domain of all collecting inputs."""
        for node in self.graph.inputs:
            for found in getattr(node.plugin, "each_exporter", tuple)():
                yield {"input": node.ident} | found

    def templates(self, exporter: str = "") -> Iterator[dict[str, Any]]:
        """Each template of each exporter, or of one address."""
        for node in self.graph.inputs:
            for found in getattr(node.plugin, "each_template", _none)(exporter):
                yield {"input": node.ident} | found

    def tables(self) -> Iterator[dict[str, Any]]:
        """Each table for SQL: an AGGREGATE by its id."""
        for ident, plugin in self.database.tables.items():
            figures = plugin.counters.as_dict()
            yield {
                "id": ident,
                "columns": list(plugin.columns),
                "together": plugin.together,
                "groups": figures.get("keys", 0),
                "memory_octets": figures.get("memory_octets", 0),
            }


def _stack_state(text: str, where: str, state: str, reasons: tuple[str, ...]) -> dict[str, Any]:
    return {"text": text, "where": where, "state": state, "reasons": list(reasons)}


def _none(exporter: str) -> tuple[()]:
    return ()


def state_of(stack: Stack) -> State:
    """How the output of a stack is; where nothing takes its rows, also how many wait."""
    output = stack.path[-1].plugin
    assert isinstance(output, Output)
    try:
        state = output.state()
    except Exception as error:  # of a plugin of another package: the others are told all the same
        output.fault(error)
        state = State(DOWN, (f"its state cannot be told: {type(error).__name__}: {error}",))
    if state.word == OK:
        return state
    waiting = output.counters.rows_waiting
    more = f"{waiting} of at most {output.config.queue_rows} rows wait in memory"
    reasons = tuple(f"{output.instance}: {reason}" for reason in state.reasons)
    return State(state.word, (*reasons, *([more] if waiting else [])))


def kind_of(node: Node) -> str:
    """``input``, ``filter``, ``aggregator`` or ``output``."""
    for kind, name in ((Input, "input"), (Output, "output"), (Aggregator, "aggregator")):
        if isinstance(node.plugin, kind):
            return name
    return "filter"


def _stack(number: int, stack: Stack) -> dict[str, Any]:
    counters = [node.plugin.counters for node in stack.path]
    state, output = state_of(stack), stack.path[-1].plugin
    assert isinstance(output, Output)
    return {
        "n": number,
        "text": stack.spec.text,
        "where": stack.spec.where,
        "state": state.word,
        "reasons": list(state.reasons),
        "rows_received": counters[0].rows_received,
        "rows_written": counters[-1].rows_written,
        "rows_waiting": counters[-1].rows_waiting,
        "oldest_seconds": round(output.waited(), 3) if counters[-1].rows_waiting else 0.0,
        "dropped": sum(c.dropped.total() for c in counters),
        "lost": sum(c.lost.total() for c in counters),
        "errors": sum(c.errors.total() for c in counters),
    }
