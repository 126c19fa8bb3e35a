"""Records of variable length, walked one by one; and the check of `varying.locate` against that."""

import numpy as np

from tests.unit.ipfix.wire import VARIABLE
from ulogd_tw.ipfix.variable_length import Shape, locate


def walk(body, fields, before):
    """Offsets of records, of their values and their lengths; and whether the last record is cut."""
    found, at = [], before
    least = sum(1 if f == VARIABLE else f for f in fields)
    while len(body) - at >= least:
        row = [at]
        for field in fields:
            if field != VARIABLE:
                at += field
                continue
            if at >= len(body):
                return found, True
            size, prefix = body[at], 1
            if size == 255:
                size, prefix = int.from_bytes(body[at + 1 : at + 3], "big"), 3
                if at + 3 > len(body):
                    return found, True
            row += [at + prefix, size]
            at += prefix + size
        if at > len(body):
            return found, True
        found.append(row)
    return found, False


def shape(fields):
    """The shape of these lengths, made by counting what stands before and after each variable field."""
    segments = []
    places = [i for i, f in enumerate(fields) if f == VARIABLE]
    for place, last in zip(places, [-1, *places], strict=False):
        skip = sum(fields[last + 1 : place])
        rest = sum(1 if f == VARIABLE else f for f in fields[place + 1 :])
        segments.append((skip, rest))
    least = sum(1 if f == VARIABLE else f for f in fields)
    return Shape(tuple(segments), sum(fields[places[-1] + 1 :]), least)


def check_located(bodies, before, fields):
    """`locate` finds in these bodies what the walk of each finds."""
    located = locate(bodies, before, shape(fields))
    offset, expected, counts, cut = 0, [], [], []
    for body in bodies:
        rows, broken = walk(body, fields, before)
        expected.append([tuple(v + offset if i % 2 or not i else v for i, v in enumerate(row)) for row in rows])
        counts.append(len(rows))
        cut.append(broken)
        offset += len(body)
    got_cut = located.cut.tolist() if located.cut is not None else [False] * len(bodies)
    assert cut == got_cut, (cut, got_cut)
    located.keep(~np.array(cut))
    columns = [located.starts]
    for i in range(fields.count(VARIABLE)):
        columns += located.values(i)
    whole = [row for rows, broken in zip(expected, cut, strict=True) if not broken for row in rows]
    found = list(zip(*(c.tolist() for c in columns), strict=True))
    assert whole == found, (whole, found)
    counts = [0 if b else n for n, b in zip(counts, cut, strict=True)]
    assert counts == located.counts.tolist(), (counts, located.counts)
    assert len(whole) == len(located)
