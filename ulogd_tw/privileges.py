"""The capabilities that a service keeps when it changes to another user, and hands to the program executed after it.

The kernel asks for CAP_NET_ADMIN at each dump of connections, and for a large buffer of a new socket. A change from
root to a user drops it, unless the process asks to keep it; the others go (capabilities(7)).
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable

_VERSION_3 = 0x20080522
_SET_KEEPCAPS, _AMBIENT = 8, 47
_AMBIENT_IS_SET, _AMBIENT_RAISE, _AMBIENT_CLEAR_ALL = 1, 2, 4
_HANDED_ON = "ULOGD_TW_CAPABILITIES"
"""In the environment of a program executed anew: its capabilities are those that the process before chose itself."""
_MOST = 64
"""Capabilities that a mask has room for."""
_PLACES = {"CapEff": 0, "CapPrm": 1, "CapInh": 2}
"""Words of struct __user_cap_data_struct."""
Capabilities = Iterable[int]


def keep() -> None:
    """Before root becomes another user: its capabilities outlive that, until `keep_only`."""
    if os.geteuid() == 0:
        ctypes.CDLL(None).prctl(_SET_KEEPCAPS, 1, 0, 0, 0)


def keep_only(wanted: Capabilities) -> None:
    """After `keep`, if this process is not root any more: have these capabilities, and no others.

    This thread has them, and those that it makes.
    """
    if os.geteuid() == 0:
        return
    have, handed_on = of_process("CapPrm"), os.environ.pop(_HANDED_ON, "")
    if have and (handed_on or not of_process("CapAmb")):  # else somebody has chosen them for this process
        _set(have.intersection(wanted))
        if handed_on:  # for this program only: programs that it executes need none
            ctypes.CDLL(None).prctl(_AMBIENT, _AMBIENT_CLEAR_ALL, 0, 0, 0)


def hand_on(environment: dict[str, str]) -> None:
    """Let the program executed next, in this environment, have the capabilities of this process.

    Root needs nothing for that, and what somebody has chosen for this process it has anyway.
    """
    if os.geteuid() == 0 or of_process("CapAmb"):
        return
    environment[_HANDED_ON] = "1"
    libc = ctypes.CDLL(None)
    for capability in of_process("CapPrm") & of_process("CapInh"):
        libc.prctl(_AMBIENT, _AMBIENT_RAISE, capability, 0, 0)


def of_process(kind: str) -> set[int]:
    """The capabilities of this process: `CapPrm`, `CapEff`, `CapInh` or `CapAmb`; also where /proc is not mounted."""
    libc = ctypes.CDLL(None)
    if kind == "CapAmb":
        return {number for number in range(_MOST) if libc.prctl(_AMBIENT, _AMBIENT_IS_SET, number, 0, 0) == 1}
    header, data = (ctypes.c_uint32 * 2)(_VERSION_3, 0), (ctypes.c_uint32 * 6)()
    if libc.capget(header, data):
        return set()
    place = _PLACES[kind]
    mask = data[place] | data[place + 3] << 32
    return {number for number in range(_MOST) if mask >> number & 1}


def _set(capabilities: set[int]) -> None:
    """Have exactly these: permitted, effective and inheritable; none at all if the kernel refuses that."""
    mask = sum(1 << capability for capability in capabilities)
    words = [word for half in (mask & 0xFFFFFFFF, mask >> 32) for word in (half, half, half)]
    libc = ctypes.CDLL(None)
    header = (ctypes.c_uint32 * 2)(_VERSION_3, 0)
    if libc.capset(header, (ctypes.c_uint32 * 6)(*words)):
        libc.capset(header, (ctypes.c_uint32 * 6)())
