"""The exceptions of the layers above the core."""

from __future__ import annotations

from ulogd_tw.core.errors import UlogdError


class QueryError(UlogdError):
    """A query that cannot be answered; the text comes from the database."""


class NoTable(QueryError):
    """A query that names no table of the service."""


class PluginError(UlogdError):
    """A plugin that does not exist or cannot be loaded; the text gives the reason and what to install.

    `name` is the plugin's.
    """

    def __init__(self, text: str, name: str) -> None:
        super().__init__(text)
        self.name = name
