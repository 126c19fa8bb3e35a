"""Settings of the C library's memory allocator for short-lived columns."""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST = 32 << 20
"""Arrays up to this size come from the heap and go back there: the most that glibc allows (mallopt(3))."""
_KEPT = 64 << 20
"""Octets of free heap that stay with the process."""


def keep_freed_memory() -> None:
    """Let freed arrays be used again without asking the kernel: each new page would cost a fault of about 1 us.

    By default glibc returns arrays over 128 KiB at once, so every batch would touch new pages. Without glibc nothing
    happens.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGEST)
        mallopt(_M_TRIM_THRESHOLD, _KEPT)
