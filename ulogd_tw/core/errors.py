"""The exceptions of the core. Every exception of this package derives from `UlogdError`."""

from __future__ import annotations

from typing import Any


class UlogdError(Exception):
    """Base of every error raised on purpose; its text says what, where and what to do."""


class PartlyWritten(UlogdError):
    """An output was stopped within a batch: the first `rows` rows are written, the others are still the caller's."""

    def __init__(self, text: str, rows: int) -> None:
        super().__init__(text)
        self.rows = rows


class MessageError(UlogdError):
    """Malformed octets from a peer, a file or the kernel.

    `reason` is one short word for counters (``"length"``), `offset` the octet of the fault, if known. `before` holds
    the part of a stream in front of that octet, where reading cannot go on: whole Messages, or packets.
    """

    def __init__(self, text: str, reason: str = "malformed", offset: int | None = None) -> None:
        super().__init__(text)
        self.reason = reason
        self.offset = offset
        self.before: Any = None


class Mistake:
    """One fault of a configuration: where, what, and whether an old configuration may keep it (a warning).

    `option` is the option with the unreadable value, if that is the fault. A `remark` changes nothing of what runs, and
    is tolerated always.
    """

    __slots__ = ("where", "text", "tolerated", "option", "remark")

    def __init__(self, where: str, text: str, tolerated: bool = False, option: str = "", remark: bool = False) -> None:
        self.where = where
        self.text = text
        self.tolerated = tolerated or remark
        self.option = option
        self.remark = remark

    @property
    def kind(self) -> str:
        """``remark``, ``warning`` or ``error``."""
        return "remark" if self.remark else "warning" if self.tolerated else "error"

    def __str__(self) -> str:
        return f"{self.where}: {self.text}" if self.where else self.text

    def __repr__(self) -> str:
        return f"Mistake({str(self)!r})"


class ConfigError(UlogdError):
    """A configuration that cannot be used; `mistakes` lists every fault."""

    def __init__(self, mistakes: list[Mistake]) -> None:
        super().__init__("\n".join(str(m) for m in mistakes))
        self.mistakes = mistakes


class StartError(UlogdError):
    """A plugin that cannot start: no privilege, an address in use, a database that refuses.

    `remedy` tells the administrator how to mend it.
    """

    def __init__(self, text: str, remedy: str = "") -> None:
        super().__init__(f"{text}; {remedy}" if remedy else text)
        self.remedy = remedy


def in_words(error: Exception) -> str:
    """An error for a message: of the system's errors the path and the reason, without number and quotes."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror)
    return str(error)


def lacks_memory(error: MemoryError) -> StartError:
    """The error of an instance whose tables do not fit into memory."""
    return StartError(f"not enough memory: {error}", "make its limits smaller, such as max_keys or max_flows")


def raised(error: Exception) -> None:
    """The fault itself, raised: the default of a plugin's `fault` until the service sets one."""
    raise error


class NotWritten(UlogdError):
    """The rows of a batch that reached no database or file before the output was stopped."""


class NotStarted(UlogdError):
    """The service cannot start: the text says why, `status` is the exit status of the process.

    `logged` where the log has the same words.
    """

    def __init__(self, text: str, status: int = 1, *, logged: bool = False) -> None:
        super().__init__(text)
        self.status = status
        self.logged = logged
