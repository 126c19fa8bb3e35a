// The form of Explore: it shows a state, and changes it.

import { change } from "./address.js";
import { post } from "./api.js";
import { el, fill } from "./parts.js";
import { first, groupable, term, text, title } from "./keys.js";
import { MEASURES, PLOTS, RANGES, list, range_of } from "./question.js";

const MOST_KEYS = 5, PAUSE_MS = 300;
const WORDS = ["src", "dst", "host", "net", "port", "proto", "and", "or", "not", "in", "exists", "octets", "packets", "tcp", "udp", "icmp"];

/** A time (ms) as a field of local date and time has it. */
function for_field(ms) {
  const at = new Date(ms - new Date(ms).getTimezoneOffset() * 60000);
  return at.toISOString().slice(0, 19);
}

/** The form. `stores` are those of the API; `values()` gives [key, value, type] seen in the present answer, for completion. */
export function explore_form(stores, values) {
  const filter = el("input", { class: "mono filter", "data-filter": true, spellcheck: false, autocomplete: "off", list: "filter-words", "aria-label": "filter", placeholder: "filter, such as src net 10.0.0.0/8 and dst port 443" });
  const words = el("datalist", { id: "filter-words" });
  const error = el("pre", { class: "notice error", id: "filter-error", hidden: true, role: "alert" });
  const ranges = RANGES.map((word) => el("button", { type: "button", onclick: () => change({ from: `-${word}`, to: "", live: "" }) }, word));
  const since = el("input", { type: "datetime-local", step: 1, "aria-label": "from" }), until = el("input", { type: "datetime-local", step: 1, "aria-label": "to" });
  const out = el("button", { type: "button", title: "twice the range", onclick: () => zoom_out() }, "zoom out");
  const live = el("button", { type: "button", id: "live", title: "move with the clock", onclick: () => change({ live: shown.live ? "" : "1", to: "" }) }, "live");
  const chips = el("span", { class: "row", id: "by" });
  const add = el("select", { "aria-label": "group by", onchange: () => { change({ by: [...list(shown.by), add.value].join(",") }); } });
  const unit = el("select", { "aria-label": "unit", onchange: () => change({ unit: unit.value }) }, Object.entries(MEASURES).map(([name, [, , word]]) => el("option", { value: name }, name === "share" ? "share" : word)));
  const top = el("select", { "aria-label": "how many groups", onchange: () => change({ top: top.value }) }, [5, 8, 10, 15, 20, 30, 50].map((number) => el("option", { value: number }, `top ${number}`)));
  const plots = PLOTS.map(([name, word]) => el("button", { type: "button", "data-plot": name, onclick: () => change({ plot: name }) }, word));
  const shadow = el("button", { type: "button", title: "the total of the period before, as a dotted line", onclick: () => change({ shadow: shown.shadow === "0" ? "" : "0" }) }, "before");
  const store = el("select", { "aria-label": "store", onchange: () => change({ store: store.value }), hidden: stores.length < 2 }, stores.map((one) => el("option", { value: one.name }, one.name)));
  let shown = {}, checking = null, pause = 0;

  function submit(event) {
    event.preventDefault();
    clearTimeout(pause);
    checking?.abort();
    const begin = since.value ? new Date(since.value).getTime() : NaN, end = until.value ? new Date(until.value).getTime() : NaN;
    const times = since.dataset.changed ? { from: Number.isNaN(begin) ? shown.from : String(begin), to: Number.isNaN(end) ? "" : String(end), live: "" } : {};
    change({ match: filter.value.trim(), ...times });
  }

  function zoom_out() {
    const range = range_of(shown, store_of(shown));
    const half = (range.end - range.begin) / 2;
    change({ from: String(Math.round(range.begin - half)), to: shown.live || range.end + half > Date.now() ? "" : String(Math.round(range.end + half)), live: "" });
  }

  const store_of = (state) => stores.find((one) => one.name === state.store) || stores[0];

  /** Words and terms for what is being written. */
  function complete() {
    const before = /^(.*?)(\S*)$/.exec(filter.value);
    const { names } = groupable(store_of(shown));
    const terms = values().slice(0, 60).map(([key, value, type]) => term(key, value, type));
    const found = [...WORDS, ...names.filter((name) => !name.includes("/")), ...terms].filter((word) => word.toLowerCase().startsWith(before[2].toLowerCase()));
    fill(words, [...new Set(found)].slice(0, 40).map((word) => el("option", { value: before[1] + word })));
  }

  /** Say what is wrong with the filter, or not in the store, after a pause in writing. */
  function check() {
    clearTimeout(pause);
    checking?.abort();
    const match = filter.value.trim(), abort = checking = new AbortController();
    if (!match) return wrong("");
    pause = setTimeout(async () => {
      try {
        const found = await post("/api/v1/match", { match, store: store_of(shown).name }, abort.signal);
        if (abort.signal.aborted) return;
        const missing = found.missing.length ? `the store has no ${found.missing.join(", ")}` : "";
        wrong(found.ok ? missing : `${found.error}\n${match}\n${" ".repeat(found.column - 1)}^`);
      } catch {
        // the answer to the question says it
      }
    }, PAUSE_MS);
    return undefined;
  }

  /** Show why the filter is none; an empty text for a good one. */
  function wrong(reason) {
    error.hidden = !reason;
    error.textContent = reason;
    filter.setAttribute("aria-invalid", Boolean(reason));
  }

  for (const field of [since, until]) field.addEventListener("change", () => { since.dataset.changed = "1"; });
  filter.addEventListener("input", () => { complete(); check(); });
  filter.addEventListener("focus", complete);

  const place = el("form", { class: "panel explore-form no-print", onsubmit: submit },
    el("div", { class: "row wide" }, filter, words, el("button", { type: "submit" }, "Go"), el("button", { type: "button", title: "no filter", onclick: () => { filter.value = ""; change({ match: "" }); } }, "clear")),
    error,
    el("div", { class: "row" }, store, el("span", { class: "group" }, ranges), since, el("span", {}, "to"), until, out, live),
    el("div", { class: "row" }, el("span", { class: "faint" }, "by"), chips, add, unit, top, el("span", { class: "group" }, plots), shadow));

  return {
    place, store_of, wrong, written: () => filter.value.trim(),
    /** Show a state. */
    show(state) {
      shown = state;
      const own = store_of(state), range = range_of(state, own), { names } = groupable(own), by = list(state.by);
      if (document.activeElement !== filter) filter.value = state.match || "";
      since.value = for_field(range.begin);
      until.value = for_field(Math.min(range.end, state.to ? range.end : Date.now()));
      delete since.dataset.changed;
      ranges.forEach((button, place) => button.setAttribute("aria-pressed", state.from === `-${RANGES[place]}` && !state.to));
      live.setAttribute("aria-pressed", Boolean(state.live));
      shadow.setAttribute("aria-pressed", state.shadow !== "0");
      plots.forEach((button) => button.setAttribute("aria-pressed", button.dataset.plot === state.plot));
      store.value = own?.name || "";
      unit.value = state.unit;
      top.value = state.top;
      fill(chips, by.map((name) => el("button", { type: "button", class: "chip", title: "take it out", onclick: () => change({ by: by.filter((one) => one !== name).join(",") || "-" }) }, `${title(name)} ×`)));
      fill(add, el("option", { value: "" }, by.length >= MOST_KEYS ? "five keys" : "add a key ..."), names.filter((name) => !by.includes(name)).map((name) => el("option", { value: name }, title(name))));
      add.disabled = by.length >= MOST_KEYS;
    },
  };
}

/** The state with what it does not say: the last hour, by what tells most. */
export function completed(state, store, since) {
  const { names } = groupable(store);
  const age = (Date.now() - since) / 60000, young = store.outputs.every((output) => !output.oldest || output.oldest * 1000 > Date.now() - 3600000);
  const from = young && age < 5 ? "-5m" : young && age < 15 ? "-15m" : "-1h";
  return { match: "", from, to: "", unit: "bit", top: "8", plot: "stacked", store: "", live: "", ...state, by: state.by === "-" ? "" : state.by || first(names) };
}

/** Values that can be completed, from groups. */
export const seen = (groups, by, types) => groups.filter((group) => !group.rest).flatMap((group) => by.map((key, at) => [key, group.keys[at], types[key.split("/")[0]]]));
export { text };
