"""Counts by key, and which key has the most."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Largest(Generic[K]):
    """How many of something each key has. Each step costs the same, however many keys there are."""

    def __init__(self) -> None:
        self._counts: dict[K, int] = {}
        self._keys: dict[int, dict[K, None]] = {}
        self._most = 0

    def __getitem__(self, key: K) -> int:
        return self._counts.get(key, 0)

    def __len__(self) -> int:
        """Keys that have some."""
        return len(self._counts)

    def add(self, key: K) -> None:
        """One more."""
        self._move(key, self[key] + 1)

    def remove(self, key: K) -> None:
        """One less; the key must have some."""
        self._move(key, self._counts[key] - 1)

    def largest(self, rather: K | None = None) -> K | None:
        """The key that has the most; of several `rather` this one, else the one that has had so many for longest."""
        if not self._most:
            return None
        keys = self._keys[self._most]
        return rather if rather in keys else next(iter(keys))

    def _move(self, key: K, count: int) -> None:
        before = self._counts.pop(key, 0)
        if before:
            del self._keys[before][key]
            if not self._keys[before]:
                del self._keys[before]
        if count:
            self._counts[key] = count
            self._keys.setdefault(count, {})[key] = None
        self._most = max(self._most, count)
        while self._most and self._most not in self._keys:  # one step, as counts change by one
            self._most -= 1
