// Alerts: what fires, and the rules.

import { get } from "./api.js";
import { sum } from "./ledger.js";
import { exact, moment, short } from "./numbers.js";
import { el, fill, notice, table } from "./parts.js";

const LOOK_MS = 3000;

export function show(place) {
  const abort = new AbortController();
  let timer = 0;
  async function look() {
    try {
      if (!("/api/v1/alerts" in (await get("/api/v1", abort.signal)).addresses)) {
        fill(place, notice("This version of the service has no alert rules. Prometheus has some: etc/prometheus.", "quiet"));
        return;
      }
      fill(place, shown(await get("/api/v1/alerts", abort.signal)));
    } catch (error) {
      if (error.name === "AbortError") return;
      fill(place, notice(error.message, "error"));
    }
    timer = setTimeout(look, LOOK_MS);
  }
  look();
  return { update: () => {}, end: () => { clearTimeout(timer); abort.abort(); } };
}

const lost = (receiver) => sum(receiver.lost);

function shown(found) {
  const labels = (one) => Object.entries(one.labels || {}).map(([name, value]) => `${name}=${value}`).join(", ");
  const firing = found.alerts.length ? table([
    { title: "state", cell: (one) => el("span", { class: one.state === "firing" ? "bad" : "" }, one.state) }, { title: "alert", cell: (one) => one.name }, { title: "of", cell: labels },
    { title: "since", cell: (one) => moment(one.since * 1000) }, { title: "value", number: true, cell: (one) => short(one.value) }, { title: "threshold", number: true, cell: (one) => short(one.threshold) }, { title: "what", cell: (one) => el("span", { class: "long" }, one.summary || "") },
  ], found.alerts, { row_class: (one) => (one.state === "firing" ? "silent" : "") }) : notice("Nothing fires.", "quiet");
  const rules = found.rules.length ? table([{ title: "rule", cell: (one) => one.name }, { title: "says", cell: (one) => one.when }, { title: "of", cell: (one) => [one.of, one.match].filter(Boolean).join(", ") }, { title: "pending", number: true, cell: (one) => exact(one.pending) }, { title: "firing", number: true, cell: (one) => el("span", { class: one.firing ? "bad" : "" }, exact(one.firing)) },
    { title: "told to", cell: (one) => one.receivers.map((receiver) => `${receiver.name}: ${exact(receiver.sent)} sent${receiver.waiting ? `, ${exact(receiver.waiting)} wait` : ""}${lost(receiver) ? `, ${exact(lost(receiver))} lost` : ""}`).join("; ") }], found.rules) : notice("No rules: a section [alert:NAME] makes one.", "quiet");
  return [el("section", { class: "panel" }, el("h2", {}, "Alerts"), firing), el("section", { class: "panel" }, el("h2", {}, "Rules"), rules)];
}
