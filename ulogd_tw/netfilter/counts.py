"""The counters of reading netlink messages."""

from __future__ import annotations

from ulogd_tw.core.counters import Count, Fault, Gauge

MALFORMED = (
    Fault("malformed", "messages", "Messages that make no sense in another way."),
    Fault("type", "messages", "Messages of a type that was not asked for."),
    Fault("family", "messages", "Messages of an address family that is not known."),
    Fault("length", "messages", "Messages whose length is not what was received."),
    Fault("attribute length", "messages", "Messages with an attribute that goes beyond them."),
    Fault("attribute size", "messages", "Messages with an attribute of a size that its kind cannot have."),
    Fault("attribute missing", "messages", "Messages without an attribute that all have."),
)
"""A message of the kernel is not read."""

PORT = (
    Gauge("queue_octets", "octets", "Size of the kernel's queue for us, which receive_buffer sets."),
    Count("overruns", "occasions", "Times that this queue was full."),
    Count("strangers", "datagrams", "Datagrams that did not come from the kernel; 0 in health."),
    Count("broken_datagrams", "datagrams", "Datagrams that are no netlink messages; 0 in health."),
)
"""The figures of a netlink socket."""
