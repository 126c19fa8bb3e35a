"""Rights that a process gives up: files, sockets, memory without end, capabilities, an end after its parent's.

What a kernel does not have is left out: each of these is a second wall behind the first, which is what is asked of the
process. None of them can be taken back.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import struct
from collections.abc import Sequence

_NOBODY = 65534
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_CAPABILITY_VERSION_3 = 0x20080522
_LANDLOCK_CREATE_RULESET, _LANDLOCK_ADD_RULE, _LANDLOCK_RESTRICT_SELF = 444, 445, 446
_PATH_BENEATH, _READ = 1, 0b1100
"""A rule about what is below a directory; the rights to read files and to list directories."""
_MOST_FILES = 4096
_FILES = {1: 13, 2: 14, 3: 15, 5: 16}
"""Number of rights over files by version of Landlock, since which there are so many."""
_NETWORK, _SCOPES = 0b11, 0b11
"""Rights over TCP, since version 4; abstract sockets and signals of other processes, since version 6."""


def confine(parent: int, readable: Sequence[str] = ()) -> None:
    """Give up all rights but to compute and to use the open descriptors. The process ends with `parent`.

    With `readable` it may read files in these directories, as the user that it is; other threads must not be there yet.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    _give_way()
    if not readable:
        _be_nobody()
    _end_with(libc, parent)
    _without_capabilities(libc)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    _without_files(libc, readable)


def bound_memory(octets: int) -> None:
    """The process may have `octets` more of memory than it has now; more is refused to it by the kernel."""
    with open("/proc/self/statm", "rb") as file:
        present = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (present + octets, present + octets))


def _give_way() -> None:
    """The service goes before it on the processor, and it goes first where memory ends."""
    with contextlib.suppress(OSError):
        os.nice(10)
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")


def _be_nobody() -> None:
    """Root becomes nobody; a namespace may not know that user."""
    if os.geteuid() == 0:
        with contextlib.suppress(OSError):
            os.setgroups([])
            os.setresgid(_NOBODY, _NOBODY, _NOBODY)
            os.setresuid(_NOBODY, _NOBODY, _NOBODY)


def _end_with(libc: ctypes.CDLL, parent: int) -> None:
    """A signal ends the process when its parent has ended. A change of the user would undo it: it comes later."""
    libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def _without_capabilities(libc: ctypes.CDLL) -> None:
    """A service under systemd has some, which a process started by it has too."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    libc.capset(header, (ctypes.c_uint32 * 6)())


def _without_files(libc: ctypes.CDLL, readable: Sequence[str]) -> None:
    """No descriptor can be opened but of readable files, no path changed, no file grow."""
    _landlock(libc, readable)
    for kind in (resource.RLIMIT_FSIZE, resource.RLIMIT_CORE):
        resource.setrlimit(kind, (0, 0))
    most = min(_MOST_FILES, resource.getrlimit(resource.RLIMIT_NOFILE)[1]) if readable else 0
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _landlock(libc: ctypes.CDLL, readable: Sequence[str]) -> None:
    """Landlock with the readable directories alone: no other file, no TCP, no signal."""
    version = libc.syscall(_LANDLOCK_CREATE_RULESET, None, 0, 1)
    if version < 1:
        return
    files = (1 << _FILES[max(since for since in _FILES if since <= version)]) - 1
    rights = [files, _NETWORK if version >= 4 else 0, _SCOPES if version >= 6 else 0]
    count = 3 if version >= 6 else 2 if version >= 4 else 1
    ruleset = libc.syscall(_LANDLOCK_CREATE_RULESET, (ctypes.c_uint64 * 3)(*rights), count * 8, 0)
    if ruleset >= 0:
        for directory in readable:
            _let_read(libc, ruleset, directory)
        libc.syscall(_LANDLOCK_RESTRICT_SELF, ruleset, 0)
        os.close(ruleset)


def _let_read(libc: ctypes.CDLL, ruleset: int, directory: str) -> None:
    """Add a rule for one directory; one that is not there has none."""
    try:
        place = os.open(directory, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    rule = ctypes.create_string_buffer(struct.pack("=Qi", _READ, place))
    libc.syscall(_LANDLOCK_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0)
    os.close(place)
