"""A question about stored flows: which flows, of what time, grouped by what, and what of them is summed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from ulogd_tw.core import derived_keys
from ulogd_tw.core.derived_keys import Derived
from ulogd_tw.core.keys import FIVE_TUPLE, known, nearest, registry
from ulogd_tw.flows.errors import QuestionError
from ulogd_tw.flows.times import DAY_MS

SUMS = ("octets", "packets", "flows", "reply_octets", "reply_packets")
"""What can be summed."""
SUM_WORDS = {"bytes": "octets", "pkts": "packets", "records": "flows"}
KEY_WORDS = {
    "srcip": "sourceAddress", "dstip": "destinationAddress", "srcport": "sourceTransportPort",
    "dstport": "destinationTransportPort", "proto": "protocolIdentifier", "srcas": "bgpSourceAsNumber",
    "dstas": "bgpDestinationAsNumber", "inif": "ingressInterface", "outif": "egressInterface",
    "tos": "ipClassOfService", "flags": "tcpControlBits", "router": "exporter",
}  # fmt: skip
"""Words of nfdump for keys."""
EITHER = {
    "ip": ("sourceAddress", "destinationAddress"), "port": ("sourceTransportPort", "destinationTransportPort"),
    "as": ("bgpSourceAsNumber", "bgpDestinationAsNumber"), "if": ("ingressInterface", "egressInterface"),
}  # fmt: skip
"""Words for either of two keys: a flow counts under both values."""
LIMIT = 1000
"""Rows of an answer where the question has no limit of its own."""
MOST_ROWS = 10_000_000
MOST_KEYS = 16
MOST_EVERY = 100_000
"""Maximum number of steps of --every in a range."""
Offsets = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Question:
    """One question. Times are milliseconds since 1970, a `begin` or `end` of None leaves the range open.

    The range is half open, and has the flows that overlap it; with `ended` those that ended in it. `offsets` are those
    of local time, for days.
    """

    match: str = "any"
    begin: int | None = None
    end: int | None = None
    by: tuple[str, ...] = ()
    sums: tuple[str, ...] = ("octets", "packets", "flows")
    top: int | None = None
    every: int | None = None
    spread: bool = False
    ended: bool = False
    order: str = ""
    limit: int | None = None
    columns: tuple[str, ...] = ()
    offsets: Offsets = ((0, 0),)
    total: bool = False
    """One row of sums, where neither `by` nor `every` is given."""
    rest: bool = False
    """One more group, of all that are not among the `top`."""

    @property
    def listing(self) -> bool:
        """Whether the flows themselves are asked for."""
        return not self.by and self.every is None and not self.total

    @property
    def rows(self) -> int:
        """Maximum number of rows of the answer."""
        return self.limit or LIMIT

    def asdict(self) -> dict[str, Any]:
        """The question as JSON has it."""
        return {name: value for name, value in asdict(self).items() if value != _DEFAULTS[name]}

    def checked(self) -> Question:
        """The question with keys and sums by their own names. Raises `QuestionError`."""
        _check_range(self)
        found = replace(
            self, by=_distinct(map(key_name, self.by)),
            sums=_distinct(map(sum_name, self.sums)) or ("flows",),
        )  # fmt: skip
        _check_shape(found)
        return found


_DEFAULTS = {field.name: field.default for field in fields(Question)}


def of(body: Mapping[str, Any]) -> Question:
    """The question of a JSON object, checked. Raises `QuestionError`."""
    found: dict[str, Any] = {}
    for name, value in body.items():
        if name not in _DEFAULTS:
            raise QuestionError(f"{name} is no part of a question; there are {', '.join(_DEFAULTS)}")
        if value is not None:
            found[name] = _READ[name](name, value)
    return Question(**found).checked()


def sum_name(word: str) -> str:
    """The name of a sum. Raises `QuestionError`."""
    name = SUM_WORDS.get(word, word)
    if name not in SUMS:
        near = nearest(name, (*SUMS, *SUM_WORDS))
        hint = f"did you mean {near}?" if near else f"there are {', '.join(SUMS)}"
        raise QuestionError(f"{word} is not summed; {hint}")
    return name


def key_name(word: str) -> str:
    """The name of a key of groups, with what may follow its slash. Raises `QuestionError`."""
    base, slash, rest = word.strip().partition("/")
    if base in EITHER and known(base) is None:
        for name in EITHER[base]:
            derived(name + slash + rest)
        return base + slash + rest
    name = KEY_WORDS.get(base, base) + slash + rest
    if derived(name).base_key is None:
        near = nearest(base, (*registry.names(), *KEY_WORDS, *EITHER))
        hint = f"did you mean {near}?" if near else "ulogd-tw keys WORD looks for one"
        if len(base.split()) > 1:
            hint = f"write commas between keys: {','.join(base.split())}"
        raise QuestionError(f"there is no key {base}; {hint}")
    return name


def derived(name: str) -> Derived:
    """Key and rounding of a name such as sourceAddress/24:48. Raises `QuestionError`."""
    try:
        found = derived_keys.parse(name)
    except ValueError as error:
        raise QuestionError(str(error)) from None
    key, (four, six) = found.base_key, found.prefixes or (0, 0)
    if key is not None and key.type.kind == "address" and ":" not in name and four < six:
        raise QuestionError(
            f"{name}: an IPv4 prefix has at most 32 bits; write {found.base}/{four}:{six} for the first {six} bits of "
            "IPv6 addresses and whole IPv4 ones"
        )
    return found


def sides(name: str) -> tuple[str, ...]:
    """The keys of one of `by`: itself, or both that a word such as ip stands for."""
    base, slash, rest = name.partition("/")
    if base in EITHER and known(base) is None:
        return tuple(one + slash + rest for one in EITHER[base])
    return (name,)


def whole_keys(text: str) -> tuple[str, ...]:
    """The keys of a list such as srcip,dstport. A member may be empty."""
    text = text.replace("5tuple", ",".join(FIVE_TUPLE))
    return tuple(word.strip() for word in text.split(","))


def _check_range(question: Question) -> None:
    begin, end = question.begin, question.end
    if begin is not None and end is not None and begin >= end:
        raise QuestionError("the range is empty: its end must be after its begin")
    if question.every and begin is not None and end is not None and (end - begin) // question.every > MOST_EVERY:
        raise QuestionError(f"the range has more than {MOST_EVERY} steps; take a longer one")


def _check_shape(question: Question) -> None:
    if len(question.by) > MOST_KEYS:
        raise QuestionError(f"a group has at most {MOST_KEYS} keys")
    if question.spread and question.ended:
        raise QuestionError("spread divides flows by their duration, ended counts them at their end: take one of them")
    if question.spread and question.listing:
        raise QuestionError("spread divides sums: it needs every, or by")
    if question.top is not None and not question.by:
        raise QuestionError("top chooses groups: it needs by, such as by sourceAddress")
    if question.rest and question.top is None:
        raise QuestionError("rest is what is not among the largest groups: it needs top, such as top 10")
    if question.columns and not question.listing:
        raise QuestionError("columns are those of a list of flows; groups have their keys and sums")
    orders = ("time",) if question.listing else (*question.by, *question.sums, *(("time",) if question.every else ()))
    if question.order and ordered(question) not in orders:
        raise QuestionError(f"{question.order} is no column to order by; there are {', '.join(orders)}")


def ordered(question: Question) -> str:
    """The column to order by, without a sign before it."""
    word = question.order[question.order[:1] in ("+", "-") :]
    base, slash, rest = word.partition("/")
    return SUM_WORDS.get(word, KEY_WORDS.get(base, base) + slash + rest)


def _distinct(words: Any) -> tuple[str, ...]:
    return tuple(dict.fromkeys(words))


# the parts of JSON

_SUCH_AS = {"by": "srcip,dstport", "sums": "octets,flows", "columns": "sourceAddress,octets"}


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str) or len(value) > 1 << 16 or "\0" in value:
        raise QuestionError(f"{name} must be a text")
    return value


def _texts(name: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        found = whole_keys(value)
    elif isinstance(value, (list, tuple)):
        found = tuple(_text(name, one) for one in value)
    else:
        raise QuestionError(f"{name} must be a list of texts")
    if found and not any(map(str.strip, found)):
        raise QuestionError(f"{name} is empty; name one or more, such as {_SUCH_AS[name]}, or leave it out")
    for place, word in enumerate(found, 1):
        if not word.strip():
            raise QuestionError(f"{name}: member {place} of {len(found)} is empty; remove a comma, or name one there")
    return found


def _order(name: str, value: Any) -> str:
    if not _text(name, value).strip("+- "):
        raise QuestionError(f"{name} is empty; name a column, such as octets, or leave it out")
    return str(value)


def _number(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 53:
        raise QuestionError(f"{name} must be a whole number")
    return value


def _length(name: str, value: Any) -> int:
    if _number(name, value) < 1:
        raise QuestionError(f"{name} must be at least a millisecond")
    return value


def _count(name: str, value: Any) -> int:
    if not 1 <= _number(name, value) <= MOST_ROWS:
        raise QuestionError(f"{name} must be from 1 to {MOST_ROWS}")
    return value


def _truth(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise QuestionError(f"{name} must be true or false")
    return value


def _offsets(name: str, value: Any) -> Offsets:
    try:
        found = tuple((int(since), int(ahead)) for since, ahead in value)
    except (TypeError, ValueError, OverflowError):
        found = ()
    if not found or len(found) > 1000 or any(abs(ahead) * 1000 >= DAY_MS for _, ahead in found):
        raise QuestionError(f"{name} must be a list of [milliseconds since 1970, seconds ahead of UTC]")
    return tuple(sorted(found))


_READ = {
    "match": _text, "begin": _number, "end": _number, "by": _texts, "sums": _texts, "top": _count, "every": _length,
    "spread": _truth, "ended": _truth, "order": _order, "limit": _count, "columns": _texts, "offsets": _offsets,
    "total": _truth, "rest": _truth,
}  # fmt: skip
