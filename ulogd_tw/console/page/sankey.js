// Who talks to whom: the largest groups of two to five dimensions as streams, and the mean rate by hour and weekday.

import { COLOURS, REST, draw, plain, style } from "./charts.js";
import { text, title } from "./keys.js";
import { MEASURES } from "./question.js";

/** Draw the groups of `by`. `clicked` gets (key, value) of a node. */
export async function draw_sankey(place, groups, by, unit, seconds, clicked) {
  const [sum, times, name] = MEASURES[unit === "share" ? "bit" : unit] || MEASURES.bit;
  const nodes = new Map(), links = new Map();
  const node = (level, value, rest) => {
    const id = `${level} ${rest ? "rest" : JSON.stringify(value)}`;
    if (!nodes.has(id)) nodes.set(id, { number: nodes.size, level, value, rest, label: plain(rest ? "other" : text(by[level], value)) });
    return nodes.get(id).number;
  };
  for (const group of groups) for (let level = 0; level + 1 < by.length; level++) {
    const source = node(level, group.keys[level], group.rest), target = node(level + 1, group.keys[level + 1], group.rest);
    const id = `${source} ${target}`;
    links.set(id, { source, target, value: (links.get(id)?.value || 0) + (group.totals[sum] * times) / seconds });
  }
  const all = [...nodes.values()], streams = [...links.values()];
  const tint = (one) => (one.rest ? REST : COLOURS[one.number % COLOURS.length]);
  await draw(place, [{
    type: "sankey", orientation: "h", valueformat: ".3~s", valuesuffix: ` ${name}`, arrangement: "fixed",
    node: { label: all.map((one) => one.label), color: all.map(tint), pad: 8, thickness: 12, line: { width: 0 } },
    link: { source: streams.map((one) => one.source), target: streams.map((one) => one.target), value: streams.map((one) => one.value), color: streams.map((one) => tint(all[one.source]) + "55") },
    textfont: { color: style("--ink"), size: 11 },
  }], {
    margin: { l: 8, r: 8, t: 40, b: 8 },
    annotations: by.map((key, level) => ({ text: plain(title(key)), x: by.length > 1 ? level / (by.length - 1) : 0, y: 1.03, xref: "paper", yref: "paper", showarrow: false, xanchor: level === 0 ? "left" : level === by.length - 1 ? "right" : "center", yanchor: "bottom", font: { size: 11, color: style("--faint") } })),
  });
  place.removeAllListeners?.("plotly_click");
  place.on?.("plotly_click", (event) => {
    const point = event.points[0], one = all[point.pointNumber];
    if (point.flow === undefined && point.source === undefined && one && !one.rest) clicked(by[one.level], one.value);
  });
}

const DAYS = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

/** Draw the mean rate of each hour of the week, in the zone of the browser, from sums by hour. */
export async function draw_heat(place, rows, unit) {
  const [, times, name] = MEASURES[unit === "share" ? "bit" : unit] || MEASURES.bit;
  const sums = DAYS.map(() => new Array(24).fill(0)), hours = DAYS.map(() => new Array(24).fill(0));
  for (const [ms, value] of rows) {
    const at = new Date(ms), day = (at.getDay() + 6) % 7;
    sums[day][at.getHours()] += value;
    hours[day][at.getHours()] += 1;
  }
  const z = sums.map((row, day) => row.map((value, hour) => (hours[day][hour] ? (value * times) / (3600 * hours[day][hour]) : null)));
  await draw(place, [{ type: "heatmap", x: Array.from({ length: 24 }, (_, hour) => hour), y: DAYS, z, colorscale: "Cividis", hoverongaps: false, xgap: 1, ygap: 1, hovertemplate: `%{y} %{x}:00 %{z:.3~s}${name}<extra></extra>`, colorbar: { tickformat: "~s", thickness: 10, title: { text: name } } }],
    { yaxis: { autorange: "reversed", fixedrange: true }, xaxis: { dtick: 2, ticksuffix: ":00", fixedrange: true }, dragmode: false });
}
