"""Conditions in SQL on one value that a row has; each does what a term's `true` does with a column."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from ulogd_tw.core import types
from ulogd_tw.match import sql_literals as literals
from ulogd_tw.match.patterns import Pattern
from ulogd_tw.match.sql_keys import StoredKeys, Value
from ulogd_tw.match.terms import Rate
from ulogd_tw.match.values import MAPPED, Strings

TRUE, FALSE = "true", "false"
_SIGNS = {"=": "=", "!=": "<>", "<": "<", "<=": "<=", ">": ">", ">=": ">="}


def counted(value: Value) -> Value:
    """A boolean as the number 0 or 1, other numbers as they are."""
    if value.type.kind != "boolean":
        return value
    return Value(f"{value.sql}::UTINYINT", types.UNSIGNED8, value.given)


def compared(value: Value, sign: str, constant: float) -> str:
    """A number compared with a constant, as `terms.compared` does it."""
    if not value.plain:
        return FALSE
    value = counted(value)
    dtype = value.type.array_dtype
    if dtype.kind == "f":
        return fraction_compared(value.sql, sign, literals.real(constant, dtype))
    if constant != int(constant):  # between two whole numbers
        if sign in ("=", "!="):
            return TRUE if sign == "!=" else FALSE
        constant, sign = math.floor(constant), {"<": "<=", ">=": ">"}.get(sign, sign)
    whole = int(constant)
    if not literals.LEAST <= whole <= literals.MOST:
        true = sign == "!=" or (sign in ("<", "<=")) == (whole > 0) and sign != "="
        return TRUE if true else FALSE
    return f"({value.sql} {_SIGNS[sign]} {literals.whole(whole, dtype)})"


def fraction_compared(sql: str, sign: str, constant: str) -> str:
    """A number with fractions compared with a constant. To DuckDB, NaN is above all numbers."""
    condition = f"{sql} {_SIGNS[sign]} {constant}"
    return f"({condition} AND NOT isnan({sql}))" if sign in (">", ">=") else f"({condition})"


def within(sql: str, ranges: Iterable[tuple], literal: Callable[..., str]) -> str:
    """Whether a value is within one of some ranges."""
    ranges = list(ranges)
    single = [literal(low) for low, high in ranges if low == high]
    parts = [literals.between(sql, literal(low), literal(high)) for low, high in ranges if low != high]
    if single:
        parts.append(f"{sql} = {single[0]}" if len(single) == 1 else f"{sql} IN ({', '.join(single)})")
    return f"({' OR '.join(parts)})" if parts else FALSE


def bits(value: Value, mask: int, wanted: int) -> str:
    """A whole number with the value `wanted` in the bits `mask`."""
    if not value.plain or (dtype := value.type.array_dtype).kind not in "ui":
        return FALSE
    most = literals.MOST if dtype.kind == "u" else (1 << 8 * dtype.itemsize - 1) - 1
    if wanted & mask > most:
        return FALSE
    return f"({value.sql} & {literals.whole(mask & most, dtype)}) = {literals.whole(wanted & mask, dtype)}"


def family(value: Value, kind: str) -> str:
    """An address of this family."""
    if not value.address:
        return FALSE
    four = literals.between(value.sql, *map(literals.uuid, MAPPED))
    return four if kind == "ipv4" else f"(NOT {four})"


def texts(chosen: Strings) -> list[str]:
    """The values as texts; a text cannot be equal to octets outside UTF-8."""
    found = (value.decode("utf-8", "replace") for value in chosen.values)
    return [text for text in found if text.encode() in chosen.values]


def strings(value: Value, chosen: Strings) -> str:
    """A text or octets equal to one of few values, or matching a pattern."""
    if chosen.pattern is not None:
        return _matches(value, chosen.pattern)
    if value.type.kind == "octets":
        constants = [literals.octets(octets) for octets in sorted(chosen.values)]
    else:
        constants = [literals.text(text) for text in sorted(texts(chosen))]
    return f"({value.sql} IN ({', '.join(constants)}))" if constants else FALSE


def _matches(value: Value, pattern: Pattern) -> str:
    """DuckDB has RE2 too, for characters of UTF-8. Octets become the first 256 characters of Unicode."""
    if value.type.kind != "octets":
        return f"regexp_matches({value.sql}, {literals.text(pattern.text)})"
    return f"regexp_matches({_as_characters(value.sql)}, {literals.text(pattern.text.encode().decode('latin-1'))})"


_TWO_OCTETS = {"C": "c38", "D": "c39", "E": "c3a", "F": "c3b", "8": "c28", "9": "c29", "A": "c2a", "B": "c2b"}
"""The beginning of characters above 127 in UTF-8, by the first hexadecimal digit of their number."""


def _as_characters(sql: str) -> str:
    """Octets as the text of the characters with the same numbers."""
    digits = f"regexp_replace(hex({sql}), '(..)', ' \\1', 'g')"
    for digit, begin in _TWO_OCTETS.items():
        digits = f"replace({digits}, ' {digit}', ' {begin}')"
    return f"decode(unhex(replace({digits}, ' ', '')))"


# rates


def rate(term: Rate, keys: StoredKeys) -> str:
    """A figure computed from several values, in the order of operations of `Rate.rows`."""
    found = _figure(term, keys)
    if found is None:
        return FALSE
    constant = literals.real(term.value, types.FLOAT64.array_dtype)
    return f"({found} IS NOT NULL AND {fraction_compared(found, term.sign, constant)})"


def _figure(term: Rate, keys: StoredKeys) -> str | None:
    start, end = (_number(keys, (name,)) for name in term.times)
    lasted = f"(CASE WHEN {end} < {start} THEN 0::DOUBLE ELSE {end} - {start} END)"
    seconds = f"({lasted} / 1000::DOUBLE)" if start and end else None
    if term.what == "duration":
        return seconds and f"({seconds} * 1000::DOUBLE)"
    over = _number(keys, term.octets if term.what in ("bps", "bpp") else term.packets)
    under = _number(keys, term.packets) if term.what == "bpp" else seconds
    if over is None or under is None:
        return None
    factor = "8::DOUBLE" if term.what == "bps" else "1::DOUBLE"
    return (
        f"(CASE WHEN {over} IS NULL OR {under} IS NULL THEN NULL WHEN {under} = 0 THEN 0::DOUBLE "
        f"ELSE {factor} * {over} / {under} END)"
    )


def _number(keys: StoredKeys, names: tuple[str, ...]) -> str | None:
    """The first of some keys with a value, as a number with fractions; NULL in rows without one."""
    values = [counted(value) for value in keys.values(names)]
    if not values or not all(value.plain for value in values):
        return None
    whens = [f"WHEN {value.given} THEN {value.sql}::DOUBLE" for value in values]
    return f"(CASE {' '.join(whens)} END)"
