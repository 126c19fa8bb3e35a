"""The exceptions of the plugins."""

from __future__ import annotations

from ulogd_tw.core.errors import UlogdError


class NotWritten(UlogdError):
    """The rows of a batch are in no database or file: it was away, or refused, until the output was stopped."""


class TableError(UlogdError):
    """A table that is not there, or whose columns do not fit the keys; `remedy` says what to do."""

    def __init__(self, text: str, remedy: str = "") -> None:
        super().__init__(text)
        self.remedy = remedy
