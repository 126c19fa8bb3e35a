"""Splits an expression into words, each with the column where it begins."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ulogd_tw.match.errors import MatchError

LONGEST = 1000
"""Characters of a number in an expression; Python converts no much longer one."""
_TOKEN = re.compile(
    r"""(?P<blank>\s+|\#.*)
      | (?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
      | (?P<sign>&&|\|\||!=|==|<=|>=|!~|[()\[\]{},=<>!~])
      | (?P<word>[^\s()\[\]{},=<>!~&|"'#]+)""",
    re.VERBOSE,
)
_SIGNS = {"&&": "and", "||": "or", "!": "not", "==": "=", "{": "[", "}": "]"}


@dataclass(frozen=True, slots=True)
class Token:
    """A word, a sign or a string (`quoted`), and its column (from 1)."""

    text: str
    column: int
    quoted: bool = False

    def is_(self, *words: str) -> bool:
        """Whether it is one of these words or signs."""
        return not self.quoted and self.text.lower() in words

    def __str__(self) -> str:
        return repr(self.text) if self.text else "the end"


def tokens(text: str) -> list[Token]:
    """All words, and an empty one at the end. Raises `MatchError` for unknown characters."""
    found, at = [], 0
    text = characters(text)
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            what = "the closing quote is missing" if text[at] in "\"'" else f"{text[at]!r} has no meaning here"
            what += "; for flags of TCP there is flags S" if text[at] == "&" else ""
            raise MatchError(what, at + 1)
        kind, word = match.lastgroup, match[0]
        if kind == "string":
            found.append(Token(re.sub(r"\\(.)", r"\1", word[1:-1]), at + 1, True))
        elif kind != "blank" and len(word) > LONGEST and re.match(r"-?\d", word):
            raise MatchError(f"a number of {len(word)} characters is too large", at + 1)
        elif kind != "blank":
            found.append(Token(_SIGNS.get(word, word), at + 1))
        at = match.end()
    return [*found, Token("", len(text) + 1)]


def characters(text: str) -> str:
    """A text whose octets were no UTF-8, with U+FFFD for each of these, as outputs write such values."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
