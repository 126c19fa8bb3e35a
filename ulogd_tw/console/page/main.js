// The page: its views, the keys, light and dark. A view is a module with show(place, state), which returns what ends it.

import { change, go, href, state } from "./address.js";
import { get } from "./api.js";
import { el, fill, notice } from "./parts.js";

const VIEWS = [
  ["explore", "Explore", "stored flows: series, tables, who talks to whom"],
  ["now", "Now", "the open intervals, and rows as they pass"],
  ["health", "Health", "stacks, exporters, losses, events"],
  ["who_had", "Who had", "which host had an outside address and port"],
  ["alerts", "Alerts", "rules, and what fires"],
];
const KEYS = [
  ["1 to 5", "the views"], ["/", "the filter"], ["t", "light or dark"], ["?", "these keys"], ["Esc", "close, or leave the field"],
];
const place = document.getElementById("view");
const nav = document.getElementById("views");
let shown = null, leave = null, turn = 0;

/** Show the view of the address. The view itself looks at further changes of the state that concern it. */
async function show() {
  const now = state();
  const view = VIEWS.find(([name]) => name === now.view) ? now.view : "explore";
  document.title = `${VIEWS.find(([name]) => name === view)[1]} - ulogd_tw`;
  for (const link of nav.children) link.toggleAttribute("aria-current", link.dataset.view === view);
  if (shown === view && leave?.update) return leave.update(now);
  const mine = ++turn;
  leave?.end?.();
  leave = null;
  shown = view;
  try {
    const module = await import(`./${view}.js`);
    if (mine !== turn) return;
    fill(place);
    leave = module.show(place, now) || {};
  } catch (error) {
    fill(place, notice(`the view cannot be shown: ${error.message}`, "error"));
    shown = null;
  }
}

function links() {
  fill(nav, VIEWS.map(([view, title, hint]) =>
    el("a", { href: href({ view }), title: hint, "data-view": view, onclick: (event) => follow(event, { view }) }, title)));
}

/** A click on a link inside the page; with a modifier the browser opens another tab. */
function follow(event, to) {
  if (event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
  event.preventDefault();
  go(to);
}

function theme(next) {
  const dark = next ?? (localStorage.getItem("theme") || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light"));
  document.documentElement.dataset.theme = dark;
  if (next) {
    localStorage.setItem("theme", next);
    dispatchEvent(new Event("console:theme"));
  }
}

const switched = () => theme(document.documentElement.dataset.theme === "dark" ? "light" : "dark");

function help() {
  const dialog = document.getElementById("keys");
  fill(dialog, el("h2", {}, "Keys"), el("dl", {}, KEYS.map(([key, what]) => [el("dt", {}, el("kbd", {}, key)), el("dd", {}, what)])),
    el("form", { method: "dialog" }, el("button", {}, "Close")));
  dialog.showModal();
}

function pressed(event) {
  const field = event.target.closest("input, textarea, select");
  if (event.key === "Escape" && field) return field.blur();
  if (field || event.ctrlKey || event.metaKey || event.altKey) return;
  const number = Number(event.key);
  if (number >= 1 && number <= VIEWS.length) go({ view: VIEWS[number - 1][0] });
  else if (event.key === "/" && document.querySelector("[data-filter]")) {
    event.preventDefault();
    document.querySelector("[data-filter]").focus();
  } else if (event.key === "t") switched();
  else if (event.key === "?") help();
}

/** Every few seconds: whether the service is there, and how its stacks are. */
async function watch() {
  const line = document.getElementById("service");
  try {
    const found = await get("/api/v1/status");
    const bad = found.stacks.filter((stack) => stack.state !== "ok").length + found.left_out.length;
    line.className = bad ? "bad" : "good";
    line.textContent = bad ? `${bad} of ${found.stacks.length + found.left_out.length} stacks in trouble` : found.stacks.length === 1 ? "1 stack runs" : `${found.stacks.length} stacks run`;
    line.title = `ulogd_tw ${found.version}, process ${found.pid}, ${found.config}`;
  } catch (error) {
    line.className = "bad";
    line.textContent = error.status === 401 ? "a token is needed" : "no answer";
    line.title = error.message;
    if (error.status === 401) ask_for_token();
  }
  setTimeout(watch, 5000);
}

/** The way in for a browser without a session. */
export function ask_for_token() {
  if (document.getElementById("login")) return;
  const field = el("input", { name: "token", type: "password", autocomplete: "off", required: true, "aria-label": "token" });
  place.prepend(el("form", { id: "login", action: "/login", method: "get", class: "login" },
    el("p", {}, "Stored flows and rows need a token: the one-time token that the service printed, or a line of token_file= in [http]."),
    field, el("button", {}, "Go")));
}

theme();
links();
document.getElementById("theme").addEventListener("click", switched);
document.getElementById("help").addEventListener("click", help);
addEventListener("keydown", pressed);
addEventListener("popstate", show);
addEventListener("console:state", show);
addEventListener("console:token", ask_for_token);
show();
watch();
export { change };
