// From the state of the page to questions for the API, and back to rates.

const SECOND = 1000, MINUTE = 60 * SECOND, HOUR = 60 * MINUTE, DAY = 24 * HOUR;
const STEPS = [SECOND, 2 * SECOND, 5 * SECOND, 10 * SECOND, 15 * SECOND, 30 * SECOND, MINUTE, 2 * MINUTE, 5 * MINUTE, 10 * MINUTE, 15 * MINUTE,
  30 * MINUTE, HOUR, 2 * HOUR, 3 * HOUR, 6 * HOUR, 12 * HOUR, DAY];
const UNITS = { s: SECOND, m: MINUTE, h: HOUR, d: DAY };
export const RANGES = ["5m", "15m", "1h", "6h", "24h", "7d", "30d", "90d"];
export const PLOTS = [["stacked", "Stacked"], ["lines", "Lines"], ["grid", "Grid"], ["sankey", "Sankey"], ["heat", "Heat map"], ["flows", "Flows"]];
/** Units: what is summed, by what a sum is multiplied, its name for a rate. */
export const MEASURES = { bit: ["octets", 8, "bit/s"], packet: ["packets", 1, "pkt/s"], flow: ["flows", 1, "flow/s"], share: ["octets", 8, "%"] };
const WANTED = 240;

/** The time of a word of the range: -1h, milliseconds since 1970, or nothing for now. */
export function time(word, now) {
  if (!word) return now;
  const relative = /^-(\d+)([smhd])$/.exec(word);
  if (relative) return now - Number(relative[1]) * UNITS[relative[2]];
  return /^\d+$/.test(word) ? Number(word) : now;
}

/** The step of a series over so many milliseconds: about 100 to 240 of them, and whole intervals of the roll-ups. */
export function step_of(span, store) {
  const only = store && store.outputs.length && store.outputs.every((output) => output.rollup);
  const least = only ? Math.min(...store.outputs.map((output) => (output.rollup.interval || 1) * 1000)) : SECOND;
  return STEPS.find((step) => span / step <= WANTED && step % least === 0) || Math.max(DAY, least);
}

/** Range, step, and the number of steps of a state. The range begins and ends at whole steps. */
export function range_of(state, store, now = Date.now()) {
  const begin = time(state.from, now), end = Math.max(time(state.to, now), begin + SECOND);
  const step = step_of(end - begin, store);
  return { begin: Math.floor(begin / step) * step, end: Math.ceil(end / step) * step, step, now };
}

export const list = (text) => (text ? text.split(",").filter(Boolean) : []);

/** What all questions of a state have in common. Flows count at their end, as roll-ups have it. */
export function base(state, range) {
  const found = { begin: range.begin, end: range.end, ended: true };
  if (state.store) found.store = state.store;
  if (state.match && state.match.trim()) found.match = state.match;
  return found;
}

/** The steps of the largest groups and the rest. */
export function series(state, range) {
  const [sum] = MEASURES[state.unit] || MEASURES.bit;
  const steps = Math.ceil((range.end - range.begin) / range.step);
  const by = list(state.by), top = Number(state.top) || 8;
  const found = { ...base(state, range), every: range.step, sums: [...new Set([sum, "octets", "packets", "flows"])], limit: Math.max(steps * (top + 2), 10) };
  return by.length ? { ...found, by, top, rest: true, order: sum } : found;
}

/** The groups alone. */
export function groups(state, range, by = list(state.by), top = Number(state.top) || 8) {
  const [sum] = MEASURES[state.unit] || MEASURES.bit;
  return { ...base(state, range), by, top, rest: true, sums: ["octets", "packets", "flows"], order: sum, limit: top + 1 };
}

/** The same question as a command. */
export function command(question) {
  const word = (text) => (/^[\w./:=,+-]+$/.test(text) ? text : `'${String(text).replaceAll("'", "'\\''")}'`);
  const found = ["ulogd-tw flows"];
  if (question.match) found.push(word(question.match));
  if (question.store) found.push("--store", word(question.store));
  if (question.begin !== undefined) found.push("--from", new Date(question.begin).toISOString(), "--to", new Date(question.end).toISOString());
  if (question.ended) found.push("--ended");
  if (question.by) found.push("--by", word(question.by.join(",")));
  if (question.top) found.push("--top", question.top);
  if (question.rest) found.push("--rest");
  if (question.every) found.push("--every", `${question.every / 1000}s`);
  if (question.sums) found.push("--sum", question.sums.join(","));
  if (question.order) found.push("--order", word(question.order));
  if (question.limit) found.push("--limit", question.limit);
  return found.join(" ");
}

/** Groups with their steps, the rest last, from the rows of a series. Each has `values` (sum by step) and `totals`. */
export function grouped(answer, question, range) {
  const names = answer.columns.map(([name]) => name);
  const by = question.by || [], steps = Math.max(1, Math.round((range.end - range.begin) / range.step));
  const keys = by.map((name) => names.indexOf(name)), rest = names.indexOf("rest"), at = names.indexOf("time");
  const found = new Map();
  for (const row of answer.rows) {
    const values = keys.map((place) => row[place]);
    const id = rest >= 0 && row[rest] ? "rest" : JSON.stringify(values);
    let group = found.get(id);
    if (!group) {
      group = { id, rest: id === "rest", keys: values, totals: { octets: 0, packets: 0, flows: 0 }, values: { octets: new Array(steps).fill(0), packets: new Array(steps).fill(0), flows: new Array(steps).fill(0) } };
      found.set(id, group);
    }
    const place = at < 0 ? -1 : Math.round((row[at] - range.begin) / range.step);
    for (const name of ["octets", "packets", "flows"]) {
      const value = row[names.indexOf(name)] || 0;
      group.totals[name] += value;
      if (place >= 0 && place < steps) group.values[name][place] += value;
    }
  }
  return [...found.values()];
}

/** The largest first, the rest last. */
export function ordered(groups, sum) {
  return groups.sort((one, other) => one.rest - other.rest || other.totals[sum] - one.totals[sum]);
}

/** The rates of a group in a unit, by step. The last step may still run. */
export function rates(group, unit, range, totals) {
  const [sum, times] = MEASURES[unit] || MEASURES.bit;
  return group.values[sum].map((value, place) => {
    if (unit === "share") return totals[place] ? (100 * value) / totals[place] : 0;
    const begin = range.begin + place * range.step;
    const seconds = Math.max(1, Math.min(range.step, range.now - begin) / 1000);
    return begin > range.now ? null : (value * times) / seconds;
  });
}

/** The times of the steps. */
export const times = (range) => Array.from({ length: Math.max(1, Math.round((range.end - range.begin) / range.step)) }, (_, place) => range.begin + place * range.step);
