// Health: the stacks as a picture, exporters, the ledger of losses, stores, events. Looked at every two seconds.

import { change } from "./address.js";
import { get } from "./api.js";
import { reasons, sum, trouble, unaccounted } from "./ledger.js";
import { clock, exact, moment, octets, short, span } from "./numbers.js";
import { el, fill, notice, table } from "./parts.js";
import { stack_picture } from "./stack_picture.js";

const LOOK_MS = 2000, STORES_MS = 30000, SILENT_S = 60;

export function show(place, state) {
  const parts = Object.fromEntries(["faults", "stacks", "exporters", "ledger", "stores", "stalls", "events", "doctor"].map((name) => [name, el("div", { id: `health-${name}` })]));
  fill(place, parts.faults, panel("Stacks", parts.stacks), panel("Exporters", parts.exporters), panel("Ledger of rows", parts.ledger), panel("Stores", parts.stores), panel("Service", parts.stalls), panel("Events", parts.events),
    panel("Doctor", el("button", { type: "button", onclick: () => doctor(parts.doctor) }, "look at this machine"), parts.doctor));
  const abort = new AbortController();
  let timer = 0, before = null, stores_at = 0, last = 0, since = 0;
  const events = [];

  async function look() {
    try {
      let [graph, status, exporters, news] = await Promise.all([get("/api/v1/graph", abort.signal), get("/api/v1/status", abort.signal), get("/api/v1/exporters", abort.signal), get(`/api/v1/events?since=${last}`, abort.signal)]);
      graph.at = performance.now() / 1000;
      if (since !== status.since) { // another process of the service counts from 0, events and rows alike
        if (since) news = await get("/api/v1/events?since=0", abort.signal);
        [since, before] = [status.since, null];
        events.length = last = 0;
      }
      for (const stack of status.stacks) for (const node of graph.nodes) if (node.kind === "output" && node.stacks.includes(stack.n)) node.oldest = stack.oldest_seconds;
      events.unshift(...news.events.reverse());
      events.length = Math.min(events.length, 200);
      if (events.length) last = Math.max(last, events[0].n);
      const seconds = before ? graph.at - before.at : 0;
      fill(parts.faults, faults(status));
      fill(parts.stacks, el("div", { class: "scroll" }, stack_picture(graph, before, seconds, Object.fromEntries(status.stacks.map((stack) => [stack.n, stack.state])), (node) => change({ view: "now", instance: node.node }))));
      fill(parts.exporters, exporters_table(exporters.exporters, status.now));
      fill(parts.ledger, ledger(graph.nodes));
      fill(parts.stalls, service(status));
      fill(parts.events, events.length ? events_table(events) : notice("nothing yet", "quiet"));
      if (!before || seconds > 0.5) before = graph;
      if (Date.now() - stores_at > STORES_MS) {
        stores_at = Date.now();
        await get("/api/v1/stores", abort.signal).then((found) => fill(parts.stores, stores_table(found.stores)), (error) => {
          if (error.name === "AbortError") throw error;
          fill(parts.stores, notice(error.message, error.status === 401 ? "quiet" : "error"));
        });
      }
    } catch (error) {
      if (error.name === "AbortError") return;
      fill(parts.faults, notice(error.message, "error"));
    }
    timer = setTimeout(look, LOOK_MS);
  }
  look();
  return { update: () => {}, end: () => { clearTimeout(timer); abort.abort(); } };
}

const panel = (title, ...children) => el("section", { class: "panel" }, el("h2", {}, title), children);

/** What does not run, with its reasons. */
function faults(status) {
  const found = status.stacks.filter((stack) => stack.state !== "ok").map((stack) => `${stack.text} is ${stack.state}: ${stack.reasons.join("; ")}`);
  found.push(...status.left_out.map((stack) => `${stack.text} is left out: ${stack.reason}`), ...(status.state_fault ? [status.state_fault] : []));
  return found.map((text) => notice(text, "error"));
}

function exporters_table(exporters, now) {
  if (!exporters.length) return notice("No exporter has sent anything yet.", "quiet");
  const silent = (one) => now - one.last_received;
  const ordered = [...exporters].sort((one, other) => (silent(other) > SILENT_S) - (silent(one) > SILENT_S) || other.lost - one.lost || (other.records_per_second || 0) - (one.records_per_second || 0));
  const number = (title, cell) => ({ title, number: true, cell });
  return table([
    { title: "exporter", cell: (one) => one.exporter }, { title: "input", cell: (one) => one.input }, number("domain", (one) => one.domain), { title: "version", cell: (one) => String(one.version) },
    number("last heard", (one) => el("span", { title: moment(one.last_received * 1000) }, `${span(Math.max(0, silent(one)))} ago`)),
    number("records/s", (one) => short(one.records_per_second ?? null)), number("records", (one) => short(one.records)), number("templates", (one) => one.templates), number("waiting for a template", (one) => one.parked || ""),
    number("lost", (one) => (one.lost ? el("span", { class: "bad" }, exact(one.lost)) : "0")), number("sampling", (one) => (one.sampling_factor > 1 ? `1:${one.sampling_factor}` : "")),
    { title: "clock", cell: (one) => (one.clock_wrong ? el("span", { class: "bad" }, "wrong") : "") },
  ], ordered.slice(0, 500), { row_class: (one) => (silent(one) > SILENT_S ? "silent" : "") });
}

function ledger(nodes) {
  const number = (title, name) => ({ title, number: true, cell: (node) => exact(node.counters[name]) });
  return table([
    { title: "instance", cell: (node) => node.node }, { title: "plugin", cell: (node) => node.plugin }, number("received", "rows_received"), number("emitted", "rows_emitted"), number("filtered", "rows_filtered"), number("merged", "rows_merged"), number("written", "rows_written"), number("waiting", "rows_waiting"), number("spooled", "rows_spooled"),
    { title: "dropped", number: true, cell: (node) => exact(sum(node.counters.dropped)) }, { title: "lost before", number: true, cell: (node) => exact(sum(node.counters.lost)) },
    { title: "accounts", cell: (node) => { const rest = unaccounted(node.counters); return rest ? el("span", { class: "bad" }, `${exact(rest)} rows are in no counter`) : "in = out"; } },
    { title: "reasons", cell: (node) => reasons(node.counters).join(", ") },
  ], nodes, { row_class: (node) => (trouble(node.counters) ? "lost" : "") });
}

function stores_table(stores) {
  const rows = stores.flatMap((store) => store.outputs.map((output) => ({ store: store.name, ...output })));
  if (!rows.length) return notice("no stack has a PARQUET", "quiet");
  return table([
    { title: "store", cell: (one) => one.store }, { title: "output", cell: (one) => one.id }, { title: "directory", cell: (one) => one.directory }, { title: "kept", cell: (one) => (one.rollup ? `sums of ${one.rollup.interval} s` : "flows") },
    { title: "rows", number: true, cell: (one) => short(one.rows ?? null) }, { title: "on disk", number: true, cell: (one) => octets(one.octets ?? null) },
    { title: "from", cell: (one) => (one.oldest ? moment(one.oldest * 1000, false) : "") }, { title: "to", cell: (one) => (one.newest ? moment(one.newest * 1000, false) : "") }, { title: "", cell: (one) => one.error || "" },
  ], rows);
}

function service(status) {
  const stalls = status.stalls ? `; of ${exact(status.stalls.looks)} looks ${exact(status.stalls.over_50ms)} came more than 50 ms late, ${exact(status.stalls.over_250ms)} more than 250 ms` : "";
  return [el("p", {}, `ulogd_tw ${status.version}, process ${status.pid}, since ${moment(status.since * 1000)}, ${status.config}${stalls}`), status.mistakes.map((text) => notice(text))];
}

const events_table = (events) => table([{ title: "time", cell: (one) => el("span", { title: moment(one.time * 1000) }, clock(one.time * 1000)) }, { title: "kind", cell: (one) => one.kind }, { title: "what", cell: (one) => el("span", { class: "long" }, one.text) }], events.slice(0, 100));

/** What `ulogd-tw doctor` says. */
async function doctor(place) {
  fill(place, notice("looking ...", "quiet"));
  try {
    const found = await get("/api/v1/doctor");
    fill(place, table([{ title: "state", cell: (one) => el("span", { class: one.state === "wrong" ? "bad" : "" }, one.state) }, { title: "what", cell: (one) => one.name }, { title: "found", cell: (one) => el("span", { class: "long" }, one.found) }, { title: "remedy", cell: (one) => el("span", { class: "long" }, one.remedy) }], found.findings));
  } catch (error) {
    fill(place, notice(error.message, "error"));
    if (error.status === 401) dispatchEvent(new Event("console:token"));
  }
}
