"""How many octets the kernel may queue for a netlink socket."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.logger import Logger

MOST = 256 << 20
"""Enough for a second of the fastest events; never used up where the reader keeps up."""
LEAST = 1 << 20
PART = 32
"""A socket may have this part of the memory; the kernel counts its own overhead beside it, as much again."""
_GROUP = Path("/sys/fs/cgroup/memory.max")


def memory() -> int:
    """Octets of memory of this machine, or of the container where that has fewer."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        return min(machine, int(_GROUP.read_text()))
    except (OSError, ValueError):  # no control group, or one without a limit ("max")
        return machine


def default() -> int:
    """The limit without an option: a part of the memory, so that a small router is not eaten by it."""
    return min(MOST, max(memory() // PART, LEAST))


def limit(receive_buffer: int, least: int = 0, most: int = 0) -> int:
    """The limit of these options; 0 means not given. ulogd2's maximum goes before all others."""
    wanted = receive_buffer or max(default(), least)
    return min(wanted, max(most, least)) if most else wanted


def tell(log: Logger, instance: str, in_force: int) -> None:
    """Log what the kernel granted."""
    log.info("{instance}: the kernel may queue {octets} octets (receive_buffer)", instance=instance, octets=in_force)
