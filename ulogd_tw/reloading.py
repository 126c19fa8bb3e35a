"""A new configuration for a running service: unchanged instances go on, the others are replaced without losing a row.

The new graph is built and opened beside the old one, which runs on if anything is wrong with it. Then, in this order:
inputs that go hand on what the kernel holds for them, aggregates that go hand on their groups, and in the same turn of
the reactor the rows of all others take the new ways. New inputs take over the sockets of the former ones. An output
that goes hands its waiting rows to its successor; one without a successor writes them first.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

from twisted.internet import defer, threads
from twisted.internet import reactor as _reactor

from ulogd_tw import config as configuration
from ulogd_tw.built import Built, obstacles
from ulogd_tw.core.changes import Changes, wants
from ulogd_tw.core.errors import ConfigError, Mistake, UlogdError
from ulogd_tw.core.graph import Graph, Node, input_of, tell_maker
from ulogd_tw.core.plugin import Aggregator, Filter, Input, Output, hand_over
from ulogd_tw.core.requests import hand_up_patience
from ulogd_tw.flow import OutputQueue
from ulogd_tw.transports.descriptors import descriptors

reactor: Any = _reactor

AT_ONCE = frozenset({"stack", "plugin", "stats_file", "stats_interval", "stop_timeout", "strict", "loglevel", "reload",
                     "queue_rows", "queue_octets"})  # fmt: skip
"""Options of [global] that a reload carries out; the others need a restart."""
OTHER_SECTIONS = ("manhole", "http")
"""Sections of services beside the stacks, which need a restart."""


class Refused(UlogdError):
    """The new configuration cannot run; the old one goes on. `mistakes`: its mistakes, or one reason."""

    def __init__(self, mistakes: Iterable[Mistake | str]) -> None:
        self.mistakes = [str(mistake) for mistake in mistakes]
        super().__init__("\n".join(self.mistakes))


class Reload:
    """One reload of a service (`ulogd_tw.service.Ulogd`) from its configuration file."""

    def __init__(self, ulogd: Any) -> None:
        self._ulogd = ulogd
        self._settings: Any = ulogd.settings
        self._opened: list[Node] = []
        """New nodes that are open already."""
        self._wants: dict[Node, dict[str, Any]] = {}

    @defer.inlineCallbacks
    def run(self) -> Any:
        """Carry it out; fires with the changes, a line each. `Refused` where the old configuration goes on."""
        built = yield self._build()
        self._wants = wants_of(built.graph)
        changes = Changes.between(self._ulogd.graph, self._ulogd.wants, built.graph)
        lines = changes.lines() + self._other_changes(built)
        fresh = [node for node in built.graph.nodes if node not in changes.kept]
        if wrong := [mistake for _, mistake in obstacles(fresh) if not mistake.tolerated]:
            raise Refused(wrong)
        try:
            descriptors.hold()
            yield self._open_beside(changes)
            yield self._carry_out(changes, built)
        finally:
            descriptors.release()
        return lines + self._ulogd.left_out_texts()

    # look

    def _build(self) -> defer.Deferred[Any]:
        """Read and check, in a thread: outputs look at their tables."""

        def build() -> Built:
            return Built(configuration.load(self._ulogd.file), prepare=True)

        return threads.deferToThread(build).addCallbacks(self._checked, self._unread)

    @staticmethod
    def _unread(failure: Any) -> Any:
        failure.trap(ConfigError)
        raise Refused([failure.getErrorMessage()])

    def _checked(self, built: Any) -> Any:
        if built.fatal:
            raise Refused(built.fatal)
        if not built.graph.stacks:
            raise Refused([f"{self._ulogd.file}: there is no stack to run"])
        return built

    def _other_changes(self, built: Any) -> list[str]:
        """What differs beside the stacks."""
        changed = self._settings.differing(built.settings)
        found = [f"[global] {name} has changed" for name in changed if name in AT_ONCE - {"stack", "plugin"}]
        later = [f"[global] {name}" for name in changed if name not in AT_ONCE]
        sections = self._ulogd.sections
        later += [f"[{name}]" for name in OTHER_SECTIONS if sections.get(name) != built.sections.get(name)]
        found += changed_rules(self._ulogd.rules, built.alerts)
        return found + [f"{name} has changed: restart the service for it (ulogd-tw restart)" for name in later]

    # open

    @defer.inlineCallbacks
    def _open_beside(self, changes: Changes) -> Any:
        """Open what can be open beside the old instances; a fault ends the reload."""
        early = [node for node in changes.added if not _keeps_rows(node)]
        early += [node for node in changes.replaced if isinstance(node.plugin, Input) and node.plugin.opens_beside]
        graph = changes.new
        for node in graph.nodes:
            self._ulogd.connect(node)
        for node in graph.inputs:
            input_of(node).ended = self._ulogd.input_ended
        for node in graph.nodes:
            if node in early:
                if not isinstance(node.plugin, Input):
                    self._ulogd.keep_state_of(node)
                try:
                    yield node.plugin.open()
                except (UlogdError, OSError) as error:
                    yield self._close_again()
                    where = node.stacks[0].spec.where
                    raise Refused([f"{where}: {node.ident}:{node.plugin.name}: {error}"]) from None
                self._opened.append(node)

    @defer.inlineCallbacks
    def _close_again(self) -> Any:
        for node in self._opened:
            yield defer.maybeDeferred(node.plugin.stop)

    # carry out

    @defer.inlineCallbacks
    def _carry_out(self, changes: Changes, built: Any) -> Any:
        ulogd = self._ulogd
        deadline = reactor.seconds() + ulogd.settings.stop_timeout
        going = set(changes.going)
        for node in changes.old.inputs:
            if node in going:
                yield ulogd.stop_node(node, deadline)
        divided = [input_of(node) for node in changes.old.inputs if node not in going]
        for plugin in divided:  # what workers have goes the way that it would have gone
            plugin.stop_within = max(deadline - reactor.seconds(), 0.0)
            yield plugin.halt()
        former = {queue.node: queue for queue in ulogd.queues}
        self._turn_over(changes, built, former)
        for node in changes.old.filters:
            if node in going:
                yield ulogd.stop_node(node, deadline)
        self._forget(changes)
        yield self._begin_filters(changes)
        yield self._begin_inputs(changes)
        yield self._outputs(changes, former, deadline)
        self._settle(changes)
        for plugin in divided:
            plugin.go_on()
        ulogd.begin_ledger_again()

    def _turn_over(self, changes: Changes, built: Any, former: dict[Node, OutputQueue]) -> None:
        """In one turn of the reactor: aggregates that go give their groups away, then all rows take the new ways."""
        ulogd = self._ulogd
        self._empty_filters(changes)
        for new in changes.rewired:
            ulogd.guarded(new.plugin, partial(changes.kept[new].plugin.rewire, new.plugin))
        for new, old in changes.kept.items():
            ulogd.wakes.cancel(old)
            new.take(old.plugin)
            ulogd.opened(new, old)
        for node in self._opened:
            ulogd.opened(node)
        for stack in changes.new.stacks:
            _tell_source(stack.path)
        for new in changes.new.outputs:
            assert isinstance(new.plugin, Output)
            new.plugin.inputs = tuple(dict.fromkeys(input_of(stack.path[0]) for stack in new.stacks))
            new.plugin.makers = ()
            for stack in new.stacks:
                tell_maker(stack.path)
        ulogd.turn_to(changes.new, self._wants, built)
        hand_up_patience(changes.new)
        for new in changes.new.nodes:
            if new not in changes.kept and new.parents:
                new.received_before = -new.rows_sent()
        for new in changes.new.outputs:
            if new in changes.kept:
                former[changes.kept[new]].move(new)
            else:
                ulogd.queues.append(OutputQueue(new, ulogd.pauses, waits=True))
        live = self._live(changes)
        for new in changes.new.filters:
            if new not in live:
                new.hold()
        for new in changes.new.nodes:
            if new in live and not (isinstance(new.plugin, Input) and new not in changes.kept):
                ulogd.wakes.wake(new)

    def _forget(self, changes: Changes) -> None:
        """Inputs and filters without a successor leave nothing behind: another of their name begins anew.

        What an output could not send stays for the next one of its name.
        """
        used = {node.ident for node in changes.new.nodes}
        for node in changes.going:
            if not isinstance(node.plugin, Output) and node.ident not in used:
                self._ulogd.forget_state_of(node)

    def _empty_filters(self, changes: Changes) -> None:
        """What aggregates hold goes to their successors, or the way that it would have gone."""
        successors = {old: new for new, old in changes.replaced.items()}
        for node in changes.going:
            self._ulogd.wakes.cancel(node)
            if isinstance(node.plugin, Aggregator):
                self._ulogd.guarded(node.plugin, partial(_empty, node.plugin, successors.get(node)))

    @defer.inlineCallbacks
    def _begin_filters(self, changes: Changes) -> Any:
        """Open the filters that could not be open beside former ones, and let them take what has come meanwhile."""
        ulogd = self._ulogd
        fresh = [node for node in changes.new.filters if node not in self._live(changes)]
        for node in fresh:
            ulogd.keep_state_of(node)
        yield ulogd.open_nodes(fresh)
        for node in fresh:
            node.release()
            if node in ulogd.graph.nodes:
                ulogd.wakes.wake(node)

    @defer.inlineCallbacks
    def _begin_inputs(self, changes: Changes) -> Any:
        ulogd = self._ulogd
        yield ulogd.open_nodes([node for node in changes.new.inputs if node not in self._live(changes)])
        for node in ulogd.graph.inputs:
            if node in changes.kept:
                continue
            if old := changes.replaced.get(node):
                ulogd.guarded(node.plugin, partial(hand_over, old.plugin, node.plugin))
            ulogd.keep_state_of(node)
            ulogd.guarded(node.plugin, input_of(node).begin)
            ulogd.wakes.wake(node)

    def _live(self, changes: Changes) -> set[Node]:
        """The new nodes with an open instance."""
        return {*self._opened, *changes.kept}

    @defer.inlineCallbacks
    def _outputs(self, changes: Changes, former: dict[Node, OutputQueue], deadline: float) -> Any:
        """End the outputs that go; each successor begins when its predecessor has ended."""
        ulogd = self._ulogd
        successors = {old: new for new, old in changes.replaced.items()}
        going = [node for node in changes.old.outputs if node in set(changes.going)]
        for node in changes.added:
            if isinstance(node.plugin, Output):
                yield self._begin_output(node, [])
        for node in going:
            queue = former[node]
            queue.leave_rest()
            if node not in successors:
                yield ulogd.within(queue.drained(), deadline, node)
            queue.close()
            ulogd.wakes.cancel(node)
            yield ulogd.stop_node(node, deadline + 5)
            ulogd.queues.remove(queue)
            if node not in successors or ulogd.spools.of(queue):
                ulogd.spools.leave(queue)
            if node in successors:
                yield self._begin_output(successors[node], queue.left())

    @defer.inlineCallbacks
    def _begin_output(self, node: Node, rows: Any) -> Any:
        ulogd = self._ulogd
        if node not in self._opened:
            ulogd.keep_state_of(node)
            yield ulogd.open_nodes([node])
            if node in ulogd.graph.nodes:
                ulogd.wakes.wake(node)
        queue = next(queue for queue in ulogd.queues if queue.node is node)
        if node not in ulogd.graph.nodes:  # it could not be opened
            ulogd.queues.remove(queue)
            queue.take_over(rows)
            ulogd.drop(queue, "error")
            return
        queue.take_over(rows)
        ulogd.spools.read_back(queue)
        queue.begin()

    def _settle(self, changes: Changes) -> None:
        """Rows from nodes that are gone are no longer in the sums of the nodes above."""
        for node in changes.kept:
            if not node.parents or not isinstance(node.plugin, (Filter, Output)):
                continue
            counters = node.plugin.counters
            node.received_before = counters.rows_received - counters.rows_unspooled - node.rows_sent()


def _keeps_rows(node: Node) -> bool:
    """Whether its rows may be in a file, which a former instance could still be using."""
    return isinstance(node.plugin, Aggregator)


def _empty(old: Aggregator, successor: Node | None) -> None:
    if successor is None or not hand_over(old, successor.plugin):
        old.hand_on()


def _tell_source(path: list[Node]) -> None:
    source = input_of(path[0])
    for node in path[1:-1]:
        former = node.plugin.source
        if former is not None and former.seconds_apart:
            source.seconds_apart = True
        node.plugin.source = source


def wants_of(graph: Graph) -> dict[Node, dict[str, Any]]:
    """What a reload compares, of every node."""
    return {node: wants(node) for node in graph.nodes}


def changed_rules(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What a reload does to the rules of [alert:NAME]."""
    gone = [f"[alert:{name}] is gone" for name in old if name not in new]
    changed = [f"[alert:{name}] has changed" for name in new if name in old and old[name].texts != new[name].texts]
    return gone + changed + [f"[alert:{name}] is new" for name in new if name not in old]
