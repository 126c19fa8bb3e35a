"""The counters of reading netlink messages."""

from __future__ import annotations

from ulogd_tw.core.counters import Count, Fault, Gauge

MALFORMED = (
    Fault("malformed", "messages", "Messages that are invalid in another way."),
    Fault("type", "messages", "Messages of an unexpected type."),
    Fault("family", "messages", "Messages of an unknown address family."),
    Fault("length", "messages", "Messages whose length field differs from the received length."),
    Fault("attribute length", "messages", "Messages with an attribute that exceeds the message."),
    Fault("attribute size", "messages", "Messages with an attribute of a wrong size."),
    Fault("attribute missing", "messages", "Messages without a mandatory attribute."),
)
"""A message of the kernel is not read."""

PORT = (
    Gauge("queue_octets", "octets", "Size of the kernel's queue for this input, set by receive_buffer."),
    Count("overruns", "occasions", "Times that this queue was full."),
    Count("strangers", "datagrams", "Datagrams that did not come from the kernel; normally 0."),
    Count("broken_datagrams", "datagrams", "Datagrams that are not netlink messages; normally 0."),
)
"""The figures of a netlink socket."""
