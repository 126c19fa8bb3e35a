"""The interface between engines and transports: one protocol for listening, one for sending."""

from __future__ import annotations

from collections import Counter
from typing import Any, Protocol


class Listener(Protocol):
    """A bound socket. From `begin` on it hands its input to the callables given at its making."""

    unread: int
    """Datagrams that `drain` has left."""
    lost: int
    """Datagrams or messages that the kernel dropped since the start; 0 where the transport loses none."""

    def begin(self) -> None:
        """Begin to read or to accept."""

    def catch_up(self) -> None:
        """Read what has come and waits for more to come with it."""

    def drain(self, until: float) -> None:
        """At a stop: read what the kernel already holds, and no more afterwards.

        After `until` (of the monotonic clock) nothing is handed over any more, only counted as `unread`.
        """

    def poll(self) -> None:
        """Bring `lost` up to date; called about every second."""

    def close(self) -> Any:
        """Close the socket and all that came through it; a Deferred where that takes time."""


class Sender(Protocol):
    """The way to one peer. Making it does no I/O; what fails after `open` is tried again until `close`."""

    def open(self) -> None:
        """Begin to connect."""

    def close(self) -> Any:
        """No more attempts; a Deferred where the connection ends in order first."""


class DatagramSender(Sender, Protocol):
    """Sends messages that may be lost: UDP, DTLS. See `udp_sender` for the results of `send`."""

    @property
    def headers(self) -> int:
        """Octets of each packet that are not the message's."""

    @property
    def errors(self) -> Counter[str]:
        """Faults by reason."""

    @property
    def last_error(self) -> str:
        """The last fault in words."""

    @property
    def is_open(self) -> bool:
        """Whether messages can be sent."""

    def path_mtu(self) -> int | None:
        """Octets of a packet that the path takes; None where nothing is known."""

    def send(self, octets: Any) -> str:
        """Send one message: `SENT`, `LATER`, `TOO_LONG` or `FAILED`."""

    def send_all(self, messages: Any) -> tuple[int, int, str]:
        """Send the rows of an array: how many are done with, how many of these failed, and the last result."""


class StreamSender(Sender, Protocol):
    """Sends octets in order over a connection that says how many have arrived: TCP, TLS."""

    is_up: bool
    """Whether there is a connection."""
    has_room: bool
    """False while the connection has enough to write; its callable `ready` says when that is over."""
    written: int
    """Octets written to this connection."""

    @property
    def connecting(self) -> bool:
        """Whether an attempt is under way."""

    def write(self, octets: bytes) -> None:
        """Write to the connection, which has to be up."""

    def acknowledged(self) -> int:
        """Octets of this connection that the peer's kernel has."""

    def abort(self) -> None:
        """End the connection at once."""
