"""What stands in ``when=`` of a rule: a threshold, a ratio to last week, a value never seen before, or a fault."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ulogd_tw.core.keys import nearest
from ulogd_tw.core.options import whole_seconds

MEASURES = ("octets", "packets", "flows", "reply_octets", "reply_packets")
"""Columns of AGGREGATE that a rule can add up."""
SERVICE = {"exporter": "exporter silent for 5m", "lost": "lost > 0 in 1m", "dropped": "dropped > 0 in 1m",
           "template": "template changed", "sampling": "sampling changed"}  # fmt: skip
"""First word of each condition about the service, with an example."""
EXAMPLE = 'write it as in when="octets by destinationAddress > 1G in 1m"'
LONGEST_WINDOW_S = 86400
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}


@dataclass(frozen=True)
class Condition:
    """The meaning of ``when=``.

    `kind`: above, ratio, new, or the first word of a condition about the service. `by` are keys of AGGREGATE. `limit`
    is the threshold or the factor, `window` the seconds over which values are added up.
    """

    kind: str
    measure: str = ""
    by: tuple[str, ...] = ()
    limit: float = 0.0
    window: int = 0

    @property
    def of_flows(self) -> bool:
        """Whether it needs an AGGREGATE."""
        return self.kind in ("above", "ratio", "new")


def number(text: str) -> float:
    """A number with k, M, G or T (powers of 1000) behind it. Raises ValueError."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([kKmMgGtT]?)", text)
    if match is None:
        raise ValueError(f"{text!r} is not a number; write it as in 1000, 2.5M or 1G")
    return float(match[1]) * _UNITS[match[2].lower()]


def parse(text: str) -> Condition:
    """The condition of a text. Raises ValueError."""
    words = re.sub(r"\s*,\s*", ",", re.sub(r"(>)", r" \1 ", text)).split()
    if not words:
        raise ValueError(f"is empty; {EXAMPLE}")
    first = words[0]
    if first in SERVICE:
        return _of_service(words)
    if first == "new":
        if len(words) != 2:
            raise ValueError('needs the keys of which a value is new; write it as in when="new sourceMacAddress"')
        return Condition("new", "flows", _keys(words[1]))
    if first not in MEASURES:
        known = (*MEASURES, "new", *SERVICE)
        near = nearest(first, known)
        hint = f"did you mean {near}?" if near else f"there are {', '.join(known)}"
        raise ValueError(f"{first} is nothing that a rule can look at; {hint}")
    by: tuple[str, ...] = ()
    rest = words[1:]
    if rest[:1] == ["by"] and len(rest) > 1:
        by, rest = _keys(rest[1]), rest[2:]
    if len(rest) < 2 or rest[0] != ">":
        raise ValueError(f"needs > and a number behind {' '.join(words[: len(words) - len(rest)])}; {EXAMPLE}")
    if rest[2:] in (["times", "last", "week"], ["x", "last", "week"]):
        return Condition("ratio", first, by, number(rest[1]), 3600)
    if len(rest) != 4 or rest[2] != "in":
        raise ValueError(f'needs "in" and a time, or "times last week", behind {rest[1]}; {EXAMPLE}')
    return Condition("above", first, by, number(rest[1]), _window(rest[3]))


def _keys(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(word for word in text.split(",") if word))


def _window(text: str) -> int:
    window = whole_seconds(text)
    if window > LONGEST_WINDOW_S:
        raise ValueError(f"a window of {text} is too long; write at most 1d")
    return window


def _of_service(words: list[str]) -> Condition:
    """A condition about exporters, losses, templates or sampling."""
    first = words[0]
    if first == "exporter" and words[1:3] == ["silent", "for"] and len(words) == 4:
        return Condition(first, "seconds", ("instance", "exporter"), whole_seconds(words[3]))
    if first in ("lost", "dropped") and len(words) == 5 and words[1] == ">" and words[3] == "in":
        return Condition(first, "rows", ("instance",), number(words[2]), _window(words[4]))
    if first in ("template", "sampling") and words[1:] == ["changed"]:
        return Condition(first, "changes", ("instance", "exporter"))
    raise ValueError(f'is not understood behind {first}; write it as in when="{SERVICE[first]}"')
