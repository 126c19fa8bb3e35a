"""Regular expressions of the operator ``~``, in the time of the text's length whatever the pattern and the text are.

Python's own engine tries every way to match: one value of 40 octets from a peer can keep it busy for ever.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from ulogd_tw.match.errors import MatchError
from ulogd_tw.match.tokens import Token

MEMORY = 8 << 20
"""Octets that a compiled pattern may take."""
_PYTHON = re.compile(r"\\Z|\{,(\d+)\}|\\.|.", re.DOTALL)
"""Constructs written differently in RE2, and everything else, character by character."""


@dataclass(frozen=True)
class Pattern:
    """A pattern in the syntax of RE2; `octets`: of octets as they are, where others are of characters in UTF-8."""

    text: str
    octets: bool
    search: Callable[[bytes], bool] = field(compare=False, repr=False)


def compiled(token: Token, octets: bool = False) -> Pattern:
    """The pattern of an expression; `search` says whether something in a value matches. Raises `MatchError`."""
    try:
        import re2
    except ImportError:
        raise MatchError("~ needs the package google-re2: pip install google-re2", token.column) from None
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1 if octets else re2.Options.Encoding.UTF8
    options.log_errors = False
    options.max_mem = MEMORY
    text = _as_re2(token.text)
    try:
        found = re2.compile(text.encode(), options).search
    except re2.error as error:
        text = error.args[0].decode("utf-8", "replace") if isinstance(error.args[0], bytes) else str(error)
        why = f"{text} (lookaround and back-references are not supported)"
        raise MatchError(f"{token} is not a regular expression: {why}", token.column) from None
    return Pattern(text, octets, lambda value: found(value) is not None)


def search(pattern: Token) -> Callable[[bytes], bool]:
    """Whether octets have something that matches. Raises `MatchError`."""
    return compiled(pattern, octets=True).search


def _as_re2(text: str) -> str:
    r"""``\Z`` and ``{,n}`` of Python."""

    def one(match: re.Match[str]) -> str:
        if match[0] == r"\Z":
            return r"\z"
        return f"{{0,{match[1]}}}" if match[1] is not None else match[0]

    return _PYTHON.sub(one, text)
