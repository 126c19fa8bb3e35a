// Stacked areas and lines over time, with the former period as a shadow, and the grid of small series.

import { COLOURS, REST, draw, plain, style } from "./charts.js";
import { zone } from "./numbers.js";
import { MEASURES, times } from "./question.js";

/** A time as Plotly shows it: it knows UTC alone, so local time is handed over as if it were UTC. */
export const local = (ms) => ms - new Date(ms).getTimezoneOffset() * 60000;

/** The time (ms) of a text of Plotly's axis, which is local time. */
export const from_axis = (text) => (typeof text === "number" ? text : new Date(String(text).replace(" ", "T")).getTime());

export const colour = (line, place) => (line.rest ? REST : COLOURS[place % COLOURS.length]);

function axis(unit) {
  const [, , name] = MEASURES[unit] || MEASURES.bit;
  return unit === "share" ? { ticksuffix: " %", range: [0, 100] } : { tickformat: "~s", title: { text: name, standoff: 6 } };
}

/** Draw `lines` ({name, rest, values}) over a range. `shadow` are the values of the former period, or null. */
export async function draw_series(place, lines, range, unit, stacked, shadow, zoomed) {
  const x = times(range).map(local);
  const traces = lines.map((line, number) => ({
    type: "scatter", mode: x.length > 1 ? "lines" : "lines+markers", name: plain(line.name), x, y: line.values, hovertemplate: `%{fullData.name} %{y:.3~s}<extra></extra>`,
    line: { color: colour(line, number), width: stacked ? 0.5 : 1.6, shape: "hv" }, connectgaps: false,
    ...(stacked ? { stackgroup: "all", fillcolor: colour(line, number) + "b0" } : {}),
  }));
  if (stacked) traces.reverse();
  if (shadow) traces.push({ type: "scatter", mode: "lines", name: "the period before", x, y: shadow, line: { color: style("--faint"), width: 1.4, dash: "dot", shape: "hv" }, hovertemplate: "the period before %{y:.3~s}<extra></extra>" });
  const found = await draw(place, traces, {
    hovermode: "x unified", dragmode: "zoom", margin: { l: 56, r: 8, t: 8, b: 28 },
    xaxis: { type: "date", range: [local(range.begin), local(range.end)], title: { text: zone(range.begin), standoff: 2, font: { size: 10 } } },
    yaxis: { fixedrange: true, ...axis(unit) },
  });
  place.removeAllListeners?.("plotly_relayout");
  place.on?.("plotly_relayout", (event) => {
    if (event["xaxis.range[0]"] !== undefined) zoomed(from_axis(event["xaxis.range[0]"]), from_axis(event["xaxis.range[1]"]));
  });
  return found;
}

/** Draw each of the lines in a plot of its own, all with the same axes. The rest is left out: it would flatten the others. */
export async function draw_grid(place, all, range, unit) {
  const lines = all.length > 1 ? all.filter((line) => !line.rest) : all;
  const columns = place.clientWidth > 900 ? 4 : place.clientWidth > 500 ? 3 : 2, rows = Math.ceil(lines.length / columns);
  const x = times(range).map(local), top = Math.max(...lines.flatMap((line) => line.values.map((value) => value || 0)), 1e-9);
  const layout = { grid: { rows, columns, pattern: "independent", xgap: 0.14, ygap: 0.5 }, annotations: [], margin: { l: 44, r: 8, t: 22, b: 40 }, hovermode: "x", dragmode: false };
  const traces = lines.map((line, number) => {
    const suffix = number ? String(number + 1) : "";
    layout[`xaxis${suffix}`] = { type: "date", range: [local(range.begin), local(range.end)], nticks: 3, gridcolor: style("--line"), fixedrange: true };
    layout[`yaxis${suffix}`] = { range: [0, top], tickformat: "~s", nticks: 3, gridcolor: style("--line"), fixedrange: true };
    layout.annotations.push({ text: plain(line.name), xref: `x${suffix} domain`, yref: `y${suffix} domain`, x: 0, y: 1.02, xanchor: "left", yanchor: "bottom", showarrow: false, font: { size: 11 } });
    return { type: "scatter", mode: "lines", x, y: line.values, xaxis: `x${suffix}`, yaxis: `y${suffix}`, name: plain(line.name), fill: "tozeroy", line: { color: colour(line, number), width: 1.2, shape: "hv" }, hovertemplate: "%{y:.3~s}<extra></extra>" };
  });
  place.style.height = `${Math.max(220, rows * 150)}px`;
  return draw(place, traces, layout);
}
