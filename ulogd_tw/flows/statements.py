"""The statements of a question: groups and their sums over all parts of an answer, or a list of flows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from ulogd_tw.flows.expressions import Expressions, quoted, share, step_after, step_of
from ulogd_tw.flows.plan import Part
from ulogd_tw.flows.questions import MOST_EVERY, SUMS, Question, ordered

TIME = "time"
START = "start"
END = "end"
"""Columns of an answer: the begin of a step; start and end of a flow that is listed."""


@dataclass(frozen=True)
class Source:
    """The rows of a part: a relation of SQL with all columns of the store, and the filter as SQL."""

    part: Part
    relation: str
    where: str = ""

    @property
    def expressions(self) -> Expressions:
        """The expressions over this source."""
        return Expressions(self.part.store)


def groups(question: Question, sources: Sequence[Source]) -> str:
    """The statement for sums of groups and steps."""
    keys = [f"k{place}" for place, _ in enumerate(question.by)]
    step = ["t"] if question.every else []
    amounts = [f"s{place}" for place, _ in enumerate(question.sums)]
    rows = " UNION ALL ".join(_rows(question, source) for source in sources)
    order = ", ".join(_order(question, [*step, *keys], amounts))
    if question.top is not None and (question.every or question.rest):
        return _of_top(question, keys, amounts, rows, order)
    summed = ", ".join(f"sum({name}) AS {name}" for name in amounts)
    grouped = ", ".join((*step, *keys))
    text = f"SELECT {grouped}{', ' if grouped else ''}{summed} FROM ({rows})"
    text += f" GROUP BY {grouped}" if grouped else " HAVING count(*) > 0"
    limit = min(question.rows, question.top) if question.top else question.rows
    return f"{text} ORDER BY {order} LIMIT {limit + 1}"


def _of_top(question: Question, keys: list[str], amounts: list[str], rows: str, order: str) -> str:
    """The first groups of the whole range, with their steps; with `rest` all others are one more group.

    The rows are read twice: there may be far more groups, and groups in steps, than are wanted.
    """
    whole = replace(question, every=None, order="" if ordered(question) == TIME else question.order)
    named, summed = ", ".join(keys), ", ".join(f"sum({name}) AS {name}" for name in amounts)
    top = (
        f"SELECT {named}, {summed} FROM ({rows}) GROUP BY {named} "
        f"ORDER BY {', '.join(_order(whole, keys, amounts))} LIMIT {question.top}"
    )
    same = " AND ".join(f"r.{key} IS NOT DISTINCT FROM top.{key}" for key in keys)
    join, rest = ("LEFT JOIN", ["rest"]) if question.rest else ("JOIN", [])
    step = ["t"] if question.every else []
    ordering = [order, *rest] if question.every else [*rest, order]
    own = ", ".join(f"CASE WHEN hit THEN r.{key} END AS {key}" for key in keys)
    marked = f"SELECT r.* EXCLUDE ({named}), {own}, hit IS NULL AS rest FROM ({rows}) r {join} top ON {same}"
    return (
        f"WITH top AS MATERIALIZED (SELECT {named}, true AS hit FROM ({top})) "
        f"SELECT {', '.join([*step, *keys, summed, *rest])} FROM ({marked}) "
        f"GROUP BY {', '.join([*step, *keys, *rest])} ORDER BY {', '.join(ordering)} LIMIT {question.rows + 1}"
    )


def _order(question: Question, groups_: list[str], amounts: list[str]) -> list[str]:
    """The columns to order by: steps in time, groups by the first sum; keys last, so that equal ones have an order."""
    word, asked = ordered(question), []
    if word:
        columns = (*((TIME,) if question.every else ()), *question.by, *question.sums)
        names = dict(zip(columns, (*groups_, *amounts), strict=True))
        down = question.order.startswith("-") or word in question.sums and not question.order.startswith("+")
        asked = [f"{names[word]} {'DESC' if down else 'ASC'} NULLS LAST"]
    time = ["t"] if question.every else []
    largest = [] if word else [f"{amounts[0]} DESC NULLS LAST"]
    return [*asked, *time, *largest, *(name for name in groups_ if name != "t")]


def _rows(question: Question, source: Source) -> str:
    """The rows of a part: step, keys, and amounts of each row."""
    found = source.expressions
    keys = [f"{found.key(name)} AS k{place}" for place, name in enumerate(question.by)]
    spread = question.spread and source.part.store.rollup is None
    amounts = found.amounts(question.sums)
    if spread:
        return _spread(question, source, keys, amounts)
    step = [f"{step_of(found.time, question.every, question.offsets)} AS t"] if question.every else []
    summed = [f"{amount} AS s{place}" for place, amount in enumerate(amounts)]
    return f"SELECT {', '.join((*step, *keys, *summed))} FROM {source.relation}{_where(question, source)}"


def _where(question: Question, source: Source) -> str:
    """The condition of a part: its time, the flows that count, the filter."""
    found, part = source.expressions, source.part
    times = []
    if part.begin is not None:
        times.append(f"{found.time} >= {part.begin}")
    if part.end is not None and not (question.spread and part.store.rollup is None):
        times.append(f"{found.time} < {part.end}")
    if part.store.rollup is None and (until := _begun_before(question, part)) is not None:
        times.append(f"{found.start} < {until}")
    conditions = [*times, *filter(None, (found.ended(), source.where and f"({source.where})"))]
    return f" WHERE {' AND '.join(conditions)}" if conditions else ""


def _begun_before(question: Question, part: Part) -> int | None:
    """The time before which a flow of this part began; None where the time of its end decides."""
    if question.ended:
        return None
    return part.end if question.spread and part.end is not None else question.end


# flows by shares


def _spread(question: Question, source: Source, keys: list[str], amounts: list[str]) -> str:
    """A row for each step that a flow touches within the part, with its share of the amounts."""
    found, part = source.expressions, source.part
    start = f"least({found.start}, {found.end})"
    plain = [f"{amount} AS a{place}" for place, amount in enumerate(amounts)]
    rows = f"SELECT {', '.join((f'{start} AS f', f'{found.end} AS e', *keys, *plain))} FROM {source.relation}"
    rows += _where(question, source)
    names = [f"k{place}" for place, _ in enumerate(keys)]
    begin, stop = _clipped("f", "e + 1", part)
    if not question.every:
        shares = _shares(question, begin, stop, stop)
        return f"SELECT {', '.join((*names, *shares))} FROM ({rows})"
    stepped = _stepped(question, begin, stop)
    shares = _shares(question, "greatest(t, b)", "least(n, z)", "least(n, z)")
    inner = f"SELECT *, {begin} AS b, {stop} AS z, unnest({stepped}) AS m FROM ({rows})"
    inner = f"SELECT *, {step_of('m', question.every, question.offsets)} AS t FROM ({inner})"
    inner = f"SELECT *, {step_after('t', question.every, question.offsets)} AS n FROM ({inner})"
    return f"SELECT {', '.join(('t', *names, *shares))} FROM ({inner})"


def _clipped(start: str, stop: str, part: Part) -> tuple[str, str]:
    begin = start if part.begin is None else f"greatest({start}, {part.begin})"
    return f"({begin})::BIGINT", f"({stop if part.end is None else f'least({stop}, {part.end})'})::BIGINT"


def _shares(question: Question, begin: str, stop: str, until: str) -> list[str]:
    """The share of each amount; a flow counts in the step in which it ends."""
    found = []
    for place, name in enumerate(question.sums):
        ends = f"CASE WHEN e < {until} THEN a{place} ELSE 0 END"
        found.append(f"{ends if name == 'flows' else share(f'a{place}', 'f', 'e', begin, stop)} AS s{place}")
    return found


def _stepped(question: Question, begin: str, stop: str) -> str:
    """A moment of each step between two times, days of 23 and 25 hours among them; of very many only the last ones."""
    assert question.every is not None
    first, last = (step_of(time, question.every, question.offsets) for time in (begin, f"({stop} - 1)"))
    bound = f"greatest({first}, {last} - {question.every * MOST_EVERY})"
    half = question.every // 2
    return f"range({bound} + {half}, {last} + {half} + {question.every // 4} + 1, {question.every})"


# flows themselves


def listing(
    question: Question, sources: Sequence[Source], columns: Iterable[str], limit: int, times: tuple[int, int]
) -> str:
    """The statement for a list of flows, newest first: start and end, then these columns of the store."""
    names = list(columns)
    rows = []
    for source in sources:
        found = source.expressions
        values = [f"{_given(source, name)} AS {quoted(name)}" for name in names]
        where = _where(question, source)
        where += f"{' AND ' if where else ' WHERE '}{found.end} BETWEEN {times[0]} AND {times[1]}"
        begun = f"{found.start} AS {quoted('.start')}, {found.end} AS {quoted('.end')}"
        rows.append(f"SELECT {', '.join((begun, *values))} FROM {source.relation}{where}")
    up = question.order.startswith("+")
    return f'{" UNION ALL ".join(rows)} ORDER BY ".end" {"ASC" if up else "DESC"}, ".start" LIMIT {limit}'


def _given(source: Source, name: str) -> str:
    """The value of a column as it is given: UUIDs as text, which Python takes far faster."""
    value = _value(source.expressions, name)
    return f"CAST({value} AS VARCHAR)" if source.part.store.types.get(name) == "UUID" else value


def _value(found: Expressions, name: str) -> str:
    """A column of a list: that of the store, else an amount."""
    return found.amounts([name])[0] if name in SUMS and name not in found.store.keys else found.column(name)
