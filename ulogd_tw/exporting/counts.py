"""The counters of an exporter, and of each of its collectors."""

from __future__ import annotations

from ulogd_tw.core.counters import ByReason, Count, Dropped, Gauge, Group, Text
from ulogd_tw.ipfix.counts import ENCODING
from ulogd_tw.transports.counts import SENDING, TLS

RECORDS = (
    Count("records_encoded", "records", "Encoded records; a row with two directions gives two."),
    Count("replies_without_packets", "records", "Directions without any packet, which have no record."),
    Gauge("keys_left_out", "keys", "Keys that no Information Element can hold; the log names them."),
    Dropped("too_long", "records", "Records longer than a message may be."),
    Dropped("ipv6", "rows", "IPv6 rows with version=5: NetFlow v5 has no IPv6."),
    *ENCODING,
)
"""The making of records."""

COLLECTOR = (
    Text("state", "", "Whether the collector is reachable."),
    Count("connects", "connections", "Connections established."),
    Count("messages_sent", "messages", "Messages sent."),
    Count("octets_sent", "octets", "Octets of those messages."),
    Count("records_sent", "records", "Data Records sent."),
    Gauge("records_waiting", "records", "Records that wait in memory."),
    Gauge("octets_waiting", "octets", "Octets of the waiting messages."),
    Count("records_moved", "records", "Waiting records that went to another collector (mode)."),
    Count("records_spooled", "records", "Records that were put on the disk."),
    Gauge("records_in_spool", "records", "Records on the disk."),
    Gauge("octets_in_spool", "octets", "Octets of the records on the disk."),
    ByReason("dropped", "Records given up.", (
        Dropped("queue_full", "records", "Records beyond collector_octets: the collector is unreachable or slow."),
        Dropped("stop_timeout", "records", "Records that still waited at the stop."),
        Dropped("send_error", "records", "Records of datagrams that could not be sent."),
        Dropped("too_long", "records", "Records of messages too long for the network path."),
        Dropped("lifetime", "records", "Over SCTP: records not delivered within sctp_lifetime."),
        Dropped("spool_age", "records", "Records that were on the disk for longer than spool_age."),
        Dropped("spool_size", "records", "The oldest records on the disk, beyond spool_size."),
    )),
    Count("options_sent", "records", "Options records about the exporter itself; part of records_sent."),
    Text("last_error", "", "What went wrong last."),
    ByReason("errors", "Over UDP, TLS and DTLS: what went wrong.", (*SENDING, *TLS), True),
    Gauge("message_octets", "octets", "Over UDP and DTLS: maximum length of a message.", True),
    Count("records_resent", "records", "Over TCP and SCTP: records sent again after a connection was lost.", True),
    Gauge("octets_unacknowledged", "octets", "Over TCP and SCTP: octets the other side has not acknowledged.", True),
    Text("tls", "", "Version and cipher suite of TLS or DTLS.", True),
    Gauge("streams", "streams", "Over SCTP: streams of the association.", True),
    Count("unreachable", "occasions", "Over SCTP: how often the collector seemed unreachable.", True),
)  # fmt: skip
"""One collector."""

EXPORTER = (Group("collectors", "Each collector, by its URL.", COLLECTOR, each="collector"), *RECORDS)
