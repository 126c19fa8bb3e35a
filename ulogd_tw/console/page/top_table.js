// The largest groups as a table: total, share, and the rates over the range.

import { colour } from "./series.js";
import { text, title } from "./keys.js";
import { exact, percent, short } from "./numbers.js";
import { MEASURES } from "./question.js";
import { el, sparkline, table } from "./parts.js";

/** The value below which 95 of 100 are. */
function most(values) {
  const sorted = [...values].sort((one, other) => one - other);
  return sorted.length ? sorted[Math.min(sorted.length - 1, Math.ceil(0.95 * sorted.length) - 1)] : null;
}

/** The table of groups. `rates` are by group, in the order of `groups`; `clicked` gets (key, value). */
export function top_table(groups, by, unit, rates, clicked) {
  const [sum, , name] = MEASURES[unit] || MEASURES.bit;
  const all = groups.reduce((total, group) => total + group.totals[sum], 0);
  const suffix = unit === "share" ? " %" : "";
  const rate = (value) => (value === null || value === undefined || !Number.isFinite(value) ? "" : unit === "share" ? `${value.toFixed(1)}${suffix}` : short(value));
  const lines = groups.map((group, place) => ({ group, place, rates: (rates?.[place] || []).filter((value) => value !== null) }));
  const value_of = (line, at) => {
    if (line.group.rest) return at ? "" : "other";
    const value = line.group.keys[at];
    return el("button", { type: "button", class: "value", title: "add to the filter", onclick: () => clicked(by[at], value) }, text(by[at], value));
  };
  const columns = [
    { title: "", cell: (line) => el("span", { class: "swatch", style: `background:${colour(line.group, line.place)}` }) },
    ...by.map((key, at) => ({ title: title(key), cell: (line) => value_of(line, at) })),
    ...["octets", "packets", "flows"].map((word) => ({ title: word, number: true, cell: (line) => el("span", { title: exact(line.group.totals[word]), "data-sum": word, "data-exact": String(line.group.totals[word]) }, short(line.group.totals[word])) })),
    { title: "share", number: true, cell: (line) => percent(all ? line.group.totals[sum] / all : 0) },
  ];
  if (rates) columns.push(
    { title: `min ${name}`, number: true, cell: (line) => rate(Math.min(...line.rates)) },
    { title: "mean", number: true, cell: (line) => rate(line.rates.reduce((total, value) => total + value, 0) / line.rates.length) },
    { title: "95th", number: true, cell: (line) => rate(most(line.rates)) },
    { title: "max", number: true, cell: (line) => rate(Math.max(...line.rates)) },
    { title: "", cell: (line) => sparkline(line.rates) },
  );
  return table(columns, lines, { class: "top" });
}
