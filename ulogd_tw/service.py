"""The running service: stacks from a configuration, started and stopped in order, with timers, signals and counters.

Start: listening sockets and netlink first (still with privilege), then outputs, then the inputs begin to read. End of a
batch job: when all inputs with exit=1 are at their end and all their rows are written, the service stops. Stop: the
inputs drain, then aggregates flush, then queues empty into outputs within `stop_timeout`. Independent stacks stop one
after the other, listening ones last: a collector in this process may receive the last records of an exporter in this
process.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from twisted.application import service
from twisted.internet import defer, reactor, task, threads
from twisted.logger import Logger

from ulogd_tw import __version__, reloading, signals, starting
from ulogd_tw.core.errors import Mistake, NotStarted, StartError, UlogdError, in_words, lacks_memory
from ulogd_tw.core.limited import RateLimit, left_out
from ulogd_tw.core.plugin import Aggregator, Input, Output, Plugin
from ulogd_tw.core.plurals import plural
from ulogd_tw.core.requests import hand_up_patience
from ulogd_tw.core.stack import Graph, Node
from ulogd_tw.flow import OutputQueue, Pauses, queues
from ulogd_tw.left_behind import LeftBehind, Present
from ulogd_tw.logs import LogFile
from ulogd_tw.next_start import not_continued, why_no_restart
from ulogd_tw.operating import metrics, notify
from ulogd_tw.operating.events import Events
from ulogd_tw.operating.status_line import StatusLine
from ulogd_tw.restarting import Succession, unit
from ulogd_tw.spools import Spools
from ulogd_tw.state_directory import StateDirectory
from ulogd_tw.wakes import Wakes

if TYPE_CHECKING:
    from ulogd_tw.collecting.workers import Plan

PATIENCE_S = 60.0
"""At the end of a batch job, the longest time without a written row. One write of a slow database takes a while."""
_ANSWER_S = 0.1
"""Time for the answer to whoever asks for a restart."""
_LAST_WRITES_S = 50.0
"""Beyond stop_timeout, for the last write of each output, before systemd kills."""


class Ulogd(service.Service):
    """All stacks of one configuration."""

    log = Logger()

    def __init__(
        self,
        graph: Graph,
        settings: Any,
        mistakes: Iterable[Mistake] = (),
        *,
        clock: Callable[[], float] = time.time,
        on_fatal: Callable[[str], None] | None = None,
        file: str = "",
        sections: dict[str, Any] | None = None,
        text: str = "",
    ) -> None:
        """`file`: the configuration, for a reload, and its `text`; `sections`: texts of those beside the stacks."""
        self.graph = graph
        self.text = text
        self.file, self.sections = file, sections or {}
        self.wants = reloading.wants_of(graph)
        self.pauses = Pauses()
        self._changing = defer.DeferredLock()
        self.settings = settings
        self.mistakes = tuple(mistakes)
        self.queues: list[OutputQueue] = []
        self.stores: dict[str, Any] = {}
        """The values of each section [store:NAME], by its name."""
        self.rules: dict[str, Any] = {}
        """The rule of each section [alert:NAME], by its name."""
        self.alerts: Any = None
        """What looks at the rules; None until there is one."""
        self.clock = clock
        self._on_fatal = on_fatal or self._end
        self.wakes = Wakes(reactor, clock, self.report, self._clock_set)
        self._stats: task.LoopingCall | None = None
        self._limit = RateLimit()
        self._opened: list[Node] = []
        self._fatal = ""
        self.left_out: list[dict[str, str]] = []
        """Stacks that could not be opened: text, place, and reason."""
        self._not_continued: set[Node] = set()
        """At the stop: aggregates whose groups nobody goes on with."""
        self.events = Events(clock)
        self._finishing = False
        self._ready: defer.Deferred[None] = defer.succeed(None)
        self.state = StateDirectory(settings.state_dir, settings.state_interval) if settings.state_dir else None
        """The place of all that outlives a restart; None without the option, or where it cannot be used."""
        self._no_state = ""
        """Why the directory could not be used."""
        self.left = LeftBehind(reactor)
        self.spool_options: list[str] = []
        """All values of the option spool in the file, also of instances in no stack."""
        self.spools = Spools(lambda: "" if self.state is None else str(self.state.spool), self.report)
        self.succession = Succession(settings.state_dir)
        self.life = notify.LifeSigns(reactor, StatusLine(lambda: self.graph, len(graph.stacks), reactor.seconds))

    def __repr__(self) -> str:
        stacks, instances = len(self.graph.stacks), len(self.graph.nodes)
        return f"ulogd_tw {__version__}: stacks: {stacks}, instances: {instances}"

    # start

    def privilegedStartService(self) -> None:
        """Bind sockets while there is privilege; a stack that cannot start is left out with one error."""
        for mistake in self.mistakes:  # only now, since the log is open by now
            level = self.log.info if mistake.remark else self.log.warn if mistake.tolerated else self.log.error
            level("{mistake}", mistake=str(mistake))
            if not mistake.remark:
                self.events.add("mistake", str(mistake))
        for node in self.graph.nodes:
            self.connect(node)
        for node in self.graph.inputs:
            node.plugin.ended = self.input_ended
        self.succession.inherit()
        self._ready = self.open_nodes(self.graph.inputs).addCallback(self._enough)

    def connect(self, node: Node) -> None:
        """Let an instance report its faults and events here."""
        node.report = self.report
        node.plugin.fault = partial(self.report, node.plugin)
        node.plugin.tell = partial(self.events.add, instance=node.plugin.instance)
        if isinstance(node.plugin, Input) and node.plugin.workers > 1:
            node.plugin.divide(partial(self._plan, node.ident), self._node_of)

    def _plan(self, ident: str) -> Plan:
        """What the workers of an input run."""
        from ulogd_tw.collecting.workers import Plan, wants_of

        state = "" if self.state is None else str(self.state.path / "instances")
        return Plan(self.text, self.file, ident, wants_of(self.graph), state, self.settings.state_interval)

    def _node_of(self, ident: str) -> Node | None:
        return next((node for node in self.graph.nodes if node.ident == ident), None)

    def startService(self) -> None:
        super().startService()
        self._ready.addCallback(lambda _: self._keep_state())
        self._ready.addCallback(lambda _: self.open_nodes(self.graph.filters + self.graph.outputs))
        self._ready.addCallback(self._enough)
        self._ready.addCallback(lambda _: self._begin())
        self._ready.addErrback(self._failed)
        if self._fatal and not reactor.running:
            raise NotStarted("\n".join([*self.left_out_texts(), self._fatal]), logged=True)  # twistd is still starting

    @defer.inlineCallbacks
    def open_nodes(self, nodes: Iterable[Node]) -> Any:
        """Open them; stacks with one that cannot be opened are left out."""
        broken: dict[Node, UlogdError] = {}
        for node in list(nodes):
            if node not in self.graph.nodes:
                continue
            try:
                yield node.plugin.open()
                self._opened.append(node)
            except UlogdError as error:
                broken[node] = error
            except OSError as error:
                broken[node] = StartError(in_words(error))
            except MemoryError as error:
                broken[node] = lacks_memory(error)
            except Exception as error:  # a fault of the plugin costs its stacks, not the others
                self.report(node.plugin, error)
                broken[node] = StartError(f"an error of the plugin itself: {type(error).__name__}: {error}")
        if not broken:
            return
        self.graph, gone = self.graph.without(set(broken))
        hand_up_patience(self.graph)
        for stack in gone:
            node, error = next((n, e) for n, e in broken.items() if n in stack.path)
            why = f"{node.ident}:{node.plugin.name}: {error}"
            self.left_out.append({"text": stack.spec.text, "where": stack.spec.where, "reason": why})
            text = self.left_out_texts()[-1]
            self.events.add("stack_left_out", text, instance=node.plugin.instance)
            self.log.error("{text}", text=text)
        for node in list(self._opened):
            if node not in self.graph.nodes:
                self._opened.remove(node)
                try:
                    yield node.plugin.stop()
                except Exception as error:
                    self.report(node.plugin, error)

    def _enough(self, _: object) -> None:
        """At the start: raises `StartError` where what could be opened is too little."""
        if not self.graph.stacks:
            raise StartError("no stack could start")
        if self.settings.strict and self.left_out:
            raise StartError("a stack could not start, and strict=1")

    def _keep_state(self) -> None:
        """Let all instances keep their state; privileges are dropped, and only sockets are open."""
        if self.state is None:
            return
        try:
            self.state.open()
        except StartError as error:
            if self.settings.strict:
                raise
            self.log.error("{error}", error=error)
            self.state, self._no_state = None, str(error)
            return
        for node in self.graph.nodes:
            self.keep_state_of(node)

    def keep_state_of(self, node: Node) -> None:
        """Let an instance keep its state, where there is a place for it."""
        if self.state is not None:
            self.guarded(node.plugin, partial(self.state.keep, node))

    def forget_state_of(self, node: Node) -> None:
        """An instance is gone, and has handed everything on."""
        if self.state is not None:
            self.guarded(node.plugin, partial(self.state.forget, node.ident))

    def _begin_ledger(self) -> None:
        """All is open, and no row is under way yet."""
        if self.state is None:
            return
        try:
            self.state.begin(self.graph, reactor)
        except OSError as error:
            self._no_ledger(error)
        self.left.lose(self.state.lost)

    def _no_ledger(self, error: OSError) -> None:
        assert self.state is not None
        self.log.error("state_dir {path}: {error}; a kill would lose rows that nobody counts",
                       path=str(self.state.path), error=error)  # fmt: skip

    @property
    def state_fault(self) -> str:
        """Why state is not kept at the moment; empty where it is, or where there is no state_dir."""
        if self.state is None or not self.state.fault:
            return self._no_state
        return f"state_dir {self.state.path} cannot be written: {self.state.fault}"

    def look_at_left(self) -> defer.Deferred[Any]:
        """Look for what instances that are gone have left on the disk."""
        return self.left.look(Present.of(self.graph, self.settings.state_dir, self.spool_options, self.left_out))

    def begin_ledger_again(self) -> None:
        """The graph was replaced in part."""
        if self.state is not None:
            try:
                self.state.begin_again(self.graph, {queue.output: queue.weight for queue in self.queues})
            except OSError as error:
                self._no_ledger(error)

    def _begin(self) -> None:
        self._begin_ledger()
        self.queues = queues(self.graph, self.pauses)
        for queue in self.queues:
            self.spools.read_back(queue)
        for node in self.graph.nodes:
            self.wakes.wake(node)
        starting.settle()
        for node in self.graph.inputs:
            self.guarded(node.plugin, node.plugin.begin)
        self._write_stats_regularly()
        self.succession.settle()
        signals.answer(signal.SIGHUP, lambda: reactor.callFromThread(self.hang_up))
        signals.answer(signal.SIGUSR2, lambda: reactor.callFromThread(self.read_now))
        stacks = [stack.spec.text for stack in self.graph.stacks]
        self.log.info("stacks running ({n}): {stacks}", n=len(stacks), stacks=" ".join(stacks))
        self.events.add("start", f"stacks running ({len(stacks)}): {' '.join(stacks)}")
        self.life.begin()
        self._try_question_logs()
        self._watch()
        self.look_at_left()

    def _watch(self) -> None:
        """Look at the rules of this configuration."""
        if self.alerts is None and self.rules:
            from ulogd_tw.alerting.watch import Alerts  # an HTTP client takes time to import

            self.alerts = Alerts(self)
        if self.alerts is not None:
            self.alerts.turn_to(self.rules)

    def _try_question_logs(self) -> None:
        """Say which store cannot be asked, as its questions cannot be written down."""
        for name, values in self.stores.items():
            from ulogd_tw.operating.question_log import fault

            if values.question_log and (why := fault(values.question_log)):
                self.log.error("[store:{name}] question_log: {why}; no question about this store is answered before",
                               name=name, why=why)  # fmt: skip
                self.events.add("mistake", f"[store:{name}] question_log: {why}")

    def guarded(self, plugin: Plugin, call: Callable[[], object]) -> None:
        """A step of the start or of a reload; its fault is reported, and the others go on."""
        try:
            call()
        except Exception as error:
            self.report(plugin, error)

    def _failed(self, failure: Any) -> None:
        if failure.check(UlogdError):
            self._on_fatal(failure.getErrorMessage())
        else:
            self.log.failure("start", failure)
            self._on_fatal("the service could not start")

    def _end(self, text: str) -> None:
        """End the process with status 1, as ulogd2 does; twistd has removed its pidfile by then."""
        self.log.critical("{text}", text=text)
        notify.failed(text)
        self._fatal = text
        if reactor.running:
            atexit.register(_exit_failed)
            reactor.stop()

    # run

    def _clock_set(self, step: float) -> None:
        """The wall clock was set: durations go on, stamps and intervals follow it."""
        way = "forward" if step > 0 else "back"
        self.log.warn("the clock was set {way} by {n:.1f} s", way=way, n=abs(step))
        self.events.add("clock_set", f"the clock was set {way} by {abs(step):.1f} s")
        for node in self.graph.nodes:
            try:
                node.plugin.clock_set(self.clock(), step)
            except Exception as error:
                self.report(node.plugin, error)

    def report(self, plugin: Plugin, error: Exception) -> None:
        """Count a fault of a plugin, and log it at most once a minute for each kind."""
        kind = plugin.counters.fault(error)
        count = self._limit.take(f"{plugin.instance} {kind}", time.monotonic())
        if not count:
            return
        more, shown = left_out(count), in_words(error)
        if isinstance(error, MemoryError):
            shown = str(lacks_memory(error))
        elif not isinstance(error, (UlogdError, OSError)):
            more += "\n" + "".join(traceback.format_exception(error))
        self.log.error(
            "{instance}:{plugin}: {kind}: {error}{more}",
            instance=plugin.instance, plugin=plugin.name, kind=kind, error=shown, more=more,
        )  # fmt: skip

    def _catch_up(self) -> None:
        """The inputs read what has arrived: a signal holds for all that came before it."""
        for node in self.graph.inputs:
            try:
                node.plugin.catch_up()
            except Exception as error:
                self.report(node.plugin, error)

    def hang_up(self) -> None:
        """SIGHUP: files are opened again; with ``reload=1`` the configuration is read again first."""
        self.reopen()
        if self.settings.reload:
            self.reload().addErrback(lambda failure: None)  # which is in the log

    def reopen(self) -> None:
        """SIGHUP: the log and all plugins open their files again."""
        self._catch_up()
        for log in self._logs():
            log.reopen()
        for node in self.graph.nodes:
            try:
                node.plugin.reopen()
            except Exception as error:
                self.report(node.plugin, error)

    def read_now(self) -> None:
        """SIGUSR2: the inputs give their present state."""
        self._catch_up()
        for node in self.graph.inputs:
            try:
                node.plugin.read_now()
            except Exception as error:
                self.report(node.plugin, error)

    def write_stats(self) -> None:
        try:
            metrics.write_file(self.settings.stats_file, metrics.snapshot(self.graph))
        except OSError as error:
            if self._limit.take("stats_file", time.monotonic()):
                self.log.error(
                    "stats_file {path}: {error}", path=self.settings.stats_file, error=error.strerror or error
                )

    # reload

    @defer.inlineCallbacks
    def reload(self) -> Any:
        """Read the configuration again and carry out the changes; fires with them, a line each.

        `reloading.Refused` where the new configuration has mistakes: the service goes on with the old one.
        """
        if self._changing.locked:
            raise reloading.Refused(["a reload or the stop is under way"])
        yield self._changing.acquire()
        notify.reloading()
        try:
            changes = yield reloading.Reload(self).run()
        except Exception as error:
            if not isinstance(error, UlogdError):
                self.log.failure("reload")
            self.log.error("the configuration is not reloaded, the former one stays in use: {why}", why=error)
            self.events.add("reload_refused", str(error))
            raise
        else:
            self.succession.settle()
            self.look_at_left()
            self.log.info("reloaded {file}: {changes}", file=self.file, changes="; ".join(changes) or "nothing changed")
            self.events.add("reload", "; ".join(changes) or "nothing changed")
            return changes
        finally:
            self._changing.release()
            self.life.say_ready()

    def restart(self) -> defer.Deferred[dict[str, Any]]:
        """End in order and begin anew, with the sockets; the answer of the API.

        `reloading.Refused` where a stack could not start with the configuration of now. Under systemd nothing is done
        here: the unit in the answer has to be restarted.
        """
        looked = threads.deferToThread(why_no_restart, self.file, self.graph, self.left_out)
        return looked.addCallback(self._restart)

    def _restart(self, mistakes: list[str]) -> dict[str, Any]:
        if mistakes:
            raise reloading.Refused(mistakes)
        if name := unit():
            return {"restarting": False, "unit": name}
        if why := self.succession.obstacle():
            return {"restarting": False, "error": why}
        self.log.info("the service restarts")
        self.events.add("restart", "the service restarts")
        self.succession.executes = True
        reactor.callLater(_ANSWER_S, reactor.stop)
        return {"restarting": True}

    def opened(self, node: Node, former: Node | None = None) -> None:
        """A node of the new graph is open, perhaps with the instance of a former one."""
        if former in self._opened:
            self._opened.remove(former)
        self._opened.append(node)

    def turn_to(self, graph: Graph, wants: dict[Node, dict[str, Any]], built: Any) -> None:
        """Have this graph and these settings from now on."""
        before, self.settings = self.settings, built.settings
        self.stores, self.rules = built.stores, built.alerts
        self.text = built.config.text
        self.mistakes, self.sections, self.left_out = tuple(built.mistakes), built.sections, []
        self.spool_options = built.spools
        self.graph, self.wants = graph, wants
        if before.texts.get("loglevel") != self.settings.texts.get("loglevel"):
            for log in self._logs():
                log.set_level(self.settings.loglevel)
        if self._stats is not None:
            self._stats.stop()
            self._stats = None
        self._write_stats_regularly()
        self._try_question_logs()
        self._watch()

    def left_out_texts(self) -> list[str]:
        """Each stack that is left out, with its place and the reason."""
        return [f"{one['where']}: stack {one['text']} is left out: {one['reason']}" for one in self.left_out]

    def drop(self, queue: OutputQueue, reason: str) -> None:
        """Rows that no output can take."""
        rows = sum(batch.n for batch in queue.left())
        queue.counters.dropped[reason] += rows
        if rows:
            text = plural(rows, "row is", "rows are")
            self.log.error("{node}: {rows} dropped, since it cannot be opened", node=queue.node.ident, rows=text)

    def _write_stats_regularly(self) -> None:
        if self.settings.stats_file:
            self._stats = task.LoopingCall(self.write_stats)
            self._stats.start(self.settings.stats_interval)

    def _logs(self) -> list[LogFile]:
        return [sibling for sibling in self.parent or () if isinstance(sibling, LogFile)]

    # end

    def input_ended(self) -> None:
        """An input with `exits` is at its end; after the last of them the service ends."""
        if not self._finishing and all(n.plugin.at_end for n in self.graph.inputs if n.plugin.exits):
            self._finishing = True
            self._finish().addErrback(self._failed)

    @defer.inlineCallbacks
    def _finish(self) -> Any:
        """Stop when every row is written, or after `PATIENCE_S` seconds without a written row."""
        written, since = None, reactor.seconds()
        while self.running and self._unwritten():
            counters = [node.plugin.counters for node in self.graph.filters + self.graph.outputs]
            before, written = written, [(c.rows_emitted, c.rows_received, c.rows_waiting) for c in counters]
            if written != before:
                since = reactor.seconds()
            elif reactor.seconds() - since >= max(PATIENCE_S, self.settings.stop_timeout):
                break
            yield task.deferLater(reactor, 0.05)
        if self.running and reactor.running:
            reactor.stop()

    def _unwritten(self) -> bool:
        """Whether rows of a finished input are still on their way."""
        kept = (n.plugin for n in self.graph.filters if isinstance(n.plugin, Aggregator) and n.plugin.source.at_end)
        return any(aggregator.holds for aggregator in kept) or not all(queue.empty for queue in self.queues)

    # stop

    @defer.inlineCallbacks
    def stopService(self) -> Any:
        super().stopService()
        yield self._changing.acquire()
        for number in (signal.SIGTERM, signal.SIGINT):  # Twisted would log an error for a second one
            signals.answer(number, lambda: reactor.callFromThread(self._stops_already))
        self.life.end(self.settings.stop_timeout + _LAST_WRITES_S)
        deadline = reactor.seconds() + self.settings.stop_timeout
        self.succession.stop()
        if self.alerts is not None:
            yield self.alerts.stop()
        yield self._look_ahead()
        for part in self.graph.parts():
            yield self._stop_part(part, deadline)
        for queue in self.queues:
            self.spools.leave(queue)
        yield self.left.stop()
        if self.state is not None:
            yield self.state.end()
        if self._stats is not None:
            self._stats.stop()
            self.write_stats()
        self.succession.end()
        unaccounted = self.graph.unaccounted()
        if unaccounted:
            self.log.error("rows missing from every counter (a bug, please report it): {rows}", rows=unaccounted)

    @defer.inlineCallbacks
    def _look_ahead(self) -> Any:
        """Note the aggregates whose groups the next start would not go on with: they hand them on."""
        if self.file and any(isinstance(node.plugin, Aggregator) and node.plugin.kept() for node in self.graph.filters):
            try:
                self._not_continued = yield threads.deferToThread(not_continued, self.file, self.graph.filters)
            except Exception:  # the stop goes on: groups are kept, and the next start sees what it can do with them
                self.log.failure("a look at {file}", file=self.file)

    def _stops_already(self) -> None:
        self.log.info("the stop is under way; it takes as long as rows are written, up to stop_timeout={seconds:g} s",
                      seconds=self.settings.stop_timeout)  # fmt: skip

    @defer.inlineCallbacks
    def _stop_part(self, part: Graph, deadline: float) -> Any:
        """Stop the stacks of one part: inputs, then aggregates, then queues, then outputs."""
        queues = [queue for queue in self.queues if queue.node in part.outputs]
        for node in part.inputs:
            yield self.stop_node(node, deadline)
        for node in part.nodes:
            if not isinstance(node.plugin, Output):
                self.wakes.cancel(node)
        for node in part.filters:
            if isinstance(node.plugin, Aggregator):
                self._flush(node, node.plugin)
        for queue in queues:
            queue.leave_rest()
            yield self.within(queue.drained(), deadline, queue.node)
            queue.close()
        for node in part.filters + part.outputs:
            self.wakes.cancel(node)
            yield self.stop_node(node, deadline + 5)

    def _flush(self, node: Node, aggregator: Aggregator) -> None:
        """Emit the groups of an aggregate, or keep them for an instance that goes on with them."""
        if node not in self._not_continued:
            aggregator.flush()
            return
        self.log.info("{node}: its groups are handed on, since {file} has no such instance with the same settings",
                      node=node.ident, file=self.file)  # fmt: skip
        aggregator.hand_on()

    @defer.inlineCallbacks
    def stop_node(self, node: Node, deadline: float) -> Any:
        """Stop an instance. It is not woken any more: a stop may take time, and what it has closed is not there."""
        self.wakes.cancel(node)
        if node in self._opened:
            node.plugin.stop_within = max(deadline - reactor.seconds(), 0.0)
            self._opened.remove(node)
            yield self.within(defer.maybeDeferred(node.plugin.stop), deadline, node)

    @defer.inlineCallbacks
    def within(self, waiting: defer.Deferred[Any], deadline: float, node: Node) -> Any:
        """Wait for a Deferred until the deadline; a fault is reported, and the stop goes on."""
        waiting.addTimeout(max(deadline - reactor.seconds(), 0.01), reactor)
        try:
            yield waiting
        except defer.TimeoutError:
            self.log.warn("{node} did not end within stop_timeout", node=f"{node.ident}:{node.plugin.name}")
        except Exception as error:
            self.report(node.plugin, error)


def _exit_failed() -> None:
    """The last act of the process: twistd itself exits with status 0 only."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)
