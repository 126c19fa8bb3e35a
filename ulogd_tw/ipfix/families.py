"""Templates with addresses of both families, of which a record has one: the other is zeros (Cisco's MPLS templates)."""

from __future__ import annotations

import numpy as np

from ulogd_tw.core import types
from ulogd_tw.core.batch import Batch
from ulogd_tw.core.columns import numbers

_IPV4 = ("sourceIPv4Address", "destinationIPv4Address")
_IPV6 = ("sourceIPv6Address", "destinationIPv6Address")


def by_family(batch: Batch) -> list[Batch]:
    """The batch, or its IPv4 and IPv6 rows apart with schemas that say so. All have all columns."""
    schema = batch.schema
    four = [name for name in _IPV4 if name in schema and schema[name].type is types.IPV4]
    six = [name for name in _IPV6 if name in schema and schema[name].type is types.IPV6]
    if not four or not six:
        return [batch]
    none = np.logical_and.reduce([numbers(batch.columns[name]) == 0 for name in four])
    if not none.any():
        return [batch]
    rows = none & np.logical_or.reduce([np.any(numbers(batch.columns[name]) != 0, axis=1) for name in six])
    found = [] if rows.all() else [batch.take(~rows)]
    if rows.any():
        part = batch if rows.all() else batch.take(rows)
        found.append(Batch(schema.of_ipv6(), part.columns, part.missing, n=part.n, now=part.now, held=part.held))
    return found
