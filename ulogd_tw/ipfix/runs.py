"""Neighbouring rows of one template in a batch of several."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import numpy as np

from ulogd_tw.ipfix.context import Source
from ulogd_tw.ipfix.session import KnownTemplate


def by_template(sources: Sequence[Source], counts: np.ndarray) -> list[tuple[KnownTemplate, int, int]]:
    """The template of neighbouring rows, the first of them, one after the last."""
    found, at = [], 0
    pairs = zip((source[0] for source in sources), np.asarray(counts).tolist(), strict=True)
    for _, group in groupby(pairs, key=lambda pair: id(pair[0])):
        same = list(group)
        end = at + sum(count for _, count in same)
        found.append((same[0][0], at, end))
        at = end
    return found
