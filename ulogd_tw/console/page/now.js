// Now: rates and the largest groups of the open intervals, once a second, and the rows that pass an instance.

import { change } from "./address.js";
import { Failure, follow, get, lines } from "./api.js";
import { text, title } from "./keys.js";
import { clock, exact, octets, short, span } from "./numbers.js";
import { el, fill, notice, sparkline, table } from "./parts.js";

const KEPT = 90, LINES = 200, DRAW_MS = 250;

export function show(place, first) {
  const rates = el("div", { id: "now-rates" }), groups = el("div", { id: "now-groups" }), tail = new Tail(first);
  fill(place, el("section", { class: "panel" }, el("h2", {}, "Rows a second"), rates), groups, tail.place);
  const history = new Map();
  const stop = follow("/api/v1/now", (look) => {
    fill(rates, rate_table(look.rates, history));
    fill(groups, look.tables.map((one) => el("section", { class: "panel" }, open_table(one, look.time))));
  }, (closed) => {
    fill(rates, notice(closed ? "the service refuses to tell; a token may be needed" : "the service does not answer; waiting for it", closed ? "error" : "quiet"));
    if (closed) dispatchEvent(new Event("console:token"));
  });
  fill(rates, notice("waiting for the first look ...", "quiet"));
  return { update: (state) => tail.update(state), end: () => { stop(); tail.end(); } };
}

/** A line for each instance with its last minute and a half. */
function rate_table(rates, history) {
  const names = Object.keys(rates);
  if (!names.length) return notice("counting ...", "quiet");
  for (const name of names) {
    const values = history.get(name) || [];
    values.push(Math.max(rates[name].rows_received, rates[name].rows_emitted));
    if (values.length > KEPT) values.shift();
    history.set(name, values);
  }
  return table([
    { title: "instance", cell: (name) => el("button", { type: "button", class: "value", title: "see its rows below", onclick: () => change({ instance: name }) }, name) },
    { title: "rows in/s", number: true, cell: (name) => short(rates[name].rows_received) }, { title: "rows out/s", number: true, cell: (name) => short(Math.max(rates[name].rows_emitted, rates[name].rows_written)) },
    { title: "octets in/s", number: true, cell: (name) => (rates[name].octets_received ? octets(rates[name].octets_received) : "") }, { title: "the last 90 s", cell: (name) => sparkline(history.get(name), 220) },
  ], names);
}

/** The largest groups of an AGGREGATE's open interval. */
function open_table(found, now) {
  const head = el("h2", {}, `${found.id}: the open interval`);
  if (found.error) return [head, notice(found.error, "error")];
  const since = found.since === null ? "" : `, since ${clock(found.since * 1000)} (${span(Math.max(0, now - found.since))})`;
  const sums = Object.entries(found.sums).map(([name, value]) => `${short(value || 0)} ${name}`).join(", ");
  const amounts = Object.keys(found.sums);
  const columns = found.columns.map((name, at) => ({
    title: amounts.includes(name) ? name : title(name), number: amounts.includes(name),
    cell: (row) => (row[at] === null ? "" : amounts.includes(name) ? el("span", { title: exact(row[at]) }, short(row[at])) : text(name, row[at])),
  }));
  return [head, el("p", { class: "faint" }, `${exact(found.groups)} groups, ${sums}${since}; the largest:`), table(columns, found.rows, { class: "open" })];
}

/** The rows that pass an instance. */
class Tail {
  constructor(first) {
    this.instance = el("select", { "aria-label": "instance", onchange: () => change({ instance: this.instance.value }) });
    this.filter = el("input", { class: "mono filter", "data-filter": true, placeholder: "filter, such as dst port 443", spellcheck: false, autocomplete: "off", "aria-label": "filter" });
    this.error = el("pre", { class: "notice error", hidden: true, role: "alert", id: "tail-error" });
    this.told = el("p", { class: "faint", id: "tail-told" });
    this.rows_place = el("div", { id: "tail" });
    this.place = el("section", { class: "panel" }, el("h2", {}, "Rows as they pass"),
      el("form", { class: "row wide", onsubmit: (event) => { event.preventDefault(); change({ match: this.filter.value.trim() }); } }, this.instance, this.filter, el("button", {}, "Go"), el("button", { type: "button", onclick: () => change({ instance: "" }) }, "Stop")), this.error, this.told, this.rows_place);
    this.rows = [];
    this.timer = 0;
    this.update(first);
  }

  end() {
    this.abort?.abort();
    clearTimeout(this.timer);
    this.timer = 0;
  }

  async update(state) {
    this.end();
    this.rows = [];
    this.told.textContent = "";
    this.filter.value = state.match || "";
    this.error.hidden = true;
    const abort = this.abort = new AbortController();
    try {
      const graph = await get("/api/v1/graph", abort.signal);
      fill(this.instance, el("option", { value: "" }, "choose an instance ..."), graph.nodes.filter((node) => node.kind !== "output").map((node) => el("option", { value: node.node }, `${node.node} (${node.plugin})`)));
      this.instance.value = state.instance || "";
      if (!this.instance.value) return fill(this.rows_place, notice("Rows are looked at only while this page shows them.", "quiet"));
      fill(this.rows_place, notice("waiting for rows ...", "quiet"));
      const words = new URLSearchParams({ instance: state.instance, ...(state.match ? { match: state.match } : {}) });
      for await (const row of lines(`/api/v1/tap?${words}`, null, abort.signal)) this.take(row);
    } catch (error) {
      if (error.name === "AbortError" || abort.signal.aborted) return undefined;
      if (!(error instanceof Failure)) throw error;
      if (error.status === 401) dispatchEvent(new Event("console:token"));
      this.error.hidden = false;
      this.error.textContent = error.message;
    }
    return undefined;
  }

  take(row) {
    if (row.tap) { // a note about the tap, no row
      this.told.textContent = row.tap === "skipped" ? `${exact(row.rows)} rows since the note before are not shown: they pass faster than the page takes them` : row.text;
      return;
    }
    this.rows.unshift(row);
    if (this.rows.length > LINES) this.rows.length = LINES;
    this.timer ||= setTimeout(() => { this.timer = 0; this.draw(); }, DRAW_MS);
  }

  draw() {
    const names = [...new Set(this.rows.slice(0, 20).flatMap(Object.keys))].slice(0, 16);
    fill(this.rows_place, table(names.map((name) => ({ title: title(name), cell: (row) => (row[name] === undefined ? "" : text(name, typeof row[name] === "object" ? JSON.stringify(row[name]) : row[name])) })), this.rows, { class: "tail" }));
  }
}
