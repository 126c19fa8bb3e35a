"""The filter of a question as a term of MATCH."""

from __future__ import annotations

import socket

from ulogd_tw.flows.errors import QuestionError
from ulogd_tw.match import MatchError, Term, parse


def term(text: str) -> Term:
    """The term of an expression. Raises `QuestionError` with the place of the mistake."""
    try:
        return parse(text or "any", service=_port)
    except MatchError as error:
        raise QuestionError(f"{error}\n{text}\n{' ' * (error.column - 1)}^") from None


def _port(name: str) -> int | None:
    try:
        return socket.getservbyname(name)
    except (OSError, UnicodeEncodeError):
        return None
