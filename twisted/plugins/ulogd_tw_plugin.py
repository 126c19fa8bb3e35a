"""The twistd command `ulogd`.

twistd imports this file to list its commands, so nothing heavy is imported here.
"""

from twisted.application.service import ServiceMaker

ulogd = ServiceMaker(
    "ulogd_tw",
    "ulogd_tw.tap",
    "Meters, collects, aggregates, stores and exports network flows (ulogd2 on Twisted).",
    "ulogd",
)
