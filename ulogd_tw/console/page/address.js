// The state of the page is its address: every view, question and plot can be kept as a bookmark, and sent to others.

/** The state as an object of texts; `view` says which view it is of. */
export function state() {
  const found = Object.fromEntries(new URLSearchParams(location.search));
  found.view ||= "explore";
  return found;
}

/** The address of a state. Empty values are left out. */
export function href(state) {
  const words = new URLSearchParams();
  for (const [name, value] of Object.entries(state)) if (value !== "" && value !== undefined && value !== null) words.set(name, value);
  return `/?${words}`;
}

/** Go to a state: a new entry for the back button, unless `replace`. */
export function go(state, replace = false) {
  const to = href(state);
  if (to !== location.pathname + location.search) history[replace ? "replaceState" : "pushState"](null, "", to);
  dispatchEvent(new Event("console:state"));
}

/** Change some values of the state. */
export function change(values, replace = false) {
  go({ ...state(), ...values }, replace);
}
