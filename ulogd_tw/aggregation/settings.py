"""The settings of an AGGREGATE, from its options."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from ulogd_tw.aggregation.functions import FunctionSpec


class Overflow(Enum):
    """The action for a new key in a full table."""

    EMIT = "emit"
    OTHER = "other"
    REFUSE = "refuse"
    FOLD = "fold"
    EVICT = "evict"

    @property
    def waits(self) -> bool:
        """Whether rows that find no room are tried again when there is some."""
        return self in (Overflow.EMIT, Overflow.FOLD, Overflow.EVICT)


@dataclass(frozen=True)
class Settings:
    """The options of one AGGREGATE, under their names; `functions` are read, and `overflow` suits the window."""

    key: tuple[str, ...]
    functions: tuple[FunctionSpec, ...]
    top: int
    by: str
    max_sketches: int
    interval: int
    time: str
    lateness: int
    window: int
    age: float
    change: str
    totals: str
    max_keys: int
    overflow: Overflow
    state_file: str
    checkpoint: float

    @classmethod
    def of(cls, config: Any, key: Sequence[str], functions: Sequence[FunctionSpec]) -> Settings:
        """The settings of a configuration, whose `key` and `functions` are read already."""
        overflow = Overflow(config.overflow)
        if config.window and overflow is Overflow.EMIT:
            overflow = Overflow.FOLD
        read: dict[str, Any] = {"key": tuple(key), "functions": tuple(functions), "overflow": overflow}
        names = [name for name in cls.__dataclass_fields__ if name not in read]
        return cls(**read, **{name: getattr(config, name) for name in names})

    def mistakes(self) -> Iterator[tuple[str, str]]:
        """(option, mistake) of options that cannot be used together."""
        if self.top < 0:
            yield "top", "must be 0 or more"
        if self.change and self.change not in self.key:
            yield "change", f"{self.change} is not in key; add it there, or name a key that is in it"
        if self.window < 0 or self.window % self.interval:
            fitting = self.interval * max(self.window // self.interval, 2)
            yield "window", f"{self.window} is not a multiple of interval={self.interval}; write {fitting}, for example"
        others = {"window": ("age", "change"), "age": ("top",)}
        for name in [n for other in others if getattr(self, other) for n in others[other] if getattr(self, n)]:
            yield name, f"cannot be used with {'window' if name != 'top' else 'age'}; delete one of the two"
        if self.age and self.time != "arrival":
            yield "age", f"cannot be used with time={self.time}; write time=arrival, or delete age"
        if self.window and self.overflow is Overflow.EVICT:
            yield "overflow", "evict cannot be used with window; write emit, other, refuse or fold"
