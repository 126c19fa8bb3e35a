"""Answers worked out row by row in plain Python, as the documents define them."""

from collections import defaultdict

from tests.unit.flows.made import row_start, row_time

COUNTERS = {"octets": "octetDeltaCount", "packets": "packetDeltaCount"}


def taken(row, begin=None, end=None, ended=False):
    """Whether a flow is in a range: it overlaps the half-open range, or ended in it."""
    after = begin is None or row_time(row) >= begin
    return after and (end is None or (row_time(row) if ended else row_start(row)) < end)


def grouped(rows, by=(), every=None, sums=("octets", "packets", "flows"), **range_):
    """Sums of groups: (step, *keys) -> sums; a step is that of the end of the flow."""
    groups = defaultdict(list)
    for row in rows:
        if taken(row, **range_):
            step = () if every is None else (row_time(row) // every * every,)
            groups[(*step, *(row[name] for name in by))].append(row)
    return {key: [summed(some, name) for name in sums] for key, some in groups.items()}


def summed(rows, name):
    """A sum; None where no row has the counter."""
    if name == "flows":
        return len(rows)
    values = [row[COUNTERS[name]] for row in rows if row[COUNTERS[name]] is not None]
    return sum(values) if values else None


def spread(rows, every, begin=None, end=None):
    """Octets by step: each flow's octets come evenly, a millisecond one after the other, in whole octets."""
    steps = defaultdict(int)
    for row in rows:
        first, last = row_start(row), row_time(row)
        whole = last - first + 1
        octets = row["octetDeltaCount"] or 0
        for step in range(first // every * every, last + 1, every):
            low, high = max(step, first, begin or 0), min(step + every, last + 1, end or last + 1)
            if low < high:
                steps[step] += octets * (high - first) // whole - octets * (low - first) // whole
    return dict(steps)
