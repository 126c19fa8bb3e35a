"""Errors in a table's structure."""

from __future__ import annotations

from ulogd_tw.core.errors import UlogdError


class TableError(UlogdError):
    """A missing table, or columns that do not fit the keys; `remedy` is the advice."""

    def __init__(self, text: str, remedy: str = "") -> None:
        super().__init__(text)
        self.remedy = remedy
