"""``ulogd-tw flows``: asks for stored flows, of the running service or in directories, and prints the answer."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from ulogd_tw.flows import times
from ulogd_tw.flows.errors import Vanished
from ulogd_tw.operating.commands import flow_table, service
from ulogd_tw.operating.commands.errors import DONE, AskError
from ulogd_tw.operating.commands.text import printable

if TYPE_CHECKING:
    from ulogd_tw.flows.asking import Event

ATTEMPTS = 5
"""How often a question is asked of directories whose files are merged or deleted meanwhile."""


def flows(given: argparse.Namespace, out: TextIO) -> int:
    """Print flows, or sums of groups; the status is that of the answer."""
    if given.json:
        given.format = "json"
    directories = _directories(given)
    if directories and given.store:
        raise AskError("--store names a store of the service, and directories are read without it: leave one out")
    question = question_of(given, time.time())
    watched = _Watched(stored(directories, question) if directories else asked(given, question), sys.stderr)
    if given.format == "table":
        flow_table.write(watched, question, out)
    else:
        _write(watched, given.format, out)
    for note in watched.notes():
        print(f"ulogd-tw flows: {note}", file=sys.stderr)
    return watched.status


def question_of(given: argparse.Namespace, now: float) -> dict[str, Any]:
    """The question of a command line, as the API takes it. Raises `QuestionError` for times that are none."""
    begin, end = (None if text is None else times.moment(text, now) for text in (given.begin, given.end))
    every = None if given.every is None else times.span(given.every)
    total = given.by is None and every is None
    listing = total and given.sum is None
    columns = "short" if given.columns is None and given.format == "table" and listing else given.columns
    found = {
        "match": " ".join(given.expression) or None, "begin": begin, "end": end, "by": given.by, "top": given.top,
        "every": every, "sums": given.sum, "spread": given.spread or None, "ended": given.ended or None,
        "rest": given.rest or None, "order": given.order,
        "limit": given.limit, "total": (total and not listing) or None, "columns": columns,
        "offsets": _offsets(every, begin, now),
    }  # fmt: skip
    return {name: value for name, value in found.items() if value is not None}


def _offsets(every: int | None, begin: int | None, now: float) -> list[list[int]] | None:
    """Those of local time, where days are counted."""
    if every is None or every % times.DAY_MS:
        return None
    last = int(now * 1000) + 2 * times.DAY_MS  # no flow of a store ends later
    return [list(one) for one in times.offsets(begin or 0, last)]


# stores in directories


def _directories(given: argparse.Namespace) -> list[Path]:
    """The directories before the expression, which are taken out of it."""
    words, found = given.expression, []
    while words and _is_directory(words[0]):
        found.append(Path(words[0]))
        words = words[1:]
    given.expression = words
    return found


def _is_directory(word: str) -> bool:
    return word.startswith(("/", "./", "../")) or os.path.isfile(os.path.join(word, "store.json"))


def stored(directories: list[Path], body: dict[str, Any]) -> Iterator[Event]:
    """The answer from directories, read in this process. Raises `FlowsError`."""
    from ulogd_tw.flows import filters, questions, stores
    from ulogd_tw.flows.asking import Asking
    from ulogd_tw.flows.directories import Directories
    from ulogd_tw.flows.reading import Reader

    question = questions.of(body)
    term = filters.term(question.match)
    held = Directories([stores.read(directory) for directory in directories])
    reader = Reader()
    for attempt in range(1, ATTEMPTS + 1):
        given = False
        try:
            for event in Asking(reader, held, question, term).events():
                given = given or "rows" in event
                yield event
            return
        except Vanished:
            if given or attempt == ATTEMPTS:
                raise


# the running service


def asked(given: argparse.Namespace, question: dict[str, Any]) -> Iterator[Event]:
    """The answer of the running service. Raises `AskError`."""
    body = question | ({"store": given.store} if given.store else {}) | {"format": "events"}
    for line in service.of(given).posted_lines("stores/flows", body):
        event = json.loads(line)
        if "error" in event:
            raise AskError(event["error"])
        yield event


# what is printed


def _write(events: Iterable[Event], form: str, out: TextIO) -> None:
    from ulogd_tw.flows.answers import FORMS

    octets = getattr(out, "buffer", None)
    for part in FORMS[form](events):
        if octets is not None:
            octets.write(part)
        else:
            out.write(part.decode("utf-8", "replace"))
    (octets or out).flush()


class _Watched:
    """The events of an answer, with its progress on a terminal; then `status` and `notes()`."""

    def __init__(self, events: Iterable[Event], terminal: TextIO) -> None:
        self._events, self._terminal = events, terminal
        self._shown = terminal.isatty()
        self._end: dict[str, Any] = {}
        self._told = 0

    @property
    def status(self) -> int:
        """The exit status."""
        return self._end.get("status", DONE)

    def __iter__(self) -> Iterator[Event]:
        for event in self._events:
            if "progress" in event:
                self._progress(event["progress"])
                continue
            self._clear()
            if "end" in event:
                self._end = event["end"]
            yield event
        self._clear()

    def notes(self) -> Iterator[str]:
        """What there is to say about the answer."""
        yield from map(printable, self._end.get("notes", ()))
        if self._end.get("more"):
            yield f"there are more than these {self._end['rows']} rows; --limit N gives more"

    def _progress(self, percent: float) -> None:
        if self._shown:
            self._terminal.write(f"\r{percent:3.0f} % read ")
            self._terminal.flush()
            self._told = 1

    def _clear(self) -> None:
        if self._told:
            self._terminal.write("\r\x1b[K")
            self._terminal.flush()
            self._told = 0
