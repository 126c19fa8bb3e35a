"""All rules of the running service: rows come from AGGREGATE, and messages go to receivers."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from twisted.internet import defer, reactor, task, threads
from twisted.logger import Logger

from ulogd_tw.alerting.evaluation import Evaluation
from ulogd_tw.alerting.faults import Faults
from ulogd_tw.alerting.grouping import Keyed
from ulogd_tw.alerting.receivers import RESEND_S, Commands, Poster, Receiver, receivers_of
from ulogd_tw.alerting.rules import Rule
from ulogd_tw.alerting.states import FIRING, Alert, Labels, States, described
from ulogd_tw.core import durable
from ulogd_tw.core.batch import Batch
from ulogd_tw.core.limited import RateLimitedLog
from ulogd_tw.operating.taps import Choice, Hanging

TICK_S = 1.0
SERVICE_S = 5.0
"""Seconds between two looks at exporters and losses."""
SAVE_S = 60.0
MOST_ROWS = 4_000_000
"""Rows of AGGREGATE that wait for the rules; further ones are counted as `rows_unseen`."""


class Watched:
    """One rule in the running service."""

    def __init__(self, rule: Rule, ulogd: Any, receivers: list[Receiver]) -> None:
        values = rule.values
        self.rule, self.receivers = rule, receivers
        self.states = States(rule.name, values.for_, values.keep, values.max_alerts)
        self.faults = None if rule.condition.of_flows else Faults(rule.condition, ulogd)
        self.evaluation: Evaluation | None = None
        self.end: int | None = None
        """The end of the last interval that was looked at."""
        self.resent = 0.0

    def prepare(self, interval: int) -> Evaluation:
        """The evaluation, for intervals of this length."""
        if self.evaluation is None or self.evaluation.interval != interval:
            choice = None if self.rule.term is None else Choice(self.rule.term).mask
            before, self.evaluation = self.evaluation, Evaluation(self.rule, interval, choice)
            if before is not None:
                self.evaluation.seen, self.evaluation.hours = before.seen, before.hours
        return self.evaluation

    @property
    def memory(self) -> Any:
        """What outlives a restart, if there is such a thing."""
        found = self.evaluation
        return None if found is None else found.hours if found.seen is None else found.seen


class Alerts:
    """The rules, from the start or a reload until the stop."""

    log = Logger()

    def __init__(self, ulogd: Any, clock: Any = reactor) -> None:
        self._ulogd, self._clock = ulogd, clock
        self.watched: dict[str, Watched] = {}
        self._hangings: dict[str, tuple[Any, Hanging]] = {}
        self._latest: dict[str, int] = {}
        self._batches: deque[tuple[str, Batch]] = deque()
        self.rows_unseen = 0
        self._ticks = task.LoopingCall(self._tick)
        self._ticks.clock = clock
        self._busy = False
        self._posts, self._commands = Poster(clock), Commands(clock)
        self._said = RateLimitedLog(clock.seconds)
        self._service_due = self._save_due = 0.0
        self._stopped = False

    def turn_to(self, rules: dict[str, Rule]) -> None:
        """Have these rules from now on; those that are as before keep their states."""
        for name, watched in list(self.watched.items()):
            if name not in rules or rules[name].texts != watched.rule.texts or rules[name].of != watched.rule.of:
                for receiver in watched.receivers:
                    receiver.stop()
                del self.watched[name]
        for name, rule in rules.items():
            if name not in self.watched:
                receivers = list(receivers_of(rule.values, self._posts, self._commands, self._ulogd.clock, self._clock))
                self.watched[name] = Watched(rule, self._ulogd, receivers)
        self._follow()
        if not self._ticks.running:
            self._ticks.start(TICK_S, now=False)

    def _follow(self) -> None:
        """Hang where the AGGREGATEs are now: a reload replaces the graph."""
        of: dict[str, set[str]] = {}
        for watched in self.watched.values():
            if watched.faults is None:
                of.setdefault(watched.rule.of.partition("#")[0], set()).add(watched.rule.condition.measure)
        nodes = {n.ident: n for n in self._ulogd.graph.filters
                 if n.plugin.name == "AGGREGATE" and n.plugin.instance.partition("#")[0] in of}  # fmt: skip
        for ident, (node, hanging) in list(self._hangings.items()):
            if nodes.get(ident) is not node or node is None or not hanging.hangs_at(node):
                hanging.remove()
                del self._hangings[ident]
        for ident, node in nodes.items():
            measures = of[node.plugin.instance.partition("#")[0]]
            node.plugin.watched = frozenset((*measures, "flows", "interval_start", *self._asked(node)))
            if ident not in self._hangings:
                hanging = Hanging(node, partial(self._take, ident))
                hanging.hang()
                self._hangings[ident] = node, hanging
        for watched in self.watched.values():
            for node, _ in self._of(watched.rule):
                watched.prepare(node.plugin.settings.interval)
                self._restore(watched)

    def _asked(self, node: Any) -> Iterator[str]:
        """Columns of expressions beyond the key."""
        have = {key.name for key in node.plugin.keys()}
        for watched in self.watched.values():
            if watched.rule.term is not None:
                yield from (name for name in watched.rule.term.keys() if name in have)

    def _of(self, rule: Rule) -> list[tuple[Any, Hanging]]:
        base = rule.of.partition("#")[0]
        return [one for ident, one in self._hangings.items() if base and ident.partition("#")[0] == base]

    # rows

    def _take(self, ident: str, batch: Batch) -> None:
        """Rows of an interval: they are looked at later, a rule in a turn of the reactor."""
        if sum(waiting.n for _, waiting in self._batches) + batch.n > MOST_ROWS:
            self.rows_unseen += batch.n
            self._said.add(self.log.warn, "rows", batch.n, "alerts: rows that came too fast to be looked at: {n}")
        elif batch.n:
            self._batches.append((ident, batch))
            self._work()

    def _work(self) -> None:
        if not self._busy and not self._stopped:
            self._busy = True
            done = task.Cooperator(scheduler=lambda call: self._clock.callLater(0.001, call)).cooperate(self._steps())
            done.whenDone().addCallbacks(self._idle, self._failed)

    def _idle(self, _: Any) -> None:
        self._busy = False

    def _failed(self, failure: Any) -> None:
        self._busy = False
        self._say(failure)

    def _say(self, failure: Any) -> None:
        """A fault of ours, or a directory that cannot be written: logged at most once a minute."""
        kind = str(failure.type)
        if failure.check(OSError):
            text = failure.getErrorMessage()
            self._said.say(self.log.error, kind, "alerts: {text}; what rules remember is not written", text=text)
        elif self._said.limit.take(kind, self._clock.seconds()):
            self.log.failure("alerts", failure)

    def _steps(self) -> Iterator[None]:
        """What waits, then the intervals that have ended."""
        while self._batches:
            ident, batch = self._batches.popleft()
            start = int(batch.columns["interval_start"][0])  # type: ignore[index]
            self._latest[ident] = max(self._latest.get(ident, 0), start)
            keyed: dict[tuple[str, ...], Keyed] = {}
            for watched in list(self.watched.values()):
                if watched.evaluation is not None and watched.rule.of.partition("#")[0] == ident.partition("#")[0]:
                    watched.evaluation.add(batch, start, keyed)
                    yield
        now = self._ulogd.clock()
        for watched in list(self.watched.values()):
            if watched.evaluation is not None and (end := self._ended(watched, now)) is not None:
                watched.end = end
                self._changed(watched, *watched.evaluation.at(end, now, watched.states.alerts))
                yield
        if self._clock.seconds() >= self._service_due:
            self._service_due = self._clock.seconds() + SERVICE_S
            for watched in list(self.watched.values()):
                if watched.faults is not None:
                    yield from watched.faults.look(now)
                    self._changed(watched, watched.faults.found)
                    yield

    def _ended(self, watched: Watched, now: float) -> int | None:
        """The end of the last interval whose rows are all here, if that was not looked at yet."""
        ends: list[int] = []
        for node, _ in self._of(watched.rule):
            plugin, interval = node.plugin, node.plugin.settings.interval
            if plugin.emitting:
                return None
            starts = plugin.starts()
            if plugin.source is not None and plugin.source.own_clock:
                if node.ident not in self._latest:
                    return None
                ends.append(self._latest[node.ident] + interval)
                continue
            late = plugin.settings.lateness if plugin.settings.time != "arrival" else 0
            end = int((now - late) // interval * interval)
            ends.append(min([end, *starts]))
        if not ends or (watched.end is not None and min(ends) <= watched.end):
            return None
        return min(ends)

    # alerts

    def _changed(self, watched: Watched, found: dict[Labels, float], beyond: int = 0) -> None:
        for alert in watched.states.update(self._ulogd.clock(), found, beyond):
            told = described(alert, watched.rule)
            text = f"{told['name']}: {told['summary']}"
            if alert.state == FIRING:
                self._ulogd.events.add("alert_firing", text, alert=alert.rule)
            else:
                self._ulogd.events.add("alert_resolved", text, alert=alert.rule)
            self._send(watched, alert, watched.receivers)

    @staticmethod
    def _send(watched: Watched, alert: Alert, receivers: list[Receiver]) -> None:
        alert.sent += len(receivers)
        message = described(alert, watched.rule)
        for receiver in receivers:
            receiver.put(message)

    def _tick(self) -> None:
        self._follow()
        self._work()
        now = self._clock.seconds()
        for watched in self.watched.values():
            again = [one for one in watched.receivers if one.name == "alertmanager" and not one.waiting]
            if again and now - watched.resent >= RESEND_S:
                watched.resent = now
                for alert in watched.states.alerts.values():
                    if alert.state == FIRING and self._ulogd.clock() - alert.fired >= RESEND_S / 2:
                        self._send(watched, alert, again)
        if now >= self._save_due:
            self._save_due = now + SAVE_S
            threads.deferToThread(self._write, self._saved()).addErrback(self._say)

    def listed(self) -> dict[str, Any]:
        """The alerts, and the rules with what was sent."""
        watched = list(self.watched.values())
        return {
            "alerts": [described(alert, one.rule) for one in watched for alert in one.states.listed()],
            "rules": [
                {
                    "name": one.rule.name,
                    "when": one.rule.values.when,
                    "match": one.rule.values.match,
                    "of": one.rule.of,
                    "pending": len(one.states.alerts) - one.states.firing,
                    "firing": one.states.firing,
                    "beyond": one.states.beyond,
                    "receivers": [
                        {"name": r.name, "sent": r.sent, "waiting": r.waiting, "lost": dict(r.lost)}
                        for r in one.receivers
                    ],
                }
                for one in watched
            ],
        }

    # memory

    def _place(self) -> Path | None:
        state = self._ulogd.state
        return None if state is None else Path(state.path) / "alerts"

    def _restore(self, watched: Watched) -> None:
        place, memory = self._place(), watched.memory
        if place is None or memory is None or memory.restored:
            return
        memory.restored = True
        path = place / f"{watched.rule.name}.npz"
        try:
            with np.load(path, allow_pickle=False) as arrays:
                if str(arrays["when"]) == watched.rule.values.when:
                    memory.restore(arrays)
        except FileNotFoundError:
            return
        except Exception as error:  # a damaged file: the rule begins without a memory
            self.log.error("alerts: {path}: {error}; [alert:{name}] begins without what it remembered",
                           path=str(path), error=error, name=watched.rule.name)  # fmt: skip

    def _saved(self) -> list[tuple[Path, dict[str, Any]]]:
        place = self._place()
        if place is None:
            return []
        return [
            (place / f"{name}.npz", watched.memory.saved() | {"when": np.array(watched.rule.values.when)})
            for name, watched in self.watched.items()
            if watched.memory is not None
        ]

    @staticmethod
    def _write(files: list[tuple[Path, dict[str, Any]]]) -> None:
        for path, arrays in files:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            durable.write(path, lambda file, arrays=arrays: np.savez(file, **arrays))  # type: ignore[misc]

    def stop(self) -> defer.Deferred[Any]:
        """The end: what rules remember is written."""
        self._stopped = True
        if self._ticks.running:
            self._ticks.stop()
        for _, hanging in self._hangings.values():
            hanging.remove()
        for watched in self.watched.values():
            for receiver in watched.receivers:
                receiver.stop()
        return threads.deferToThread(self._write, self._saved()).addErrback(self._say)
