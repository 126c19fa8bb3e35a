"""When groups of an AGGREGATE go out by themselves: at an age, or when a key of them has changed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ulogd_tw.aggregation.group_table import SPAN
from ulogd_tw.aggregation.interval import IntervalTable
from ulogd_tw.aggregation.relocation import Leave
from ulogd_tw.aggregation.spans import Spans
from ulogd_tw.core.batch import Batch

if TYPE_CHECKING:
    from ulogd_tw.plugins.filters.aggregate import AGGREGATE

_LOOKS = 8
"""In the time of an age."""
_SECONDS_A_KEY = 3e-6
"""Between two looks because of changes, so that they take a twentieth of a core at most."""


def mistakes(config: Any, key_names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(option, what is wrong) of the options that say when rows go out."""
    if config.change and config.change not in key_names:
        yield "change", f"{config.change} is not in key"
    if config.window < 0 or config.window % config.interval:
        yield "window", f"{config.window} is no multiple of interval={config.interval}"
    others = {"window": ("age", "change"), "age": ("top",)}
    for name in [n for other in others if getattr(config, other) for n in others[other] if getattr(config, n)]:
        yield name, "does not go together with " + ("window" if name != "top" else "age")
    if config.age and config.time != "arrival":
        yield "age", f"does not go together with time={config.time}"
    if config.window and config.overflow == "evict":
        yield "overflow", "evict does not go together with window"


class Expiry:
    """Of one instance: every eighth of `age`, or each second, its groups are gone through where some have to go."""

    def __init__(self, plugin: AGGREGATE) -> None:
        config = plugin.config
        self._plugin = plugin
        self._age: float = config.age
        self._due: float | None = None
        self._change: str = config.change
        self._others = [name for name in plugin.key_names if name != config.change]
        self._spans = Spans(config.max_keys) if config.change else None

    def spanned(self, batch: Batch) -> Batch:
        """The batch with the span of each row, where it is asked for."""
        if self._spans is None:
            return batch
        find = self._plugin.find
        group = [find(batch, name) for name in self._others]
        return batch.with_columns({SPAN: self._spans.of(group, find(batch, self._change), batch.n)})

    def look(self, tallies: Sequence[IntervalTable], now: float) -> Leave | None:
        """Begin to go through the groups, if it is time; `now` in seconds since 1970."""
        keys = sum(map(len, tallies))
        every = self._age / _LOOKS if self._age else max(1.0, keys * _SECONDS_A_KEY)
        if self._due is not None and now < self._due:
            return None
        self._due = now + every
        ended = self._spans is not None and self._spans.any_ended
        limit = int((now - self._age + every) * 1000) if self._age else None
        if not keys or not ended and (limit is None or all(tally.born_after(limit) for tally in tallies)):
            return None
        return Leave(tallies, limit, self._spans.ended() if ended else np.zeros(0, np.uint64))
