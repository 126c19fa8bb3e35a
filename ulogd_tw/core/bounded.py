"""A mapping with room for so many."""

from __future__ import annotations

from typing import TypeVar

Name = TypeVar("Name")
Value = TypeVar("Value")


class Bounded(dict[Name, Value]):
    """A dict that forgets the entry set first when one too many comes. Reading does not make an entry younger."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def __setitem__(self, name: Name, value: Value) -> None:
        if name not in self and len(self) >= self.most:
            del self[next(iter(self))]
        super().__setitem__(name, value)
