"""Write the dashboards of Grafana into etc/grafana: `python docs/make_dashboards.py`. A test compares them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

FOLDER = Path(__file__).resolve().parents[1] / "etc" / "grafana"
OF = '{job="$job", instance=~"$instance"}'
"""The selection that every expression has."""
BY = "instance, exported_instance"
WIDTH, HEIGHT = 12, 8


class Panel(NamedTuple):
    """One panel: its title, a sentence about it, the unit of Grafana, and expressions with their legends."""

    title: str
    text: str
    unit: str
    lines: tuple[tuple[str, str], ...]
    kind: str = "timeseries"


def rate(metric: str, by: str, more: str = "") -> str:
    """What a counter adds in a second."""
    return f"sum by ({by}) (rate({metric}{OF[:-1]}{more}}}[$__rate_interval]))"


def quantile(share: float, metric: str, by: str) -> str:
    """The value that this share of a histogram does not exceed."""
    return f"histogram_quantile({share}, sum by ({by}, le) (rate({metric}_bucket{OF}[$__rate_interval])))"


ID = "{{exported_instance}}"
SERVICE = (
    Panel("Service", "1 where it answers.", "short", ((f"up{OF}", "{{instance}}"),), "stat"),
    Panel("Version", "Of ulogd_tw and of Python.", "short",
          ((f"ulogd_build_info{OF}", "{{version}}, Python {{python}}"),), "stat"),
    Panel("Stacks", "Whether rows arrive (ok), go to the disk (spooling) or wait (down).", "short",
          ((f"ulogd_stack_state{OF} == 1", "{{stack}}: {{state}}"),), "stat"),
    Panel("Runs for", "Since the start of the service.", "s",
          ((f"time() - ulogd_start_time_seconds{OF}", "{{instance}}"),), "stat"),
    Panel("Rows dropped", "Received and given up, by reason: should be 0.", "short",
          ((rate("ulogd_dropped_total", f"{BY}, reason"), ID + ": {{reason}}"),)),
    Panel("Lost before reception", "What never reached us, by reason.", "short",
          ((rate("ulogd_lost_total", f"{BY}, reason"), ID + ": {{reason}}"),
           (f"sum by ({BY}, reason) (delta(ulogd_missing{OF}[$__rate_interval]))", ID + ": missing, {{reason}}"))),
    Panel("Kernel without room", "Datagrams, netlink messages and packets for which a buffer was full.", "short",
          ((rate("ulogd_datagrams_lost_total", BY), ID + ": datagrams"),
           (rate("ulogd_netlink_overruns_total", BY), ID + ": netlink"),
           (rate("ulogd_ring_full_total", BY), ID + ": ring"))),
    Panel("Faults", "By reason; the log has the details.", "short",
          ((rate("ulogd_errors_total", f"{BY}, reason"), ID + ": {{reason}}"),)),
    Panel("Rows waiting", "In the queue before an output.", "short", ((f"ulogd_rows_waiting{OF}", ID),)),
    Panel("Records for collectors", "That wait in memory, and on the disk.", "short",
          ((f"ulogd_collector_records_waiting{OF}", ID + " {{collector}}: memory"),
           (f"ulogd_collector_records_in_spool{OF}", ID + " {{collector}}: disk"))),
    Panel("Standing still", "How late timers come: whatever holds the reactor holds everything.", "s",
          ((quantile(0.99, "ulogd_reactor_stall_seconds", "instance"), "{{instance}}: 99 %"),
           (quantile(0.5, "ulogd_reactor_stall_seconds", "instance"), "{{instance}}: 50 %"))),
    Panel("Until rows are written", "Time of batches in the queue before an output; its oldest row.", "s",
          ((quantile(0.99, "ulogd_batch_latency_seconds", BY), ID + ": 99 %"),
           (f"ulogd_queue_oldest_seconds{OF}", ID + ": oldest"))),
    Panel("Queues filled", "Rows and memory of the queue before an output, of what it may hold.", "percentunit",
          ((f"ulogd_rows_waiting{OF} / ulogd_queue_rows_limit{OF}", ID + ": rows"),
           (f"ulogd_queue_bytes{OF} / ulogd_queue_bytes_limit{OF}", ID + ": memory"))),
    Panel("Processor", "Of the process; 1 is one processor.", "percentunit",
          ((f"rate(process_cpu_seconds_total{OF}[$__rate_interval])", "{{instance}}"),)),
    Panel("Memory", "Resident, and of the tables of AGGREGATE.", "bytes",
          ((f"process_resident_memory_bytes{OF}", "{{instance}}"), (f"ulogd_memory_bytes{OF}", ID))),
    Panel("Descriptors", "Open ones, and how many may be.", "short",
          ((f"process_open_fds{OF}", "{{instance}}"), (f"process_max_fds{OF}", "{{instance}}: maximum"))),
    Panel("Events", "New, silent and restarted exporters, reloads, wrong clocks.", "short",
          ((f"sum by (instance, kind) (increase(ulogd_events_total{OF}[$__rate_interval])) > 0", "{{kind}}"),)),
    Panel("Requests", "Through each door, and refused ones by reason.", "short",
          ((f"sum by (instance, door) (rate(ulogd_http_requests_total{OF}[$__rate_interval]))", "{{door}}"),
           (f"sum by (instance, door, reason) (rate(ulogd_http_refused_total{OF}[$__rate_interval]))",
            "{{door}}: {{reason}}"))),
)  # fmt: skip
FLOWS = (
    Panel("Rows received", "By each instance, a second.", "short", ((rate("ulogd_rows_received_total", BY), ID),)),
    Panel("Rows written", "By each output, a second.", "short", ((rate("ulogd_rows_written_total", BY), ID),)),
    Panel("Messages", "Messages, packets and events that inputs read.", "short",
          ((rate("ulogd_messages_received_total", BY) + " > 0", ID),)),
    Panel("Traffic to us", "Octets of those messages.", "Bps",
          ((rate("ulogd_received_bytes_total", BY) + " > 0", ID),)),
    Panel("Rows filtered and added up", "Left out by filters; added up into others.", "short",
          ((rate("ulogd_rows_filtered_total", BY) + " > 0", ID + ": filtered"),
           (rate("ulogd_rows_merged_total", BY) + " > 0", ID + ": added up"))),
    Panel("Groups", "In the tables of AGGREGATE.", "short", ((f"ulogd_keys{OF}", ID),)),
    Panel("Flows in memory", "Of FLOWCACHE and NFCT.", "short",
          ((f"ulogd_flows{OF}", ID), (f"ulogd_flows_followed{OF}", ID + ": conntrack"))),
    Panel("Ends of flows", "By reason.", "short", ((rate("ulogd_ended_total", f"{BY}, reason"), ID + ": {{reason}}"),)),
    Panel("Exporters", "Sessions, Observation Domains and templates.", "short",
          ((f"ulogd_sessions{OF}", ID + ": sessions"), (f"ulogd_domains{OF}", ID + ": domains"),
           (f"ulogd_templates{OF}", ID + ": templates"))),
    Panel("Records of exporters", "The ten with the most a second.", "short",
          ((f"topk(10, {rate('ulogd_exporter_records_total', BY + ', exporter')})", ID + ": {{exporter}}"),)),
    Panel("Silent exporters", "Seconds since each was last heard.", "s",
          ((f"topk(10, ulogd_exporter_silent_seconds{OF})", ID + ": {{exporter}}"),)),
    Panel("Missing of exporters", "What did not come, by sequence numbers.", "short",
          ((f"topk(10, sum by ({BY}, exporter) (delta(ulogd_exporter_missing{OF}[$__rate_interval])))",
            ID + ": {{exporter}}"),)),
    Panel("Clocks and templates", "1 while the clock of an exporter is wrong; its templates.", "short",
          ((f"ulogd_exporter_clock_wrong{OF} == 1", ID + ": {{exporter}}, wrong clock"),
           (f"topk(10, ulogd_exporter_templates{OF})", ID + ": {{exporter}}, templates"))),
    Panel("Waiting for templates", "Sets that came before their template.", "short", ((f"ulogd_sets_parked{OF}", ID),)),
    Panel("Sent to collectors", "Records a second.", "short",
          ((rate("ulogd_collector_records_sent_total", f"{BY}, collector"), ID + " {{collector}}"),)),
    Panel("Octets to collectors", "A second.", "Bps",
          ((rate("ulogd_collector_sent_bytes_total", f"{BY}, collector"), ID + " {{collector}}"),)),
)  # fmt: skip
DASHBOARDS = {
    "ulogd-tw-service.json": ("ulogd_tw: service", "Whether ulogd_tw runs, and what it loses.", SERVICE),
    "ulogd-tw-flows.json": ("ulogd_tw: flows", "How many flows come, go and wait in ulogd_tw.", FLOWS),
}


def dashboard(title: str, text: str, panels: tuple[Panel, ...]) -> dict[str, Any]:
    """One dashboard, as Grafana imports it."""
    return {
        "title": title,
        "description": text,
        "uid": title.replace(": ", "-").replace("_", "-"),
        "tags": ["ulogd_tw"],
        "schemaVersion": 39,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {"list": [_source(), _variable("job", "label_values(ulogd_build_info, job)", False),
                                _variable("instance", 'label_values(ulogd_build_info{job="$job"}, instance)', True)]},
        "panels": [_panel(place, panel) for place, panel in enumerate(panels)],
    }  # fmt: skip


def _source() -> dict[str, Any]:
    return {"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus"}


def _variable(name: str, query: str, several: bool) -> dict[str, Any]:
    found = {"name": name, "type": "query", "query": query, "refresh": 2, "datasource": {"uid": "${source}"}}
    return found | ({"multi": True, "includeAll": True, "allValue": ".*"} if several else {})


def _panel(place: int, panel: Panel) -> dict[str, Any]:
    """A panel in its place: two beside each other."""
    return {
        "id": place + 1,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.text,
        "datasource": {"type": "prometheus", "uid": "${source}"},
        "gridPos": {"x": place % 2 * WIDTH, "y": place // 2 * HEIGHT, "w": WIDTH, "h": HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "options": {"textMode": "value_and_name"} if panel.kind == "stat" else {"tooltip": {"mode": "multi"}},
        "targets": [
            {"refId": chr(ord("A") + number), "expr": expression, "legendFormat": legend}
            for number, (expression, legend) in enumerate(panel.lines)
        ],
    }


def written() -> dict[str, str]:
    """The text of each file."""
    return {name: json.dumps(dashboard(*parts), indent=1) + "\n" for name, parts in DASHBOARDS.items()}


if __name__ == "__main__":
    for name, text in written().items():
        (FOLDER / name).write_text(text)
