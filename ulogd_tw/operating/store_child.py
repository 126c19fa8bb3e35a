"""The process that reads stores for the service: it takes a question with the rows that wait, writes the answer, and so
on. It keeps DuckDB between questions, with the footers of files.

It may read the directories of stores and nothing else. Descriptor 0 is a socket to the service: from there come pickles
(the request, the batches, None), back go frames: a length, a kind, octets.
"""

from __future__ import annotations

import functools
import json
import os
import pickle
import select
import socket
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ulogd_tw.core.batch import Batch, Schema
from ulogd_tw.core.errors import UlogdError
from ulogd_tw.core.keys import Key, nearest, registry
from ulogd_tw.core.types import ADDRESS, FORMED, TYPES
from ulogd_tw.flows import filters, questions
from ulogd_tw.flows.answers import FORMS
from ulogd_tw.flows.asking import Asking, Event
from ulogd_tw.flows.errors import Vanished
from ulogd_tw.flows.held import Held, Moment, streams
from ulogd_tw.flows.reading import Reader
from ulogd_tw.flows.values import PLAIN, Column, kind_of, plain
from ulogd_tw.operating import confinement
from ulogd_tw.operating.nat_child import NatFiles, NatRequest
from ulogd_tw.operating.query_child import sample
from ulogd_tw.storing.stored_columns import StoredColumn

DATA, ERROR, VANISHED, END = b"d", b"e", b"v", b"z"
"""Kinds of frames: octets of the answer; why there is none, as JSON; a file that went away before the first octets; the
end of the answer, as JSON."""
HEAD = struct.Struct("<cI")
AGAIN = "again"
"""Stands behind rows that were not copied at one moment."""
CHUNK = 1 << 16
_SLACK = 512 << 20
"""Address space beyond the memory of DuckDB, for stacks of threads and the rows of an answer."""
_SAMPLE = 40
"""Rows of each column that is stored once before."""


@dataclass(frozen=True)
class Request:
    """A question to the stores of a group, and the form of the answer."""

    question: dict[str, Any]
    form: str
    moments: tuple[Moment, ...]

    @property
    def directories(self) -> tuple[str, ...]:
        """What the process has to read."""
        return tuple(moment.directory for moment in self.moments)


def main(parent: int, memory: int, threads: int, directories: Sequence[str]) -> None:
    """Serve the process `parent` on descriptor 0 until it closes it."""
    connection = socket.socket(fileno=0)
    reader = Reader(memory, later=True)
    warm(reader)
    confinement.bound_memory(memory + _SLACK)
    confinement.confine(parent, directories)
    reader.confine(threads, directories)
    try:
        asked = functools.partial(_readable, connection)
        serve(reader, connection.makefile("rb", 1 << 18), connection.sendall, asked)
    except (EOFError, ConnectionError):
        os._exit(0)


def warm(reader: Reader) -> None:
    """Store a column of each type and read it back in each form, so that all is loaded which cannot be later."""
    keys = {f"c{place}": Key(f"c{place}", of) for place, of in enumerate((*TYPES.values(), *FORMED.values()))}
    stored = [StoredColumn(key) for key in keys.values()]
    held = [key for key in keys.values() if key.type is not ADDRESS]
    missing = {key.name: np.arange(_SAMPLE) < 1 for key in held}
    columns = {key.name: sample(key.type, _SAMPLE) for key in held}
    batches = [Batch(Schema(held), columns, some, n=_SAMPLE, now=0.0) for some in ({}, missing)]
    for stream in streams(batches, stored):
        reader.holding("warm", stream)
    shown = [Column(column.name, PLAIN, kind_of(column.key)) for column in stored]
    rows = [row for part in reader.run('SELECT * EXCLUDE (arrival) FROM warm ORDER BY "c0"') for row in _rows(part)]
    head = {"columns": [column.described() for column in shown]}
    for form in FORMS.values():
        list(form([{"head": head}, {"rows": plain(rows, shown)}, {"end": {}}]))
    reader.drop("warm")
    filters.term('port domain or src net 192.0.2.0/24 or ingressInterfaceName ~ "^e" or not proto tcp')
    nearest("", registry.names())


def _rows(part: float | list[tuple]) -> list[tuple]:
    return [] if isinstance(part, float) else part


def _readable(connection: socket.socket) -> bool:
    return bool(select.select([connection], [], [], 0)[0])


def serve(reader: Reader, source: Any, send: Callable[[bytes], Any], asked: Callable[[], bool] = lambda: True) -> None:
    """Answer the questions of a file, one after the other; `asked`: the next has come. Raises EOFError at its end."""
    nat = NatFiles(reader.rows)
    while True:
        request, waiting = read(source)
        for kind, octets in answer(reader, request, waiting, nat):
            send(HEAD.pack(kind, len(octets)) + octets)
        nat.learn(asked)


def read(source: Any) -> tuple[Request | NatRequest | None, dict[str, list[Batch]]]:
    """One request and its rows; None for one whose rows were not copied at one moment."""
    request = pickle.load(source)
    waiting: dict[str, list[Batch]] = {moment.name: [] for moment in request.moments}
    whole = True
    while (part := pickle.load(source)) is not None:
        if part == AGAIN:
            whole = False
            continue
        name, batch = part
        waiting[name].append(batch)
    return request if whole else None, waiting


def packed(name: str, batch: Batch) -> bytes:
    """A batch of a store as `read` takes it."""
    return pickle.dumps((name, batch), 5)


def answer(
    reader: Reader, request: Request | NatRequest | None, waiting: dict[str, list[Batch]], nat: NatFiles
) -> Iterator[tuple[bytes, bytes]]:
    """The frames of an answer."""
    if request is None:
        yield VANISHED, _error("rows went out while they were copied")
        return
    end: dict[str, Any] = {}
    given = False
    try:
        if isinstance(request, NatRequest):
            end = nat.answer(request)
        else:
            for octets in FORMS[request.form](_watched(_events(reader, request, waiting), end)):
                for at in range(0, len(octets), CHUNK):
                    given = True
                    yield DATA, octets[at : at + CHUNK]
        yield END, json.dumps(end).encode()
    except Vanished as error:
        yield (ERROR if given else VANISHED), _error(error)
    except UlogdError as error:
        yield ERROR, _error(error)
    except OSError as error:
        yield ERROR, _error(f"{error.filename}: {error.strerror}")
    except MemoryError:
        yield ERROR, _error("the question needs more memory than a question may have; ask for fewer groups or flows")
    except Exception as error:  # a fault of the program costs one question
        yield ERROR, _error(f"a fault of the program itself: {type(error).__name__}: {error}")


def _events(reader: Reader, request: Request, waiting: dict[str, list[Batch]]) -> Iterator[Event]:
    question = questions.of(request.question)
    held = Held({moment.name: moment for moment in request.moments}, waiting)
    yield from Asking(reader, held, question, filters.term(question.match)).events()


def _watched(events: Iterator[Event], end: dict[str, Any]) -> Iterator[Event]:
    for event in events:
        end.update(event.get("end", ()))
        yield event


def _error(error: UlogdError | str) -> bytes:
    return json.dumps({"error": str(error), "status": getattr(error, "status", 2)}).encode()


def again() -> bytes:
    """Stands behind rows that were not copied at one moment."""
    return pickle.dumps(AGAIN, 5)
