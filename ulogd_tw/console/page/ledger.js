// Counters of instances: rates between two looks, and whether all rows are accounted for.

const GIVING = new Set(["rows_emitted", "rows_filtered", "rows_merged", "rows_written", "rows_waiting", "rows_spooled"]);

export const sum = (counts) => Object.values(counts || {}).reduce((total, count) => total + count, 0);

/** Rows that came in and are in no other counter: 0 unless a row was lost without a count. */
export function unaccounted(counters) {
  const own = ["AGGREGATE", "FLOWCACHE"].includes(counters.plugin); // their rows are merged into groups, which are others
  let gone = sum(counters.dropped);
  for (const name of GIVING) if (!(own && name === "rows_emitted")) gone += counters[name] || 0;
  return counters.rows_received - gone;
}

/** What an instance has lost: dropped, lost and errors together. */
export const trouble = (counters) => sum(counters.dropped) + sum(counters.lost) + sum(counters.errors);

/** Differences to the look before, a second. `before` may be missing. */
export function rate(now, before, name, seconds) {
  if (!before || seconds <= 0) return null;
  return Math.max(0, (now[name] || 0) - (before[name] || 0)) / seconds;
}

/** Reasons with their counts, as text. */
export const reasons = (counters) => ["dropped", "lost", "errors"].flatMap((kind) => Object.entries(counters[kind] || {}).filter(([, count]) => count).map(([name, count]) => `${kind}.${name} ${count}`));
