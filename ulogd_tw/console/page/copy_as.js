// The question of the page for other places: a command, SQL, curl, a file of CSV, a picture.

import { plotly } from "./charts.js";
import { command } from "./question.js";
import { el } from "./parts.js";

function curl(question) {
  const body = JSON.stringify(question).replaceAll("'", "'\\''");
  return `curl -s -H "Authorization: Bearer $TOKEN" -H 'Content-Type: application/json' ${location.origin}/api/v1/stores/flows -d '${body}'`;
}

/** DuckDB's SQL over the files of the first output of a store. It shows the columns; the filter is for flows and the API. */
function sql(question, store) {
  const raw = store?.outputs.find((output) => !output.rollup) || store?.outputs[0];
  const keys = (question.by || []).map((name) => `"${name.split("/")[0]}"`);
  const octets = ["octetDeltaCount", "octetTotalCount", "octets"].find((name) => name in (raw?.keys || {})) || "octetDeltaCount";
  const filter = question.match ? `\n  -- and what MATCH says: ${question.match.replaceAll("\n", " ")}` : "";
  return `SELECT ${[...keys, `sum("${octets}") AS octets`, "count(*) AS rows"].join(", ")}\nFROM read_parquet('${raw?.directory}/*/*/*.parquet', union_by_name=true, hive_partitioning=false)\nWHERE "flowEndMilliseconds" >= ${question.begin} AND "flowEndMilliseconds" < ${question.end}${filter}${keys.length ? `\nGROUP BY ${keys.join(", ")} ORDER BY octets DESC LIMIT ${question.top || 100}` : ""}`;
}

async function csv(question) {
  const answer = await fetch("/api/v1/stores/flows", { method: "POST", credentials: "same-origin", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ ...question, format: "csv" }) });
  save(URL.createObjectURL(await answer.blob()), "flows.csv");
}

function save(url, name) {
  const link = el("a", { href: url, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

async function copied(button, text) {
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "copied";
  } catch {
    window.prompt("copy:", text);
  }
  setTimeout(() => { button.textContent = button.dataset.title; }, 1500);
}

/** The line of buttons. `question()` gives the present question, `store()` its store, `plot()` the element of the plot. */
export function copy_as(question, store, plot) {
  const button = (title, act, hint) => el("button", { type: "button", "data-title": title, title: hint, onclick: (event) => act(event.currentTarget) }, title);
  return el("div", { class: "row no-print" }, el("span", { class: "faint" }, "copy as"),
    button("command", (place) => copied(place, command(question())), "ulogd-tw flows ..."),
    button("SQL", (place) => copied(place, sql(question(), store())), "for DuckDB, over the files"),
    button("curl", (place) => copied(place, curl(question())), "the question to the API"),
    button("CSV", () => csv(question()), "a file with the rows of the answer"),
    button("PNG", async () => (await plotly()).downloadImage(plot(), { format: "png", width: 1280, height: 480, filename: "flows" }), "the plot as a picture"));
}
