// The stacks as a picture: boxes for instances, arrows for rows, red where something is lost.

import { exact, short, span } from "./numbers.js";
import { rate, reasons, trouble } from "./ledger.js";
import { svg } from "./parts.js";

const WIDTH = 176, HEIGHT = 62, ACROSS = 70, DOWN = 16;

/** The column of each node: as far from the inputs as its longest way. */
function depths(nodes, edges) {
  const depth = new Map(nodes.map((node) => [node.node, 0]));
  for (let again = 0; again < nodes.length; again++) {
    let moved = false;
    for (const edge of edges) if (depth.get(edge.to) <= depth.get(edge.from)) { depth.set(edge.to, depth.get(edge.from) + 1); moved = true; }
    if (!moved) break;
  }
  return depth;
}

/** The picture of a graph; `before` is the look before, or null; `states` are words by stack number. */
export function stack_picture(graph, before, seconds, states, chosen) {
  const depth = depths(graph.nodes, graph.edges), rows = new Map(), at = new Map();
  const ordered = [...graph.nodes].sort((one, other) => depth.get(one.node) - depth.get(other.node) || Math.min(...one.stacks) - Math.min(...other.stacks));
  for (const node of ordered) {
    const column = depth.get(node.node), row = rows.get(column) || 0;
    rows.set(column, row + 1);
    at.set(node.node, { x: 8 + column * (WIDTH + ACROSS), y: 8 + row * (HEIGHT + DOWN) });
  }
  const former = new Map((before?.nodes || []).map((node) => [node.node, node.counters]));
  const width = 16 + (Math.max(...depth.values()) + 1) * (WIDTH + ACROSS) - ACROSS, height = 8 + Math.max(...rows.values()) * (HEIGHT + DOWN);
  const emitted = new Map((before?.edges || []).map((edge) => [`${edge.from} ${edge.to}`, edge.rows]));
  const arrows = graph.edges.map((edge) => {
    const from = at.get(edge.from), to = at.get(edge.to), x1 = from.x + WIDTH, y1 = from.y + HEIGHT / 2, x2 = to.x, y2 = to.y + HEIGHT / 2, bend = (x2 - x1) / 2;
    const last = emitted.get(`${edge.from} ${edge.to}`), speed = last === undefined || seconds <= 0 ? "" : `${short(Math.max(0, edge.rows - last) / seconds)}/s`;
    return svg("g", {}, svg("path", { class: "arrow", d: `M${x1} ${y1} C${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2 - 5} ${y2}` }), svg("path", { class: "tip", d: `M${x2 - 7} ${y2 - 4} L${x2} ${y2} L${x2 - 7} ${y2 + 4} Z` }),
      svg("text", { class: "speed", x: x2 - 8, y: y2 - 6, "text-anchor": "end" }, speed));
  });
  const boxes = ordered.map((node) => box(node, former.get(node.node), seconds, at.get(node.node), states, chosen));
  return svg("svg", { class: "stacks", viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": "the stacks" }, arrows, boxes);
}

function box(node, before, seconds, place, states, chosen) {
  const counters = node.counters, losing = before && trouble(counters) > trouble(before), lost = trouble(counters) > 0;
  const down = node.kind === "output" && node.stacks.some((number) => states[number] && states[number] !== "ok");
  const kind = losing || down ? "losing" : lost ? "lost" : "fine";
  const speed = rate(counters, before, node.kind === "input" ? "rows_emitted" : "rows_received", seconds);
  const lines = [speed === null ? "" : `${short(speed)} rows/s`];
  if (counters.rows_waiting) lines.push(`${short(counters.rows_waiting)} wait${node.oldest ? ` ${span(node.oldest)}` : ""}`);
  if (counters.keys) lines.push(`${short(counters.keys)} groups`);
  const why = reasons(counters);
  return svg("g", { class: `box ${kind}`, transform: `translate(${place.x} ${place.y})`, "data-node": node.node, tabindex: "0", role: "button", onclick: () => chosen(node), onkeydown: (event) => event.key === "Enter" && chosen(node) },
    svg("title", {}, `${node.node}: ${exact(counters.rows_received)} rows in${why.length ? `\n${why.join("\n")}` : ""}`),
    svg("rect", { width: WIDTH, height: HEIGHT, rx: 5 }),
    svg("text", { x: 9, y: 18, class: "ident" }, node.id), svg("text", { x: WIDTH - 9, y: 18, "text-anchor": "end", class: "plugin" }, node.plugin),
    svg("text", { x: 9, y: 36 }, lines.filter(Boolean).join(", ")), svg("text", { x: 9, y: 53, class: "why" }, why.slice(0, 1).join("") + (why.length > 1 ? ` +${why.length - 1}` : "")));
}
