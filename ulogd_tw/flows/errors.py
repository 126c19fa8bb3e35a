"""Why a question about stored flows has no answer."""

from __future__ import annotations

from ulogd_tw.core.errors import UlogdError


class FlowsError(UlogdError):
    """A question without an answer; `status` is the exit status of a command."""

    status = 2


class QuestionError(FlowsError):
    """A mistake in the question."""


class NoStore(FlowsError):
    """There is no such store, or a directory is none."""

    status = 1


class Vanished(FlowsError):
    """A file went away while it was read: it was merged with others, or its time was over."""
