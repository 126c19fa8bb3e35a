"""Sockets that outlive their owner: a reload or a restart hands them on, with all that the kernel holds for them.

Owners of sockets announce them by name (`opened`). Before owners stop, `hold` duplicates every announced descriptor, so
that closing one loses nothing: the next owner takes it by name, in this process or in the one executed after it, or
from systemd, which keeps copies all the time (FDSTORE in sd_notify(3)).
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol
from weakref import WeakValueDictionary

from twisted.logger import Logger

from ulogd_tw.transports.addresses import Address

ENVIRONMENT = "ULOGD_TW_SOCKETS"
"""The descriptors of an executed process: JSON, name -> [number, notes]."""
_log = Logger()


class Owner(Protocol):
    """Whoever has a socket."""

    def fileno(self) -> int:
        """Its descriptor; negative when it is closed."""


@dataclass(eq=False)
class Kept:
    """A descriptor without an owner, and what its former owner noted: places in a ring, drops counted so far."""

    descriptor: int
    notes: dict[str, int] = field(default_factory=dict)
    inherited: bool = False
    """Whether it comes from another process: nobody in this one has it."""


def _stands_for(kept: Kept, address: Address) -> bool:
    with socket.socket(fileno=os.dup(kept.descriptor)) as one:
        return one.family == address.family and address.overlaps(Address(one.type, one.family, *one.getsockname()[:2]))


class Descriptors:
    """The announced sockets of this process by name, and those kept for the next owner."""

    def __init__(self) -> None:
        self._open: WeakValueDictionary[str, Owner] = WeakValueDictionary()
        self._kept: dict[str, Kept] = {}
        self._taken: dict[str, Kept] = {}
        self._adopted: set[str] = set()
        self.dropped: Callable[[str], None] = lambda name: None
        """Takes the name of an inherited socket that is given up: its other copies have to go too."""

    def opened(self, name: str, owner: Owner) -> None:
        """Announce a socket; `name` is unique in the process."""
        self._open[name] = owner

    def names(self) -> dict[str, int]:
        """The announced sockets that are open: name -> descriptor."""
        return {name: owner.fileno() for name, owner in sorted(self._open.items()) if owner.fileno() >= 0}

    def hold(self) -> None:
        """Keep a duplicate of every announced socket until it is taken or released."""
        for name, descriptor in self.names().items():
            self._keep(name, os.dup(descriptor))

    def _keep(self, name: str, descriptor: int, notes: dict[str, int] | None = None) -> None:
        if name in self._kept:
            os.close(self._kept.pop(name).descriptor)
        self._kept[name] = Kept(descriptor, notes or {})

    def holds(self, name: str) -> bool:
        """Whether this socket is handed on: its owner leaves filters and memberships of groups as they are."""
        return name in self._kept or name in self._taken

    def note(self, name: str, **notes: int) -> None:
        """What the next owner has to know, said by the former one at its end."""
        for kept in (self._kept.get(name), self._taken.get(name)):
            if kept is not None:
                kept.notes.update(notes)

    def adopted(self, name: str) -> bool:
        """Whether the present owner has taken over the socket of a former one."""
        return name in self._adopted or name in self._taken

    def all_notes(self) -> dict[str, dict[str, int]]:
        """What was noted of the kept sockets."""
        return {name: kept.notes for name, kept in self._kept.items() if kept.notes}

    def beside(self, name: str) -> list[str]:
        """The names of kept sockets with the same address as this one: ``name#1`` and so on, in order."""
        found = [kept for kept in self._kept if kept.startswith(name + "#")]
        return sorted(found, key=lambda kept: int(kept.rpartition("#")[2]))

    def take(self, name: str) -> socket.socket | None:
        """The kept socket of this name, once; it belongs to the caller from now on."""
        kept = self._kept.pop(name, None)
        if kept is None:
            return None
        self._taken[name] = kept
        return socket.socket(fileno=kept.descriptor)

    def give_up(self, address: Address) -> bool:
        """Close inherited sockets that stand in the way of this address; whether there were any."""
        found = [name for name, kept in self._kept.items() if kept.inherited and _stands_for(kept, address)]
        for name in found:
            os.close(self._kept.pop(name).descriptor)
            self.dropped(name)
        return bool(found)

    def notes(self, name: str) -> dict[str, int] | None:
        """What the former owner of a taken socket noted; None where the socket is new."""
        kept = self._taken.get(name)
        return None if kept is None else kept.notes

    def release(self) -> list[str]:
        """Close what nobody took; returns the names."""
        left, self._kept = self._kept, {}
        self._adopted, self._taken = self._adopted | set(self._taken), {}
        for kept in left.values():
            os.close(kept.descriptor)
        return sorted(left)

    # to and from another process

    def environment(self) -> dict[str, str]:
        """The variables that give the kept sockets to the process executed next; they are made inheritable."""
        for kept in self._kept.values():
            os.set_inheritable(kept.descriptor, True)
        known = {name: [kept.descriptor, kept.notes] for name, kept in self._kept.items()}
        return {ENVIRONMENT: json.dumps(known)} if known else {}

    def inherit(self, environment: Any = os.environ, others: Iterable[tuple[str, int, dict[str, int]]] = ()) -> None:
        """Take over the sockets of `environment` above, and others by name, descriptor and notes, such as systemd's."""
        for name, descriptor, notes in (*others, *_from_service(environment)):
            try:
                os.set_inheritable(descriptor, False)
            except OSError as error:
                _log.warn("the socket {name} was not handed on: {why}", name=name, why=error.strerror)
            else:
                self._keep(name, descriptor, notes)
                self._kept[name].inherited = True


def _from_service(environment: Any) -> Iterator[tuple[str, int, dict[str, int]]]:
    try:
        known = json.loads(environment.pop(ENVIRONMENT, "{}"))
        yield from [(str(name), int(number), dict(notes)) for name, (number, notes) in known.items()]
    except (ValueError, TypeError, AttributeError) as error:
        _log.warn("{variable} is not used: {why}", variable=ENVIRONMENT, why=error)


def name_of(*parts: object) -> str:
    """A name of these parts, joined with ``/``."""
    return "/".join(map(str, parts))


def bound_name(kind: int, protocol: int, where: Any) -> str:
    """The name of a socket of the Internet: its kind and the address that it is bound to."""
    word = "sctp" if protocol == socket.IPPROTO_SCTP else "udp" if kind == socket.SOCK_DGRAM else "tcp"
    return name_of(word, *where[:2])


def name_of_bound(bound: socket.socket) -> str:
    """As `bound_name`, of a socket that is bound."""
    return bound_name(bound.type, bound.proto, bound.getsockname())


descriptors = Descriptors()
"""Those of this process: descriptors are numbers of the whole process, too."""
