"""The states of alerts: pending, firing, resolved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

PENDING, FIRING, RESOLVED = "pending", "firing", "resolved"
Labels = tuple[tuple[str, str], ...]
KEPT_RESOLVED_S = 3600.0
"""Resolved alerts are shown for so long."""
MOST_RESOLVED = 100


@dataclass
class Alert:
    """One alert: a rule, and the key for which it is true. Times are seconds since 1970."""

    rule: str
    labels: Labels
    value: float
    since: float
    state: str = PENDING
    below: float | None = None
    """Since when the condition is not true any more, while it still fires."""
    fired: float = 0.0
    ended: float = 0.0
    sent: int = 0
    """Messages handed to receivers."""


class States:
    """All alerts of one rule. `hold` seconds of a true condition make an alert fire, `keep` of an untrue one end it."""

    def __init__(self, rule: str, hold: float, keep: float, most: int) -> None:
        self._rule, self._hold, self._keep, self._most = rule, hold, keep, most
        self.alerts: dict[Labels, Alert] = {}
        self.resolved: list[Alert] = []
        self.beyond = 0
        """Keys of the last look for which there was no room."""

    @property
    def firing(self) -> int:
        """How many fire."""
        return sum(alert.state == FIRING for alert in self.alerts.values())

    def update(self, now: float, found: Mapping[Labels, float], beyond: int = 0) -> list[Alert]:
        """Take the keys for which the condition is true now, with their values. Gives alerts that fire or end."""
        changed: list[Alert] = []
        self.beyond = beyond
        for labels, value in found.items():
            alert = self.alerts.get(labels)
            if alert is None:
                if len(self.alerts) >= self._most:
                    self.beyond += 1
                    continue
                alert = self.alerts[labels] = Alert(self._rule, labels, value, now)
            alert.value, alert.below = value, None
            if alert.state == PENDING and now - alert.since >= self._hold:
                alert.state, alert.fired = FIRING, now
                changed.append(alert)
        for labels, alert in list(self.alerts.items()):
            if labels not in found:
                self._untrue(labels, alert, now, changed)
        fresh = [alert for alert in self.resolved if now - alert.ended < KEPT_RESOLVED_S]
        self.resolved = fresh[-MOST_RESOLVED:]
        return changed

    def _untrue(self, labels: Labels, alert: Alert, now: float, changed: list[Alert]) -> None:
        if alert.state == PENDING:
            del self.alerts[labels]
            return
        alert.below = now if alert.below is None else alert.below
        if now - alert.below >= self._keep:
            del self.alerts[labels]
            alert.state, alert.ended = RESOLVED, now
            self.resolved.append(alert)
            changed.append(alert)

    def listed(self) -> list[Alert]:
        """Those that fire, then pending ones, then those that ended lately."""
        order = {FIRING: 0, PENDING: 1}
        return sorted(self.alerts.values(), key=lambda alert: order[alert.state]) + self.resolved[::-1]


def described(alert: Alert, rule: Any) -> dict[str, Any]:
    """An alert for people and programs."""
    labels = dict(alert.labels)
    return {
        "name": rule.summary_name(labels),
        "rule": alert.rule,
        "state": alert.state,
        "since": alert.fired if alert.state != PENDING else alert.since,
        "ended": alert.ended or None,
        "value": alert.value,
        "threshold": rule.condition.limit,
        "labels": labels,
        "summary": rule.summary(labels, alert.value),
        "sent": alert.sent,
    }
