"""The columns of the flow store: from keys to types of Parquet and their values, and back from what is written down.

Columns are named as keys. Numbers keep their type, times count since 1970, and addresses of both families are 16 octets
in network order (a UUID for Parquet), IPv4 as ::ffff:a.b.c.d, so that one comparison orders both. MAC addresses are
numbers. Values in a form of their own have this form, where `readable` gives one. Missing values are NULL.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ulogd_tw.core import arrow, types
from ulogd_tw.core.arrow import ArrowType, Vector
from ulogd_tw.core.columns import Column, numbers, strings
from ulogd_tw.core.keys import Key
from ulogd_tw.core.readable import labels_only, readable, type_of
from ulogd_tw.core.types import Type
from ulogd_tw.core.utf8 import valid

START = "flowStartMilliseconds"
END = "flowEndMilliseconds"
"""The keys of a row's own times."""
ARRIVAL = Key("arrival", types.MILLISECONDS)
"""The time of arrival, in rows without an end or with an odd one; NULL in others, whose time is their end."""
_SQL = {
    "C": "UTINYINT", "S": "USMALLINT", "I": "UINTEGER", "L": "UBIGINT", "c": "TINYINT", "s": "SMALLINT",
    "i": "INTEGER", "l": "BIGINT", "f": "FLOAT", "g": "DOUBLE", "b": "BOOLEAN", "U": "VARCHAR", "Z": "BLOB",
    "w:16": "UUID",
}  # fmt: skip
"""DuckDB's types by the format strings of Arrow."""


@dataclass(frozen=True, slots=True)
class StoredColumn:
    """One column of the store: the key that it is named for, with the type that was asked for."""

    key: Key

    @property
    def name(self) -> str:
        return self.key.name

    @property
    def arrow(self) -> ArrowType:
        """The type of its values in Arrow; a batch with values too large for it has a wider one."""
        return _arrow_type(type_of(self.key.type))

    @property
    def sql(self) -> str:
        """The type of its values in DuckDB."""
        return _SQL[self.arrow.format]

    @property
    def address(self) -> bool:
        """Whether its values are addresses, stored as UUIDs."""
        return self.arrow == arrow.UUID

    def vector(self, column: Column, key: Key, missing: np.ndarray | None = None) -> Vector:
        """The values of a batch, whose key may have another type than this one.

        A type wide enough is chosen for integers that do not fit. Labels of a size that no label has are missing.
        """
        if key.type.form == "label":
            column, missing = labels_only(strings(column), missing)
        column, key = readable(column, key)
        if key.type.kind in ("ipv4", "ipv6"):
            return arrow.addresses(numbers(column), missing)
        if key.type.variable:
            type_ = arrow.OCTETS if key.type.kind == "octets" else arrow.TEXT
            texts = valid(strings(column)) if type_ == arrow.TEXT else strings(column)
            return arrow.strings(texts, missing, type_)
        return arrow.numbers(self._fitting(numbers(column), missing), missing)

    def nothing(self, n: int) -> Vector:
        """The values of a batch without this key."""
        return arrow.nothing(self.arrow, n)

    def described(self) -> dict[str, Any]:
        """The column as store.json has it."""
        pen, element = self.key.element or (None, None)
        return {
            "name": self.name,
            "type": self.key.type.name,
            "form": self.key.type.form,
            "pen": pen,
            "element": element,
            "elements": [list(one) for one in self.key.elements],
            "unit": self.key.unit,
            "semantics": self.key.semantics,
        }

    @classmethod
    def of(cls, described: Mapping[str, Any]) -> StoredColumn:
        """The column that `described` gave. Raises ValueError for anything else."""
        try:
            type_ = types.FORMED[described["form"]] if described["form"] else types.TYPES[described["type"]]
            elements = tuple((int(pen), int(element)) for pen, element in described["elements"])
            name, unit, semantics = (str(described[word]) for word in ("name", "unit", "semantics"))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"not a column of a store: {error}") from None
        return cls(Key(name, type_, elements, unit, semantics))

    def _fitting(self, values: np.ndarray, missing: np.ndarray | None) -> np.ndarray:
        """The numbers as the type of this column; as they are if one does not fit, or integers meet fractions."""
        wanted = type_of(self.key.type).array_dtype
        if values.dtype == wanted or (values.dtype.kind == "f") != (wanted.kind == "f"):
            return values
        if missing is not None:
            values = np.where(missing, values.dtype.type(0), values)
        with np.errstate(all="ignore"):
            found = values.astype(wanted)
            same = np.array_equal(found.astype(values.dtype), values, equal_nan=values.dtype.kind == "f")
            fits = same and not ((found < 0) ^ (values < 0)).any()
        return found if fits else values


def _arrow_type(shown: Type) -> ArrowType:
    if shown.kind in ("ipv4", "ipv6", "address"):
        return arrow.UUID
    if shown.variable:
        return arrow.OCTETS if shown.kind == "octets" else arrow.TEXT
    return arrow.BOOLEAN if shown.kind == "boolean" else arrow.NUMBERS[shown.array_dtype]
