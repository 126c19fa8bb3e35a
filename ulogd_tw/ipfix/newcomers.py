"""Transport Sessions that have not given a record yet: the first to go where there is no room for another one."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

from ulogd_tw.core.largest import Largest
from ulogd_tw.ipfix.session import Session

K = TypeVar("K", bound=Hashable)


class Newcomers(Generic[K]):
    """Sessions by key, each of a group: an address, or a network of addresses that one sender can forge.

    The oldest of the largest group goes first, so a sender that fills the table loses its own sessions.
    """

    def __init__(self) -> None:
        self._group_of: dict[K, Hashable] = {}
        self._groups: dict[Hashable, dict[K, Session]] = {}
        self._sizes: Largest[Hashable] = Largest()

    def __len__(self) -> int:
        return len(self._group_of)

    def enter(self, key: K, group: Hashable, session: Session) -> None:
        """A session begins."""
        self._group_of[key] = group
        self._groups.setdefault(group, {})[key] = session
        self._sizes.add(group)

    def leave(self, key: K) -> None:
        """A session has ended, or has given records."""
        group = self._group_of.pop(key, None)
        if group is None:
            return
        self._sizes.remove(group)
        del self._groups[group][key]
        if not self._groups[group]:
            del self._groups[group]

    def next_to_go(self, comes: Hashable) -> K | None:
        """The session that makes room for one of the group that `comes`; None if all have given records."""
        while (group := self._sizes.largest(comes)) is not None:
            key, session = next(iter(self._groups[group].items()))
            if not session.has_given:
                return key
            self.leave(key)
        return None
