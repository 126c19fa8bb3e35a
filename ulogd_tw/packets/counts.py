"""The counters of reading captured packets."""

from __future__ import annotations

from ulogd_tw.core.counters import Fault

PAYLOADS = (
    Fault("link", "packets", "Packets of an unknown link type."),
    Fault("fragments", "datagrams", "Fragmented datagrams that could not be put together."),
    Fault("segments_missing", "occasions", "Gaps in a TCP stream: the capture lacks segments."),
    Fault("cut", "occasions", "Packets, messages or connections that ended too early."),
)
"""The taking of messages out of captured packets."""
