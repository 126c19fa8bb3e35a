"""The values of a stored row in SQL, for the keys of an expression: by name, by Information Element, by a conversion.

A key is found as `core.resolve` finds it for a batch. Two things differ, since a store has the columns of all batches:
of several columns with the same datum the first one with a value in a row counts, and addresses of both families are
in one column, so that a key of one family has a value in the rows of this family.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from ulogd_tw.core import conversions, types
from ulogd_tw.core.conversions import BY_TARGET, LAST_MS, NTP_EPOCH, Convert, Then
from ulogd_tw.core.keys import Key, known
from ulogd_tw.core.readable import TIMES, type_of
from ulogd_tw.core.resolve import Provided, fits
from ulogd_tw.core.types import Type
from ulogd_tw.match.sql_literals import between, identifier, uuid
from ulogd_tw.match.values import MAPPED

ADDRESSES = ("ipv4", "ipv6", "address")
"""Kinds of types that are stored as 16 octets."""
_WORD = 1 << 64
_SECONDS = 1 << 32
_LAST_ERA = _SECONDS - NTP_EPOCH
"""The second since 1970 whose NTP time is 0, which stands for no time."""


@dataclass(frozen=True, slots=True)
class Value:
    """One value of a row. `given` is the condition that the row has it, which is never NULL; `type` is that of what
    people read (`readable`)."""

    sql: str
    type: Type
    given: str

    @property
    def address(self) -> bool:
        return self.type.kind in ADDRESSES

    @property
    def plain(self) -> bool:
        """Whether it is a number."""
        return not self.address and not self.type.variable


class StoredKeys:
    """The keys of a store, by the names of their columns."""

    def __init__(self, columns: Mapping[str, Key]) -> None:
        self.provided = Provided(key.named(name) for name, key in columns.items())

    def values(self, names: Iterable[str]) -> list[Value]:
        """The values that a row may have for the first of these keys, the first one of them that is there counts.

        Only numbers of a further key stand in for those of the first, as in `terms.first_found`.
        """
        found: list[Value] = []
        for name in names:
            more = self._of_name(name)
            if not found or all(value.plain for value in (*found, *more)):
                found += more
        return list(dict.fromkeys(found))

    def _of_name(self, name: str) -> list[Value]:
        asked = known(name)
        keys = [self.provided.keys[column] for column in self.provided.direct(name)]
        direct = [key for key in keys if asked is None or types.compatible(asked.type, key.type)]
        if direct or asked is None:
            return [_stored(key, asked) for key in direct]
        ways = [way for recipe in BY_TARGET.get(name, ()) if (way := self._converted(asked, recipe)) is not None]
        alike = all(recipe.convert in _AS_IT_IS for recipe in BY_TARGET.get(name, ()))
        return ways if alike else ways[:1]

    def _converted(self, asked: Key, recipe: conversions.Conversion) -> Value | None:
        """The key made of others; None where one of them is not there, or of another form."""
        places = [self.provided.direct(name) for name in recipe.inputs]
        if not all(places):
            return None
        inputs = [self.provided.keys[columns[0]] for columns in places]
        if not all(fits(key) for key in inputs):
            return None
        if recipe.convert in _AS_IT_IS and asked.type is not types.MILLISECONDS:
            return _stored(inputs[0], None)
        sql = _in_sql(recipe.convert, inputs, asked)
        given = " AND ".join(f"{identifier(key.name)} IS NOT NULL" for key in inputs)
        if asked.type is types.MILLISECONDS:
            given += f" AND {sql} <= {LAST_MS}"
        return Value(sql, type_of(asked.type), given)


def _stored(key: Key, asked: Key | None) -> Value:
    """The value of one column."""
    column = identifier(key.name)
    given = f"{column} IS NOT NULL"
    if key.type is types.ADDRESS and asked is not None and asked.type in (types.IPV4, types.IPV6):
        four = between(column, *map(uuid, MAPPED))
        given += f" AND {four}" if asked.type is types.IPV4 else f" AND NOT {four}"
    return Value(column, type_of(key.type), given)


# conversions


def _in_sql(convert: Convert, inputs: list[Key], asked: Key) -> str:
    """The function of these columns as whole numbers of 128 bits, which cannot overflow."""
    if isinstance(convert, Then):
        return _OF_MS[convert.second](_in_sql(convert.first, inputs, asked), asked)
    columns = [f"{identifier(key.name)}::HUGEINT" for key in inputs]
    if convert in _OF_MS:
        return _OF_MS[convert](columns[0], asked)
    if convert is conversions.ntp_to_ms:  # a stored time counts since 1970
        return f"({columns[0]} // {TIMES[inputs[0].type.form] // 1000})"
    return _TO_MS[convert](*columns)


def _before_export(delta: str, export: str) -> str:
    """Rounded down, also where it lies before 1970; then modulo 2^64, as columns have it."""
    return f"((({export} * 1000000 - {delta} + {_WORD * 1000}) // 1000) % {_WORD})"


def _ms_to_form(ms: str, asked: Key) -> str:
    """A time of NTP, in the form in which it is read: seconds modulo 2^32, and 0 for no time."""
    unit = TIMES[asked.type.form]
    whole = f"({ms} // 1000 % {_SECONDS} * {unit} + {ms} % 1000 * {unit // 1000})"
    return f"(CASE WHEN {whole} = {_LAST_ERA * unit} THEN 0 ELSE {whole} END)"


def _ms_to_seconds(ms: str, asked: Key) -> str:
    return f"({ms} // 1000 % {_SECONDS})"


def _ms_to_usec(ms: str, asked: Key) -> str:
    return f"({ms} % 1000 * 1000)"


_AS_IT_IS = (conversions.same, conversions.as_unsigned64)
_TO_MS: dict[Convert, Callable[..., str]] = {
    conversions.same: lambda ms: ms,
    conversions.seconds_to_ms: lambda seconds: f"({seconds} * 1000)",
    conversions.halves_to_ms: lambda seconds, microseconds: f"(({seconds} * 1000 + {microseconds} // 1000) % {_WORD})",
    conversions.uptime_to_ms: lambda uptime, boot: f"(({boot} + {uptime}) % {_WORD})",
    conversions.before_export: _before_export,
}
"""Conversions to milliseconds since 1970."""
_OF_MS: dict[Convert, Callable[[str, Key], str]] = {
    conversions.ms_to_seconds: _ms_to_seconds,
    conversions.ms_to_usec: _ms_to_usec,
    conversions.ms_to_ntp: _ms_to_form,
}
"""Conversions of milliseconds since 1970."""
