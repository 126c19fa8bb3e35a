"""Parses expressions in the language of tcpdump and nfdump into terms.

    expression  = and { "or" and }            and = not { "and" not }
    not         = "not" not | "(" expression ")" | term
    term        = ["src" | "dst"] ("ip" | "host" | "net" | "port" | "as") ...    see `_Parser`
                | ("tcp" | "udp" | "ip" | "ip6" | ...) [term]
                | KEY sign value | KEY "in" list | KEY "~" "pattern" | "exists" KEY
                | value                         after "and", "or", "not": of what the term before is about

The words are those of nfdump(1) and pcap-filter(7), as far as they apply to flows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ulogd_tw.core.keys import Key, known, nearest, registry
from ulogd_tw.core.readable import TIMES, type_of
from ulogd_tw.match import literals, patterns, words
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
from ulogd_tw.match.tokens import Token, characters, tokens
from ulogd_tw.match.values import Numbers, Prefixes, Strings

_RESERVED = frozenset({"and", "or", "not", "in", "(", ")", "[", "]", ",", ""})
_NUMERIC = ("unsigned", "signed", "float", "boolean", "seconds", "milliseconds", *TIMES)


MOST_NESTED = 100
"""Maximum depth of brackets and not; each level costs some calls of Python, which have a bound too."""


def parse(
    text: str, sets: Mapping[str, list[str]] | None = None, service: Callable[[str], int | None] = lambda name: None
) -> Term:
    """The term of an expression. Raises `MatchError`.

    `sets` are the values of named sets; `service` gives the port of a service, or None.
    """
    return _Parser(text, sets or {}, service).whole()


@dataclass(frozen=True)
class _Again:
    """The subject of a term, for a value that follows alone: ``port 80 or 443``.

    `go_on` reads the value; `takes` decides whether a word is a value, given whether it stands alone.
    """

    go_on: Callable[[], Term]
    takes: Callable[[Token, bool], bool]


class _Parser:
    def __init__(self, text: str, sets: Mapping[str, list[str]], service: Callable[[str], int | None]) -> None:
        self._tokens = tokens(text)
        self._at = 0
        self._sets = sets
        self._service = service
        self._again: _Again | None = None
        self._depth = 0

    # reading on

    @property
    def _next(self) -> Token:
        return self._tokens[self._at]

    def _take(self) -> Token:
        token = self._next
        self._at += 1
        return token

    def _taken(self, *signs: str) -> bool:
        if self._next.is_(*signs):
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
            return Not(self._inner(self._not))
        if self._taken("("):
            found = self._inner(self._or)
            self._expect(")")
            return found
        return self._term()

    def _inner(self, part: Callable[[], Term]) -> Term:
        """A part inside brackets or behind not; their depth has a bound."""
        self._depth += 1
        if self._depth > MOST_NESTED:
            raise MatchError(f"brackets and not are nested deeper than {MOST_NESTED}", self._next.column)
        found = part()
        self._depth -= 1
        return found

    # terms

    def _term(self) -> Term:
        again, self._again = self._again, None
        token = self._take() if self._next.is_("in") else self._value("a term")
        word = token.text.lower()
        alone = self._next.is_("and", "or", ")", "")
        if again is not None and again.takes(token, alone):
            self._at -= 1
            return again.go_on()
        if token.quoted:
            raise MatchError(f"{token} is a text; begin the term with a word such as src, port or the name of a key",
                             token.column)  # fmt: skip
        if word == "any":
            return Always()
        if word == "exists":
            name = self._value("the name of a key")
            return Exists((self._key(name).name,), False, name.column)
        if word in words.FAMILIES and (word != "ip" or alone or self._next.is_(*words.QUALIFIED)):
            return self._qualified(Family(("sourceAddress",), True, token.column, kind=words.FAMILIES[word]))
        if word in ("src", "dst", "in", "out"):
            return self._directed(token, word)
        if word == "nat" or words.ALIASES.get(word, word) in words.SIDES:
            name = self._side(token)
            return self._of_sides(token, name, tuple(words.SIDES[name]))
        if word == "ether":
            return self._ether()
        if word in ("proto", "protocol"):
            return self._protocol(token)
        if word == "flags":
            return self._flags(token)
        if word in words.RATES:
            sign, value = self._sign(), literals.number(self._value("a number"))
            return Rate(word, sign, value, words.OCTETS, words.PACKETS)
        if word in words.EXPORTER:
            return self._addresses(("exporter",), token)
        if word in words.ADDRESSES and self._taken("ip", "host", "net"):
            return self._addresses(words.ADDRESSES[word], token)
        if word in words.LIMITS:
            value = literals.number(self._value("a number"))
            return Compare(words.LENGTH, True, token.column, sign=words.LIMITS[word], value=value)
        if word == "dscp":
            low, high = literals.number_range(code := self._value("a number"), "unsigned")
            if low != high or not isinstance(low, int) or not 0 <= low < 64:
                raise MatchError(f"{code} is not a code point from 0 to 63", code.column)
            return Bits(words.PLAIN["tos"], True, token.column, bits=0xFC, value=low << 2)
        if word == "vlan" and alone:
            return Exists(words.PLAIN[word], False, token.column)
        if word in words.PLAIN:
            return self._numbers(words.PLAIN[word], token)
        if known(token.text) is None and (number := literals.protocol(word)) is not None and not word.isdecimal():
            return self._qualified(self._one(("protocolIdentifier",), token, number))
        return self._of_key(token)

    def _qualified(self, first: Term) -> Term:
        """``tcp port 80``, ``ip6 host ::1``: a term after a protocol or family without ``and``."""
        if self._next.is_("["):
            text = "octets of a header cannot be looked at; for flags of TCP there is flags S, for ICMP icmp-type 8"
            raise MatchError(text, self._next.column)
        return self._with(first, self._term) if self._next.is_(*words.QUALIFIED) else first

    def _with(self, first: Term, go_on: Callable[[], Term]) -> Term:
        found = Together([first, go_on()], True)
        if (again := self._again) is not None:
            self._again = _Again(lambda: self._with(first, again.go_on), again.takes)
        return found

    def _directed(self, token: Token, word: str) -> Term:
        """``src port 80``, ``src or dst net ...``, ``in if 3``."""
        sides = [word]
        joined = ""
        if self._next.is_("and", "or") and self._tokens[self._at + 1].is_("src", "dst", "in", "out"):
            joined = self._take().text.lower()
            sides.append(self._take().text.lower())
        kind = self._value("ip, net, port, as, country, if or mac")
        name = self._side(kind)
        if name not in words.SIDES or any(side not in words.SIDES[name] for side in sides):
            raise MatchError(f"{' '.join(sides)} {kind.text} has no meaning; src and dst can be followed by ip, net, "
                             "port, nat ip, nat port, as, country or mac; in and out by if", kind.column)  # fmt: skip
        return self._of_sides(kind, name, tuple(sides), joined == "and")

    def _side(self, token: Token) -> str:
        """The subject of a word: the name in `words.SIDES`, if it has one."""
        word = token.text.lower()
        if word == "nat":
            word = f"nat {words.ALIASES.get(self._next.text.lower(), self._next.text.lower())}"
            if word not in words.SIDES:
                raise MatchError("nat must be followed by ip, net or port", self._next.column)
            self._take()
        return words.ALIASES.get(word, word)

    def _of_sides(self, token: Token, name: str, sides: tuple[str, ...], all_: bool = False) -> Term:
        """A term about one side or either; and the meaning of a value that follows alone."""
        takes = self._is_port if name.endswith("port") else _TAKES.get(name, _is_number)
        again = _Again(lambda: self._of_sides(token, name, sides, all_), takes)
        if self._taken("("):
            self._again = again
            found = self._or()
            self._expect(")")
            return found
        start, differs = self._at, self._compares() and not self._next.is_("=")
        parts = []
        for side in sides:
            self._at = start
            parts.append(self._of_side(token, name, words.SIDES[name][side]))
        self._again = None if differs else again
        return parts[0] if len(parts) == 1 else Together(parts, all_)

    def _of_side(self, token: Token, name: str, names: tuple[str, ...]) -> Term:
        if name.endswith("ip"):
            return self._addresses(names, token, token.is_("net"))
        if name.endswith("port"):
            return self._numbers(names, token, "port")
        if name == "country":
            return self._strings(names, "string", token, str.upper)
        return self._for(names, known(names[0]), token)

    def _ether(self) -> Term:
        """``ether host ADDRESS``."""
        token = self._value("src, dst or host")
        if not token.is_("src", "dst", "host"):
            raise MatchError("ether must be followed by src, dst or host", token.column)
        sides = ("src", "dst") if token.is_("host") else (token.text.lower(),)
        return self._of_sides(token, "mac", sides)

    def _of_key(self, token: Token) -> Term:
        return self._for((token.text,), self._key(token), token)

    def _key(self, token: Token) -> Key:
        name = token.text.partition("@")[0]
        key = known(name)
        if key is None:
            if name[:1].isdigit() or ":" in name:
                raise MatchError(f"{token} cannot stand alone; write its kind before it, such as port or host",
                                 token.column)  # fmt: skip
            near = nearest(name, (*registry.names(), *words.ALL))
            raise MatchError(
                f"{token.text} is neither a word of the language nor a key"
                + (f"; did you mean {near}?" if near else ""),
                token.column,
            )
        return key.named(token.text)

    def _for(self, names: tuple[str, ...], key: Key, token: Token) -> Term:
        """The rest of a term that begins with a key, by the key's type."""
        kind = type_of(key.type).kind
        if form := key.type.form:
            if kind in ("string", "list"):
                return self._strings(names, "string", token, lambda text: literals.formed(text, key.type))
            kind = form if form in TIMES else kind
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

    def _addresses(self, names: tuple[str, ...], token: Token, short: bool = False) -> Term:
        """``ip ADDRESS``, ``net PREFIX``, ``ip in [...]``, ``ip in @set``, ``KEY = ADDRESS``."""
        sign = self._sign("=", "!=")
        values = self._values("an address")
        if len(values) == 1 and (self._taken("mask") or literals.is_dotted(self._next)):
            nets = [literals.masked(values[0], self._value("a mask"))]
        else:
            nets = [literals.network(value, short) for value in values]
        return InPrefixes(names, True, token.column, sign == "!=", prefixes=Prefixes(nets))

    def _values(self, what: str) -> list[Token]:
        """One value, or the values of a list or set."""
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
            raise MatchError(f"there is no set {name}; sets are: {have}", token.column)
        return [Token(characters(line), token.column, True) for line in self._sets[name]]

    # numbers

    def _numbers(self, names: tuple[str, ...], token: Token, kind: str = "unsigned") -> Term:
        """``port 80``, ``port 1000-2000``, ``port in [...]``, ``octets > 1k``."""
        needed = len(names) == 1
        if self._compares():
            sign = self._take().text
            value = self._port(self._value("a number")) if kind == "port" else self._value("a number")
            return Compare(names, needed, token.column, sign=sign, value=literals.number(value, kind))
        values = [self._port(value) if kind == "port" else value for value in self._values("a number")]
        if len(values) == 1 and (masked := literals.number_and_mask(values[0])) is not None:
            return Bits(names, needed, token.column, bits=masked[1], value=masked[0])
        ranges = [literals.number_range(value, kind) for value in values]
        if len(ranges) == 1 and ranges[0][0] == ranges[0][1]:
            return Compare(names, needed, token.column, sign="=", value=ranges[0][0])
        return InNumbers(names, needed, token.column, numbers=Numbers(ranges))

    def _port(self, token: Token) -> Token:
        """A port or range of ports, or the name of a service."""
        if literals.is_number(token) or literals.number_and_mask(token) is not None:
            return token
        if (port := self._service(token.text.lower())) is None:
            raise MatchError(f"{token} is neither a number nor a service of this machine", token.column)
        return Token(str(port), token.column)

    def _is_port(self, token: Token, alone: bool) -> bool:
        word = token.text.lower()
        return literals.is_number(token) or (
            alone and word not in words.FAMILIES and literals.protocol(word) is None and self._service(word) is not None
        )

    def _one(self, names: tuple[str, ...], token: Token, number: int) -> Term:
        return Compare(names, True, token.column, sign="=", value=number)

    # other kinds

    def _protocol(self, token: Token) -> Term:
        sign = self._sign("=", "!=")
        ranges = []
        for value in self._values("a protocol"):
            number = literals.protocol(value.text.lower())
            if number is None:
                raise MatchError(f"{value} is not a protocol, by name or number", value.column)
            ranges.append((number, number))
        if sign == "=":
            self._again = _Again(lambda: self._protocol(token), _is_number)
        return InNumbers(("protocolIdentifier",), True, token.column, sign == "!=", numbers=Numbers(ranges))

    def _flags(self, token: Token) -> Term:
        """``flags SA``: all of these flags, as in nfdump; ``flags 0x12``: exactly these."""
        names = ("tcpControlBits",)
        if self._compares() or literals.is_number(self._next):
            return self._numbers(names, token)
        bits = literals.flags(self._value("letters of TCP flags (UAPRSFEC)"))
        return Bits(names, True, token.column, bits=bits, value=bits)

    def _strings(
        self, names: tuple[str, ...], kind: str, token: Token, written: Callable[[str], str] | None = None
    ) -> Term:
        """Texts; `written` converts them to the form in rows."""
        of_text = kind == "string"
        if self._next.is_("~", "!~"):
            sign, pattern = self._take().text, patterns.compiled(self._value("a pattern"), kind == "octets")
            return InStrings(names, True, token.column, sign == "!~", strings=Strings(pattern=pattern, text=of_text))
        sign = self._sign("=", "!=")
        found = self._values("a text")
        if written is not None:
            found = [Token(written(value.text), value.column) for value in found]
        strings = Strings(frozenset(literals.octets(value, kind) for value in found), text=of_text)
        return InStrings(names, True, token.column, sign == "!=", strings=strings)

    def _macs(self, names: tuple[str, ...], token: Token) -> Term:
        sign = self._sign("=", "!=")
        ranges = [(literals.mac(value),) * 2 for value in self._values("a MAC address")]
        return InNumbers(names, True, token.column, sign == "!=", numbers=Numbers(ranges))


def _is_number(token: Token, alone: bool) -> bool:
    return literals.is_number(token)


def _is_address(token: Token, alone: bool) -> bool:
    try:
        literals.network(token)
    except MatchError:
        return False
    return True


_TAKES: dict[str, Callable[[Token, bool], bool]] = {
    "ip": _is_address, "nat ip": _is_address,
    "country": lambda token, alone: alone and re.fullmatch("[A-Z]{2}", token.text) is not None,
    "mac": lambda token, alone: re.fullmatch(r"[0-9a-fA-F]{2}([:-][0-9a-fA-F]{2}){5}", token.text) is not None,
}  # fmt: skip
"""For each subject, a test for words that are values of it; the other subjects take numbers."""
