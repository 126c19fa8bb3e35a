"""The process that runs queries for the service: it reads a query with its tables, writes the answer, and so on.

It has given up all rights but to compute. Descriptor 0 is a socket to the service: from there come pickles (the
request, the batches, None), back go lines of JSON.
"""

from __future__ import annotations

import json
import math
import os
import pickle
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import numpy.ma  # np.unique loads it at its first use, which a confined process cannot

from ulogd_tw.core.batch import Batch, Schema
from ulogd_tw.core.columns import Column, Octets
from ulogd_tw.core.keys import Key
from ulogd_tw.core.types import ADDRESS, FORMED, IPV6, TYPES, Type
from ulogd_tw.errors import QueryError
from ulogd_tw.operating import confinement, sql

MOST_OCTETS = 16 << 20
"""Maximum octets of an answer."""
_SAMPLE = 32
"""Rows that are rendered together: see `ulogd_tw.core.text.FEW`."""


@dataclass(frozen=True)
class Request:
    """A query, and the names of the columns of each table, some with their keys."""

    text: str
    columns: dict[str, tuple[str, ...]]
    keys: dict[str, dict[str, Key]] = field(default_factory=dict)
    most_rows: int = sql.MOST_ROWS
    most_octets: int = MOST_OCTETS


def main(parent: int, memory: int) -> None:
    """Serve the process `parent` on descriptor 0 until it closes it."""
    engine = sql.engine(memory)
    connection = socket.socket(fileno=0)
    warm(engine)
    confinement.bound_memory(memory)
    confinement.confine(parent)
    try:
        serve(engine, connection.makefile("rb", 1 << 18), connection.sendall, memory)
    except (EOFError, OSError):
        os._exit(0)


def warm(engine: sql.Engine) -> None:
    """Answer a query with a column of each type, so that all is loaded which can not be loaded later."""
    keys = {f"c{place}": Key(f"c{place}", of) for place, of in enumerate((*TYPES.values(), *FORMED.values()))}
    for name in [name for name, key in keys.items() if key.type is ADDRESS]:
        del keys[name]
    columns = {name: sample(key.type, _SAMPLE) for name, key in keys.items()}
    missing = {name: np.arange(_SAMPLE) < 1 for name in columns}
    batches = [Batch(Schema(list(keys.values())), columns, some, n=_SAMPLE, now=0.0) for some in ({}, missing)]
    request = Request("select * from agg1", {"agg1": tuple(columns)}, {"agg1": keys})
    tables = {"agg1": sql.Table(tuple(columns), batches, keys)}
    list(answer(engine, request, tables))
    engine.forget()


def sample(of: Type, n: int) -> Column:
    """Different values: equal ones are rendered once."""
    if of.dtype is None:
        return Octets.of([b"%08d" % row for row in range(n)])
    rows = np.arange(n).astype(of.dtype)
    return np.stack([rows, rows], 1) if of is IPV6 else rows


def serve(engine: sql.Engine, source: Any, send: Callable[[bytes], Any], memory: int) -> None:
    """Answer the queries of a file, one after the other. Raises EOFError behind the last; returns without memory."""
    while True:
        try:
            send(_answered(engine, source) + b"\n")
        except MemoryError:
            text = f"the query needs more memory than query_memory={memory >> 20}M; ask for fewer columns or rows"
            send(_error(text, ends=True) + b"\n")
            return
        engine.forget()


def _answered(engine: sql.Engine, source: Any) -> bytes:
    """The answer to the next query, or the reason why there is none. Nothing of the query is kept."""
    request, tables = read(source)
    try:
        return b"".join(answer(engine, request, tables))
    except QueryError as error:
        return _error(str(error))


def read(source: Any) -> tuple[Request, dict[str, sql.Table]]:
    """One request and its tables."""
    request = pickle.load(source)
    tables = {name: sql.Table(columns, [], request.keys.get(name, {})) for name, columns in request.columns.items()}
    while (part := pickle.load(source)) is not None:
        name, batch = part
        tables[name].batches.append(batch)
    return request, tables


def packed(name: str, batch: Batch) -> bytes:
    """A batch of a table as `read` takes it."""
    return pickle.dumps((name, batch), 5)


def answer(engine: sql.Engine, request: Request, tables: dict[str, sql.Table]) -> Iterator[bytes]:
    """The parts of an answer: a JSON object with columns, rows, and whether there are more. Raises `QueryError`."""
    found = engine.ask(request.text, tables)
    yield b'{"columns": ' + _json(found.columns) + b', "rows": ['
    octets = rows = 0
    for some in found.rows():
        for row in some:
            written = _json(row)
            if rows == request.most_rows or octets + len(written) > request.most_octets:
                if not rows:
                    raise QueryError(f"a row has more than {request.most_octets} octets")
                yield b'], "more": true}'
                return
            yield b", " + written if rows else written
            rows, octets = rows + 1, octets + len(written)
    yield b'], "more": false}'


def _error(text: str, ends: bool = False) -> bytes:
    """Why there is no answer; `ends`: the process takes no more queries."""
    return _json({"error": text, "ends": ends})


def _json(value: Any) -> bytes:
    try:
        return json.dumps(value, default=_plain, allow_nan=False).encode()
    except (TypeError, ValueError):
        return json.dumps(_plainly(value), default=_plain).encode()


def _plain(value: Any) -> Any:
    """A value that JSON does not have, as one that it has."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value).hex()
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, timedelta):
        return value.total_seconds()
    return str(value)


def _plainly(value: Any) -> Any:
    """The same with keys of maps as texts, and with null for what is no number. For values that JSON refuses."""
    if isinstance(value, dict):
        return {str(_plain(key)): _plainly(of) for key, of in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plainly(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
