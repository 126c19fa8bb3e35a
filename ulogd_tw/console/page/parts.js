// Elements of the page. Text is always text: nothing here, or anywhere in the console, parses HTML from data.

const PROPERTIES = new Set(["value", "checked", "selected", "disabled", "hidden", "textContent"]);

/** An element with properties and children. `on...` are listeners. */
export function el(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (key === "class") made.className = value;
    else if (PROPERTIES.has(key)) made[key] = value;
    else made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return made;
}

/** An element of SVG, with attributes. */
export function svg(name, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value !== undefined && value !== null) made.setAttribute(key, value);
  }
  made.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return made;
}

/** Replace what is in an element. */
export function fill(place, ...children) {
  place.replaceChildren(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
}

/** A table. Columns are {title, cell(row), number, title_of(row)}; cells are text or elements. */
export function table(columns, rows, properties = {}) {
  const head = el("tr", {}, columns.map((column) => el("th", { scope: "col", class: column.number ? "number" : "" }, column.title)));
  const body = rows.map((row) =>
    el("tr", { class: properties.row_class ? properties.row_class(row) : "" }, columns.map((column) => {
      const value = column.cell(row);
      return el("td", { class: column.number ? "number" : "" }, value === null || value === undefined ? "" : value);
    })));
  const place = el("div", { class: "scroll" }, el("table", { class: properties.class || "" }, el("thead", {}, head), el("tbody", {}, body)));
  return place;
}

/** A message in the place of an answer: what went wrong, or what there is not. */
export function notice(text, kind = "note") {
  return el("p", { class: `notice ${kind}`, role: kind === "error" ? "alert" : "status" }, text);
}

/** A line of small bars, such as for a row of a table: numbers without axes. */
export function sparkline(values, width = 90, height = 18) {
  const top = Math.max(...values, 0) || 1;
  const step = width / Math.max(values.length, 1);
  const points = values.map((value, at) => `${(at * step + step / 2).toFixed(1)},${(height - 1 - ((value || 0) / top) * (height - 2)).toFixed(1)}`);
  return svg("svg", { class: "sparkline", width, height, viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" },
    svg("polyline", { points: points.join(" ") }));
}
