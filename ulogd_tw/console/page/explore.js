// Explore: stored flows by filter, time and keys, as series, streams, a map of the week, tables, or the flows themselves.

import { change, state as address } from "./address.js";
import { Failure, flows, get } from "./api.js";
import { copy_as } from "./copy_as.js";
import { completed, explore_form, seen } from "./explore_form.js";
import { flow_list } from "./flow_list.js";
import { groupable, narrowed, term, text, title } from "./keys.js";
import { exact, moment, percent, short, zone } from "./numbers.js";
import { el, fill, notice } from "./parts.js";
import { MEASURES, base, command, grouped, groups as of_groups, list, ordered, range_of, rates, series } from "./question.js";
import { draw_heat, draw_sankey } from "./sankey.js";
import { draw_grid, draw_series } from "./series.js";
import { top_table } from "./top_table.js";

const NO_STORE = "No store of flows yet. A stack with PARQUET makes one, such as\n\n  stack=col1:COLLECTOR,flows1:PARQUET\n\n  [flows1]\n  directory=\"/var/lib/ulogd/flows\"\n\nin the configuration. Now and Health work without a store.";
const EMPTY = "No flow is stored yet. PARQUET writes a file some seconds after the first flow has ended (flush=). Health shows whether flows arrive.";
const BESIDE = ["destinationAddress", "destinationTransportPort", "sourceAddress"];
const LISTED = 500;
const NOT_KEPT = "nothing is kept of that time"; // before the store began: no fault
const KEPT_MS = 5000, PAST_MS = 120000, MOST_KEPT = 30;

export function show(place, first) {
  const view = new Explore(place);
  view.begin(first);
  return { update: (state) => view.update(state), end: () => view.end() };
}

class Explore {
  constructor(place) {
    this.place = place;
    this.values = [];
    this.question = {};
    this.kept = new Map();
    this.abort = null;
    this.any = false;
    this.timer = 0;
    this.redraw = () => this.update(address());
  }

  async begin(state) {
    fill(this.place, notice("reading the list of stores ...", "quiet"));
    let begun = false;
    try {
      const [found, status] = await Promise.all([get("/api/v1/stores"), get("/api/v1/status")]);
      this.stores = found.stores.filter((store) => store.outputs.some((output) => Object.keys(output.keys || {}).length));
      begun = found.stores.length > 0;
      this.since = status.since * 1000;
    } catch (error) {
      return this.failed(error, this.place);
    }
    if (!this.stores.length) {
      fill(this.place, notice(begun ? EMPTY : NO_STORE, "note"));
      this.timer = setTimeout(() => this.begin(address()), 3000);
      return undefined;
    }
    this.form = explore_form(this.stores, () => this.values);
    this.progress = el("progress", { max: 100, hidden: true, "aria-label": "progress" });
    this.plot = el("div", { class: "plot", id: "plot" });
    this.main = el("div", { id: "answer" });
    this.beside = el("div", { class: "beside" });
    this.said = el("div", { id: "said" });
    this.command = el("code", { id: "command", class: "faint no-print" });
    fill(this.place, this.form.place, this.progress,
      el("div", { class: "panel" }, this.plot, this.said), el("div", { class: "panel" }, this.main), this.beside,
      copy_as(() => this.question, () => this.form.store_of(this.state), () => this.plot), this.command);
    addEventListener("console:theme", this.redraw);
    return this.update(state);
  }

  end() {
    clearTimeout(this.timer);
    this.abort?.abort();
    removeEventListener("console:theme", this.redraw);
  }

  /** Show a state: the form at once, then the answer. A former question is given up. */
  async update(given) {
    if (!this.form) return;
    clearTimeout(this.timer);
    this.abort?.abort();
    const abort = this.abort = new AbortController();
    const store = this.form.store_of(given), state = this.state = completed(given, store, this.since);
    this.form.show(state);
    const range = this.range = range_of(state, store);
    this.types = groupable(store).types;
    try {
      this.progress.hidden = false;
      await this.answer(state, range, abort.signal);
      if (this.form.written() === state.match.trim()) this.form.wrong("");
    } catch (error) {
      if (error.name === "AbortError" || abort.signal.aborted) return;
      this.failed(error, this.main);
    } finally {
      if (abort === this.abort) this.progress.hidden = true;
    }
    if (state.live && abort === this.abort) this.timer = setTimeout(() => this.update(address()), Math.max(2000, Math.min(range.step, 30000)));
  }

  async answer(state, range, signal) {
    const by = list(state.by), kind = by.length < 2 && state.plot === "sankey" ? "stacked" : state.plot;
    if (kind === "flows") return this.list(state, range, signal);
    if (kind === "heat") return this.heat(state, range, signal);
    if (kind === "sankey") return this.streams(state, range, by, signal);
    return this.series(state, range, by, kind, signal);
  }

  ask(question, signal) {
    this.question = question;
    this.command.textContent = command(question);
    return this.answered(question, signal, (percent) => { this.progress.value = percent; });
  }

  /** The answer to a question, or the one of some seconds ago; of a past range it stays the same. */
  async answered(question, signal, progress) {
    const key = JSON.stringify(question), kept = this.kept.get(key);
    if (kept && (Date.now() - kept.at < KEPT_MS || question.end < kept.at - PAST_MS)) return kept.answer;
    const answer = await flows(question, signal, progress);
    this.any ||= answer.rows.length > 0;
    this.kept.delete(key);
    this.kept.set(key, { at: Date.now(), answer });
    if (this.kept.size > MOST_KEPT) this.kept.delete(this.kept.keys().next().value);
    return answer;
  }

  async series(state, range, by, kind, signal) {
    const question = series(state, range), answer = await this.ask(question, signal);
    const [sum] = MEASURES[state.unit] || MEASURES.bit;
    const groups = ordered(grouped(answer, question, range), sum);
    if (!groups.length) return this.nothing(answer, range);
    const totals = groups[0].values[sum].map((_, place) => groups.reduce((total, group) => total + group.values[sum][place], 0));
    const found = groups.map((group) => rates(group, state.unit, range, totals));
    const lines = groups.map((group, place) => ({ name: this.name(group, by), rest: group.rest, values: found[place] }));
    this.values = seen(groups, by, this.types);
    fill(this.main, top_table(groups, by, state.unit, found, (key, value) => this.narrow(key, value)));
    this.tell(answer, range, groups);
    this.plot.style.height = "";
    if (kind === "grid") await draw_grid(this.plot, lines, range, state.unit);
    else {
      const zoomed = (from, to) => change({ from: String(Math.round(from)), to: String(Math.round(to)), live: "" });
      const drawn = (shadow) => draw_series(this.plot, lines, range, state.unit, kind === "stacked", shadow, zoomed);
      await drawn(null);
      if (state.shadow !== "0" && state.unit !== "share") await this.shadow(state, range, signal, drawn);
    }
    return this.others(state, range, by, signal);
  }

  /** The total of the period before, over this one. */
  async shadow(state, range, signal, drawn) {
    const length = range.end - range.begin;
    const before = { ...range, begin: range.begin - length, end: range.begin };
    const question = { ...series({ ...state, by: "" }, before) };
    const [group] = grouped(await this.answered(question, signal), question, before);
    if (group && !signal.aborted) await drawn(rates(group, state.unit, before, []));
  }

  /** The largest sources and destinations, where they are not asked for anyway. */
  async others(state, range, by, signal) {
    const keys = BESIDE.filter((key) => key in this.types && !by.includes(key)).slice(0, 2);
    const panels = keys.map((key) => el("div", { class: "panel" }, el("h2", {}, `${title(key)}, largest`)));
    fill(this.beside, panels);
    for (const [at, key] of keys.entries()) {
      const question = of_groups(state, range, [key], 8);
      const answer = await this.answered(question, signal);
      if (signal.aborted) return;
      const [sum] = MEASURES[state.unit] || MEASURES.bit, groups = ordered(grouped(answer, question, range), sum);
      this.values = [...this.values, ...seen(groups, [key], this.types)];
      panels[at].append(top_table(groups, [key], state.unit, null, (name, value) => this.narrow(name, value)));
    }
  }

  async streams(state, range, by, signal) {
    const question = of_groups(state, range, by, Math.max(40, Number(state.top))), answer = await this.ask(question, signal);
    const [sum] = MEASURES[state.unit] || MEASURES.bit, groups = ordered(grouped(answer, question, range), sum);
    if (!groups.length) return this.nothing(answer, range);
    const seconds = Math.max(1, (Math.min(range.end, range.now) - range.begin) / 1000);
    this.values = seen(groups, by, this.types);
    fill(this.beside);
    fill(this.main, top_table(groups, by, state.unit, null, (key, value) => this.narrow(key, value)));
    this.tell(answer, range, groups);
    const shown = groups.filter((group) => !group.rest), part = (some) => some.reduce((total, group) => total + group.totals[sum], 0);
    if (shown.length < groups.length) this.said.append(notice(`the picture has the ${shown.length} largest combinations, ${percent(part(shown) / part(groups))} of all ${sum}; fewer keys, shorter prefixes or a filter show more`, "note"));
    this.plot.style.height = "460px";
    return draw_sankey(this.plot, shown, by, state.unit, seconds, (key, value) => this.narrow(key, value));
  }

  async heat(state, range, signal) {
    const [sum] = MEASURES[state.unit] || MEASURES.bit;
    const hour = 3600000, begin = Math.floor(range.begin / hour) * hour, end = Math.ceil(range.end / hour) * hour;
    const question = { ...base(state, { begin, end }), every: hour, sums: [sum], limit: Math.max(10, (end - begin) / hour + 1) };
    const answer = await this.ask(question, signal);
    if (!answer.rows.length) return this.nothing(answer, range);
    fill(this.main, notice("The mean rate of each hour of the week. A longer range has more of them: 7d, 30d.", "quiet"));
    fill(this.beside);
    this.tell(answer, range, []);
    this.plot.style.height = "260px";
    return draw_heat(this.plot, answer.rows.map((row) => [row[0], row[1] || 0]), state.unit);
  }

  async list(state, range, signal) {
    const question = { ...base(state, range), ended: false, columns: ["short"], limit: LISTED };
    const answer = await this.ask(question, signal);
    fill(this.plot);
    this.plot.style.height = "0";
    fill(this.beside);
    if (!answer.rows.length) return this.nothing(answer, range);
    fill(this.main, flow_list(answer, (key, value) => this.narrow(key, value)));
    return this.tell(answer, range, []);
  }

  name(group, by) {
    if (group.rest) return "other";
    return by.map((key, at) => text(key, group.keys[at])).join(", ") || "all";
  }

  narrow(key, value) {
    change({ match: narrowed(this.state.match, term(key, value, this.types[key.split("/")[0]])) });
  }

  /** Which store answered, and what there is to say about the answer. */
  tell(answer, range, groups) {
    const stores = [...new Set(answer.parts.map((part) => part.store))].join(", ");
    const sums = groups.length ? `${["octets", "packets", "flows"].map((word) => `${short(groups.reduce((total, group) => total + group.totals[word], 0))} ${word}`).join(", ")}; ` : "";
    const early = answer.notes.filter((note) => note.includes(NOT_KEPT)), loud = answer.notes.filter((note) => !note.includes(NOT_KEPT));
    const notes = loud.length > 1 ? [el("details", { class: "notice" }, el("summary", {}, `${loud[0]} (and ${loud.length - 1} more)`), loud.slice(1).map((note) => el("div", {}, note)))]
      : loud.map((note) => notice(note, "note"));
    notes.push(...early.map((note) => el("p", { class: "faint" }, note)));
    const more = answer.more ? [notice(`there are more than these ${exact(answer.rows.length)} rows`, "note")] : [];
    fill(this.said, el("p", { class: "faint", id: "read-from" }, `${sums}${moment(range.begin)} to ${moment(range.end)} ${zone(range.begin)}, step ${range.step / 1000} s, read from ${stores}`), notes, more);
  }

  nothing(answer, range) {
    fill(this.plot);
    fill(this.beside);
    const stored = this.any || this.form.store_of(this.state).outputs.some((output) => output.files);
    fill(this.main, notice(stored ? "No flow ended in this range with this filter." : EMPTY, "quiet"));
    this.tell(answer, range, []);
  }

  failed(error, place) {
    if (!(error instanceof Failure)) throw error;
    if (error.status === 401) dispatchEvent(new Event("console:token"));
    const column = /column \d+:/.test(error.message);
    if (column && this.form) this.form.wrong(error.message);
    else fill(place, notice(error.message, "error"));
    if (error.status === 0 || error.status === 503) this.timer = setTimeout(() => (this.form ? this.update(address()) : this.begin(address())), 3000);
  }
}


