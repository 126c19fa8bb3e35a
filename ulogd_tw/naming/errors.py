"""What can be wrong with a file of names."""

from ulogd_tw.core.errors import UlogdError


class NamesError(UlogdError):
    """A file that cannot be read as what it should be; `line` is its line where there are lines."""

    def __init__(self, reason: str, line: int | None = None) -> None:
        self.line = line
        super().__init__(f"line {line}: {reason}" if line else reason)
