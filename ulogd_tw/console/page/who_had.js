// Who had: which host inside had an outside address and port at a time, with what may be missing; made to be printed.

import { change } from "./address.js";
import { post } from "./api.js";
import { moment, zone } from "./numbers.js";
import { el, fill, notice, table } from "./parts.js";

const LONGEST_MS = 86400000;

/** A moment (ms) as a field has it, in the zone of the browser. */
const for_field = (ms) => new Date(ms - new Date(ms).getTimezoneOffset() * 60000).toISOString().slice(0, 19);

/** Address and port of a text such as 192.0.2.1:80, [2001:db8::1]:80 or 2001:db8::1. */
export function endpoint(text) {
  const word = text.trim(), bracket = /^\[([^\]]+)\](?::(\d+))?$/.exec(word), plain = /^([^:]+)(?::(\d+))?$/.exec(word);
  const found = bracket || plain;
  return found ? { address: found[1], port: found[2] === undefined ? null : Number(found[2]) } : { address: word, port: null };
}

export function show(place, first) {
  const address = el("input", { id: "endpoint", size: 34, "data-filter": true, required: true, autocomplete: "off", spellcheck: false, placeholder: "203.0.113.1:4711 or [2001:db8::1]:4711" });
  const at = el("input", { id: "at", type: "datetime-local", step: 1, required: true });
  const within = el("input", { id: "within", type: "number", min: 0, max: 86400, size: 6 });
  const answer = el("div", { id: "holders" });
  const form = el("form", { class: "panel row no-print", onsubmit: (event) => { event.preventDefault(); change({ who: address.value.trim(), at: String(new Date(at.value).getTime()), within: within.value }); } },
    el("label", { for: "endpoint" }, "address and port"), address, el("label", { for: "at" }, "at"), at, el("span", { class: "faint" }, zone()), el("label", { for: "within" }, "give or take, s"), within, el("button", {}, "Ask"),
    el("button", { type: "button", onclick: () => print() }, "Print"));
  fill(place, form, answer);
  let abort = null;

  async function update(state) {
    abort?.abort();
    abort = new AbortController();
    address.value = state.who || "";
    const asked = Number(state.at) || Date.now();
    at.value = for_field(asked);
    within.value = state.within || "5";
    if (!state.who) return fill(answer, notice("A letter asks who had an address and port at a time. The answer is the host inside, from when to when, and what may be missing.", "quiet"));
    fill(answer, notice("looking ...", "quiet"));
    try {
      const found = await post("/api/v1/stores/who-had", { ...endpoint(state.who), at: asked, within: 1000 * Number(state.within || 5), longest: LONGEST_MS }, abort.signal);
      fill(answer, shown(found));
    } catch (error) {
      if (error.name === "AbortError") return undefined;
      if (error.status === 401) dispatchEvent(new Event("console:token"));
      fill(answer, notice(error.message, "error"));
    }
    return undefined;
  }
  update(first);
  return { update, end: () => abort?.abort() };
}

const end_of = (address, port) => (address === null ? "" : port === null ? address : address.includes(":") ? `[${address}]:${port}` : `${address}:${port}`);

/** The answer: holders, then the gaps. */
function shown(found) {
  const port = found.port === null ? "" : ` port ${found.port}`;
  const title = `${found.address}${port} at ${moment(found.at)} ${zone(found.at)}, give or take ${found.within / 1000} s`;
  const gaps = [...found.incomplete.map((gap) => `incomplete between ${moment(gap.since)} and ${moment(gap.until)}: ${gap.reason}`), ...found.notes];
  const nobody = gaps.length ? "No record of who had it; records are missing, see below." : "Nobody had it: no record says so, and no record of that time is missing.";
  const columns = [
    { title: "host inside", cell: (one) => end_of(one.inside, one.inside_port) },
    { title: "from", cell: (one) => (one.start === null ? "not recorded" : moment(one.start)) }, { title: "to", cell: (one) => (one.end === null ? "" : moment(one.end)) },
    { title: "remark", cell: (one) => [one.state === "ended" ? "" : one.state, one.nat === "none" ? "not translated" : one.nat === "destination" ? "destination NAT" : ""].filter(Boolean).join(", ") },
    { title: "outside", cell: (one) => (one.first === null ? end_of(one.outside, one.outside_port) : `${one.outside} ports ${one.first} to ${one.last ?? one.first}`) },
    { title: "protocol", cell: (one) => String(one.protocol ?? "") }, { title: "other side", cell: (one) => end_of(one.peer, one.peer_port) }, { title: "told by", cell: (one) => one.exporter || "" },
  ];
  return el("section", { class: "panel" }, el("h2", {}, title), found.answers.length ? table(columns, found.answers, { class: "holders" }) : notice(nobody, "note"),
    found.more ? notice("there are more; ask for a port, or less give or take") : null, gaps.map((gap) => notice(gap, "note")),
    el("p", { class: "faint" }, `asked on ${moment(Date.now())} ${zone()}; all times ${zone(found.at)}`));
}
