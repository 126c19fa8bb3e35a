"""The exceptions of the transports."""

from __future__ import annotations

import os

from ulogd_tw.core.errors import StartError, UlogdError


class NetlinkError(UlogdError):
    """The kernel refused a request; `number` is the errno."""

    def __init__(self, number: int, text: str = "") -> None:
        super().__init__(text or f"netlink request refused: {os.strerror(number)}")
        self.number = number


class NoInterface(StartError):
    """There is no network interface of this name, now."""


class SctpError(UlogdError):
    """An association was ended because of what the peer did."""


class SctpUnavailable(UlogdError):
    """SCTP cannot be had here in the way that was asked for; the text says what to do."""


class TlsError(UlogdError):
    """TLS that cannot be had: files of no use, or a peer that is refused; `reason` is one short word for counters."""

    def __init__(self, text: str, reason: str = "tls_files") -> None:
        super().__init__(text)
        self.reason = reason
