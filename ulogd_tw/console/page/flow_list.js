// The flows themselves, newest first.

import { clock, exact, moment, short, span } from "./numbers.js";
import { text, title } from "./keys.js";
import { el, table } from "./parts.js";

const AMOUNTS = ["octets", "packets", "flows"];

/** A table of the rows of an answer; `clicked` gets (key, value). */
export function flow_list(answer, clicked) {
  const names = answer.columns.map(([name]) => name);
  const cell = (row, at) => {
    const [name, kind] = answer.columns[at], value = row[at];
    if (value === null) return "";
    if (kind === "time") return el("span", { title: moment(value) }, clock(value));
    if (kind === "count" || AMOUNTS.includes(name)) return el("span", { title: exact(value) }, short(value));
    return el("button", { type: "button", class: "value", title: "add to the filter", onclick: () => clicked(name, value) }, text(name, value));
  };
  const columns = names.map((name, at) => (name === "end" ? { title: "duration", number: true, cell: (row) => (row[0] === null || row[1] === null ? "" : span((row[1] - row[0]) / 1000)) }
    : { title: name === "start" ? "start" : title(name), number: answer.columns[at][1] === "count" || AMOUNTS.includes(name), cell: (row) => cell(row, at) }));
  return table(columns, answer.rows, { class: "flows" });
}
