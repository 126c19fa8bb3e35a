"""The counters of decoding and encoding IPFIX, NetFlow and sFlow."""

from __future__ import annotations

from ulogd_tw.core.counters import Count, Dropped, Fault, Lost, Missing

LIMITS = (
    Fault("limit_domains", "occasions", "An exporter began more Observation Domains than max_domains."),
    Fault("limit_domains_in_all", "occasions", "All exporters have more Observation Domains than max_domains_in_all."),
    Fault("limit_templates", "templates", "Templates refused, because their exporter has max_templates."),
    Fault(
        "limit_templates_in_all",
        "templates",
        "Templates refused, because all exporters together have max_templates_in_all.",
    ),
    Fault("limit_fields", "templates", "Templates refused: they have more than max_fields fields."),
    Fault(
        "limit_session_fields",
        "templates",
        "Templates refused, because all templates together have max_fields_in_all fields.",
    ),
    Fault(
        "limit_list", "lists", "Lists kept as octets: they are nested deeper than max_nesting, or have too many values."
    ),
    Fault("limit_told", "records", "Options records not kept, beyond max_told names and rates."),
)
"""An exporter went beyond a limit."""

MALFORMED = (
    Fault("malformed", "messages", "Messages that are invalid in another way."),
    Fault("version", "messages", "Messages that are not IPFIX, NetFlow or sFlow, judging by their version."),
    Fault("length", "messages", "Messages whose length field differs from the received length."),
    Fault("set_length", "messages", "Messages with a set of impossible length."),
    Fault("template", "templates", "Invalid templates. A cut template costs its whole IPFIX message."),
    Fault("record", "messages", "Messages with a record that exceeds its set."),
    Fault("framing", "occasions", "Places of a stream where no message begins."),
)
"""A message is refused; the log names the exporter."""

DECODING = (
    Count("exporter_ignored_packets", "packets", "Packets that exporters say they did not meter."),
    Count("exporter_ignored_octets", "octets", "Octets that exporters say they did not meter."),
    Count("exporter_not_sent_packets", "packets", "Packets of records that exporters say they could not send."),
    Count("exporter_not_sent_octets", "octets", "Octets of records that exporters say they could not send."),
    Count("exporter_dropped_samples", "samples", "Samples that sFlow agents say they had to leave out."),
    Count("exporter_restarts", "occasions", "Restarts of exporters, noticed by sysUptime, sequence numbers or "
                                            "systemInitTimeMilliseconds; earlier templates must be sent again."),
    Count("unread_records", "records", "Records of unknown kinds inside sFlow samples."),
    Count("rates_unmatched", "records", "Options records with a sampling rate whose scope is no key of the rows."),
    Count("sampling_unmatched", "rows", "Rows not scaled: their exporter sent sampling rates, but none for them."),
    Count("sampling_ambiguous", "rows", "Rows not scaled: several rates of their exporter are possible."),
    Count("counts_saturated", "counts", "Counts that exceed 64 bits after multiplication by the sampling rate; they "
                                        "become 2^64-1."),
    Count("names_unmatched", "rows", "Interfaces, applications and so on without a name, although the exporter "
                                     "sends names for others."),
    Count("names_ambiguous", "rows", "Interfaces, applications and so on without a name, because domains of the "
                                     "exporter contradict each other."),
    Count("start_unknown", "rows", "Uptimes without a time, because domains of the exporter differ about its start."),
    Missing("restart", "records", "Records missed while the service did not run, by the sequence numbers kept in "
                                  "state_dir (NetFlow v9, sFlow: messages)."),
    Missing("sequence", "records", "Records that did not arrive, by the exporters' sequence numbers (NetFlow v9, "
                                   "sFlow: messages)."),
    Lost("exporter", "records", "Records that exporters say they could not send, by their options records."),
    Dropped("error", "rows", "Rows of one template not decoded because of an internal fault; the log has the details."),
    Dropped("template_distrusted", "rows", "Sets, each counted as one row, whose template is from before a restart of "
            "the exporter and did not come again within park."),
    *MALFORMED,
    *LIMITS,
    Fault("sequence_reset", "occasions", "Restarts of exporters, or two exporters sharing one address and port."),
    Fault("sequence_duplicate", "messages", "Messages that arrived twice; their records are kept."),
    Fault("no_template", "sets", "Sets that arrived before their template; they wait for it for park seconds."),
    Fault("no_template_dropped", "sets", "Sets that waited for their template in vain."),
    Fault("template_expired", "templates", "Templates that were not sent again within template_lifetime."),
    Fault("withdrawal_ignored", "occasions", "Templates withdrawn over UDP, where withdrawals have no effect."),
    Fault("withdrawal_unknown", "occasions", "Withdrawals of unknown templates."),
    Fault("late_data", "sets", "Sets older than the current template of their id, left out."),
    Fault("set_id", "sets", "Sets with a reserved id, left out."),
    Fault("trailing", "messages", "Messages with octets after their last set."),
    Fault("empty_records", "sets", "Data of a template whose fields have no octets."),
    Fault("value", "values", "Impossible values, such as a month 13; they become NULL."),
    Fault("list", "lists", "Lists of structured data that are damaged (their intact part is read), or have unknown "
                           "templates (given as octets)."),
    Fault("netflow8", "messages", "Packets of NetFlow v8, whose aggregated records are not read."),
    Fault("sample_format", "samples", "Samples of sFlow of an unknown kind."),
    Fault("flow_keys", "records", "Options records whose flow keys name fields that the template does not have."),
    Fault("element_name", "records", "Options records with an invalid name of an element."),
)  # fmt: skip
"""The counters of a Collecting Process."""

ENCODING = (
    Dropped("no_fields", "rows", "Rows without any of the keys in the records."),
    Dropped("templates", "rows", "Rows that needed a template beyond the exporter's maximum."),
    Fault("unfit", "values", "Values too large for their element, such as a port of 70000; they are left out."),
    Fault(
        "patterns",
        "rows",
        "Rows with values left out, because the rows of one template had too many combinations of missing values.",
    ),
)
"""The counters of making records."""
