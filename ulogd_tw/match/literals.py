"""Values in the notation of expressions."""

from __future__ import annotations

import datetime
import ipaddress
import math
import re

from ulogd_tw.core.networks import Span, span
from ulogd_tw.core.protocols import PROTOCOLS
from ulogd_tw.core.readable import TIMES, written
from ulogd_tw.core.types import Type
from ulogd_tw.match.errors import MatchError
from ulogd_tw.match.tokens import Token

_FACTORS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_NUMBER = re.compile(r"(-?(?:0x[0-9a-f]+|\d+(?:\.\d+)?))([kmgt]?)$", re.IGNORECASE)
_WHOLE = re.compile(r"0x[0-9a-f]+|0|[1-9]\d*", re.IGNORECASE)
_RANGE = re.compile(r"([^-]+)-([^-]+)$")
_SHORT = re.compile(r"\d+(\.\d+){0,2}")
"""The first numbers of an IPv4 address."""
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_UNITS = {"seconds": 1, "milliseconds": 1000, **TIMES}
"""Kinds of times, and their units in a second."""
_FLAGS = {"f": 1, "s": 2, "r": 4, "p": 8, "a": 16, "u": 32, "e": 64, "c": 128}


def network(token: Token, short: bool = False) -> Span:
    """A prefix; also 10/8 and, with `short`, 10.1 for 10.1.0.0/16, as in tcpdump."""
    text, _, bits = token.text.partition("/")
    if _SHORT.fullmatch(text) and (bits.isdecimal() or short and not bits):
        missing = 3 - text.count(".")
        text += ".0" * missing + "/" + (bits or str(32 - 8 * missing))
    else:
        text = token.text
    try:
        return span(text)
    except ValueError:
        more = "; names are not looked up" if re.fullmatch(r"[\w-]+(\.[\w-]+)*", text) and not text[0].isdigit() else ""
        raise MatchError(
            f"{token} is neither an address nor a prefix such as 10.0.0.0/8 or 2001:db8::/32{more}", token.column
        ) from None


def masked(address: Token, mask: Token) -> Span:
    """``10.0.0.0 mask 255.0.0.0``."""
    try:
        bits = int(ipaddress.IPv4Address(mask.text)) ^ 0xFFFFFFFF
    except ValueError:
        bits = 2
    if bits & (bits + 1):
        raise MatchError(f"{mask} is not a mask such as 255.255.0.0", mask.column)
    return network(Token(f"{address.text}/{32 - bits.bit_length()}", address.column))


def is_dotted(token: Token) -> bool:
    """Whether the text looks like an IPv4 address."""
    return not token.quoted and re.fullmatch(r"\d+(\.\d+){3}", token.text) is not None


def is_number(token: Token) -> bool:
    """Whether the text is a number, or two numbers joined by ``-``."""
    match = _RANGE.match(token.text)
    return all(_NUMBER.match(part) for part in (match.groups() if match else (token.text,)))


def number(token: Token, kind: str = "unsigned") -> float:
    """A number of the given kind of type."""
    if kind in _UNITS and (time := _time(token.text)) is not None:
        return time * _UNITS[kind] // 10**6
    if kind == "boolean" and token.text.lower() in ("true", "false"):
        return int(token.text.lower() == "true")
    match = _NUMBER.match(token.text)
    if match is None:
        raise MatchError(f"{token} is not a number", token.column)
    digits, factor = match[1].lower(), _FACTORS[match[2].lower()]
    if "0x" in digits:
        return int(digits, 16) * factor
    if "." not in digits:
        return int(digits) * factor
    found = float(digits) * factor
    return found if math.isfinite(found) else int(digits.partition(".")[0]) * factor


def number_and_mask(token: Token) -> tuple[int, int] | None:
    """``0x10/0xff``, for marks of packets; None for other texts."""
    value, slash, mask = token.text.partition("/")
    if not slash or not _WHOLE.fullmatch(value) or not _WHOLE.fullmatch(mask):
        return None
    return int(value, 0), int(mask, 0)


def number_range(token: Token, kind: str) -> tuple[float, float]:
    """``1000-2000``; a single number is a range of its own."""
    match = _RANGE.match(token.text)
    if match and _NUMBER.match(match[1]) and _NUMBER.match(match[2]):
        low, high = (number(Token(part, token.column), kind) for part in match.groups())
        if low > high:
            raise MatchError(f"{token.text}: the second number is less than the first", token.column)
        return low, high
    value = number(token, kind)
    return value, value


def protocol(name: str) -> int | None:
    """The number of a protocol, by name or number."""
    if name.isdecimal():
        return int(name) if int(name) < 256 else None
    return PROTOCOLS.get(name)


def flags(token: Token) -> int:
    """The bits of TCP flags given as letters; X stands for the first six."""
    text = token.text.lower()
    if text == "x":
        return 0x3F
    if text and all(letter in _FLAGS for letter in text):
        return sum(_FLAGS[letter] for letter in set(text))
    raise MatchError(f"{token}: write TCP flags as letters of UAPRSFEC, X for all of UAPRSF, or a number", token.column)


def mac(token: Token) -> int:
    """A MAC address, with ``:``, ``-`` or ``.`` between its digits."""
    digits = re.sub(r"[:.-]", "", token.text)
    if not re.fullmatch(r"[0-9a-fA-F]{12}", digits):
        raise MatchError(f"{token} is not a MAC address", token.column)
    return int(digits, 16)


def octets(token: Token, kind: str) -> bytes:
    """A text, or octets as hexadecimal digits."""
    if kind == "string":
        return token.text.encode()
    try:
        return bytes.fromhex(token.text.removeprefix("0x"))
    except ValueError:
        raise MatchError(f"{token}: write octets as hexadecimal digits", token.column) from None


def formed(text: str, type_: Type) -> str:
    """A value in the form in which people write it (`readable`), of that, its number or its hexadecimal octets."""
    if ":" in text:
        return text.lower()
    if type_.integer or type_.form == "digits":
        if not _WHOLE.fullmatch(text) or int(text, 0) >> 256:
            return text
        value = int(text, 0).to_bytes(32, "big")
    else:
        digits = text.removeprefix("0x").replace("-", "") if type_.form == "uuid" else text.removeprefix("0x")
        try:
            value = bytes.fromhex(digits)
        except ValueError:
            return text
    return str(written(value, type_))


def _time(text: str) -> int | None:
    """Microseconds since 1970 of a date and time, in UTC unless it names a zone; None for other texts."""
    if not re.match(r"\d{4}-\d\d-\d\d", text):
        return None
    try:
        time = datetime.datetime.fromisoformat(text)
    except ValueError:
        return None
    time = time if time.tzinfo else time.replace(tzinfo=datetime.UTC)
    return (time - _EPOCH) // datetime.timedelta(microseconds=1)
