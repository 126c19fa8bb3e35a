"""Records of captures and headers of packets (packets.c)."""

from __future__ import annotations

import numpy as np

from ulogd_tw.kernels import ffi, lib


def records(memory: np.ndarray, at: int, end: int, place: int, big_endian: bool, more: int, least: int) -> np.ndarray:
    """The beginnings of the records from `at` on, while `least` octets of each are there before `end`.

    Behind them is the next place, unless the last record has less than `least` octets. A record says its octets, but
    for `more`, in 32 bits at `place`. `memory` is uint8.
    """
    assert end <= len(memory), f"{end} octets of {len(memory)}"
    found = np.empty(max(end - at, 0) // least + 1, np.int64)  # pages that are not reached take no memory
    n = lib.ut_records(ffi.from_buffer("uint8_t[]", memory), end, at, place, big_endian, more, least,
                       ffi.from_buffer("int64_t[]", found), len(found))  # fmt: skip
    assert n > 0, "records overlap"
    return found[:n]
