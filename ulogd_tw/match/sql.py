"""Expressions over stored rows: a term as a condition in SQL (DuckDB) with the meaning of `Term.rows`.

A condition is true or false, never NULL. It compares columns as they are with constants of their type, so that DuckDB
leaves out row groups by their statistics. Large sets become tables: see `Where`.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

from ulogd_tw.core.keys import Key
from ulogd_tw.match import sql_conditions as conditions
from ulogd_tw.match import sql_literals as literals
from ulogd_tw.match.errors import MatchError
from ulogd_tw.match.sql_keys import StoredKeys, Value
from ulogd_tw.match.terms import (
    Always,
    Bits,
    Compare,
    Exists,
    Family,
    InNumbers,
    InPrefixes,
    InStrings,
    Not,
    OfKey,
    Rate,
    Term,
    Together,
)

FEW = 64
"""Up to this number, ranges of a set are compared one by one; each costs 2 ns a row, a table 250 ns."""
FEW_SINGLE = 1000
"""Up to this number, values of a set are written into the condition."""
MOST_IN_SETS = 1_000_000
"""Ranges and values in all tables of one expression."""
LONGEST = 1 << 22
"""Characters of a condition."""
_CHAIN = 100
"""Conditions joined side by side; DuckDB bounds the depth of expressions (1000)."""


@dataclass(frozen=True, slots=True)
class SetTable:
    """A temporary table for a large set: ranges in order that do not overlap, or single values."""

    name: str
    type: str
    columns: tuple[str, ...]
    values: tuple[Sequence[str], ...]
    """The texts of each column."""

    @property
    def dropped(self) -> str:
        """The statement that takes it away."""
        return f"DROP TABLE IF EXISTS {literals.identifier(self.name)}"

    def statements(self) -> list[tuple[str, list[Sequence[str]]]]:
        """Statements that make it, each with its parameters; an earlier table of this name is replaced."""
        name = literals.identifier(self.name)
        columns = ", ".join(f"{literals.identifier(column)} {self.type}" for column in self.columns)
        filled = ", ".join(f"unnest(${n}::VARCHAR[])::{self.type}" for n in range(1, len(self.columns) + 1))
        return [
            (f"CREATE OR REPLACE TEMP TABLE {name} ({columns})", []),
            (f"INSERT INTO {name} SELECT {filled}", list(self.values)),
        ]


@dataclass(frozen=True, slots=True)
class Where:
    """The condition `text`, for ``SELECT ... FROM rows{joins} WHERE text``.

    `joins` is empty but for large sets, whose `tables` must be made before. A join adds no row and takes none away.
    """

    text: str
    joins: str = ""
    tables: tuple[SetTable, ...] = ()

    def __str__(self) -> str:
        return self.text


def where(term: Term, columns: Mapping[str, Key]) -> Where:
    """The condition for rows with these columns, as `storing.stored_columns` stores their keys.

    Raises `MatchError` for a needed key that the columns do not give, and for sets that are too large.
    """
    writer = _Writer(columns)
    text = writer.condition(term)
    if len(text) > LONGEST:
        raise MatchError(f"the expression is too long for a store: {len(text)} characters of SQL, {LONGEST} at most", 1)
    return Where(text, "".join(writer.joins), tuple(writer.tables.values()))


class _Writer:
    """Writes conditions; `joins` and `tables` gather what large sets need."""

    def __init__(self, columns: Mapping[str, Key]) -> None:
        self._keys = StoredKeys(columns)
        self.joins: list[str] = []
        self.tables: dict[Hashable, SetTable] = {}

    def condition(self, term: Term) -> str:
        """The condition of a term."""
        match term:
            case Always():
                return conditions.TRUE
            case Not():
                return f"(NOT {self.condition(term.part)})"
            case Together():
                return _joined([self.condition(part) for part in term.parts], " AND " if term.all_ else " OR ")
            case Rate():
                return conditions.rate(term, self._keys)
            case OfKey():
                return self._of_key(term)
        raise TypeError(f"no SQL for {type(term).__name__}")

    def _of_key(self, term: OfKey) -> str:
        """A term about one value: that of the first column with one."""
        values = self._keys.values(term.names)
        if not values and term.needed and len(term.names) == 1:
            raise _lacking(term, self._keys)
        holds = self._holds(term)
        parts, before = [], ""
        for value in values:
            true = f"NOT {holds(value)}" if term.negated else holds(value)
            parts.append(f"({before}{value.given} AND {true})")
            before += f"NOT ({value.given}) AND "
        return _joined(parts, " OR ") if parts else conditions.FALSE

    def _holds(self, term: OfKey) -> Callable[[Value], str]:
        """What is true of a value that is there."""
        match term:
            case Exists():
                return lambda value: conditions.TRUE
            case Compare():
                return functools.partial(conditions.compared, sign=term.sign, constant=term.value)
            case InNumbers():
                return lambda value: self._in_numbers(value, term)
            case InPrefixes():
                return lambda value: self._in_prefixes(value, term)
            case InStrings():
                return lambda value: self._in_strings(value, term)
            case Bits():
                return functools.partial(conditions.bits, mask=term.bits, wanted=term.value)
            case Family():
                return functools.partial(conditions.family, kind=term.kind)
        raise TypeError(f"no SQL for {type(term).__name__}")

    # sets

    def _in_numbers(self, value: Value, term: InNumbers) -> str:
        if not value.plain:
            return conditions.FALSE
        value = conditions.counted(value)
        dtype = value.type.array_dtype
        if dtype.kind == "f":
            return conditions.within(value.sql, term.numbers.given, lambda end: literals.real(end, dtype))
        ranges = [(max(low, literals.LEAST), min(high, literals.MOST)) for low, high in term.numbers.whole
                  if low <= literals.MOST and high >= literals.LEAST]  # fmt: skip
        type_ = literals.whole_type((end for ends in ranges for end in ends), dtype)
        return self._within(value, term, ranges, type_, str)

    def _in_prefixes(self, value: Value, term: InPrefixes) -> str:
        if not value.address:
            return conditions.FALSE
        return self._within(value, term, term.prefixes.whole, "UUID", literals.uuid_text)

    def _within(
        self, value: Value, term: OfKey, ranges: list[tuple[int, int]], type_: str, written: Callable[[int], str]
    ) -> str:
        """Whether a value is within ranges in order that do not overlap, whose ends have this type in SQL."""
        single = sum(low == high for low, high in ranges)
        if len(ranges) - single <= FEW and single <= FEW_SINGLE:
            return conditions.within(value.sql, ranges, lambda end: f"'{written(end)}'::{type_}")
        ends = [[written(pair[side]) for pair in ranges] for side in (0, 1)]
        table = self._table(term, type_, ("set low", "set high"), ends)
        alias = literals.identifier(f"set range {len(self.joins) + 1}")
        self.joins.append(f' ASOF LEFT JOIN {table} AS {alias} ON {value.sql} >= {alias}."set low"')
        return f'coalesce({alias}."set high" >= {value.sql}, false)'

    def _in_strings(self, value: Value, term: InStrings) -> str:
        strings = term.strings
        if not value.type.variable:
            return conditions.FALSE
        if strings.pattern is not None or len(strings.values) <= FEW_SINGLE:
            return conditions.strings(value, strings)
        sql, texts = value.sql, conditions.texts(strings)
        if value.type.kind == "octets":
            sql, texts = f"hex({sql})", [octets.hex().upper() for octets in strings.values]
        table = self._table(term, "VARCHAR", ("set value",), [sorted(texts)])
        return f'({sql} IN (SELECT "set value" FROM {table}))'

    def _table(self, term: OfKey, type_: str, columns: tuple[str, ...], values: list[list[str]]) -> str:
        """The name of a table with these values, which terms share. Raises `MatchError` where all are too many."""
        ident = (type_, columns, tuple(map(tuple, values)))
        if ident not in self.tables:
            self.tables[ident] = SetTable(_named(ident), type_, columns, tuple(values))
            if sum(len(table.values[0]) for table in self.tables.values()) > MOST_IN_SETS:
                raise MatchError(f"sets of more than {MOST_IN_SETS} entries are too large for a store", term.column)
        return literals.identifier(self.tables[ident].name)


def _named(ident: Hashable) -> str:
    """A name for a table by its content, since one question may ask several stores."""
    return f"set {hashlib.blake2b(repr(ident).encode(), digest_size=8).hexdigest()}"


def _joined(parts: list[str], sign: str) -> str:
    """Conditions joined in pairs of halves: a long chain would be as deep as it is long."""
    while len(parts) > _CHAIN:
        parts = [_joined(parts[at : at + _CHAIN], sign) for at in range(0, len(parts), _CHAIN)]
    return parts[0] if len(parts) == 1 else f"({sign.join(parts)})"


def _lacking(term: OfKey, keys: StoredKeys) -> MatchError:
    have = ", ".join(sorted(keys.provided.keys)) or "none"
    text = f"the store has neither {term.names[0]} nor keys of which it can be made; its keys are: {have}"
    return MatchError(text, term.column)
