"""Terms that no row can make true: numbers that do not fit into their keys, such as port 99999."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ulogd_tw.core.keys import known
from ulogd_tw.core.readable import type_of
from ulogd_tw.match.terms import Compare, InNumbers, OfKey, Term


def never(term: Term) -> Iterator[tuple[int, str]]:
    """(column, what is wrong) of each such term; a range counts where all of it is outside."""
    seen = set()
    for one in term.terms():
        if not isinstance(one, Compare | InNumbers) or one.column in seen or (fits := _fitting(one)) is None:
            continue
        low, high = fits
        if not _possible(one, low, high):
            seen.add(one.column)
            yield one.column, f"this is never true: {one.names[0]} has numbers from {low} to {high}; write one of them"


def _fitting(term: OfKey) -> tuple[int, int] | None:
    """The least and the greatest number of the keys of a term; None where one of them has no such bounds."""
    ends = []
    for name in term.names:
        key = known(name.partition("@")[0])
        dtype = type_of(key.type).dtype if key is not None else None
        if dtype is None or dtype.kind not in "ui":
            return None
        ends.append(np.iinfo(dtype))
    return min(int(end.min) for end in ends), max(int(end.max) for end in ends)


def _possible(term: Compare | InNumbers, low: int, high: int) -> bool:
    """Whether a number from `low` to `high` makes the term true."""
    if isinstance(term, InNumbers):
        given = term.numbers.given
        return not given or any(first <= high and last >= low for first, last in given)
    value = term.value
    return {
        "=": low <= value <= high, "!=": True, "<": low < value, "<=": low <= value, ">": high > value,
        ">=": high >= value,
    }[term.sign]  # fmt: skip
