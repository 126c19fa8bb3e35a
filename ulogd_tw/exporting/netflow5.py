"""Rows as records of NetFlow v5, for collectors that know nothing else: IPv4, counters of 32 bits, nothing missing."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ulogd_tw.core.batch import Batch
from ulogd_tw.core.counters import Counters
from ulogd_tw.core.keys import NETFLOW5_KEYS
from ulogd_tw.exporting.directions import Direction, Find, directions
from ulogd_tw.ipfix.encoder import Records
from ulogd_tw.ipfix.netflow.packet import TEMPLATE5
from ulogd_tw.ipfix.uniflow import IPV6
from ulogd_tw.ipfix.wire_format import NetFlow5

EXTRA = {
    "nexthop": "ipNextHopIPv4Address", "input": "ingressInterface", "output": "egressInterface",
    "tcp_flags": "tcpControlBits", "tos": "ipClassOfService", "src_as": "bgpSourceAsNumber",
    "dst_as": "bgpDestinationAsNumber", "src_mask": "sourceIPv4PrefixLength", "dst_mask": "destinationIPv4PrefixLength",
}  # fmt: skip
"""Fields of a record that only the rows of another exporter have."""
_PLAIN = {"srcaddr": "source", "dstaddr": "destination", "srcport": "source_port", "dstport": "destination_port",
          "prot": "protocol"}  # fmt: skip
_MOST = 0xFFFFFFFF
_TYPES = {key.name: key.type.dtype for key in NETFLOW5_KEYS}


def _record() -> np.dtype:
    names, forms, offsets, at = [], [], [], 0
    keys = iter(NETFLOW5_KEYS)
    for field in TEMPLATE5.fields:
        if field.pen:  # what is not, is padding
            names.append(next(keys).name)
            forms.append(f">u{field.length}")
            offsets.append(at)
        at += field.length
    return np.dtype({"names": names, "formats": forms, "offsets": offsets, "itemsize": at})


_RECORD = _record()


def records(find: Find, batch: Batch, form: NetFlow5, counters: Counters) -> Iterator[Records]:
    """The records of all directions of the rows.

    Rows of IPv6 are dropped as ``ipv6``. Counters beyond 32 bits become several records with the same sum. A missing
    value is 0, because the format has no other way; numbers that are too large are 0 and counted as ``errors{unfit}``.
    """
    for direction in directions(find, batch):
        counters.figures["replies_without_packets"] += direction.left_out
        if direction.bits & IPV6:
            counters.dropped["ipv6"] += direction.n
            continue
        if direction.n:
            extra = _extra(find, batch, counters) if direction.n == batch.n and not direction.turned else {}
            yield _records(direction, form, extra, counters)


def _extra(find: Find, batch: Batch, counters: Counters) -> dict[str, np.ndarray]:
    found = {}
    for name, key in EXTRA.items():
        column = find(batch, key)
        if column is None or not isinstance(column.values, np.ndarray):
            continue
        unfit = column.values > np.iinfo(_TYPES[name]).max
        if column.missing is not None:
            unfit &= ~column.missing
        counters.errors["unfit"] += int(np.count_nonzero(unfit))
        found[name] = _filled(column.values, unfit if column.missing is None else unfit | column.missing)
    if not counters.errors["unfit"]:
        del counters.errors["unfit"]
    return found


def _records(direction: Direction, form: NetFlow5, extra: dict[str, np.ndarray], counters: Counters) -> Records:
    n, values = direction.n, direction.values
    columns = {name: _value(values, source, n) for name, source in _PLAIN.items()} | extra
    if "icmp" in values:  # type and code stand in the place of the destination's port
        type_and_code, missing = values["icmp"]
        is_icmp = np.ones(n, bool) if missing is None else ~missing
        columns["dstport"] = np.where(is_icmp, type_and_code, columns["dstport"])
        columns["srcport"] = np.where(is_icmp, 0, columns["srcport"])
    for name, source in (("first", "start"), ("last", "end")):
        if source in values:
            columns[name] = _uptimes(form, *values[source], counters)
    packets, octets = (_value(values, name, n).astype(np.uint64) for name in ("packets", "octets"))
    times = np.maximum(_times(packets), _times(octets))
    if (times > 1).any():
        columns = {name: np.repeat(column, times) for name, column in columns.items()}
        packets, octets = _shared(packets, times), _shared(octets, times)
        n = len(packets)
    out = np.zeros(n, _RECORD)
    for name, column in (columns | {"dPkts": packets, "dOctets": octets}).items():
        out[name] = column
    return Records(TEMPLATE5, out.view(np.uint8).reshape(n, _RECORD.itemsize))


def _uptimes(form: NetFlow5, ms: np.ndarray, missing: np.ndarray | None, counters: Counters) -> np.ndarray:
    told = form.tells(ms)
    if not told.all():
        unfit = ~told if missing is None else ~told & ~missing
        counters.errors["unfit"] += int(np.count_nonzero(unfit))
        missing = ~told if missing is None else missing | ~told
    return _filled(form.uptime(ms), missing)


def _times(counter: np.ndarray) -> np.ndarray:
    """Records that a counter needs."""
    return np.maximum((counter + np.uint64(_MOST - 1)) // np.uint64(_MOST), np.uint64(1)).astype(np.int64)


def _shared(counter: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Each number divided into some parts; the last part has the rest."""
    share = counter // times.astype(np.uint64)
    parts = np.repeat(share, times)
    parts[np.cumsum(times) - 1] += counter - share * times.astype(np.uint64)
    return parts


def _value(values: dict, name: str, n: int) -> np.ndarray:
    if name not in values:
        return np.zeros(n, np.uint64)
    return _filled(*values[name])


def _filled(column: np.ndarray, missing: np.ndarray | None) -> np.ndarray:
    return column if missing is None else np.where(missing, column.dtype.type(0), column)
