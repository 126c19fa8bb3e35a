"""Strings from the wire as UTF-8, for readers that take nothing else."""

from __future__ import annotations

import numpy as np

from ulogd_tw.core.columns import Coded, Octets, unpadded
from ulogd_tw.core.text import clean

_CONTINUED = 0xC0, 0x80
"""Mask and value of the octets inside a character of UTF-8."""


def valid(column: Octets | Coded) -> Octets | Coded:
    """Texts without the NULs of padding, and with U+FFFD for what is no UTF-8.

    Python looks only at values of which some are odd, one step each.
    """
    column = unpadded(column)
    if isinstance(column, Coded):
        return Coded(column.codes, [clean(value).encode() for value in column.values])
    plain = column.plain()
    first, last = int(plain.offsets[0]), int(plain.offsets[-1])
    data = plain.data[first:last]
    if not len(data) or int(data.max()) < 128 or _whole_characters(data, plain.offsets[:-1] - first):
        return plain
    return Octets.of([clean(value).encode() for value in plain.to_list()])


def _whole_characters(data: np.ndarray, starts: np.ndarray) -> bool:
    """Whether strings one after another are UTF-8, each by itself."""
    mask, inside = _CONTINUED
    begun = data[starts[starts < len(data)]]
    if ((begun & mask) == inside).any():
        return False
    try:
        data.tobytes().decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
