"""Mistakes in an expression or a named set."""

from __future__ import annotations

from ulogd_tw.core.errors import UlogdError


class MatchError(UlogdError):
    """A mistake in an expression; `column` counts from 1."""

    def __init__(self, text: str, column: int) -> None:
        super().__init__(f"column {column}: {text}")
        self.column = column
