"""The counters of collecting inputs, in addition to those of decoding."""

from __future__ import annotations

from ulogd_tw.core.counters import Count, Fault, Gauge
from ulogd_tw.ipfix.counts import DECODING
from ulogd_tw.transports.counts import TLS

COLLECTING = (
    Count("log_lines_left_out", "lines", "Log lines about exporters beyond 100 a minute."),
    Count("sessions_evicted", "sessions", "Sessions without records that made room for others at max_sessions."),
    Gauge("domains", "domains", "Observation Domains of all exporters."),
    Gauge("templates", "templates", "Templates that exporters have announced."),
    Gauge("sets_parked", "sets", "Sets that wait for their template."),
    *DECODING,
    Fault("not_allowed", "occasions", "Messages and connections of exporters outside allow."),
    Fault("limit_sessions", "occasions", "Messages and connections refused, because max_sessions exporters are known."),
    Fault("limit_sessions_of_address", "occasions", "The same: the address has max_sessions_of_address."),
)
"""Every input that collects."""

LISTENER = (
    Fault("cut", "connections", "Connections that ended within a message."),
    Fault(
        "limit_buffered",
        "connections",
        "Connections closed because incomplete messages had too many octets, most of them from this address.",
    ),
    Fault("limit_work", "datagrams", "Datagrams dropped: decoding those of their exporter takes more than its share."),
    Fault("restarted", "associations", "SCTP associations restarted by an exporter."),
    Fault("template_cache", "occasions", "The file of template_cache could not be read or written."),
    Fault(
        "limit_greetings",
        "datagrams",
        "DTLS datagrams ignored, because max_greetings others were answered within the same second.",
    ),
    *TLS,
)
"""An input that listens."""

REPLAYING = (
    Count("files_read", "files", "Files read to their end."),
    Fault("file", "files", "Files that could not be read."),
)
"""An input that reads files."""
