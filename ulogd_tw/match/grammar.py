"""Expressions as users of tcpdump and nfdump write them, to terms.

    expression  = and { "or" and }            and = not { "and" not }
    not         = "not" not | "(" expression ")" | term
    term        = ["src" | "dst"] ("ip" | "host" | "net" | "port" | "as") ...    see `_Parser`
                | KEY sign value | KEY "in" list | KEY "~" "pattern" | "exists" KEY
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Mapping

from ulogd_tw.core.keys import Key, known, nearest, registry
from ulogd_tw.core.prefix import Span, span
from ulogd_tw.core.protocols import PROTOCOLS
from ulogd_tw.match.errors import MatchError
from ulogd_tw.match.terms import (
    COMPARE,
    Always,
    Bits,
    Compare,
    Exists,
    Family,
    InNumbers,
    InPrefixes,
    InStrings,
    Not,
    Rate,
    Term,
    Together,
)
from ulogd_tw.match.tokens import Token, tokens
from ulogd_tw.match.values import Numbers, Prefixes, Strings

OCTETS = ("octetDeltaCount", "octetTotalCount", "octets", "raw.pktlen")
PACKETS = ("packetDeltaCount", "packetTotalCount", "packets", "raw.pktcount")
_SIDES: dict[str, dict[str, tuple[str, ...]]] = {
    "ip": {"src": ("sourceAddress",), "dst": ("destinationAddress",)},
    "port": {"src": ("sourceTransportPort",), "dst": ("destinationTransportPort",)},
    "as": {"src": ("bgpSourceAsNumber",), "dst": ("bgpDestinationAsNumber",)},
    "if": {"in": ("ingressInterface", "oob.ifindex_in"), "out": ("egressInterface", "oob.ifindex_out")},
    "mac": {"src": ("sourceMacAddress",), "dst": ("destinationMacAddress",)},
    "mask": {"src": ("sourceIPv4PrefixLength",), "dst": ("destinationIPv4PrefixLength",)},
}
_ALIASES = {"host": "ip", "net": "ip"}
_PLAIN = {
    "octets": OCTETS, "bytes": OCTETS, "packets": PACKETS, "flows": ("flows", "deltaFlowCount"),
    "tos": ("ipClassOfService",), "vlan": ("vlanId", "dot1qVlanId"), "ttl": ("ipTTL",),
    "mark": ("ct.mark", "oob.mark"), "domain": ("observationDomainId",), "icmp-type": ("icmp.type", "icmpv6.type"),
    "icmp-code": ("icmp.code", "icmpv6.code"),
}  # fmt: skip
_RATES = ("bps", "pps", "bpp", "duration")
_FLAGS = {"f": 1, "s": 2, "r": 4, "p": 8, "a": 16, "u": 32, "e": 64, "c": 128}
_FACTORS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_NUMBER = re.compile(r"(-?(?:0x[0-9a-f]+|\d+(?:\.\d+)?))([kmgt]?)$", re.IGNORECASE)
_RANGE = re.compile(r"([^-]+)-([^-]+)$")
_RESERVED = frozenset({"and", "or", "not", "in", "(", ")", "[", "]", ",", ""})
_NUMERIC = ("unsigned", "signed", "float", "boolean", "seconds", "milliseconds")
Lines = Callable[[str], list[str]]
"""Gives the lines of a named set; KeyError where there is no such set."""


def parse(text: str, sets: Mapping[str, list[str]] | None = None) -> Term:
    """The term that an expression is; `sets` are the values of named sets. Raises `MatchError`."""
    return _Parser(text, sets or {}).whole()


class _Parser:
    def __init__(self, text: str, sets: Mapping[str, list[str]]) -> None:
        self._tokens = tokens(text)
        self._at = 0
        self._sets = sets

    # reading on

    @property
    def _next(self) -> Token:
        return self._tokens[self._at]

    def _take(self) -> Token:
        token = self._next
        self._at += 1
        return token

    def _taken(self, *words: str) -> bool:
        if self._next.is_(*words):
            self._at += 1
            return True
        return False

    def _expect(self, word: str) -> None:
        if not self._taken(word):
            raise MatchError(f"{word!r} is missing before {self._next}", self._next.column)

    def _value(self, what: str) -> Token:
        """The next word as a value."""
        if not self._next.quoted and self._next.text in _RESERVED:
            raise MatchError(f"{what} is missing before {self._next}", self._next.column)
        return self._take()

    # structure

    def whole(self) -> Term:
        """The expression, up to its end."""
        found = self._or()
        if self._next.text or self._next.quoted:
            text = f"{self._next} does not go on from what stands before it; join terms by and, or"
            raise MatchError(text, self._next.column)
        return found

    def _or(self) -> Term:
        parts = [self._and()]
        while self._taken("or"):
            parts.append(self._and())
        return parts[0] if len(parts) == 1 else Together(parts, False)

    def _and(self) -> Term:
        parts = [self._not()]
        while self._taken("and"):
            parts.append(self._not())
        return parts[0] if len(parts) == 1 else Together(parts, True)

    def _not(self) -> Term:
        if self._taken("not"):
            return Not(self._not())
        if self._taken("("):
            found = self._or()
            self._expect(")")
            return found
        return self._term()

    # terms

    def _term(self) -> Term:
        token = self._take() if self._next.is_("in") else self._value("a term")
        word = token.text.lower()
        if token.quoted:
            raise MatchError(f"{token} is a text; a term begins with a word such as src, port or the name of a key",
                             token.column)  # fmt: skip
        if word == "any":
            return Always()
        if word == "exists":
            name = self._value("the name of a key")
            return Exists((self._key(name).name,), False, name.column)
        if word in ("src", "dst", "in", "out"):
            return self._directed(token, word)
        if word in _ALIASES or word in _SIDES:
            return self._of_sides(token, word, tuple(_SIDES[_ALIASES.get(word, word)]))
        if word in ("proto", "protocol"):
            return self._protocol(token)
        if word == "flags":
            return self._flags(token)
        if word in _RATES:
            sign, value = self._sign(), self._number(self._value("a number"))
            return Rate(word, sign, value, OCTETS, PACKETS)
        if word in ("inet", "ipv4", "inet6", "ipv6"):
            return Family(("sourceAddress",), True, token.column, kind="ipv6" if "6" in word else "ipv4")
        if word in ("ident", "exporter") and not self._compares():
            return self._addresses(("exporter",), token)
        if word in _PLAIN:
            return self._numbers(_PLAIN[word], token)
        if known(token.text) is None and (number := _protocol_number(word)) is not None:
            return self._one(("protocolIdentifier",), token, number)
        return self._of_key(token)

    def _directed(self, token: Token, word: str) -> Term:
        """``src port 80``, ``src or dst net ...``, ``in if 3``."""
        sides = [word]
        joined = ""
        if self._next.is_("and", "or") and self._tokens[self._at + 1].is_("src", "dst", "in", "out"):
            joined = self._take().text.lower()
            sides.append(self._take().text.lower())
        kind = self._value("ip, net, port, as, if or mac")
        name = _ALIASES.get(kind.text.lower(), kind.text.lower())
        if name not in _SIDES or any(side not in _SIDES[name] for side in sides):
            raise MatchError(f"{' '.join(sides)} {kind.text} has no meaning; after src and dst stand ip, net, port, as "
                             "or mac, after in and out if", kind.column)  # fmt: skip
        return self._of_sides(kind, kind.text.lower(), tuple(sides), joined == "and")

    def _of_sides(self, token: Token, word: str, sides: tuple[str, ...], all_: bool = False) -> Term:
        """A term about either side, or one."""
        name = _ALIASES.get(word, word)
        start = self._at
        parts = []
        for side in sides:
            self._at = start
            names = _SIDES[name][side]
            parts.append(self._addresses(names, token) if name == "ip" else self._of_type(names, token))
        return parts[0] if len(parts) == 1 else Together(parts, all_)

    def _of_type(self, names: tuple[str, ...], token: Token) -> Term:
        return self._for(names, known(names[0]), token)

    def _of_key(self, token: Token) -> Term:
        return self._for((token.text,), self._key(token), token)

    def _key(self, token: Token) -> Key:
        name = token.text.partition("@")[0]
        key = known(name)
        if key is None:
            words = (*registry.names(), *_PLAIN, *_SIDES, *_RATES, *_ALIASES, "proto", "flags", "exporter")
            near = nearest(name, words)
            raise MatchError(f"nobody knows {token.text}" + (f"; did you mean {near}?" if near else ""), token.column)
        return key.named(token.text)

    def _for(self, names: tuple[str, ...], key: Key, token: Token) -> Term:
        """What follows the name of a key, by its type."""
        kind = key.type.kind
        if kind in ("address", "ipv4", "ipv6"):
            return self._addresses(names, token)
        if kind in ("string", "octets", "list"):
            return self._strings(names, kind, token)
        if kind == "mac":
            return self._macs(names, token)
        if kind not in _NUMERIC:
            raise MatchError(f"values of {key.name} ({key.type}) cannot be compared", token.column)
        return self._numbers(names, token, kind)

    def _compares(self) -> bool:
        return self._next.is_(*COMPARE)

    def _sign(self, *signs: str) -> str:
        signs = signs or tuple(COMPARE)
        return self._take().text if self._next.is_(*signs) else "="

    # addresses

    def _addresses(self, names: tuple[str, ...], token: Token) -> Term:
        """``ip ADDRESS``, ``net PREFIX``, ``ip in [...]``, ``ip in @set``, ``KEY = ADDRESS``."""
        sign = self._sign("=", "!=")
        nets = [_network(value.text, value.column) for value in self._values("an address")]
        return InPrefixes(names, True, token.column, sign == "!=", prefixes=Prefixes(nets))

    def _values(self, what: str) -> list[Token]:
        """One value, or those of a list or set."""
        if self._taken("in"):
            if self._next.text.startswith("@"):
                return self._set(self._take())
            self._expect("[")
            return self._list(what)
        if self._taken("["):
            return self._list(what)
        token = self._value(what)
        return self._set(token) if token.text.startswith("@") and not token.quoted else [token]

    def _list(self, what: str) -> list[Token]:
        found = []
        while not self._taken("]"):
            found.append(self._value(what))
            self._taken(",")
        if not found:
            raise MatchError("the list is empty", self._tokens[self._at - 1].column)
        return found

    def _set(self, token: Token) -> list[Token]:
        name = token.text[1:]
        if name not in self._sets:
            have = ", ".join(sorted(self._sets)) or "none; sets= names them"
            raise MatchError(f"there is no set {name}; there are: {have}", token.column)
        return [Token(line, token.column, True) for line in self._sets[name]]

    # numbers

    def _numbers(self, names: tuple[str, ...], token: Token, kind: str = "unsigned") -> Term:
        """``port 80``, ``port 1000-2000``, ``port in [...]``, ``octets > 1k``."""
        needed = len(names) == 1
        if self._compares():
            sign = self._take().text
            value = self._value("a number")
            return Compare(names, needed, token.column, sign=sign, value=self._number(value, kind))
        ranges = [self._range(value, kind) for value in self._values("a number")]
        if len(ranges) == 1 and ranges[0][0] == ranges[0][1]:
            return Compare(names, needed, token.column, sign="=", value=ranges[0][0])
        return InNumbers(names, needed, token.column, numbers=Numbers(ranges))

    def _one(self, names: tuple[str, ...], token: Token, number: int) -> Term:
        return Compare(names, True, token.column, sign="=", value=number)

    def _range(self, token: Token, kind: str) -> tuple[int, int]:
        match = _RANGE.match(token.text)
        if match and _NUMBER.match(match[1]) and _NUMBER.match(match[2]):
            low, high = (self._number(Token(part, token.column), kind) for part in match.groups())
            if low > high:
                raise MatchError(f"{token.text}: the second number is less than the first", token.column)
            return int(low), int(high)
        value = self._number(token, kind)
        return value, value

    def _number(self, token: Token, kind: str = "unsigned") -> float:
        if kind in ("seconds", "milliseconds") and (time := _time(token.text)) is not None:
            return int(time if kind == "seconds" else time * 1000)
        if kind == "boolean" and token.text.lower() in ("true", "false"):
            return int(token.text.lower() == "true")
        match = _NUMBER.match(token.text)
        if match is None:
            raise MatchError(f"{token} is no number", token.column)
        digits, factor = match[1].lower(), _FACTORS[match[2].lower()]
        if "0x" in digits:
            return int(digits, 16) * factor
        return float(digits) * factor if "." in digits else int(digits) * factor

    # other kinds

    def _protocol(self, token: Token) -> Term:
        sign = self._sign("=", "!=")
        ranges = []
        for value in self._values("a protocol"):
            number = _protocol_number(value.text.lower())
            if number is None:
                raise MatchError(f"{value} is no protocol, by name or number", value.column)
            ranges.append((number, number))
        return InNumbers(("protocolIdentifier",), True, token.column, sign == "!=", numbers=Numbers(ranges))

    def _flags(self, token: Token) -> Term:
        """``flags SA``: all of these, as nfdump has it; ``flags = 0x12`` is the number."""
        names = ("tcpControlBits",)
        if self._compares():
            return self._numbers(names, token)
        value = self._value("letters of TCP flags (UAPRSFEC)")
        if value.text.lower() == "x":
            return Bits(names, True, token.column, bits=0x3F)
        if not all(letter in _FLAGS for letter in value.text.lower()):
            raise MatchError(f"{value}: flags of TCP are letters of UAPRSFEC, X for all of UAPRSF", value.column)
        return Bits(names, True, token.column, bits=sum(_FLAGS[letter] for letter in set(value.text.lower())))

    def _strings(self, names: tuple[str, ...], kind: str, token: Token) -> Term:
        if self._next.is_("~", "!~"):
            sign, pattern = self._take().text, self._value("a pattern")
            try:
                search = re.compile(pattern.text.encode()).search
            except re.error as error:
                raise MatchError(f"{pattern} is no regular expression: {error}", pattern.column) from None
            return InStrings(
                names, True, token.column, sign == "!~", strings=Strings(lambda value: bool(search(value)))
            )
        sign = self._sign("=", "!=")
        values = frozenset(_octets(value, kind) for value in self._values("a text"))
        stripped = kind == "string"
        return InStrings(
            names, True, token.column, sign == "!=",
            strings=Strings(lambda value: (value.rstrip(b"\0") if stripped else value) in values),
        )  # fmt: skip

    def _macs(self, names: tuple[str, ...], token: Token) -> Term:
        sign = self._sign("=", "!=")
        ranges = []
        for value in self._values("a MAC address"):
            digits = re.sub(r"[:.-]", "", value.text)
            if not re.fullmatch(r"[0-9a-fA-F]{12}", digits):
                raise MatchError(f"{value} is no MAC address", value.column)
            ranges.append((int(digits, 16),) * 2)
        return InNumbers(names, True, token.column, sign == "!=", numbers=Numbers(ranges))


def _network(text: str, column: int) -> Span:
    if re.fullmatch(r"\d+(\.\d+){0,2}/\d+", text):  # 10/8 as tcpdump has it
        address, _, bits = text.partition("/")
        text = address + ".0" * (3 - address.count(".")) + "/" + bits
    try:
        return span(text)
    except ValueError:
        raise MatchError(f"{text!r} is no address, and no prefix such as 10.0.0.0/8 or 2001:db8::/32", column) from None


def _protocol_number(name: str) -> int | None:
    if name.isdecimal():
        return int(name) if int(name) < 256 else None
    return PROTOCOLS.get(name)


def _octets(token: Token, kind: str) -> bytes:
    if kind == "string":
        return token.text.encode()
    try:
        return bytes.fromhex(token.text.removeprefix("0x"))
    except ValueError:
        raise MatchError(f"{token}: octets are written in hexadecimal digits", token.column) from None


def _time(text: str) -> float | None:
    """Seconds since 1970 of a date and time, in UTC where it does not say; None for what is none."""
    if not re.match(r"\d{4}-\d\d-\d\d", text):
        return None
    try:
        time = datetime.datetime.fromisoformat(text)
    except ValueError:
        return None
    return (time if time.tzinfo else time.replace(tzinfo=datetime.UTC)).timestamp()
