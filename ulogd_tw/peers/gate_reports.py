"""Reports of the gates of TLS and DTLS, where exporters prove their identity, to a COLLECTOR."""

from __future__ import annotations

from typing import Any

from ulogd_tw.collecting.reception import Reception
from ulogd_tw.ipfix.exporters import NOT_ALLOWED, Allowed
from ulogd_tw.transports.dtls.listener import GARBAGE, PLAIN, STRAY, TOO_MANY
from ulogd_tw.transports.tls.credentials import Credentials, Files

_PASSED_OVER = {
    PLAIN: "it is IPFIX without DTLS",
    GARBAGE: "it is not DTLS",
    STRAY: "it is of an association that is not known here (any more); an exporter has to begin anew",
    TOO_MANY: "max_greetings others were answered within this second",
}


class GateReports:
    """The callables of a gate; `what` is TLS or DTLS."""

    def __init__(self, reception: Reception, what: str) -> None:
        self._reception = reception
        self._what = what
        self._allowed = Allowed(reception.settings.allow)

    def credentials(self, config: Any, datagrams: bool = False) -> Credentials:
        """The certificates named in the options of a COLLECTOR. Raises StartError."""
        files = Files(config.ca, config.cert, config.private_key, config.verify)
        found = Credentials(files, True, config.peers, self._say, datagrams).opened()
        if not config.verify:
            self._say("verify=0: exporters need no certificate, anybody can send flows")
        return found

    def _say(self, text: str) -> None:
        self._reception.say(f"tls {text}", "{of}: {what}", of=self._what, what=text)

    def refused(self, peer: tuple[str, int], error: Any) -> None:
        """A handshake has failed, for a reason that is counted."""
        self._reception.counters.errors[error.reason] += 1
        self._reception.say(f"{error.reason} {peer[0]}", "{of}: {host} port {port} is refused: {error}",
                         of=self._what, host=peer[0], port=peer[1], error=error)  # fmt: skip

    def passed_over(self, peer: tuple[str, int], reason: str) -> None:
        """A datagram of a sender that may be forged: a line of a kind a minute, whoever it names."""
        self._reception.counters.errors[reason] += 1
        self._reception.say(reason, "{of}: a datagram from {host} port {port} is ignored: {why}",
                         of=self._what, host=peer[0], port=peer[1], why=_PASSED_OVER[reason])  # fmt: skip

    def admits(self, peer: tuple[str, int]) -> bool:
        """Whether an address may begin a handshake."""
        if not self._allowed(peer[0]):
            self._reception.refused(peer, NOT_ALLOWED)
            return False
        return True
