"""Answers a question with a `Reader`: plans it, runs its statements, gives events.

Events are small dictionaries with one member: `head` (columns, parts), `progress` (percent), `rows` (lists of values
that JSON has), `end` (rows, more, notes, status). What cannot be read is said in the notes, and the rest is answered.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from ulogd_tw.core.keys import Key
from ulogd_tw.flows import gaps, statements
from ulogd_tw.flows.errors import FlowsError, QuestionError
from ulogd_tw.flows.plan import Part, Plan, Reach, plan
from ulogd_tw.flows.questions import Question, derived, sides
from ulogd_tw.flows.reading import MOST_BROKEN, Broken, Cut, Reader, filled, nothing, relation_of
from ulogd_tw.flows.series import chunks
from ulogd_tw.flows.statements import Source
from ulogd_tw.flows.stores import Store
from ulogd_tw.flows.times import shown
from ulogd_tw.flows.values import Column, plain, shape
from ulogd_tw.match import MatchError, Term
from ulogd_tw.match.sql import where
from ulogd_tw.storing.parquet.directory import StoredFile

DONE, NO, INCOMPLETE = 0, 1, 3
Event = dict[str, Any]


class Holdings(Protocol):
    """The stores of a group, and what they have."""

    stores: Sequence[Store]
    waiting_too: bool
    """Whether rows that are in no file yet are among them."""

    def reach(self, store: Store, reader: Reader) -> Reach | None:
        """The time of which a store has all rows; None for an empty one."""

    def cut(self, store: Store, begin: int | None, end: int | None) -> Cut:
        """The rows that can be of flows in a range."""


class Asking:
    """One question to one group of stores."""

    def __init__(self, reader: Reader, holdings: Holdings, question: Question, term: Term) -> None:
        self._reader, self._holdings, self._question, self._term = reader, holdings, question, term
        self._broken: set[Path] = set()
        self._tables: list[str] = []
        self._by_name = False
        self._notes: list[str] = []
        self._rows = 0
        self._more = False

    def events(self) -> Iterator[Event]:
        """The answer. Raises `FlowsError`, and `Vanished` where a file went away before the first rows."""
        holdings = self._holdings
        found = plan(self._question, self._term, holdings.stores, lambda store: holdings.reach(store, self._reader))
        try:
            cuts = [self._cut(part) for part in found.parts]
            yield {"head": self._head(found)}
            yield from self._listed(cuts) if self._question.listing else self._grouped(cuts)
            yield {"end": self._end(found)}
        finally:
            for name in self._tables:
                self._reader.drop(name)

    def _cut(self, part: Part) -> _PartCut:
        """The files of a part, and its waiting rows as a table."""
        end = self._question.end if part.end is None else part.end
        cut = self._holdings.cut(part.store, part.begin, end)
        self._notes += cut.notes
        waiting = []
        for stream in cut.waiting:
            name = f"waiting{len(self._tables)}"
            self._tables.append(name)
            waiting.append((name, self._reader.holding(name, stream)))
        return _PartCut(part, list(cut.files), waiting)

    def _head(self, found: Plan) -> dict[str, Any]:
        question = self._question
        return {
            "columns": [column.described() for column in self._columns(found)],
            "parts": [{"store": part.store.name, "begin": part.begin, "end": part.end} for part in found.parts],
            "begin": question.begin,
            "end": question.end,
        }

    def _columns(self, found: Plan) -> list[Column]:
        question = self._question
        if question.listing:
            return shape.listed(found.parts[-1].store, question.columns)
        store = found.parts[-1].store
        keys = [(name, _key(store, name)) for name in question.by]
        return shape.grouped(keys, question.sums, bool(question.every), question.rest)

    # groups

    def _grouped(self, cuts: Sequence[_PartCut]) -> Iterator[Event]:
        columns = self._columns_of(cuts)
        question = self._question
        cut = question.top if not question.every else None
        most = question.rows if cut is None else min(question.rows, cut + question.rest)
        statement = lambda sources: statements.groups(question, sources)  # noqa: E731
        yield from self._run(statement, cuts, columns, most)
        self._more = self._more and not (cut is not None and cut + question.rest <= question.rows)

    def _columns_of(self, cuts: Sequence[_PartCut]) -> list[Column]:
        return self._columns(Plan(tuple(cut.part for cut in cuts)))

    # flows themselves

    def _listed(self, cuts: Sequence[_PartCut]) -> Iterator[Event]:
        """Hour by hour, until there are enough."""
        (cut,) = cuts
        columns = self._columns_of(cuts)
        names = [column.name for column in columns[2:]]
        up = self._question.order.startswith("+")
        hours = list(chunks(cut.files, up))
        for done, (some, times) in enumerate(hours):
            left = self._question.rows - self._rows
            statement = lambda sources, t=times, n=left: statements.listing(self._question, sources, names, n + 1, t)  # noqa: E731
            yield from self._run(statement, [_PartCut(cut.part, some, cut.waiting)], columns, left)
            if self._more or self._rows >= self._question.rows and done + 1 < len(hours):
                self._more = True
                return
            yield {"progress": 100 * (done + 1) / len(hours)}

    # statements

    def _run(self, make: Any, cuts: Sequence[_PartCut], columns: Sequence[Column], most: int) -> Iterator[Event]:
        """Run a statement, again without files that cannot be read."""
        while True:
            try:
                yield from self._once(make(self._sources(cuts)), columns, most)
                return
            except Broken as error:
                self._mend(error, cuts)

    def _once(self, statement: str, columns: Sequence[Column], most: int) -> Iterator[Event]:
        given = 0
        for found in self._reader.run(statement):
            if isinstance(found, float):
                yield {"progress": found}
                continue
            rows = found[: most - given]
            self._more = self._more or len(found) > len(rows)
            given += len(rows)
            self._rows += len(rows)
            if rows:
                yield {"rows": plain(rows, columns)}

    def _sources(self, cuts: Sequence[_PartCut]) -> list[Source]:
        sources = []
        for cut in cuts:
            store = cut.part.store
            readable = [file for file in cut.files if file.path not in self._broken]
            if readable:
                relation = relation_of(readable, self._by_name)
                if self._by_name:
                    relation = filled(relation, self._reader.columns(relation), store.types)
                sources.append(self._source(cut.part, relation))
            sources += [self._source(cut.part, filled(name, have, store.types)) for name, have in cut.waiting]
            if not readable and not cut.waiting:
                sources.append(self._source(cut.part, nothing(store.types)))
        return sources

    def _source(self, part: Part, relation: str) -> Source:
        try:
            found = where(self._term, part.store.keys)
        except MatchError as error:
            raise QuestionError(str(error)) from None
        for table in found.tables:  # named by its content: once for all statements of the question
            if table.name not in self._tables:
                self._tables.append(table.name)
                for statement, parameters in table.statements():
                    self._reader.make(statement, parameters)
        return Source(part, relation + found.joins, found.text)

    def _mend(self, error: Broken, cuts: Sequence[_PartCut]) -> None:
        """Read the columns of each file by name, or leave out the files that cannot be read; else raise the error."""
        left = [file for cut in cuts for file in cut.files if file.path not in self._broken]
        named = [file for file in left if str(file.path) in str(error)]
        if not self._by_name:
            self._by_name = True
            broken = [file for file in named if not self._reader.readable(file)]
        else:
            broken = [file for file in left if not self._reader.readable(file)] or named[:1]
            if not broken:
                raise FlowsError(_first_line(error)) from None
        for file in broken:
            self._broken.add(file.path)
            self._notes.append(f"{file.path} cannot be read, and is left out")
        if len(self._broken) > MOST_BROKEN:
            raise FlowsError(f"more than {MOST_BROKEN} files cannot be read; the last one: {_first_line(error)}")

    # the end

    def _end(self, found: Plan) -> dict[str, Any]:
        for part in found.parts:
            end = self._question.end if part.end is None else part.end
            self._notes += gaps.notes(part.store, part.begin, end, self._holdings.waiting_too)
        status = INCOMPLETE if self._notes else DONE if self._rows else NO
        if self._missing(found):
            status = INCOMPLETE
        if self._more and self._question.limit is None:
            status = INCOMPLETE
        return {"rows": self._rows, "more": self._more, "notes": self._notes, "status": status}

    def _missing(self, found: Plan) -> bool:
        """Whether there are flows in the gaps of the plan, which is then said."""
        missing = False
        for gap in found.gaps:
            if self._any(gap):
                missing = True
                self._notes.append(_gap_text(gap, self._question.end))
        return missing

    def _any(self, gap: Part) -> bool:
        """Whether a roll-up has rows of this range that may have flows of the question."""
        cut = self._cut(gap)
        assert gap.store.rollup is not None
        for source in self._sources([cut]):
            time = source.expressions.time
            conditions = [f"({source.where})"]
            if gap.begin is not None:
                conditions.append(f"{time} + {gap.store.rollup.interval} > {gap.begin}")
            if gap.end is not None:
                conditions.append(f"{time} < {gap.end}")
            if self._question.end is not None:
                conditions.append(f"{source.expressions.start} < {self._question.end}")
            if self._reader.rows(f"SELECT 1 FROM {source.relation} WHERE {' AND '.join(conditions)} LIMIT 1"):
                return True
        return False


class _PartCut:
    """A part with its files, and the tables of its waiting rows with their columns."""

    def __init__(self, part: Part, paths: list[StoredFile], waiting: list[tuple[str, frozenset[str]]]) -> None:
        self.part, self.files, self.waiting = part, paths, waiting


def _key(store: Store, name: str) -> Key | None:
    """The key whose values a group has."""
    one = sides(name)[0]
    if one in store.keys:
        return store.keys[one]
    columns = store.find(derived(one).base)
    return store.keys[columns[0]] if columns else derived(one).base_key


def _gap_text(gap: Part, end: int | None) -> str:
    """What is not in the answer for want of a finer store; `end` is that of the range."""
    assert gap.store.rollup is not None
    left = f"only {gap.store.name} with intervals of {gap.store.rollup.interval // 1000} s is left of that time"
    since = "" if gap.begin is None else f" from {shown(gap.begin, False)}"
    until = "" if gap.end is None else f" to {shown(gap.end, False)}"
    missing = f"flows that ended{since}{until} are not in the answer"
    if end is not None and (gap.end is None or gap.end > end):
        return f"{missing}, even if they began in the range: {left}; --ended asks for the flows that ended in the range"
    return f"{missing}: {left}; take a range of whole intervals"


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
