"""What Kafka's errors mean for rows: a `Fault` for each, and the words for the log."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ulogd_tw.core import counters
from ulogd_tw.storing.refused import Fault

COUNTS = (
    counters.Fault("away", "attempts", "No broker took the rows in time: they cannot be reached, or have no leader."),
    counters.Fault("topic", "attempts", "The topic or partition does not exist, or could not be made."),
    counters.Fault("permission", "attempts", "The brokers refuse the user, the certificate, or writing to the topic."),
    counters.Fault("server", "attempts", "A broker reports another error."),
    counters.Fault("stopped", "attempts", "A write was broken off at a stop."),
)
"""The reasons below, of outputs."""
_AWAY = Fault("away", "", transient=True)
_TOPIC = Fault("topic", "make the topic, or set create=1")
_LOGIN = Fault("permission", "correct user=, pass_file=, mechanism= or the TLS options")
_DENIED = Fault("permission", "allow the user to write to the topic")
_FAULTS = {
    "_TRANSPORT": _AWAY, "_ALL_BROKERS_DOWN": _AWAY, "_MSG_TIMED_OUT": _AWAY, "_TIMED_OUT": _AWAY, "_RESOLVE": _AWAY,
    "_TIMED_OUT_QUEUE": _AWAY, "_WAIT_COORD": _AWAY,
    "_PURGE_QUEUE": Fault("stopped", "", transient=True), "_PURGE_INFLIGHT": Fault("stopped", "", transient=True),
    "UNKNOWN_TOPIC_OR_PART": _TOPIC, "_UNKNOWN_TOPIC": _TOPIC, "_UNKNOWN_PARTITION": _TOPIC, "TOPIC_EXCEPTION": _TOPIC,
    "INVALID_REPLICATION_FACTOR": Fault("topic", "set replication= to the number of brokers at most"),
    "INVALID_PARTITIONS": Fault("topic", "correct partitions="),
    "POLICY_VIOLATION": Fault("topic", "the brokers' policy does not allow such a topic; make it by hand"),
    "_AUTHENTICATION": _LOGIN, "SASL_AUTHENTICATION_FAILED": _LOGIN, "_SSL": _LOGIN,
    "UNSUPPORTED_SASL_MECHANISM": _LOGIN, "TOPIC_AUTHORIZATION_FAILED": _DENIED,
    "CLUSTER_AUTHORIZATION_FAILED": _DENIED, "GROUP_AUTHORIZATION_FAILED": _DENIED,
}  # fmt: skip
"""Faults by the names of librdkafka's error codes."""
OF_MESSAGES = frozenset(("MSG_SIZE_TOO_LARGE", "RECORD_LIST_TOO_LARGE", "INVALID_MSG", "INVALID_RECORD",
                         "INVALID_MSG_SIZE"))  # fmt: skip
"""Codes for which the message is to blame: no repetition mends it."""
_TELLING = ("_AUTHENTICATION", "_SSL", "_RESOLVE", "_TRANSPORT", "_ALL_BROKERS_DOWN")
"""Codes of events that tell why messages time out, the most telling ones first."""


class NotSent(Exception):
    """Messages that the brokers did not take; `code` is the name of librdkafka's error code."""

    def __init__(self, code: str, text: str, fatal: bool = False) -> None:
        super().__init__(text)
        self.code = code
        self.fatal = fatal

    @classmethod
    def of(cls, error: Any) -> NotSent:
        """From a KafkaError, or a KafkaException with one."""
        error = error.args[0] if isinstance(error, Exception) else error
        return cls(error.name(), error.str(), error.fatal() or error.name() == "_FATAL")


class Events:
    """What librdkafka tells besides: the reasons why messages time out. `told` is called with each."""

    def __init__(self, told: Callable[[str], None]) -> None:
        self._told = told
        self.clear()

    def clear(self) -> None:
        """Forget them: messages arrive."""
        self._texts: dict[str, str] = {}

    def take(self, error: Any) -> None:
        """The ``error_cb`` of a client."""
        self._texts[error.name()] = error.str()
        self._told(error.str())

    def explained(self, error: NotSent) -> NotSent:
        """The error, or for one that only tells of time the event behind it."""
        if error.code in ("_MSG_TIMED_OUT", "_TIMED_OUT", "_TRANSPORT"):
            for code in _TELLING:
                if code in self._texts:
                    return NotSent(code, self._texts[code])
        return error


def meaning(error: Exception) -> Fault | None:
    """The fault for an error of a client; None for other exceptions."""
    if isinstance(error, OSError):
        return Fault("permission", "correct pass_file=")
    if not isinstance(error, NotSent):
        return None
    if error.fatal:
        return _AWAY
    return _FAULTS.get(error.code, Fault("server", "", transient=True))
