"""The value types of keys: RFC 7012's abstract data types, and how a column holds each.

A column of numbers is a one-dimensional native-endian array. IPv4 addresses are ``uint32``, IPv6 addresses two
``uint64`` a row (array of shape (n, 2), high half first), MAC addresses ``uint64``. Strings and octets are an
`ulogd_tw.core.columns.Octets` or `Coded`. A list (RFC 6313) is held as its JSON text of printable ASCII, which outputs
write as it is: an object, or a string with the octets of a list that could not be read.
dateTimeSeconds and -Milliseconds count since 1970; -Microseconds and -Nanoseconds keep the 64-bit NTP value of the wire
(RFC 7011 section 6.1.9).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True)
class Type:
    """One abstract data type. `octets` is its full size on the wire, 0 for variable length.

    `form` names the form in which people write its values, where that is another one: see `readable`.
    """

    name: str
    kind: str
    octets: int
    dtype: np.dtype | None = None
    form: str = ""

    def __hash__(self) -> int:
        return hash(self.name)

    def __repr__(self) -> str:
        return self.name

    def __reduce__(self) -> tuple[Any, ...]:
        """Of one name there is one object in a process."""
        return _named, (self.name, self.form)

    @property
    def integer(self) -> bool:
        """True for integers, which count or identify; they may be reduced on the wire."""
        return self.kind in ("unsigned", "signed")

    @property
    def numeric(self) -> bool:
        """True for plain arrays of numbers, which can be compared and summed."""
        return self.kind in ("unsigned", "signed", "float", "boolean", "seconds", "milliseconds", "ntp")

    @property
    def array_dtype(self) -> np.dtype:
        """`dtype` of a type held as an array; TypeError for strings."""
        if self.dtype is None:
            raise TypeError(f"{self.name} is not held as an array")
        return self.dtype

    @property
    def text(self) -> bool:
        """True for strings, which may be padded with NULs outside the value."""
        return self.kind == "string"

    @property
    def variable(self) -> bool:
        """True where a column is `Octets` or `Coded`."""
        return self.kind in ("string", "octets", "list")


def _type(name: str, kind: str, octets: int, code: str | None, form: str = "") -> Type:
    # np.dtype(char) is NumPy's own object; one made by newbyteorder("=") is not, and ufunc.at is 18 times slower on it.
    return Type(name, kind, octets, np.dtype(code) if code else None, form)


UNSIGNED8 = _type("unsigned8", "unsigned", 1, "B")
UNSIGNED16 = _type("unsigned16", "unsigned", 2, "H")
UNSIGNED32 = _type("unsigned32", "unsigned", 4, "I")
UNSIGNED64 = _type("unsigned64", "unsigned", 8, "L")
SIGNED8 = _type("signed8", "signed", 1, "b")
SIGNED16 = _type("signed16", "signed", 2, "h")
SIGNED32 = _type("signed32", "signed", 4, "i")
SIGNED64 = _type("signed64", "signed", 8, "l")
FLOAT32 = _type("float32", "float", 4, "f")
FLOAT64 = _type("float64", "float", 8, "d")
BOOLEAN = _type("boolean", "boolean", 1, "?")
IPV4 = _type("ipv4Address", "ipv4", 4, "I")
IPV6 = _type("ipv6Address", "ipv6", 16, "L")
ADDRESS = _type("address", "address", 16, None)
"""An address of either family; in the schema of a batch it is one of the two."""
MAC = _type("macAddress", "mac", 6, "L")
SECONDS = _type("dateTimeSeconds", "seconds", 4, "I")
MILLISECONDS = _type("dateTimeMilliseconds", "milliseconds", 8, "L")
MICROSECONDS = _type("dateTimeMicroseconds", "ntp", 8, "L", "microseconds")
NANOSECONDS = _type("dateTimeNanoseconds", "ntp", 8, "L", "nanoseconds")
STRING = _type("string", "string", 0, None)
OCTETS = _type("octetArray", "octets", 0, None)
BASIC_LIST = _type("basicList", "list", 0, None)
SUB_TEMPLATE_LIST = _type("subTemplateList", "list", 0, None)
SUB_TEMPLATE_MULTI_LIST = _type("subTemplateMultiList", "list", 0, None)
UNSIGNED256 = _type("unsigned256", "octets", 32, None, "digits")
DIGITS = _type("digits", "list", 0, None)
"""Decimal digits of numbers that are wider than any column of numbers: outputs write them as they are, as lists."""
MPLS_LABEL = _type("octetArray", "octets", 0, None, "label")
ROUTE_DISTINGUISHER = _type("octetArray", "octets", 0, None, "distinguisher")
APPLICATION_ID = _type("octetArray", "octets", 0, None, "application")
UUID = _type("octetArray", "octets", 0, None, "uuid")
COMMUNITY = _type("unsigned32", "unsigned", 4, "I", "community")
EXTENDED_COMMUNITY = _type("octetArray", "octets", 0, None, "extended")
LARGE_COMMUNITY = _type("octetArray", "octets", 0, None, "large")

TYPES = {
    t.name: t
    for t in (
        UNSIGNED8, UNSIGNED16, UNSIGNED32, UNSIGNED64, SIGNED8, SIGNED16, SIGNED32, SIGNED64, FLOAT32, FLOAT64,
        BOOLEAN, IPV4, IPV6, ADDRESS, MAC, SECONDS, MILLISECONDS, MICROSECONDS, NANOSECONDS, STRING, OCTETS,
        BASIC_LIST, SUB_TEMPLATE_LIST, SUB_TEMPLATE_MULTI_LIST, UNSIGNED256,
    )
}  # fmt: skip

FORMED = {
    t.form: t
    for t in (
        MICROSECONDS, NANOSECONDS, UNSIGNED256, MPLS_LABEL, ROUTE_DISTINGUISHER, APPLICATION_ID, UUID, COMMUNITY,
        EXTENDED_COMMUNITY, LARGE_COMMUNITY,
    )
}  # fmt: skip
"""Types with a form of their own."""

_BY_NAME = {(t.name, t.form): t for t in (*TYPES.values(), *FORMED.values(), DIGITS)}


def _named(name: str, form: str) -> Type:
    """The type of this name and form, for pickles."""
    return _BY_NAME[name, form]


_UNSIGNED_BY_OCTETS = {1: UNSIGNED8, 2: UNSIGNED16, 4: UNSIGNED32, 8: UNSIGNED64}
_SIGNED_BY_OCTETS = {1: SIGNED8, 2: SIGNED16, 4: SIGNED32, 8: SIGNED64}


def wide_enough(type_: Type, octets: int) -> Type:
    """`type_`, or the next wider integer type for `octets` octets (1 to 8)."""
    if octets <= type_.octets:
        return type_
    table = _SIGNED_BY_OCTETS if type_.kind == "signed" else _UNSIGNED_BY_OCTETS
    return next(t for size, t in table.items() if size >= octets)


def compatible(asked: Type, given: Type) -> bool:
    """Whether a column of type `given` can answer a request for `asked`.

    An address without a family accepts both families; a string never answers a request for a number.
    """
    if asked.kind == given.kind:
        return True
    if "address" in (asked.kind, given.kind):
        return {asked.kind, given.kind} <= {"address", "ipv4", "ipv6"}
    plain = ("unsigned", "signed", "float", "boolean", "seconds", "milliseconds")
    return asked.kind in plain and given.kind in plain
