"""librdkafka's statistics as counters."""

from __future__ import annotations

import json
from typing import Any

from ulogd_tw.core.counters import Count, Counters, Gauge

SENT = (
    Count("messages_sent", "messages", "Messages that brokers have taken."),
    Count("octets_sent", "octets", "Octets of these messages, before compression."),
    Count("request_octets", "octets", "Octets sent to brokers, after compression."),
    Count("requests_retried", "requests", "Requests sent again: the broker did not answer, or asked for it."),
    Gauge("messages_queued", "messages", "Messages in librdkafka that no broker has taken yet."),
    Gauge("brokers_connected", "brokers", "Brokers with a connection."),
    Gauge("broker_ms", "ms", "Time from a request to its answer, the mean of the slowest broker."),
)  # fmt: skip
READ = (
    Count("messages_read", "messages", "Messages read from partitions."),
    Count("message_octets", "octets", "Octets of these messages, after decompression."),
    Gauge("lag", "messages", "Messages in our partitions that were not read yet."),
    Gauge("brokers_connected", "brokers", "Brokers with a connection."),
    Gauge("broker_ms", "ms", "Time from a request to its answer, the mean of the slowest broker."),
)  # fmt: skip


class Statistics:
    """Takes the statistics of one client after the other; counts go on growing with the next client."""

    def __init__(self, counters: Counters, names: dict[str, str]) -> None:
        """`names`: names of sums in the statistics for counts."""
        self._figures = counters.figures
        self._names = names
        self._last: dict[str, int] = {}
        for count in names.values():
            self._figures.setdefault(count, 0)

    def begin(self) -> None:
        """A client without any history."""
        self._last.clear()

    def take(self, text: str) -> None:
        """The ``stats_cb`` of a client."""
        told = json.loads(text)
        brokers = list(told.get("brokers", {}).values())
        told["txretries"] = sum(broker.get("txretries", 0) for broker in brokers)
        for name, count in self._names.items():
            value = int(told.get(name, 0))
            self._figures[count] += value - self._last.get(name, 0)
            self._last[name] = value
        up = [broker for broker in brokers if broker.get("state") == "UP" and broker.get("nodeid", -1) >= 0]
        self._figures["brokers_connected"] = len(up)
        self._figures["broker_ms"] = max((b.get("rtt", {}).get("avg", 0) for b in up), default=0) / 1000
        self._gauges(told)

    def _gauges(self, told: dict[str, Any]) -> None:
        if "msg_cnt" in told and told.get("type") == "producer":
            self._figures["messages_queued"] = told["msg_cnt"]
        if told.get("type") == "consumer":
            partitions = [p for topic in told.get("topics", {}).values() for p in topic["partitions"].values()]
            self._figures["lag"] = sum(max(p.get("consumer_lag", 0), 0) for p in partitions)


PRODUCED = {
    "txmsgs": "messages_sent", "txmsg_bytes": "octets_sent", "tx_bytes": "request_octets",
    "txretries": "requests_retried",
}  # fmt: skip
CONSUMED = {"rxmsgs": "messages_read", "rxmsg_bytes": "message_octets"}
