"""Errors of commands, each with the exit status of the process."""

from __future__ import annotations

from ulogd_tw.core.errors import UlogdError

DONE, NO, FAILED, INCOMPLETE = range(4)
"""Exit status: done; the answer is no; wrong usage or an error; the answer may be incomplete."""


class AskError(UlogdError):
    """The service did not answer, or answered with an error."""

    status = FAILED


class Unreachable(AskError):
    """There is no service to ask, or no answer from it."""


class NothingFound(AskError):
    """The service does not have the thing that was asked for."""

    status = NO


class Refused(AskError):
    """The service refused a change; `answer` is the JSON of its reasons."""

    status = NO

    def __init__(self, text: str, answer: dict) -> None:
        super().__init__(text)
        self.answer = answer
