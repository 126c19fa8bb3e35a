"""Errors in files of names."""

from ulogd_tw.core.errors import UlogdError


class NamesError(UlogdError):
    """A file with wrong content; `line` is the line of the fault, for text files."""

    def __init__(self, reason: str, line: int | None = None) -> None:
        self.line = line
        super().__init__(f"line {line}: {reason}" if line else reason)
