"""The counters of decoding and encoding IPFIX, NetFlow and sFlow."""

from __future__ import annotations

from ulogd_tw.core.counters import Count, Dropped, Fault, Lost, Missing

LIMITS = (
    Fault("limit_domains", "occasions", "An exporter began more Observation Domains than max_domains."),
    Fault("limit_domains_in_all", "occasions", "All exporters have more Observation Domains than max_domains_in_all."),
    Fault("limit_templates", "templates", "Templates refused: their exporter has max_templates."),
    Fault(
        "limit_templates_in_all", "templates", "Templates refused: all exporters together have max_templates_in_all."
    ),
    Fault("limit_fields", "templates", "Templates refused: they have more than max_fields fields."),
    Fault("limit_session_fields", "templates", "Templates refused: the fields of all templates are max_fields_in_all."),
    Fault(
        "limit_list", "lists", "Lists kept as octets: they are nested deeper than max_nesting, or have too many values."
    ),
    Fault("limit_told", "records", "Options records not kept, beyond max_told names and rates."),
)
"""An exporter went beyond a limit."""

MALFORMED = (
    Fault("malformed", "messages", "Messages that make no sense in another way."),
    Fault("version", "messages", "Messages that are no IPFIX, NetFlow or sFlow by their version."),
    Fault("length", "messages", "Messages whose length is not what was received."),
    Fault("set_length", "messages", "Messages with a set whose length cannot be."),
    Fault("template", "templates", "Invalid templates. A cut template costs its whole IPFIX message."),
    Fault("record", "messages", "Messages with a record that goes beyond its set."),
    Fault("framing", "occasions", "Places of a stream where no message begins."),
)
"""A message is refused; the log names the exporter."""

DECODING = (
    Count("exporter_ignored_packets", "packets", "Packets that exporters say they did not meter."),
    Count("exporter_ignored_octets", "octets", "Octets that exporters say they did not meter."),
    Count("exporter_not_sent_packets", "packets", "Packets of records that exporters say they could not send."),
    Count("exporter_not_sent_octets", "octets", "Octets of records that exporters say they could not send."),
    Count("exporter_dropped_samples", "samples", "Samples that sFlow agents say they had to leave out."),
    Count("exporter_restarts", "occasions", "Restarts of exporters that were seen by sysUptime, sequence numbers or "
          "systemInitTimeMilliseconds; templates from before have to come again."),
    Count("unread_records", "records", "Records of unknown kinds inside sFlow samples."),
    Count("rates_unmatched", "records", "Options records with a sampling rate by something that rows do not have."),
    Count("sampling_unmatched", "rows", "Rows not scaled: their exporter sent sampling rates, but none for them."),
    Count("sampling_ambiguous", "rows", "Rows not scaled: several rates of their exporter are possible."),
    Count("counts_saturated", "counts", "Counts times their sampling rate that are beyond 64 bits: 2^64-1 instead."),
    Count("names_unmatched", "rows", "Interfaces, applications and so on without name while others of them have one."),
    Count("names_ambiguous", "rows", "Things without name: domains of their exporter name them differently."),
    Count("start_unknown", "rows", "Uptimes without time: domains of their exporter tell different starts of it."),
    Missing("restart", "records", "Records that did not come while the service did not run, by sequence numbers kept "
            "in state_dir (NetFlow v9, sFlow: messages)."),
    Missing("sequence", "records", "Records that did not come, by sequence numbers (NetFlow v9, sFlow: messages)."),
    Lost("exporter", "records", "Records that exporters say they could not send, by their options records."),
    Dropped("error", "rows", "Rows of one template not decoded because of an internal fault; the log has the details."),
    Dropped("template_distrusted", "rows", "Sets, each counted as one row, whose template is from before a restart of "
            "the exporter and did not come again within park."),
    *MALFORMED,
    *LIMITS,
    Fault("sequence_reset", "occasions", "Restarts of exporters, or two exporters sharing one address and port."),
    Fault("sequence_duplicate", "messages", "Messages that came twice; their records are kept."),
    Fault("no_template", "sets", "Sets that came before their template; they wait for it as long as park says."),
    Fault("no_template_dropped", "sets", "Sets that waited for their template in vain."),
    Fault("template_expired", "templates", "Templates that were not sent again within template_lifetime."),
    Fault("withdrawal_ignored", "occasions", "Templates taken back over UDP, where that means nothing."),
    Fault("withdrawal_unknown", "occasions", "Templates taken back that were not there."),
    Fault("late_data", "sets", "Sets left out: they are older than the template that now has their id."),
    Fault("set_id", "sets", "Sets with a reserved id, left out."),
    Fault("trailing", "messages", "Messages with octets behind their last set."),
    Fault("empty_records", "sets", "Data of a template whose fields have no octets."),
    Fault("value", "values", "Values that cannot be, such as a month 13; they are NULL."),
    Fault("list", "lists", "Lists of structured data that are damaged (read as far as they are whole), or of unknown "
          "templates (given as octets)."),
    Fault("netflow8", "messages", "Packets of NetFlow v8, whose aggregated records are not read."),
    Fault("sample_format", "samples", "Samples of sFlow of a kind that is not read."),
    Fault("flow_keys", "records", "Options records whose flow keys name fields that the template does not have."),
    Fault("element_name", "records", "Options records with an invalid name of an element."),
)  # fmt: skip
"""The counters of a Collecting Process."""

ENCODING = (
    Dropped("no_fields", "rows", "Rows without any key that the records have."),
    Dropped("templates", "rows", "Rows that needed one more template than the exporter may have."),
    Fault("unfit", "values", "Values beyond their element, such as a port of 70000; they are left out."),
    Fault("patterns", "rows", "Rows that lost values because the rows of one template lack too many different things."),
)
"""The counters of making records."""
