"""The exceptions of what stands on top of the core."""

from __future__ import annotations

from ulogd_tw.core.errors import UlogdError


class QueryError(UlogdError):
    """A query that cannot be answered; the text is that of the database."""


class PluginError(UlogdError):
    """A plugin that there is not, or that cannot be loaded; the text says why and what to install.

    `name` is the plugin's.
    """

    def __init__(self, text: str, name: str) -> None:
        super().__init__(text)
        self.name = name
