"""The twistd command `ulogd`.

twistd imports this file to list its commands, so nothing heavy is imported here.
"""

from twisted.application.service import ServiceMaker

from ulogd_tw import signals, starting


class Command(ServiceMaker):
    """The command; where twistd asks for its options, this process becomes the service."""

    @property
    def options(self):
        """The class of its options. Signals that come while it and all that it needs are imported are remembered."""
        signals.remember()
        starting.begin()
        return super().options


ulogd = Command(
    "ulogd_tw",
    "ulogd_tw.tap",
    "Meters, collects, aggregates, stores and exports network flows (ulogd2 on Twisted).",
    "ulogd",
)
