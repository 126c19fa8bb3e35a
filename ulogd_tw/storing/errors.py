"""What is wrong with a table."""

from __future__ import annotations

from ulogd_tw.core.errors import UlogdError


class TableError(UlogdError):
    """A table that is not there, or whose columns do not fit the keys; `remedy` says what to do."""

    def __init__(self, text: str, remedy: str = "") -> None:
        super().__init__(text)
        self.remedy = remedy
