"""The commands of the manhole: stacks and instances, their counters, the reason why a key is read, and passing rows.

Everything here reads the present graph and costs nothing while unused.
"""

from __future__ import annotations

import json
from io import StringIO
from typing import Any

from twisted.internet import defer, reactor

from ulogd_tw.core.batch import Batch
from ulogd_tw.core.graph import input_of
from ulogd_tw.core.keys import nearest
from ulogd_tw.core.plugin import ALL, Output, type_text
from ulogd_tw.core.plurals import plural
from ulogd_tw.core.stack import Graph, Node, Stack
from ulogd_tw.operating import metrics
from ulogd_tw.operating.commands.text import write_table
from ulogd_tw.operating.query import Database
from ulogd_tw.operating.rows import row_lines
from ulogd_tw.operating.sql import Result
from ulogd_tw.operating.taps import Hanging

MOST_ROWS = 10_000
"""Maximum rows of one tap; they are kept until they are printed."""
TAP_SECONDS = 10.0
_FIGURES = ("received", "emitted", "filtered", "merged", "written", "waiting")

_HELP = """\
exporters()           what each collecting input knows of its exporters: templates, losses, sampling, clock
counters()            the counters of every instance, as in stats_file; counters("id") of one
stacks                the stack lines that run
instances             id -> the live plugin object; its options are .config, its counters .counters
explain()             of every stack: types, keys wanted of each instance, where each key comes from;
                      explain("text"): only the stacks that have this text or this instance
query("select ...")   SQL over the open intervals of each AGGREGATE, which is a table by its id:
                      query("select sourceAddress, sum(octets) from agg1 group by 1 order by 2 desc limit 10")
tap("id", n)          the next n rows (10) that leave the instance (an output: that reach it), one JSON object a row,
                      with the columns that something below wants; ends after 10 s, or tap("id", n, seconds)
ulogd                 the service itself
"""


class Text(str):
    """Text shown by a prompt without quotes."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def namespace(ulogd: Any, clock: Any = reactor, database: Database | None = None) -> dict[str, Any]:
    """The names in a manhole; `ulogd` has the graph as its attribute `graph`, which may be replaced."""
    return dict(Inspection(ulogd, clock, database).names())


def shown(result: Result) -> Text:
    """The rows of a query as lines of columns."""
    out = StringIO()
    write_table(result.columns, result.rows, out)
    return Text(out.getvalue().rstrip("\n") + ("\n(there are more)" if result.more else ""))


class _Help:
    """Shows the help, with and without brackets behind it."""

    def __call__(self) -> Text:
        return Text(_HELP)

    def __repr__(self) -> str:
        return _HELP


class Inspection:
    """Looks into a running service. `clock` ends taps; `database` has the tables for SQL."""

    def __init__(self, ulogd: Any, clock: Any = reactor, database: Database | None = None) -> None:
        self.ulogd = ulogd
        self.clock = clock
        self.database = database or Database(ulogd)

    @property
    def graph(self) -> Graph:
        return self.ulogd.graph

    def names(self) -> dict[str, Any]:
        """The names of the namespace."""
        return {
            "counters": self.counters,
            "exporters": self.exporters,
            "explain": self.explain,
            "query": self.query,
            "tap": self.tap,
            "stacks": _Stacks(self),
            "instances": _Instances(self),
            "help": _Help(),
            "ulogd": self.ulogd,
        }

    def query(self, text: str) -> defer.Deferred[Text]:
        """SQL over the tables of the AGGREGATEs."""
        answered: defer.Deferred[Text] = defer.Deferred()  # not one that waits for another: the prompt would show it
        self.database.query(text).addCallback(shown).chainDeferred(answered)
        return answered

    def counters(self, ident: str | None = None) -> dict[str, Any]:
        """The counters of every instance by its id, or those of one."""
        if ident is not None:
            return self._node(ident).plugin.counters.as_dict()
        return metrics.snapshot(self.graph)["instances"]

    def exporters(self, ident: str | None = None) -> Text:
        """The exporters of all collecting inputs, or of one.

        One JSON object a line for each exporter and Observation Domain.
        """
        nodes = [self._node(ident)] if ident is not None else self.graph.inputs
        lines = []
        for node in nodes:
            for found in getattr(node.plugin, "exporters", list)()[:MOST_ROWS]:
                lines.append(json.dumps({"input": node.ident} | found))
        return Text("\n".join(lines))

    def explain(self, of: str = "") -> Text:
        """For each stack with this text in its line, or with this instance: the keys at each step, and why."""
        found = [s for s in self.graph.stacks if of in s.spec.text or any(n.ident == of for n in s.path)]
        if not found:
            raise LookupError(f"no stack has {of!r}; there are: " + " ".join(s.spec.text for s in self.graph.stacks))
        return Text("\n".join(line for stack in found for line in _explained(stack)))

    def tap(self, ident: str, n: int = 10, seconds: float = TAP_SECONDS) -> defer.Deferred[Text]:
        """The next `n` rows leaving an instance, or those of the next `seconds`: a Deferred with their text."""
        if not 1 <= n <= MOST_ROWS:
            raise ValueError(f"n is 1 to {MOST_ROWS}")
        return _Tap(self._node(ident), n).begin(self.clock, seconds)

    def _node(self, ident: str) -> Node:
        nodes = {node.ident: node for node in self.graph.nodes}
        if ident in nodes:
            return nodes[ident]
        near = nearest(ident, nodes)
        hint = f"did you mean {near}?" if near else f"there are {', '.join(nodes)}"
        raise LookupError(f"there is no {ident!r}; {hint}")


class _Stacks:
    """The present stacks: a sequence whose repr is their lines."""

    def __init__(self, inspection: Inspection) -> None:
        self._inspection = inspection

    def __iter__(self) -> Any:
        return iter(self._inspection.graph.stacks)

    def __len__(self) -> int:
        return len(self._inspection.graph.stacks)

    def __getitem__(self, place: int) -> Stack:
        return self._inspection.graph.stacks[place]

    def __repr__(self) -> str:
        return "\n".join(f"{stack.spec.where}: {stack.spec.text}" for stack in self)


class _Instances:
    """The present instances by id: a mapping whose repr is a list of them."""

    def __init__(self, inspection: Inspection) -> None:
        self._inspection = inspection

    def __getitem__(self, ident: str) -> Any:
        return self._inspection._node(ident).plugin

    def __iter__(self) -> Any:
        return iter(self._inspection.graph.instances)

    def __len__(self) -> int:
        return len(self._inspection.graph.instances)

    def keys(self) -> Any:
        return self._inspection.graph.instances.keys()

    def __repr__(self) -> str:
        return "\n".join(f"{ident}:{plugin.name}" for ident, plugin in self._inspection.graph.instances.items())


def _explained(stack: Stack) -> list[str]:
    lines = [f"{stack.spec.where}: stack {stack.spec.text}"]
    for node in stack.path:
        plugin, counters = node.plugin, node.plugin.counters
        shared = [s.spec.text for s in node.stacks if s is not stack]
        types = f"{type_text(plugin.itype)} -> {type_text(plugin.otype)}"
        lines.append(f"  {node.ident}:{plugin.name} ({types}){', shared with ' + ' '.join(shared) if shared else ''}")
        figures = [f"{getattr(counters, f'rows_{what}')} {what}" for what in _FIGURES]
        lines.append(f"    rows: {', '.join(figures)}, {counters.dropped.total()} dropped")
        if not isinstance(plugin, Output):
            wanted = "every key" if plugin.wanted is ALL else ", ".join(sorted(plugin.wanted)) or "nothing"
            lines.append(f"    wanted of it: {wanted}")
        for name, recipes in plugin.sources.recipes.items():
            ways = " or ".join("+".join(r.inputs) + (" (converted)" if r.convert else "") for r in recipes)
            lines.append(f"    takes {name}" + ("" if ways == name else f" from {ways}"))
    return lines


class _Tap:
    """Keeps copies of the next rows that leave a node, then ends. No row waits meanwhile."""

    def __init__(self, node: Node, n: int) -> None:
        self.node = node
        self.left = n
        self.lines: list[str] = []
        self._hanging = Hanging(node, self.receive)
        self._inputs = {input_of(stack.path[0]) for stack in node.stacks}
        self._timer: Any = None
        self._done: defer.Deferred[Text] = defer.Deferred(lambda _: self._remove())

    def begin(self, clock: Any, seconds: float) -> defer.Deferred[Text]:
        self._hanging.hang()
        self._timer = clock.callLater(seconds, self._finish)
        for source in self._inputs:
            source.watchers += 1
        for source in tuple(self._inputs):
            source.catch_up()
        return self._done

    def receive(self, batch: Batch) -> None:
        """Take rows to show. A fault here must not harm the stack."""
        taken = batch.take(slice(0, self.left))
        self.left -= taken.n
        try:
            self.lines += row_lines(taken)
        except Exception as error:
            self._remove()
            self._done.errback(error)
            return
        if not self.left:
            self._finish()

    def _finish(self) -> None:
        self._remove()
        rest = [f"({plural(len(self.lines), 'row')} passed before the time was over)"] if self.left else []
        self._done.callback(Text("\n".join(self.lines + rest)))

    def _remove(self) -> None:
        self._hanging.remove()
        for source in self._inputs:
            source.watchers -= 1
        self._inputs = set()
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
